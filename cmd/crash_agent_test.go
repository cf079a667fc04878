package cmd_test

import (
	"bytes"
	"cmp"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"deploytools/registry/wire"
)

// TestCrashMatrixAgent lets every fault happen to an agent, with all its
// children, while it deploys: at each system call that changes its files, for
// versions that are good, whose hook fails, or whose check fails, on first and
// on later deployments. At once after it a whole root serves or none; the next
// agent ends what was begun.
func TestCrashMatrixAgent(t *testing.T) {
	t.Parallel()
	eachDeployment(t, func(h *host, old, way string) {
		points := (&stricken{before: h}).countPoints(t)
		for _, f := range faults(16) {
			t.Run(f.name+"/"+h.name, func(t *testing.T) {
				t.Parallel()
				c := &stricken{fault: f, before: h, old: old, way: way}
				for n := range f.sample(t, points) {
					c.at(t, n)
				}
				if f.power != 0 && (everyPoint() == 1 || h.name == "later-good") {
					c.afterwards(t, 0)
					c.afterwards(t, writeBack)
				}
			})
		}
	})
}

// afterwards cuts the power so long after the end of a deployment: what was told is so.
func (c *stricken) afterwards(t *testing.T, wait time.Duration) {
	t.Helper()
	c.on(t, func(h *host, image string) {
		log, err := h.run("")
		time.Sleep(wait)
		cutPower(t, h.file(c.dir()), c.power)
		remount(t, image, h.file(c.dir()))
		want := c.old
		if status(err) == wire.OK {
			want = c.way
		}
		if got := c.serving(t, h); got != want {
			t.Errorf("%v after the end with %d: %q serves, want %q\n%s", wait, status(err), got, want, log)
		}
		again, err := h.run("")
		c.check(t, h, 0, status(err), log+"--- again\n"+again)
	})
}

// stricken is a deployment that a fault happens to.
type stricken struct {
	fault
	before   *host // as it was before: each case works on a copy
	old, way string

	// watched is the directory below the host's whose files count, which holds the
	// agent's; "": that one.
	watched string
	atOnce  func(t *testing.T, h *host, serves, log string) // looks as well, at once after the fault
}

func (c *stricken) dir() string { return cmp.Or(c.watched, "agent") }

// on calls fn with a copy of the host, whose agent's directory is on the file
// system of the fault. image is "" for none.
func (c *stricken) on(t *testing.T, fn func(h *host, image string)) {
	t.Helper()
	h := c.before.copy(t)
	defer os.RemoveAll(h.dir)
	dir := h.file(c.dir())
	do(t, "mkdir", "-p", dir)
	if c.fs == "" {
		fn(h, "")
		return
	}
	content := h.file("content")
	do(t, "mv", dir, content)
	do(t, "mkdir", dir)
	image := makeImage(t, h.file("image"), c.fs)
	mount(t, image, dir)
	defer unmount(dir)
	do(t, "cp", "-a", content+"/.", dir)
	remount(t, image, dir) // what was there before is on the disk
	fn(h, image)
}

func (h *host) file(name string) string { return filepath.Join(h.dir, name) }

// countPoints deploys without a fault and returns how many points that has.
func (c *stricken) countPoints(t *testing.T) int { return c.countPointsFrom(t, 50) }

// countPointsFrom is countPoints of what has at least so many.
func (c *stricken) countPointsFrom(t *testing.T, least int) (points int) {
	t.Helper()
	c.on(t, func(h *host, _ string) {
		h.runUnder(t, "-match", filepath.Join(h.seen(), c.dir()), "-log", h.file("points"))
		b, err := os.ReadFile(h.file("points"))
		if points = bytes.Count(b, []byte("\n")); err != nil || points < least {
			t.Fatalf("only %d points: nothing would be tested: %v: %s", points, err, b)
		}
	})
	return points
}

// struckEnd is how long the matrix waits for what lives on although every call fails: a
// supervisor tries for a minute to record a result. Then all of it is killed.
const struckEnd = "10s"

// runUnder runs the agent under crashat until nothing is left to do or it dies.
func (h *host) runUnder(t *testing.T, args ...string) (log string, err error) {
	t.Helper()
	program, err := crashat()
	if err != nil {
		t.Fatal(err)
	}
	cmd := h.agent("")
	cmd.Args = slices.Concat([]string{program, "-end", struckEnd}, args, []string{"--"}, cmd.Args, h.verb)
	cmd.Path = program
	h.enter(cmd)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// at lets the fault happen at the nth point of a deployment.
func (c *stricken) at(t *testing.T, n int) {
	t.Helper()
	c.strike(t, n, func(h *host, ended wire.Status, log string) { c.check(t, h, n, ended, log) })
}

// strike lets the fault happen at the nth point, runs the agent again, and has
// after look at what has become of it.
func (c *stricken) strike(t *testing.T, n int, after func(h *host, ended wire.Status, log string)) {
	t.Helper()
	c.on(t, func(h *host, image string) {
		log, _ := h.runUnder(t, append([]string{"-match", filepath.Join(h.seen(), c.dir()), "-n", strconv.Itoa(n)}, c.args...)...)
		if image != "" {
			remount(t, image, h.file(c.dir()))
		}
		// I1: whatever happened, `current` names a whole root.
		got := c.serving(t, h)
		if got != c.old && got != c.way {
			t.Errorf("point %d: %q serves\n%s", n, got, log)
		}
		if c.atOnce != nil {
			c.atOnce(t, h, got, log)
		}
		again, err := h.run("")
		log += "--- again\n" + again
		after(h, status(err), log)
	})
}

// serving is what serves. A repair begins with a root that is not whole.
func (c *stricken) serving(t *testing.T, h *host) string {
	t.Helper()
	if slices.Contains(c.before.more, "-repair") {
		return h.served(t)
	}
	return h.serves(t)
}

func status(err error) wire.Status {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return wire.Status(exit.ExitCode())
	}
	return wire.OK
}

// check: what was wanted is there, or the version before it. A call that fails
// may be why a good version is taken back.
func (c *stricken) check(t *testing.T, h *host, n int, ended wire.Status, log string) {
	t.Helper()
	got := h.serves(t)
	want := c.way
	if c.way != "good" || c.fails() && ended == wire.RolledBack {
		want = c.old
	}
	wantStatus := wire.OK
	if want != c.way {
		wantStatus = wire.RolledBack
	}
	if got != want || ended != wantStatus {
		t.Errorf("%s, point %d: %q serves and the agent ends with %d, want %q and %d\n%s", c.name, n, got, ended, want, wantStatus, log)
	}
	h.checkRecord(t, log)
	h.checkTold(t, want != c.way, log)
	// I2: the last that the hook was told of is what serves.
	b, err := os.ReadFile(h.file("calls"))
	calls := strings.Split(strings.TrimSpace(string(b)), "\n")
	if last := calls[len(calls)-1]; got != "" && last != "deploy "+got && last != "rollback "+got {
		t.Errorf("%s, point %d: %q serves, but the hook was called last with %q, %v\n%s", c.name, n, got, last, err, log)
	}
}
