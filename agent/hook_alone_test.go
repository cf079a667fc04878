package agent

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"deploytools/atomic"
)

// Somebody deletes deployments/ while a hook runs, and the agent is started
// again: it ran a second hook beside the first.
func TestHookRunsOnceThoughItsFilesAreDeleted(t *testing.T) {
	for _, restarted := range []bool{true, false} {
		h := newHookTest(t, "echo $$ > $D/say; read x < $D/go; exit 3")
		d, base := h.c.Dir, t.TempDir()
		h.h.alone, h.c.Dir = base+"/roots", base+"/deployments/1"
		must(os.Mkdir(h.h.alone, 0o700))
		must(os.MkdirAll(h.c.Dir, 0o700))
		done, _ := h.began(h.h, t.Context())
		_, err := os.ReadFile(d + "/say")
		must(err)
		must(os.RemoveAll(base + "/deployments"))
		if restarted { // as runHook of the next agent
			must(os.MkdirAll(h.c.Dir, 0o700))
			next := &hookRunner{alone: h.h.alone, grace: h.h.grace}
			done, _ = h.began(next, t.Context())
			if err := (&hookCall{Alone: h.h.alone}).idle(); !errors.Is(err, atomic.ErrLocked) {
				t.Errorf("idle = %v while the hook runs", err)
			}
		}
		must(os.WriteFile(d+"/go", []byte("go\n"), 0))
		if r := done(); r.Exit != 3 || r.Attempt != 1 {
			t.Errorf("restarted %t: %+v, want the result of the first run", restarted, r)
		}
		h.c.Dir = d
		h.wantRuns(1)
	}
}

// A program does not begin while one of another deployment runs.
func TestOneProgramAtATime(t *testing.T) {
	one := newHookTest(t, "echo $$ > $D/say; read x < $D/go")
	one.h.alone = t.TempDir()
	first, _ := one.began(one.h, t.Context())
	one.said()
	two := newHookTest(t, "")
	two.h.alone = one.h.alone
	order := make(chan string, 2)
	go func() { two.mustRun(); order <- "second" }()
	c := two.c
	c.Alone = one.h.alone
	if err := c.idle(); !errors.Is(err, atomic.ErrLocked) {
		t.Errorf("idle = %v", err)
	}
	o := hookOrder{Call: c}
	if status, err := o.supervise(); status != superviseDone || err != nil {
		t.Errorf("another supervisor: %d, %v, want it to do nothing", status, err)
	}
	waiting, cancel := context.WithTimeout(t.Context(), 2*hookTick)
	defer cancel()
	if err := two.h.awaitFree(waiting, &c, new(tail)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("awaitFree = %v, want it to wait", err)
	}
	two.wantRuns(0)
	one.goOn()
	first()
	<-order
	two.wantRuns(1)
}

// A check script went on beside the programs of the next deployment.
func TestHookThatNobodyWaitsForIsEnded(t *testing.T) {
	for _, orphan := range []bool{true, false} { // its supervisor is killed
		h := newHookTest(t, "echo $PPID $$ > $D/say; sleep 1000")
		ctx, cancel := context.WithCancel(t.Context())
		_, errs := h.began(h.h, ctx)
		ids := h.said()
		cancel()
		<-errs
		if orphan {
			must(unix.Kill(ids[0], unix.SIGKILL))
			awaitEnd(ids[0])
		}
		began := time.Now()
		if err := h.h.end(t.Context(), h.c.Dir, h.c.Label); err != nil {
			t.Errorf("end = %v", err)
		}
		if lives(ids[1]) || time.Since(began) > 20*time.Second {
			t.Errorf("orphan %t: it lives %t, after %v", orphan, lives(ids[1]), time.Since(began))
		}
		if err := h.h.end(t.Context(), h.c.Dir, h.c.Label); err != nil {
			t.Errorf("end of nothing = %v", err)
		}
	}
	if err := new(hookRunner).end(t.Context(), t.TempDir()+"/none", "check"); err != nil {
		t.Errorf("end in a directory that is not there = %v", err)
	}
}
