package fsblobs

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"golang.org/x/sys/unix"

	"deploytools/atomic"
	"deploytools/layers/digest"
	"deploytools/registry"
	"deploytools/registry/enginetest"
)

var errUnsynced = fmt.Errorf("cannot remove x: %w", atomic.ErrUnsynced)

func open(t *testing.T, dir string) (*Blobs, *Spool) {
	t.Helper()
	b, s, err := Open(dir)
	if err != nil {
		t.Fatalf("Open = %v", err)
	}
	return b, s
}

func TestBlobs(t *testing.T) {
	enginetest.Blobs(t, func(t *testing.T) registry.Blobs {
		b, _ := open(t, t.TempDir())
		return b
	})
}

func TestSpool(t *testing.T) {
	enginetest.Spool(t, func(t *testing.T) registry.Spool {
		_, s := open(t, t.TempDir())
		return s
	})
}

func TestAdopter(t *testing.T) {
	enginetest.Adopter(t, func(t *testing.T) (registry.Blobs, registry.Spool) { return open(t, t.TempDir()) })
}

func TestLayoutIsUpstreams(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "registry")
	b, s := open(t, dir)
	d := digest.Of([]byte("abc"))
	if err := b.Put(t.Context(), d, strings.NewReader("abc")); err != nil {
		t.Fatal(err)
	}
	u, err := s.Create(t.Context(), "u1")
	if err != nil {
		t.Fatal(err)
	}
	u.Close()
	for name, want := range map[string]os.FileMode{
		"files": 0o700 | os.ModeDir, "uploads": 0o700 | os.ModeDir, "files/" + d.String(): 0o600, "uploads/u1": 0o600,
	} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v, want mode %v", name, info, err, want)
		}
	}
}

func TestWhatIsNotOursIsNeitherShownNorTouched(t *testing.T) {
	b, s := open(t, t.TempDir())
	d := digest.Of([]byte("abc"))
	temp := ".atomic-" + strings.Repeat("a", 26) + ".tmp"
	make := func(dir string, list ...string) {
		for _, name := range list {
			if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	make(b.s.files, temp, "README", strings.ToUpper(d.String()), d.String()+".bak")
	make(s.s.uploads, temp, "upload-123")
	for _, dir := range []string{filepath.Join(b.s.files, digest.Of(nil).String()), filepath.Join(s.s.uploads, "dir")} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Sweep(); err != nil {
		t.Error(err)
	}
	for info := range b.List(t.Context()) {
		t.Errorf("List yields blob %+v", info)
	}
	for info := range s.List(t.Context()) {
		t.Errorf("List yields upload %+v", info)
	}
	if blob, err := b.Open(t.Context(), digest.Of(nil)); err == nil {
		blob.Close()
		t.Error("Open of a directory succeeds")
	}
	if got := names(t, b.s.files); len(got) != 4 || slices.Contains(got, temp) {
		t.Errorf("files/ has %q, want all but the temp", got)
	}
	if got := names(t, s.s.uploads); len(got) != 3 {
		t.Errorf("uploads/ has %q, want what was there", got)
	}
}

func TestPutMendsWhatTheDiskSpoiled(t *testing.T) {
	b, _ := open(t, t.TempDir())
	d := digest.Of([]byte("abc"))
	if err := os.WriteFile(b.path(d), []byte("abd"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.Put(t.Context(), d, strings.NewReader("abc")); err != nil {
		t.Error(err)
	}
	wantWhole(t, b)
}

// TestNoDescriptorIsLeft does everything, and what fails of it, many times.
// A large upload is given room ahead of its writes, and keeps none of it once it
// is synced.
func TestRoomAheadIsGivenBack(t *testing.T) {
	_, s := open(t, t.TempDir())
	u, err := s.Create(t.Context(), "u1")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	taken := func() int64 {
		var st unix.Stat_t
		if err := unix.Fstat(int(u.(*upload).f.Fd()), &st); err != nil {
			t.Fatal(err)
		}
		return st.Blocks * 512
	}
	const size = flushEvery + 1<<20
	for off := int64(0); off < size; off += 1 << 20 {
		if _, err := u.WriteAt(make([]byte, 1<<20), off); err != nil {
			t.Fatal(err)
		}
	}
	if n := taken(); n < 2*flushEvery && unix.Fallocate(int(u.(*upload).f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, size) == nil {
		t.Errorf("%d bytes are taken before the end, want room for the next %d", n, flushEvery)
	}
	if err := u.Sync(); err != nil {
		t.Fatal(err)
	}
	if n := taken(); n > size+1<<20 {
		t.Errorf("%d bytes are taken by an upload of %d", n, size)
	}
	if n, err := u.Size(); n != size || err != nil {
		t.Errorf("Size() = %d, %v, want %d", n, err, size)
	}
}

func TestNoDescriptorIsLeft(t *testing.T) {
	dir := t.TempDir()
	once := func() {
		b, s := open(t, dir)
		ctx, d := t.Context(), digest.Of([]byte("abc"))
		b.Put(ctx, d, strings.NewReader("abc"))
		b.Put(ctx, d, strings.NewReader("other"))
		b.Put(ctx, d, iotest.ErrReader(io.ErrUnexpectedEOF))
		blob, err := b.Open(ctx, d)
		if err != nil {
			t.Fatal(err)
		}
		blob.Close()
		b.Open(ctx, digest.Of(nil))
		os.Mkdir(b.path(digest.Of([]byte("dir"))), 0o700)
		b.Open(ctx, digest.Of([]byte("dir")))
		for range b.List(ctx) {
			break
		}
		for _, name := range []string{"u1", "u2"} {
			u, err := s.Create(ctx, name)
			if err != nil {
				t.Fatal(err)
			}
			s.Create(ctx, name)
			u.WriteAt([]byte("abc"), 0)
			u.Sync()
			u.Close()
		}
		s.Resume(ctx, "none")
		b.Adopt(ctx, "u1", d)
		b.Adopt(ctx, "none", digest.Of(nil))
		for range s.List(ctx) {
			break
		}
		s.Remove(ctx, "u2")
		s.Free(ctx)
		b.Delete(ctx, d)
		b.Sweep()
	}
	once()
	before := len(names(t, "/proc/self/fd"))
	for range 20 {
		once()
	}
	if after := len(names(t, "/proc/self/fd")); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func BenchmarkPut(b *testing.B) {
	blobs, _, err := Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	c := make([]byte, 16<<20)
	d := digest.Of(c)
	b.SetBytes(int64(len(c)))
	for b.Loop() {
		if err := blobs.Put(b.Context(), d, bytes.NewReader(c)); err != nil {
			b.Fatal(err)
		}
	}
}
