package atomic

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// withUmask sets the umask of the process for one test.
func withUmask(t *testing.T, mask int) {
	t.Helper()
	old := unix.Umask(mask)
	t.Cleanup(func() { unix.Umask(old) })
}

func modeOf(t *testing.T, path string) fs.FileMode {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode()
}

func TestUmaskDoesNotMatter(t *testing.T) {
	for _, mask := range []int{0, 0o077} {
		withUmask(t, mask)
		dir := t.TempDir()
		must(WriteFile(dir+"/f", nil, 0o644))
		must(WriteFile(dir+"/secret", nil, 0o600))
		must(WriteFile(dir+"/setgid", nil, 0o755|fs.ModeSetgid))
		must(MkdirAll(dir+"/a/b", 0o755))
		staged, err := Stage(dir + "/root")
		if err != nil {
			t.Fatal(err)
		}
		must(staged.Commit())
		for name, want := range map[string]fs.FileMode{
			"f": 0o644, "secret": 0o600, "setgid": 0o755 | fs.ModeSetgid,
			"a": 0o755 | fs.ModeDir, "a/b": 0o755 | fs.ModeDir, "root": 0o755 | fs.ModeDir,
		} {
			if got := modeOf(t, filepath.Join(dir, name)); got != want {
				t.Errorf("umask %03o: %s has mode %v, want %v", mask, name, got, want)
			}
		}
	}
}

func TestOnlyTheSameKindIsReplaced(t *testing.T) {
	dir := t.TempDir()
	must(os.Mkdir(dir+"/dir", 0o755))
	must(os.WriteFile(dir+"/file", []byte("old"), 0o644))
	must(os.Symlink("file", dir+"/link"))
	must(os.Symlink("nowhere", dir+"/dangling"))
	must(unix.Mkfifo(dir+"/fifo", 0o600))
	before, _ := world(t, dir)
	write := func(path string) error { return WriteFile(path, []byte("new"), 0o600) }
	link := func(path string) error { return Symlink("new", path) }
	stage := func(path string) error { _, err := Stage(path); return err }
	mkdir := func(path string) error { return MkdirAll(path, 0o755) }
	for _, c := range []struct {
		call string
		do   func(string) error
		path string
		want string
	}{
		{"write", write, "dir", "a directory"}, {"write", write, "dir/", "a directory"},
		{"write", write, "link", "a symbolic link"}, {"write", write, "dangling", "a symbolic link"},
		{"write", write, "fifo", "a special file"},
		{"link", link, "dir", "a directory"}, {"link", link, "file", "a file"}, {"link", link, "fifo", "a special file"},
		{"stage", stage, "dir", "a directory"}, {"stage", stage, "file", "a file"}, {"stage", stage, "dangling", "a symbolic link"},
		{"mkdir", mkdir, "file", "a file"}, {"mkdir", mkdir, "file/below", "a file"}, {"mkdir", mkdir, "dangling", "a symbolic link"},
	} {
		path := dir + "/" + c.path
		err := c.do(path)
		if !errors.Is(err, ErrOccupied) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), filepath.Clean(path)) {
			t.Errorf("%s %s = %v, want an ErrOccupied that names it and %s", c.call, c.path, err, c.want)
		}
	}
	if after, left := world(t, dir); !slices.Equal(after, before) || len(left) > 0 {
		t.Errorf("refused calls made of %q this: %q and %q", before, after, left)
	}
}

func TestNotBeingAbleToLookIsNotAbsence(t *testing.T) {
	dir := t.TempDir()
	must(os.WriteFile(dir+"/f", []byte("old"), 0o644))
	r := failing(dir, unix.EACCES, "lstat f")
	if err := (disk{gate: r}).writeFile(dir+"/f", []byte("new"), 0o644); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("write where lstat is denied = %v", err)
	}
	if b, _ := os.ReadFile(dir + "/f"); string(b) != "old" {
		t.Errorf("content is %q", b)
	}
}

func TestReadersSeeWholeStatesOnly(t *testing.T) {
	dir := t.TempDir()
	states := [][]byte{bytes.Repeat([]byte("a"), 100_000), bytes.Repeat([]byte("b"), 10), {}}
	must(WriteFile(dir+"/f", states[0], 0o644))
	must(Symlink("0", dir+"/l"))
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for running := true; running; {
				select {
				case <-done:
					running = false
				default:
				}
				got, err := os.ReadFile(dir + "/f")
				if err != nil || !slices.ContainsFunc(states, func(s []byte) bool { return bytes.Equal(s, got) }) {
					t.Errorf("a reader sees %d bytes, %v", len(got), err)
					return
				}
				if to, err := os.Readlink(dir + "/l"); err != nil || to != "0" && to != "1" {
					t.Errorf("a reader sees the link lead to %q, %v", to, err)
					return
				}
			}
		})
	}
	var writers sync.WaitGroup
	for w := range 2 {
		writers.Go(func() {
			for i := range 60 {
				if err := WriteFile(dir+"/f", states[(i+w)%len(states)], 0o644); err != nil {
					t.Error(err)
				}
				if err := Symlink([]string{"0", "1"}[i%2], dir+"/l"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	close(done)
	readers.Wait()
	if _, left := world(t, dir); len(left) > 0 {
		t.Errorf("%q is left", left)
	}
}

func TestTheWayBackOnlyRenames(t *testing.T) {
	dir := t.TempDir()
	must(MkdirAll(dir+"/roots/1", 0o755)) // links to directories are not followed
	must(MkdirAll(dir+"/roots/2", 0o755))
	must(Symlink("roots/1", dir+"/current"))
	must(Symlink("roots/1", dir+"/.back"))
	must(Symlink("roots/2", dir+"/current"))
	must(Rename(dir+"/.back", dir+"/current"))
	want := []string{"current Lrwxrwxrwx -> roots/1", "roots drwxr-xr-x", "roots/1 drwxr-xr-x", "roots/2 drwxr-xr-x"}
	if seen, _ := world(t, dir); !slices.Equal(seen, want) {
		t.Errorf("a reader sees %q, want %q", seen, want)
	}
}

func TestLongNamesAndRelativePathsWork(t *testing.T) {
	t.Chdir(t.TempDir())
	long := strings.Repeat("n", 255)
	must(WriteFile(long, []byte("x"), 0o644))
	must(Rename(long, "short"))
	must(MkdirAll("a//b/", 0o755))
	must(Symlink("short", "a/l/"))
	must(WriteFile("file/", nil, 0o644))
	must(Remove("short"))
	must(Remove("no/such/directory"))
	want := []string{"a drwxr-xr-x", "a/b drwxr-xr-x", "a/l Lrwxrwxrwx -> short", `file -rw-r--r-- ""`}
	dir, err := os.Getwd()
	must(err)
	if seen, left := world(t, dir); !slices.Equal(seen, want) || len(left) > 0 {
		t.Errorf("have %q and %q, want %q", seen, left, want)
	}
}

func TestErrorsNameThePathAndTheCause(t *testing.T) {
	gone := t.TempDir() + "/gone"
	for call, err := range map[string]error{
		"cannot write":  WriteFile(gone+"/f", nil, 0o644),
		"cannot link":   Symlink("x", gone+"/f"),
		"cannot rename": Rename(gone+"/f", gone+"/g"),
	} {
		if !errors.Is(err, fs.ErrNotExist) || !strings.HasPrefix(err.Error(), call+" "+gone+"/f") {
			t.Errorf("have %v, want %q and the path first, and ErrNotExist", err, call)
		}
	}
	must(os.MkdirAll(gone+"/full/x", 0o755))
	if err := Remove(gone + "/full"); !errors.Is(err, unix.ENOTEMPTY) {
		t.Errorf("Remove of a directory that is not empty = %v", err)
	}
}

func TestMkdirAllLosesNoRace(t *testing.T) {
	dir := t.TempDir()
	var racers sync.WaitGroup
	for range 8 {
		racers.Go(func() {
			if err := MkdirAll(dir+"/a/b/c/d", 0o755); err != nil {
				t.Error(err)
			}
		})
	}
	racers.Wait()
	if _, left := world(t, dir); len(left) > 0 {
		t.Errorf("%q is left", left)
	}
}

// A daemon may live in a directory whose parent it cannot open, and below a
// mount point whose parent has nothing to sync.
func TestMkdirAllWorksBelowWhatItCannotSync(t *testing.T) {
	for _, c := range []struct {
		call string
		err  error
	}{{"open dir .", unix.EACCES}, {"fsync .", unix.EINVAL}} {
		dir := t.TempDir()
		must(os.Mkdir(dir+"/mine", 0o755))
		r := failing(dir, c.err, c.call)
		if err := (disk{gate: r}).mkdirAll(dir+"/mine/a", 0o755); err != nil {
			t.Errorf("%q gives %v: %v", c.call, c.err, err)
		}
		r = failing(dir, unix.EIO, c.call)
		if err := (disk{gate: r}).mkdirAll(dir+"/mine/b", 0o755); !errors.Is(err, unix.EIO) {
			t.Errorf("%q gives EIO: %v", c.call, err)
		}
	}
}

func TestSweepTakesOnlyOurTemps(t *testing.T) {
	dir := t.TempDir()
	foreign := []string{
		".atomic-note.tmp",                             // too short
		".atomic-aaaaaaaaaaaaaaaaaaaaaaaaaaaa.tmp",     // too long
		".atomic-aaaaaaaaaaaaaaaaaaaaaaaaa1.tmp",       // not in base 32
		".atomic-AAAAAAAAAAAAAAAAAAAAAAAAAA.tmp",       // not lower case
		".atomic-aaaaaaaaaaaaaaaaaaaaaaaaaa.tmp.saved", // renamed by somebody
		"atomic-aaaaaaaaaaaaaaaaaaaaaaaaaa.tmp",
		".000042-abc.partial",
	}
	for _, name := range foreign {
		must(os.WriteFile(filepath.Join(dir, name), nil, 0o600))
	}
	for _, make := range []func(string) error{
		func(p string) error { return os.WriteFile(p, nil, 0) },
		func(p string) error { return os.Symlink(dir, p) },
		func(p string) error { return os.Mkdir(p, 0o700) },
	} {
		must(make(tempName(dir + "/f")))
	}
	must(Sweep(dir))
	var names []string
	entries, err := os.ReadDir(dir)
	must(err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	slices.Sort(foreign)
	if !slices.Equal(names, foreign) {
		t.Errorf("after Sweep: %q, want %q", names, foreign)
	}
	if err := Sweep(dir + "/gone"); err != nil {
		t.Errorf("Sweep of an absent directory = %v", err)
	}
}

func TestSweepGoesOnAfterAnError(t *testing.T) {
	dir := t.TempDir()
	const first = ".atomic-22222222222222222222222222.tmp"
	const second = ".atomic-zzzzzzzzzzzzzzzzzzzzzzzzzz.tmp"
	must(os.MkdirAll(filepath.Join(dir, first, "not ours"), 0o700))
	must(os.WriteFile(filepath.Join(dir, second), nil, 0o600))
	if err := Sweep(dir); err == nil || !strings.Contains(err.Error(), first) {
		t.Errorf("Sweep = %v, want an error about %s", err, first)
	}
	if _, left := world(t, dir); !slices.Equal(left, []string{first}) {
		t.Errorf("%q is left", left)
	}
}
