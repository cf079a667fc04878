package atomic

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// crashing lets n calls through and fails those after it: one of them, as a
// disk that is full for a moment does, or all, clean-up included, which is what
// a killed process leaves. A write that fails has written half.
type crashing struct {
	n    int
	once bool
	hit  bool
	at   string // the first call that failed
}

func (c *crashing) do(op, path string, call func() error) error {
	if c.n > 0 || c.hit && c.once {
		c.n--
		return call()
	}
	if !c.hit {
		c.hit, c.at = true, op+" "+path
	}
	if op == "write" {
		os.WriteFile(path, []byte("ha"), 0o600)
	}
	return &fs.PathError{Op: op, Path: path, Err: unix.EIO}
}

// A scenario is one call of the package in a prepared directory.
type scenario struct {
	name  string
	setup func(dir string)
	run   func(d disk, dir string) error
	// inSteps: the worlds between old and new are worlds too.
	inSteps bool
}

const staged = "000042-abc"

var scenarios = []scenario{
	{name: "write new file", setup: func(string) {}, run: func(d disk, dir string) error {
		return d.writeFile(dir+"/f", []byte("new content"), 0o640)
	}},
	{name: "write over file", setup: func(dir string) { must(os.WriteFile(dir+"/f", []byte("old"), 0o600)) },
		run: func(d disk, dir string) error {
			return d.writeFile(dir+"/f", []byte("new content"), 0o640)
		}},
	{name: "write in pieces", setup: func(dir string) { must(os.WriteFile(dir+"/f", []byte("old"), 0o600)) }, run: writeInPieces},
	{name: "make link", setup: func(string) {}, run: func(d disk, dir string) error {
		return d.relink("roots/2", dir+"/current")
	}},
	{name: "replace link", setup: func(dir string) { must(os.Symlink("roots/1", dir+"/current")) },
		run: func(d disk, dir string) error { return d.relink("roots/2", dir+"/current") }},
	{name: "rename", setup: func(dir string) {
		must(os.WriteFile(dir+"/a", []byte("new"), 0o600))
		must(os.WriteFile(dir+"/b", []byte("old"), 0o600))
	}, run: func(d disk, dir string) error { return again(d.move(dir+"/a", dir+"/b"), dir+"/a") }},
	{name: "rename across directories", setup: func(dir string) {
		must(os.MkdirAll(dir+"/x", 0o700))
		must(os.WriteFile(dir+"/x/a", []byte("new"), 0o600))
	}, run: func(d disk, dir string) error { return again(d.move(dir+"/x/a", dir+"/b"), dir+"/x/a") }},
	{name: "remove", setup: func(dir string) { must(os.WriteFile(dir+"/f", nil, 0o600)) },
		run: func(d disk, dir string) error { return d.removeSynced(dir + "/f") }},
	{name: "make directories", setup: func(string) {}, inSteps: true, run: func(d disk, dir string) error {
		return d.mkdirAll(dir+"/a/b/c", 0o750)
	}},
	{name: "stage and commit", setup: func(dir string) {
		must(os.MkdirAll(stagedName(dir+"/"+staged)+"/left/by/a/crash", 0o700))
	}, run: stageAndCommit},
}

// again takes it as done when what was to be renamed has gone: the caller
// knows which of two names it looks for, as the agent does.
func again(err error, from string) error {
	if _, statErr := os.Lstat(from); errors.Is(err, fs.ErrNotExist) && statErr != nil {
		return nil
	}
	return err
}

func writeInPieces(d disk, dir string) error {
	f, err := d.createFile(dir+"/f", 0o640)
	if err != nil {
		return err
	}
	for _, piece := range []string{"new ", "content"} {
		if _, err := f.Write([]byte(piece)); err != nil {
			return errors.Join(err, f.Abort())
		}
	}
	return f.Commit()
}

// stageAndCommit does what an owner does: a root that is there is complete.
func stageAndCommit(d disk, dir string) error {
	t, err := d.stage(dir + "/" + staged)
	if errors.Is(err, ErrOccupied) {
		return nil
	}
	if err != nil {
		return err
	}
	must(os.Mkdir(t.Path()+"/etc", 0o755))
	must(os.WriteFile(t.Path()+"/etc/conf", []byte("whole"), 0o644))
	err = t.Commit()
	if abortErr := t.Abort(); err == nil && abortErr != nil {
		return abortErr
	}
	return err
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// world lists what a reader of dir sees; leftovers are what it passes by.
func world(t *testing.T, dir string) (seen, leftovers []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name := strings.TrimPrefix(path, dir+"/")
		if _, ok := Staged(e.Name()); ok || isTemp(e.Name()) {
			leftovers = append(leftovers, name)
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		line := name + " " + info.Mode().String()
		switch e.Type() {
		case 0:
			content, err := os.ReadFile(path)
			must(err)
			line += fmt.Sprintf(" %q", content)
		case fs.ModeSymlink:
			target, err := os.Readlink(path)
			must(err)
			line += " -> " + target
		}
		seen = append(seen, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return seen, leftovers
}

// worlds returns what a reader sees before and after an undisturbed run.
func (s scenario) worlds(t *testing.T) (before, after []string) {
	t.Helper()
	dir := t.TempDir()
	s.setup(dir)
	before, _ = world(t, dir)
	if err := s.run(disk{}, dir); err != nil {
		t.Fatalf("undisturbed: %v", err)
	}
	after, left := world(t, dir)
	if len(left) > 0 {
		t.Fatalf("undisturbed: leaves %q", left)
	}
	if slices.Equal(before, after) {
		t.Fatal("undisturbed: changes nothing, so the test proves nothing")
	}
	return before, after
}

func (s scenario) allows(got, before, after []string) bool {
	if slices.Equal(got, before) || slices.Equal(got, after) {
		return true
	}
	return s.inSteps && len(got) < len(after) && slices.Equal(got, after[:len(got)])
}

// everyFault runs the scenario with the first fault at each call in turn.
func (s scenario) everyFault(t *testing.T, once bool, check func(t *testing.T, c *crashing, dir string, err error)) {
	for n := 0; ; n++ {
		dir := t.TempDir()
		s.setup(dir)
		c := &crashing{n: n, once: once}
		err := s.run(disk{gate: c}, dir)
		if !c.hit {
			if n == 0 || err != nil {
				t.Fatalf("%d calls, none failed, and the run returns %v", n, err)
			}
			return
		}
		if !errors.Is(err, unix.EIO) {
			t.Fatalf("fault at %q is not told: %v", c.at, err)
		}
		check(t, c, dir, err)
	}
}

func TestCrashAtEveryCall(t *testing.T) {
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			before, after := s.worlds(t)
			s.everyFault(t, false, func(t *testing.T, c *crashing, dir string, _ error) {
				seen, crashed := world(t, dir)
				if !s.allows(seen, before, after) {
					t.Fatalf("crash at %q: a reader sees %q, want %q or %q", c.at, seen, before, after)
				}
				if err := s.run(disk{}, dir); err != nil {
					t.Fatalf("crash at %q: doing it again: %v", c.at, err)
				}
				seen, left := world(t, dir)
				if !slices.Equal(seen, after) {
					t.Fatalf("crash at %q: after doing it again a reader sees %q, want %q", c.at, seen, after)
				}
				for _, name := range left {
					if !slices.Contains(crashed, name) {
						t.Errorf("crash at %q: doing it again leaves %q", c.at, name)
					}
				}
				sweepAll(t, dir)
				if _, left := world(t, dir); len(left) > 0 {
					t.Errorf("crash at %q: %q is left after the sweep", c.at, left)
				}
			})
		})
	}
}

// sweepAll does what the owner of the directories does when it starts.
func sweepAll(t *testing.T, dir string) {
	t.Helper()
	for _, sub := range []string{"", "/x", "/a", "/a/b"} {
		if err := Sweep(dir + sub); err != nil {
			t.Error(err)
		}
	}
}

func TestFaultIsToldAndLeavesNothingBehind(t *testing.T) {
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			before, after := s.worlds(t)
			s.everyFault(t, true, func(t *testing.T, c *crashing, dir string, err error) {
				seen, left := world(t, dir)
				if strings.HasPrefix(c.at, "remove tree") && len(left) == 1 {
					left = nil // Stage could not remove what an earlier crash left
				}
				if s.name == "stage and commit" && strings.HasPrefix(c.at, "lstat") {
					left = nil // it did not come as far as removing that
				}
				if len(left) > 0 {
					t.Errorf("fault at %q leaves %q", c.at, left)
				}
				want := before
				if errors.Is(err, ErrUnsynced) && s.name != "stage and commit" {
					want = after // there the Abort takes the new name back
				}
				if !slices.Equal(seen, want) && !(s.inSteps && s.allows(seen, before, after)) {
					t.Errorf("fault at %q, error %v: a reader sees %q, want %q", c.at, err, seen, want)
				}
			})
		})
	}
}

// recording notes the calls in their order, by names that do not change.
type recording struct {
	dir   string
	calls []string
	fail  map[string]error // by call; see failing
}

func (r *recording) do(op, path string, call func() error) error {
	name, ok := strings.CutPrefix(path, r.dir+"/")
	if !ok {
		name = "." // dir itself, or above it
	}
	if isTemp(filepath.Base(name)) {
		name = filepath.Join(filepath.Dir(name), "TEMP")
	}
	line := op + " " + name
	r.calls = append(r.calls, line)
	if err := r.fail[line]; err != nil {
		return err
	}
	return call()
}

// The order is the promise: content synced before it gets its name, the
// directory synced after, nothing after that. The cost is a promise as well:
// one sync more, and unpacking would be many times slower.
func TestOrderOfCalls(t *testing.T) {
	parts := func(s ...string) []string { return s }
	for name, want := range map[string][]string{
		"write over file": parts("open dir .", "lstat f", "create TEMP", "write TEMP", "chmod TEMP", "fsync TEMP", "rename f", "fsync ."),
		"write in pieces": parts("open dir .", "lstat f", "create TEMP", "write TEMP", "write TEMP", "chmod TEMP", "fsync TEMP", "rename f", "fsync ."),
		"replace link":    parts("open dir .", "lstat current", "symlink TEMP", "rename current", "fsync ."),
		"rename":          parts("open dir .", "rename b", "fsync ."),
		"rename across directories": parts("open dir .", "open dir x",
			"rename b", "fsync .", "fsync x"),
		"remove": parts("open dir .", "remove f", "fsync ."),
		"make directories": parts("stat a/b/c", "stat a/b", "stat a", "stat .", "open dir .", "fsync .",
			"open dir .", "mkdir TEMP", "open dir TEMP", "chmod TEMP", "rename new a", "fsync .",
			"open dir a", "mkdir a/TEMP", "open dir a/TEMP", "chmod a/TEMP", "rename new a/b", "fsync a",
			"open dir a/b", "mkdir a/b/TEMP", "open dir a/b/TEMP", "chmod a/b/TEMP", "rename new a/b/c", "fsync a/b"),
		"stage and commit": parts("lstat 000042-abc", "remove tree .000042-abc.partial", "mkdir .000042-abc.partial",
			"open dir .000042-abc.partial", "chmod .000042-abc.partial",
			"open dir .", "syncfs .000042-abc.partial", "rename new 000042-abc", "fsync ."),
	} {
		i := slices.IndexFunc(scenarios, func(s scenario) bool { return s.name == name })
		dir := t.TempDir()
		scenarios[i].setup(dir)
		r := &recording{dir: dir}
		if err := scenarios[i].run(disk{gate: r}, dir); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !slices.Equal(r.calls, want) {
			t.Errorf("%s calls\n\t%s\nwant\n\t%s", name, strings.Join(r.calls, ", "), strings.Join(want, ", "))
		}
	}
}

// failing is a recording in which the calls named fail with err.
func failing(dir string, err error, calls ...string) *recording {
	r := &recording{dir: dir, fail: map[string]error{}}
	for _, c := range calls {
		r.fail[c] = err
	}
	return r
}

// What was made or removed by a call that was killed before its sync is there,
// or gone, but not durable. The next call must not take it for done.
func TestDoingItAgainSyncsWhatIsThereAlready(t *testing.T) {
	dir := t.TempDir()
	must(os.MkdirAll(dir+"/a/b", 0o755))
	for name, c := range map[string]struct {
		run  func(d disk) error
		sync string
	}{
		"remove absent":  {func(d disk) error { return d.removeSynced(dir + "/a/gone") }, "fsync a"},
		"make directory": {func(d disk) error { return d.mkdirAll(dir+"/a/b", 0o755) }, "fsync a"},
		"make below":     {func(d disk) error { return d.mkdirAll(dir+"/a/b/c", 0o755) }, "fsync a"},
		"make link":      {func(d disk) error { return d.relink("x", dir+"/a/l") }, "fsync a"},
	} {
		r := &recording{dir: dir}
		if err := c.run(disk{gate: r}); err != nil || !slices.Contains(r.calls, c.sync) {
			t.Errorf("%s = %v after %q, want %q among them", name, err, r.calls, c.sync)
		}
	}
}

// A second sync of the same file succeeds although the data is gone.
func TestNoSyncIsTriedAgain(t *testing.T) {
	for name, syncs := range map[string][]string{
		"write over file":  {"fsync TEMP", "fsync ."},
		"write in pieces":  {"fsync TEMP", "fsync ."},
		"replace link":     {"fsync ."},
		"rename":           {"fsync ."},
		"remove":           {"fsync ."},
		"stage and commit": {"syncfs .000042-abc.partial"},
	} {
		for _, sync := range syncs {
			i := slices.IndexFunc(scenarios, func(s scenario) bool { return s.name == name })
			dir := t.TempDir()
			scenarios[i].setup(dir)
			r := failing(dir, unix.EIO, sync)
			err := scenarios[i].run(disk{gate: r}, dir)
			n := map[string]int{}
			for _, c := range r.calls {
				n[c]++
			}
			if !errors.Is(err, unix.EIO) || n[sync] != 1 {
				t.Errorf("%s with %q failing = %v, calls %v; want EIO and one such call", name, sync, err, slices.Sorted(maps.Keys(n)))
			}
		}
	}
}
