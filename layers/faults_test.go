package layers

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"deploytools/layers/digest"
)

func TestAWrongDigestBeatsARefusal(t *testing.T) {
	good, evil := tarball(reg("a", "x")), tarball(reg("../a", "x"), reg("b", strings.Repeat("x", 1<<20)))
	for name, archive := range map[string][]byte{"refused": evil, "cut": good[:len(good)-9], "fine": tarball(reg("b", "x")), "longer": append(bytes.Clone(good), 0), "no archive": []byte("x")} {
		w := newWorld(t)
		_, err := Unpack(t.Context(), w.root, []Layer{{Name: "web:1", Digest: digest.Of(good), Open: openBytes(archive)}}, Options{})
		want := "layer web:1: have " + digest.Of(archive).String() + ", want " + digest.Of(good).String() + ": content does not match its digest"
		if err == nil || err.Error() != want || !errors.Is(err, digest.ErrMismatch) || errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v\nwant %s", name, err, want)
		}
		w.intact(t)
	}
}

// broken gives n bytes of b and then err.
type broken struct {
	io.Reader
	err error
}

func breakAt(b []byte, n int, err error) broken { return broken{bytes.NewReader(b[:n]), err} }

func (b broken) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err == io.EOF {
		err = b.err
	}
	return n, err
}

func (broken) Close() error { return nil }

func TestErrorsOfTheSourceAreNoRefusals(t *testing.T) {
	evil := tarball(reg("../a", "x"), reg("b", strings.Repeat("xyz", 1<<20)))
	for name, archive := range map[string][]byte{"plain": gz(plain()), "member": member(t, plain()), "refused": evil} {
		for _, fault := range []error{unix.EIO, io.ErrUnexpectedEOF, io.ErrNoProgress, digest.ErrMismatch} {
			for i := range 8 {
				w := newWorld(t)
				open := func() (readCloser, error) { return breakAt(archive, len(archive)*i/7, fault), nil }
				_, err := Unpack(t.Context(), w.root, []Layer{{Name: "web:1", Digest: digest.Of(archive), Open: open}}, Options{})
				if !errors.Is(err, fault) || errors.Is(err, ErrRefused) || err.Error() != "cannot read layer web:1: "+fault.Error() {
					t.Errorf("%s, %v after %d/7: Unpack = %v", name, fault, i, err)
				}
				if _, err := Check(t.Context(), "web:1", breakAt(archive, len(archive)*i/7, fault), Options{}); !errors.Is(err, fault) || errors.Is(err, ErrRefused) {
					t.Errorf("%s, %v after %d/7: Check = %v", name, fault, i, err)
				}
			}
		}
	}
	_, err := Unpack(t.Context(), t.TempDir(), []Layer{{Name: "web:1", Open: func() (readCloser, error) { return nil, unix.ENOENT }}}, Options{})
	if !errors.Is(err, unix.ENOENT) || err.Error() != "cannot open layer web:1: no such file or directory" {
		t.Errorf("Unpack of what cannot be opened = %v", err)
	}
	if _, err := Unpack(t.Context(), filepath.Join(t.TempDir(), "missing"), nil, Options{}); !errors.Is(err, unix.ENOENT) {
		t.Errorf("Unpack into a missing directory = %v", err)
	}
}

func TestAFullDiskIsNoRefusal(t *testing.T) {
	needRoot(t)
	many := make([][]byte, 3000)
	for i := range many {
		many[i] = reg("f"+strings.Repeat("x", i%50)+string(rune('a'+i%26))+strings.Repeat("y", i/26), "content")
	}
	for name, archive := range map[string][]byte{
		"one large file":   tarball(reg("big", strings.Repeat("x", 4<<20))),
		"many small files": tarball(many...),
		"directories":      tarball(folder(strings.Repeat("d/", 100)), folder(strings.Repeat("e/", 100))),
	} {
		dir := t.TempDir()
		must(t, unix.Mount("none", dir, "tmpfs", 0, "size=1m,nr_inodes=80"))
		_, err := Unpack(t.Context(), dir, []Layer{{Name: "web:1", Open: openBytes(archive)}}, Options{})
		if !errors.Is(err, unix.ENOSPC) || errors.Is(err, ErrRefused) || !strings.HasPrefix(err.Error(), "cannot write \"") {
			t.Errorf("%s: Unpack = %v, want ENOSPC", name, err)
		}
		must(t, unix.Unmount(dir, 0)) // fails while a descriptor is open
	}
}

func TestADirectoryThatIsNotEmptyIsNoRefusal(t *testing.T) {
	w := newWorld(t)
	must(t, os.Symlink("../outside/secret", filepath.Join(w.root, "a")))
	must(t, os.Symlink("../outside", filepath.Join(w.root, "d")))
	for _, archive := range [][]byte{tarball(reg("a", "x")), tarball(reg("d/pwn", "x")), tarball(sym("a", "x")), tarball(reg("b", "x"), hard("a", "b"))} {
		_, err := w.stack(t, Options{}, archive)
		if !errors.Is(err, unix.EEXIST) || errors.Is(err, ErrRefused) {
			t.Errorf("Unpack = %v, want EEXIST", err)
		}
		w.intact(t)
		os.Remove(filepath.Join(w.root, "b"))
	}
}

// blocking gives what it has and then waits to be closed.
type blocking struct {
	r       io.Reader
	waiting chan struct{}
	closed  chan struct{}
}

func (b *blocking) Read(p []byte) (int, error) {
	if n, err := b.r.Read(p); err == nil {
		return n, nil
	}
	close(b.waiting)
	<-b.closed
	return 0, os.ErrClosed
}

func (b *blocking) Close() error { close(b.closed); return nil }

var errEnough = errors.New("enough")

func TestTheEndOfTheContextEndsAReadThatWaits(t *testing.T) {
	archive := gz(plain())
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		b := &blocking{bytes.NewReader(archive[:100]), make(chan struct{}), make(chan struct{})}
		go func() { <-b.waiting; cancel(errEnough) }()
		_, err := Unpack(ctx, t.TempDir(), []Layer{{Name: "web:1", Open: func() (readCloser, error) { return b, nil }}}, Options{})
		if !errors.Is(err, errEnough) || errors.Is(err, ErrRefused) {
			t.Errorf("Unpack = %v, want %v", err, errEnough)
		}
	})
}

// endless is a layer whose one file never ends, as far as a test can wait; it
// needs nothing more of its source.
func endless() ([]byte, Options) {
	return tarball(pax("GNU.sparse.size=4611686018427387904", "GNU.sparse.numblocks=1", "GNU.sparse.map=0,1"), reg("a", "x")), Options{Limits: Limits{Unpacked: 1 << 62}}
}

func TestTheEndOfTheContextEndsALargeFile(t *testing.T) {
	archive, o := endless()
	for name, call := range map[string]func(ctx context.Context, open func() (readCloser, error)) error{
		"Check": func(ctx context.Context, open func() (readCloser, error)) error {
			r, _ := open()
			_, err := Check(ctx, "web:1", r, o)
			return err
		},
		"Unpack": func(ctx context.Context, open func() (readCloser, error)) error {
			_, err := Unpack(ctx, t.TempDir(), []Layer{{Name: "web:1", Open: open}}, o)
			return err
		},
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		read := make(chan struct{})
		go func() { <-read; cancel(errEnough) }()
		open := func() (readCloser, error) {
			return io.NopCloser(io.MultiReader(bytes.NewReader(archive), broken{bytes.NewReader(nil), io.EOF}, closing{read})), nil
		}
		if err := call(ctx, open); !errors.Is(err, errEnough) || errors.Is(err, ErrRefused) {
			t.Errorf("%s = %v, want %v", name, err, errEnough)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errEnough)
	if _, err := Pack(ctx, io.Discard, sampleTree(t), PackOptions{}); !errors.Is(err, errEnough) {
		t.Errorf("Pack = %v, want %v", err, errEnough)
	}
}

// closing closes c when it is read, and is empty.
type closing struct{ c chan struct{} }

func (r closing) Read([]byte) (int, error) { close(r.c); return 0, io.EOF }

// descriptors counts the open files of this process.
func descriptors(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(names)
}

func TestNothingIsLeftRunningOrOpen(t *testing.T) {
	good := tarball(someEntries(), plain())
	archives := [][]byte{good, good[:len(good)/2], tarball(plain()[:1024], reg("../a", "x")), nil, []byte("x"), limits()["Ratio"].bad}
	fds, routines := descriptors(t), runtime.NumGoroutine()
	for _, archive := range archives {
		newWorld(t).stack(t, Options{}, archive)
		Check(t.Context(), "a", bytes.NewReader(archive), Options{})
		Unpack(t.Context(), t.TempDir(), []Layer{{Open: func() (readCloser, error) { return breakAt(archive, len(archive)/3, unix.EIO), nil }}}, Options{})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		Check(ctx, "a", bytes.NewReader(archive), Options{})
	}
	Pack(t.Context(), breakingWriter{}, sampleTree(t), PackOptions{})
	// One that has done its work may still be on its way out.
	for end := time.Now().Add(20 * time.Second); runtime.NumGoroutine() > routines && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if n := runtime.NumGoroutine(); n > routines {
		t.Errorf("%d goroutines, were %d", n, routines)
	}
	if n := descriptors(t); n > fds {
		t.Errorf("%d descriptors, were %d", n, fds)
	}
}

// someEntries has no end blocks.
func someEntries() []byte { return join(folder("x/"), reg("x/y/z", "x"), sym("x/s", "t")) }

type breakingWriter struct{}

func (breakingWriter) Write([]byte) (int, error) { return 0, unix.EIO }

func TestPackReportsItsWriter(t *testing.T) {
	if _, err := Pack(t.Context(), breakingWriter{}, sampleTree(t), PackOptions{}); !errors.Is(err, unix.EIO) || errors.Is(err, ErrRefused) {
		t.Errorf("Pack = %v, want EIO", err)
	}
}
