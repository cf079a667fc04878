package atomic

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func stageFilled(t *testing.T, d disk, path string) *Dir {
	t.Helper()
	staged, err := d.stage(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		staged.Abort()
		removeTree(staged.Path()) // one that was committed; TempDir could not
	})
	must(os.MkdirAll(staged.Path()+"/usr/share", 0o755))
	must(os.WriteFile(staged.Path()+"/usr/share/f", []byte("x"), 0o444))
	must(os.Chmod(staged.Path()+"/usr/share", 0o555))
	must(os.Chmod(staged.Path()+"/usr", 0o111))
	return staged
}

func TestStagedTreeIsHiddenUntilCommit(t *testing.T) {
	dir := t.TempDir()
	s := stageFilled(t, disk{}, dir+"/000042-abc")
	if want := dir + "/.000042-abc.partial"; s.Path() != want {
		t.Errorf("Path() = %s, want %s", s.Path(), want)
	}
	if seen, _ := world(t, dir); len(seen) > 0 {
		t.Errorf("before Commit a reader sees %q", seen)
	}
	for range 2 {
		if err := s.Commit(); err != nil {
			t.Errorf("Commit = %v", err)
		}
	}
	if want := dir + "/000042-abc"; s.Path() != want {
		t.Errorf("Path() = %s after Commit, want %s", s.Path(), want)
	}
	if err := s.Abort(); err != nil {
		t.Errorf("Abort after Commit = %v", err)
	}
	if b, err := os.ReadFile(dir + "/000042-abc/usr/share/f"); string(b) != "x" {
		t.Errorf("the tree holds %q, %v", b, err)
	}
}

func TestAbortRemovesOnceAndEndsTheDir(t *testing.T) {
	dir := t.TempDir()
	s := stageFilled(t, disk{}, dir+"/1")
	for range 2 {
		if err := s.Abort(); err != nil {
			t.Errorf("Abort = %v", err)
		}
	}
	if err := s.Commit(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Commit after Abort = %v", err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) > 0 {
		t.Errorf("%v is left", entries)
	}
}

// The first fsync error drops the dirty pages; the next one says all is well.
func TestCommitAfterFailedSyncStaysFailed(t *testing.T) {
	dir := t.TempDir()
	r := failing(dir, unix.EIO, "syncfs .1.partial")
	s := stageFilled(t, disk{gate: r}, dir+"/1")
	first := s.Commit()
	r.fail = nil
	if second := s.Commit(); !errors.Is(first, unix.EIO) || !errors.Is(second, unix.EIO) {
		t.Errorf("Commit = %v, then %v; want EIO twice", first, second)
	}
	if errors.Is(first, ErrUnsynced) {
		t.Error("the error claims that the tree has its name")
	}
	must(s.Abort())
	if entries, _ := os.ReadDir(dir); len(entries) > 0 {
		t.Errorf("%v is left", entries)
	}
}

func TestAbortTakesTheNameBackBeforeItDeletes(t *testing.T) {
	dir := t.TempDir()
	r := failing(dir, unix.EIO, "fsync .")
	s := stageFilled(t, disk{gate: r}, dir+"/1")
	if err := s.Commit(); !errors.Is(err, ErrUnsynced) {
		t.Fatalf("Commit = %v, want ErrUnsynced", err)
	}
	must2(os.Stat(dir + "/1/usr/share/f")) // the tree that it left is whole
	r.fail, r.calls = nil, nil
	must(s.Abort())
	want := []string{"open dir .", "rename .1.partial", "fsync .", "remove tree .1.partial"}
	if !slices.Equal(r.calls, want) {
		t.Errorf("Abort calls %q, want %q", r.calls, want)
	}
	if entries, _ := os.ReadDir(dir); len(entries) > 0 {
		t.Errorf("%v is left", entries)
	}
}

func must2[T any](_ T, err error) { must(err) }

func TestAbortCanBeCalledAgainAfterAnError(t *testing.T) {
	for _, fault := range []string{"open dir .", "rename .1.partial", "fsync .", "remove tree .1.partial"} {
		dir := t.TempDir()
		r := failing(dir, unix.EIO, "fsync .")
		s := stageFilled(t, disk{gate: r}, dir+"/1")
		if err := s.Commit(); !errors.Is(err, ErrUnsynced) {
			t.Fatalf("Commit = %v, want ErrUnsynced", err)
		}
		r.fail = map[string]error{fault: unix.EIO}
		if err := s.Abort(); !errors.Is(err, unix.EIO) {
			t.Errorf("Abort with %q failing = %v", fault, err)
		}
		r.fail = nil
		if err := s.Abort(); err != nil {
			t.Errorf("Abort again, after %q failed = %v", fault, err)
		}
		if entries, _ := os.ReadDir(dir); len(entries) > 0 {
			t.Errorf("%q failed: %v is left", fault, entries)
		}
	}
}

func TestCommitReplacesNothing(t *testing.T) {
	for name, fallback := range map[string]error{"renameat2": nil, "fallback EINVAL": unix.EINVAL, "fallback ENOSYS": unix.ENOSYS} {
		for kind, make := range map[string]func(string) error{
			"empty directory": func(p string) error { return os.Mkdir(p, 0o755) },
			"file":            func(p string) error { return os.WriteFile(p, nil, 0o644) },
			"link":            func(p string) error { return os.Symlink("x", p) },
		} {
			dir := t.TempDir()
			s := stageFilled(t, disk{gate: failing(dir, fallback, "rename new 1")}, dir+"/1")
			must(make(dir + "/1"))
			before := modeOf(t, dir+"/1")
			if err := s.Commit(); !errors.Is(err, ErrOccupied) || !strings.Contains(err.Error(), dir+"/1") {
				t.Errorf("%s: Commit over a %s = %v", name, kind, err)
			}
			must(s.Abort())
			if after := modeOf(t, dir+"/1"); after != before {
				t.Errorf("%s: the %s became %v", name, kind, after)
			}
		}
		dir := t.TempDir()
		s := stageFilled(t, disk{gate: failing(dir, fallback, "rename new 1")}, dir+"/1")
		if err := s.Commit(); err != nil {
			t.Errorf("%s: Commit = %v", name, err)
		}
	}
}

func TestStageTakesOnlyNamesThatCanBeHidden(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{"", ".", "..", "/", dir + "/.hidden", dir + "/.."} {
		if s, err := Stage(path); err == nil {
			t.Errorf("Stage(%q) = %s, want an error", path, s.Path())
		}
	}
	if entries, _ := os.ReadDir(dir); len(entries) > 0 {
		t.Errorf("%v is left", entries)
	}
	for name, want := range map[string]string{
		".000042-abc.partial": "000042-abc", "000042-abc": "", ".partial": "", "..partial": "", "...x.partial": "", ".x.partial.": "", ".a/b.partial": "",
	} {
		if final, ok := Staged(name); final != want || ok != (want != "") {
			t.Errorf("Staged(%q) = %q, %v, want %q", name, final, ok, want)
		}
	}
	if name := filepath.Base(stagedName("/a/x")); name != ".x.partial" {
		t.Errorf("stagedName = %q", name)
	}
}

func TestWithoutRootReadOnlyDirectoriesAreRemoved(t *testing.T) {
	t.Chdir(t.TempDir()) // paths relative to it need no rights on those above
	must(os.Chmod(".", 0o777))
	asNobody(t)
	must(os.Mkdir("outside", 0o555))
	s := stageFilled(t, disk{}, "1")
	must(os.Symlink("../outside", s.Path()+"/link"))
	must(os.Chmod(s.Path(), 0o555))
	if err := os.RemoveAll(s.Path()); !errors.Is(err, fs.ErrPermission) {
		t.Fatalf("RemoveAll = %v: the tree is no test for this", err)
	}
	if err := s.Abort(); err != nil {
		t.Errorf("Abort = %v", err)
	}
	if _, err := os.Lstat(s.Path()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the tree is left: %v", err)
	}
	if got := modeOf(t, "outside"); got != 0o555|fs.ModeDir {
		t.Errorf("the directory that a link led to has now mode %v", got)
	}
}

// asNobody takes root's rights on files from the test's thread, for the test.
func asNobody(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	runtime.LockOSThread()
	must(unix.Setfsuid(65534)) // clears CAP_DAC_OVERRIDE and its like; capabilities(7)
	t.Cleanup(func() {
		must(unix.Setfsuid(0))
		runtime.UnlockOSThread()
	})
}
