package cmd_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"deploytools/atomic"
)

// setPlans are what the matrix does to 1 to 4 files: each letter is one that is
// replaced, created, removed, or the same.
var setPlans = []string{"r", "rc", "dcs", "rdcr"}

// applyset is the program that the matrix strikes: it applies one of setPlans to
// DIR/etc with the store DIR/store, and writes to TOLD what the files are when
// it reloads.
//
//	applyset apply|recover DIR TOLD PLAN
func applyset() {
	dir, told, plan := os.Args[2], os.Args[3], os.Args[4]
	hooks := atomic.Hooks{Reload: func(context.Context, atomic.Phase) error {
		return os.WriteFile(told, []byte(strings.Join(seenIn(dir), "\n")), 0o600)
	}}
	s, err := atomic.OpenStore(dir + "/store")
	switch {
	case err != nil:
	case os.Args[1] == "recover":
		_, err = s.Recover(context.Background(), func(string) atomic.Hooks { return hooks })
	default:
		_, err = s.Apply(context.Background(), setPlan(dir, plan), hooks)
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func setPlan(dir, plan string) atomic.Plan {
	p := atomic.Plan{ID: "set", Keep: 1}
	for i, letter := range plan {
		t := atomic.Target{Path: fmt.Sprintf("%s/etc/%d%c", dir, i, letter), Bytes: fmt.Appendf(nil, "new %d", i), Metadata: atomic.Metadata{Mode: 0o600}}
		if letter == 'd' {
			t.Bytes, t.Remove = nil, true
		}
		p.Files = append(p.Files, t)
	}
	return p
}

// seenIn lists the files of DIR/etc as a program sees them that passes hidden
// ones by.
func seenIn(dir string) []string {
	entries, err := os.ReadDir(dir + "/etc")
	if err != nil {
		return []string{err.Error()}
	}
	var seen []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		b, err := os.ReadFile(dir + "/etc/" + e.Name())
		info, statErr := e.Info()
		if err != nil || statErr != nil {
			return []string{"cannot read " + e.Name()}
		}
		seen = append(seen, fmt.Sprintf("%s %v %s", e.Name(), info.Mode(), b))
	}
	return seen
}

// struckSet is one run of applyset that a fault happens to.
type struckSet struct {
	fault
	plan      string
	dir, told string
	old, new  []string
}

// newStruckSet furnishes a directory below base.
func newStruckSet(t *testing.T, f fault, plan, base, name string) *struckSet {
	t.Helper()
	c := &struckSet{fault: f, plan: plan, dir: filepath.Join(base, name), told: filepath.Join(t.TempDir(), "told")}
	if err := os.MkdirAll(c.dir+"/etc", 0o755); err != nil {
		t.Fatal(err)
	}
	for i, letter := range plan {
		content, mode := fmt.Sprintf("old %d", i), os.FileMode(0o640)
		if letter == 's' {
			content, mode = fmt.Sprintf("new %d", i), 0o600
		}
		if letter != 'd' {
			c.new = append(c.new, fmt.Sprintf("%d%c -rw------- new %d", i, letter, i))
		}
		if letter == 'c' {
			continue
		}
		path := fmt.Sprintf("%s/etc/%d%c", c.dir, i, letter)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		c.old = append(c.old, fmt.Sprintf("%d%c %v %s", i, letter, mode, content))
	}
	if err := os.WriteFile(c.told, []byte(strings.Join(c.old, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

// run runs applyset, under crashat if it has arguments.
func (c *struckSet) run(t *testing.T, verb string, crashArgs ...string) (string, error) {
	t.Helper()
	argv := []string{"applyset", verb, c.dir, c.told, c.plan}
	if len(crashArgs) > 0 {
		program, err := crashat()
		if err != nil {
			t.Fatal(err)
		}
		argv = slices.Concat([]string{program, "-match", c.dir}, crashArgs, []string{"--"}, argv)
	}
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	return string(out), err
}

// TestCrashMatrixSet lets every fault happen at every point of an Apply of 1 to 4
// files. After Recover they are all old or all new, and who reads them was told
// of what they are. An Apply that lives and returns an error has put all back.
func TestCrashMatrixSet(t *testing.T) {
	t.Parallel()
	for _, f := range faults(1) {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			base, image := t.TempDir(), ""
			if f.fs != "" {
				image = makeImage(t, filepath.Join(t.TempDir(), "image"), f.fs)
				mount(t, image, base)
				t.Cleanup(func() { unmount(base) })
			}
			for i, plan := range setPlans {
				if everyPoint() != 1 && len(f.args) > 0 && i != commit()%len(setPlans) {
					continue // a usual run has one plan for what is no kill
				}
				t.Run(plan, func(t *testing.T) { strikeSet(t, f, plan, base, image) })
			}
		})
	}
}

// strikeSet lets the fault happen at every point of one plan.
func strikeSet(t *testing.T, f fault, plan, base, image string) {
	t.Helper()
	log := filepath.Join(t.TempDir(), "points")
	counting := newStruckSet(t, f, plan, base, plan)
	if out, err := counting.run(t, "apply", "-log", log); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	b, err := os.ReadFile(log)
	points := bytes.Count(b, []byte("\n"))
	if err != nil || points < 20 {
		t.Fatalf("only %d points: nothing would be tested: %v", points, err)
	}
	for n := range f.sample(t, points) {
		c := newStruckSet(t, f, plan, base, fmt.Sprintf("%s-%d", plan, n))
		c.strike(t, n, base, image)
	}
}

func (c *struckSet) strike(t *testing.T, n int, base, image string) {
	t.Helper()
	if image != "" {
		do(t, "sync", "-f", base)
	}
	log, err := c.run(t, "apply", append([]string{"-n", strconv.Itoa(n)}, c.args...)...)
	if image != "" {
		remount(t, image, base)
	}
	if c.fails() && !strings.Contains(log, "rollback failed") {
		want := c.new
		if err != nil {
			want = c.old
		}
		c.want(t, n, "the fault", log, want)
	}
	recovered, err := c.run(t, "recover")
	log += "--- recover\n" + recovered
	if err != nil {
		t.Errorf("point %d of %s: recover: %v\n%s", n, c.plan, err, log)
	}
	want := c.new
	if slices.Equal(seenIn(c.dir), c.old) {
		want = c.old
	}
	c.want(t, n, "recover", log, want)
	if left, _ := filepath.Glob(c.dir + "/etc/.*"); len(left) > 0 {
		t.Errorf("point %d of %s: %q is left\n%s", n, c.plan, left, log)
	}
	again, err := c.run(t, "apply")
	if log += "--- again\n" + again; err != nil {
		t.Errorf("point %d of %s: again: %v\n%s", n, c.plan, err, log)
	}
	c.want(t, n, "doing it again", log, c.new)
	if kept, _ := filepath.Glob(c.dir + "/store/kept/*"); len(kept) > len(c.plan) {
		t.Errorf("point %d of %s: %q are kept", n, c.plan, kept)
	}
}

// want checks what the files are, and that this is what was told last.
func (c *struckSet) want(t *testing.T, n int, after, log string, want []string) {
	t.Helper()
	seen := seenIn(c.dir)
	told, err := os.ReadFile(c.told)
	if !slices.Equal(seen, want) || string(told) != strings.Join(want, "\n") {
		t.Errorf("point %d of %s: after %s there is %q, told was %q (%v), want %q\n%s", n, c.plan, after, seen, told, err, want, log)
	}
}
