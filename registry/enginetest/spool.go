package enginetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"deploytools/registry"
)

// Spool proves that the engine open returns keeps the contract of
// registry.Spool.
func Spool(t *testing.T, open func(t *testing.T) registry.Spool) {
	run(t, open, []claim[registry.Spool]{
		{"an empty spool has nothing", spoolEmpty},
		{"an upload is resumed where it was", spoolResume},
		{"what is written shows where it is open too", spoolOpenTwice},
		{"a name is created once", spoolCreateTwice},
		{"removing forgets, and again is no error", spoolRemove},
		{"writes come in any order from many at once", spoolWriteAt},
		{"truncating cuts and fills with zeros", spoolTruncate},
		{"reading past the end is io.EOF", spoolReadEnd},
		{"other names are refused by every method", spoolNames},
		{"the longest name is taken", spoolLongName},
		{"a list has each upload with its size", spoolList},
		{"a loop over a list may remove", spoolListRemove},
		{"there is room", spoolFree},
		{"a cancelled context stops every call", spoolCancelled},
	})
}

// create makes an upload with content, closed when the test ends.
func create(t *testing.T, s registry.Spool, name string, content []byte) registry.Upload {
	t.Helper()
	u, err := s.Create(t.Context(), name)
	if err != nil {
		t.Fatalf("Create = %v", err)
	}
	t.Cleanup(func() { u.Close() })
	if n, err := u.WriteAt(content, 0); n != len(content) || err != nil {
		t.Fatalf("WriteAt = %d, %v", n, err)
	}
	return u
}

// wantUpload expects that the upload has content.
func wantUpload(t *testing.T, u registry.Upload, content []byte) {
	t.Helper()
	got, err := io.ReadAll(io.NewSectionReader(u, 0, 1<<40))
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("the upload reads as %d bytes, %v, want %d bytes of other content", len(got), err, len(content))
	}
	if size, err := u.Size(); size != int64(len(content)) || err != nil {
		t.Errorf("Size() = %d, %v, want %d", size, err, len(content))
	}
}

// wantUploads expects that the spool has uploads of these sizes and no other.
func wantUploads(t *testing.T, s registry.Spool, sizes map[string]int64) {
	t.Helper()
	got, before := map[string]int64{}, time.Now().Add(-time.Minute)
	for info, err := range s.List(t.Context()) {
		if err != nil || info.ModTime.Before(before) {
			t.Fatalf("List yields %+v, %v", info, err)
		}
		got[info.Name] = info.Size
	}
	if !maps.Equal(got, sizes) {
		t.Errorf("the spool lists %v, want %v", got, sizes)
	}
}

func wantNoUpload(t *testing.T, s registry.Spool, name string) {
	t.Helper()
	if u, err := s.Resume(t.Context(), name); !errors.Is(err, registry.ErrNoUpload) {
		t.Errorf("Resume = %v, %v, want ErrNoUpload", u, err)
	}
}

func spoolEmpty(t *testing.T, s registry.Spool) {
	wantUploads(t, s, nil)
	wantNoUpload(t, s, "u1")
	if err := s.Remove(t.Context(), "u1"); err != nil {
		t.Errorf("Remove = %v", err)
	}
}

func spoolResume(t *testing.T, s registry.Spool) {
	u := create(t, s, "u1", []byte("abc"))
	if err := errors.Join(u.Sync(), u.Close()); err != nil {
		t.Fatal(err)
	}
	u, err := s.Resume(t.Context(), "u1")
	if err != nil {
		t.Fatalf("Resume = %v", err)
	}
	defer u.Close()
	wantUpload(t, u, []byte("abc"))
	if _, err := u.WriteAt([]byte("def"), 3); err != nil {
		t.Errorf("WriteAt = %v", err)
	}
	if err := u.Sync(); err != nil {
		t.Errorf("Sync = %v", err)
	}
	wantUpload(t, u, []byte("abcdef"))
}

func spoolOpenTwice(t *testing.T, s registry.Spool) {
	u := create(t, s, "u1", []byte("abc"))
	other, err := s.Resume(t.Context(), "u1")
	if err != nil {
		t.Fatalf("Resume = %v", err)
	}
	wantUpload(t, other, []byte("abc"))
	if _, err := u.WriteAt([]byte("def"), 3); err != nil {
		t.Errorf("WriteAt = %v", err)
	}
	wantUpload(t, other, []byte("abcdef"))
	if err := other.Close(); err != nil {
		t.Errorf("Close = %v", err)
	}
	wantUpload(t, u, []byte("abcdef"))
}

func spoolCreateTwice(t *testing.T, s registry.Spool) {
	u := create(t, s, "u1", []byte("abc"))
	if u, err := s.Create(t.Context(), "u1"); err == nil {
		u.Close()
		t.Error("Create of a name that is there succeeds")
	}
	wantUpload(t, u, []byte("abc"))
}

func spoolRemove(t *testing.T, s registry.Spool) {
	create(t, s, "u1", []byte("abc"))
	create(t, s, "u2", []byte("abcd"))
	for range 2 {
		if err := s.Remove(t.Context(), "u1"); err != nil {
			t.Errorf("Remove = %v", err)
		}
		wantNoUpload(t, s, "u1")
	}
	wantUploads(t, s, map[string]int64{"u2": 4})
	wantUpload(t, create(t, s, "u1", nil), nil)
}

func spoolWriteAt(t *testing.T, s registry.Spool) {
	const writers, piece = 8, 30_000
	u, want := create(t, s, "u1", nil), contents[2]
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() { // from the end to the beginning
			last := (len(want) - 1) / piece
			for i := last - w; i >= 0; i -= writers {
				off := i * piece
				part := want[off:min(off+piece, len(want))]
				if n, err := u.WriteAt(part, int64(off)); n != len(part) || err != nil {
					t.Errorf("WriteAt = %d, %v", n, err)
				}
				got := make([]byte, len(part))
				if n, err := u.ReadAt(got, int64(off)); n != len(part) || err != nil && err != io.EOF || !bytes.Equal(got, part) {
					t.Errorf("ReadAt = %d, %v after WriteAt", n, err)
				}
			}
		})
	}
	wg.Wait()
	wantUpload(t, u, want)
}

func spoolTruncate(t *testing.T, s registry.Spool) {
	u := create(t, s, "u1", []byte("abcdef"))
	for _, step := range []struct {
		size int64
		want string
	}{{3, "abc"}, {5, "abc\x00\x00"}, {0, ""}, {1, "\x00"}} {
		if err := u.Truncate(step.size); err != nil {
			t.Fatalf("Truncate(%d) = %v", step.size, err)
		}
		wantUpload(t, u, []byte(step.want))
	}
	if _, err := u.WriteAt([]byte("z"), 4); err != nil {
		t.Errorf("WriteAt = %v", err)
	}
	wantUpload(t, u, []byte("\x00\x00\x00\x00z"))
}

func spoolReadEnd(t *testing.T, s registry.Spool) {
	u := create(t, s, "u1", []byte("abc"))
	p := make([]byte, 5)
	for off, want := range []int{3, 2, 1, 0, 0} {
		if n, err := u.ReadAt(p, int64(off)); n != want || err != io.EOF {
			t.Errorf("ReadAt(%d) = %d, %v, want %d, EOF", off, n, err, want)
		}
	}
}

// badNames are not names of uploads.
var badNames = []string{
	"", ".", "..", "../u", "a/b", "/a", "a.b", "A", "a-b", "a_b", " ", "a\x00", "a\n", "\u00e9", "\u0661", strings.Repeat("a", 65),
}

func spoolNames(t *testing.T, s registry.Spool) {
	for _, name := range badNames {
		if u, err := s.Create(t.Context(), name); err == nil {
			u.Close()
			t.Errorf("Create(%q) succeeds", name)
		}
		if u, err := s.Resume(t.Context(), name); err == nil {
			u.Close()
			t.Errorf("Resume(%q) succeeds", name)
		} else if errors.Is(err, registry.ErrNoUpload) {
			t.Errorf("Resume(%q) = %v, want a refusal of the name", name, err)
		}
		if s.Remove(t.Context(), name) == nil {
			t.Errorf("Remove(%q) succeeds", name)
		}
	}
	wantUploads(t, s, nil)
}

func spoolLongName(t *testing.T, s registry.Spool) {
	name := strings.Repeat("a0z9", 16)
	create(t, s, name, []byte("abc"))
	wantUploads(t, s, map[string]int64{name: 3})
}

func spoolList(t *testing.T, s registry.Spool) {
	create(t, s, "u1", nil)
	create(t, s, "u2", []byte("abc"))
	create(t, s, "0", contents[2])
	wantUploads(t, s, map[string]int64{"u1": 0, "u2": 3, "0": int64(len(contents[2]))})
	for range s.List(t.Context()) {
		break
	}
}

func spoolListRemove(t *testing.T, s registry.Spool) {
	for _, name := range []string{"a", "b", "c", "d"} {
		create(t, s, name, nil)
	}
	for info, err := range s.List(t.Context()) {
		if err == nil {
			err = s.Remove(t.Context(), info.Name)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	wantUploads(t, s, nil)
}

func spoolFree(t *testing.T, s registry.Spool) {
	if n, err := s.Free(t.Context()); n <= 0 || err != nil {
		t.Errorf("Free = %d, %v", n, err)
	}
}

func spoolCancelled(t *testing.T, s registry.Spool) {
	create(t, s, "u1", nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, createErr := s.Create(ctx, "u2")
	_, resumeErr := s.Resume(ctx, "u1")
	_, freeErr := s.Free(ctx)
	var listErr error
	for info, err := range s.List(ctx) {
		if listErr = err; info != (registry.UploadInfo{}) {
			t.Errorf("List yields %+v", info)
		}
	}
	for name, err := range map[string]error{
		"Create": createErr, "Resume": resumeErr, "Free": freeErr, "List": listErr, "Remove": s.Remove(ctx, "u1"),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s = %v, want context.Canceled", name, err)
		}
	}
	wantUploads(t, s, map[string]int64{"u1": 0})
}
