package agent

import (
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"deploytools/atomic"
)

// TestMain lets the test binary stand for the agent's program: as the
// supervisor, and as an agent that runs one hook and can be killed.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == SuperviseCommand {
		os.Exit(Supervise(os.Args[2:]))
	}
	if len(os.Args) > 1 && os.Args[1] == "__run_hook" {
		var c hookCall
		must(gob.NewDecoder(os.Stdin).Decode(&c))
		_, err := new(hookRunner).run(context.Background(), c, nil)
		must(err)
		os.Exit(0)
	}
	os.Setenv("GORACE", "atexit_sleep_ms=0") // or each supervisor ends a second late under -race
	os.Exit(m.Run())
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// A hookTest is one script with a deployment's directory, and two pipes by
// which it says something and is told to go on.
type hookTest struct {
	*testing.T
	h     *hookRunner
	c     hookCall
	lines []string
}

// newHookTest writes the script, which finds $D, its deployment's directory,
// the pipes $D/say and $D/go, and counts its runs in $D/runs.
func newHookTest(t *testing.T, script string) *hookTest {
	t.Helper()
	dir := t.TempDir()
	c := hookCall{Dir: dir, Label: "deploy", Path: dir + "/hook.sh", WorkDir: dir, Timeout: 30 * time.Second,
		Env: []string{"PATH=" + os.Getenv("PATH"), "D=" + dir}}
	must(os.WriteFile(c.Path, []byte("#!/bin/sh\necho x >> $D/runs\n"+script), 0o755))
	must(unix.Mkfifo(dir+"/say", 0o600))
	must(unix.Mkfifo(dir+"/go", 0o600))
	return &hookTest{T: t, h: &hookRunner{grace: 300 * time.Millisecond}, c: c}
}

func (t *hookTest) run() (hookResult, error) {
	return t.h.run(t.Context(), t.c, func(l string) { t.lines = append(t.lines, l) })
}

func (t *hookTest) mustRun() hookResult {
	t.Helper()
	r, err := t.run()
	if err != nil {
		t.Fatalf("run: %v", err)
	}
	return r
}

// began runs the hook beside the test.
func (t *hookTest) began(h *hookRunner, ctx context.Context) (r func() hookResult, errs <-chan error) {
	results, errc := make(chan hookResult, 1), make(chan error, 1)
	go func() {
		r, err := h.run(ctx, t.c, nil)
		results <- r
		errc <- err
	}()
	return func() hookResult {
		t.Helper()
		if err := <-errc; err != nil {
			t.Fatalf("run: %v", err)
		}
		return <-results
	}, errc
}

// said waits for what the script says, as numbers: process ids.
func (t *hookTest) said() []int {
	t.Helper()
	b, err := os.ReadFile(t.c.Dir + "/say")
	must(err)
	return t.numbers(string(b))
}

func (t *hookTest) numbers(text string) (ids []int) {
	t.Helper()
	for f := range strings.FieldsSeq(text) {
		id, err := strconv.Atoi(f)
		if err != nil {
			t.Fatalf("script says %q, want numbers", text)
		}
		ids = append(ids, id)
	}
	return ids
}

func (t *hookTest) goOn() { must(os.WriteFile(t.c.Dir+"/go", []byte("go\n"), 0)) }

func (t *hookTest) wantRuns(want int) {
	t.Helper()
	b, _ := os.ReadFile(t.c.Dir + "/runs")
	if got := bytes.Count(b, []byte{'\n'}); got != want {
		t.Errorf("the program ran %d times, want %d", got, want)
	}
}

func lives(pid int) bool {
	for p := range processes() {
		if p.pid == pid && !p.dead {
			return true
		}
	}
	return false
}

// awaitEnd returns when the process, of whatever parent, has ended.
func awaitEnd(pid int) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return // reaped
	}
	defer unix.Close(fd)
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
		if n == 1 || err != unix.EINTR {
			return
		}
	}
}

func TestHookEndIsTheResult(t *testing.T) {
	for _, test := range []struct{ script, signal, err string }{
		{"exit 0", "", ""},
		{"exit 3", "", `"./hook.sh" call failure: exit status 3`},
		{"exit 75", "", `"./hook.sh" call failure: exit status 75`},
		{"kill -KILL $$", "SIGKILL", `"./hook.sh" call failure: signal: killed`},
		{"kill -TERM $$", "SIGTERM", `"./hook.sh" call failure: signal: terminated`},
	} {
		t.Run(test.script, func(t *testing.T) {
			h := newHookTest(t, test.script)
			h.c.Path = "./hook.sh" // upstream's default, relative to the working directory
			r := h.mustRun()
			got := ""
			if err := r.Err(); err != nil {
				got = err.Error()
			}
			if got != test.err || r.Signal != test.signal || r.Attempt != 1 || r.Ended.Before(r.Started) {
				t.Errorf("run = %+v with error %q, want %q", r, got, test.err)
			}
			if again := h.mustRun(); again.Exit != r.Exit || !again.Ended.Equal(r.Ended) {
				t.Errorf("second run = %+v, want the result of the first, %+v", again, r)
			}
			h.wantRuns(1)
		})
	}
}

func TestHookDeadlineEndsTheWholeGroup(t *testing.T) {
	h := newHookTest(t, `trap '' TERM
sleep 1000 & a=$!
(trap - TERM; exec sleep 1000) & b=$!
sleep 1000 & c=$!
kill -STOP $c
echo $$ $a $b $c
wait`)
	h.c.Timeout = time.Second
	r := h.mustRun()
	if !r.TimedOut || r.Signal != "SIGKILL" || r.Err() == nil || !strings.Contains(r.Err().Error(), "not done after 1s") {
		t.Errorf("run = %+v, %v, want killed at the deadline", r, r.Err())
	}
	if len(h.lines) != 1 {
		t.Fatalf("lines %q, want the process ids", h.lines)
	}
	for _, pid := range h.numbers(h.lines[0]) {
		if lives(pid) {
			t.Errorf("process %d has survived", pid)
		}
	}
	if took := r.Ended.Sub(r.Started); took > 10*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestHookMayCleanUpAtTheDeadlineAndHasFailedAnyway(t *testing.T) {
	for _, stopped := range []string{"sleep 1000 & wait", "kill -STOP $$"} {
		h := newHookTest(t, "trap 'echo $$ > $D/say; cat $D/go; exit 0' TERM; "+stopped)
		h.h.grace = 20 * time.Second
		h.c.Timeout = time.Second
		go func() {
			h.said()
			h.goOn()
		}()
		if r := h.mustRun(); !r.TimedOut || r.Exit != 0 || r.Err() == nil || !slices.Equal(h.lines, []string{"go"}) {
			t.Errorf("run = %+v, %v with lines %q, want a failure with exit status 0", r, r.Err(), h.lines)
		}
	}
}

// A service that the hook starts has its output, and must neither hold the
// deployment up nor end with it.
func TestHookDaemonWithTheOutputStaysAlive(t *testing.T) {
	for _, exit := range []int{0, 3} {
		h := newHookTest(t, fmt.Sprintf("sleep 1000 & echo $!\nexit %d", exit))
		r := h.mustRun()
		if r.Exit != exit || len(h.lines) != 1 {
			t.Fatalf("run = %+v, lines %q", r, h.lines)
		}
		pid := h.numbers(h.lines[0])[0]
		out, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/2", pid))
		if !lives(pid) || err != nil || out != h.c.file("output") {
			t.Errorf("after exit %d: lives %v with stderr %q, %v; want alive with the output", exit, lives(pid), out, err)
		}
		unix.Kill(pid, unix.SIGKILL)
	}
}

// The agent is killed with its whole process group; another takes over, while
// the program runs or after.
func TestHookOutlivesTheAgent(t *testing.T) {
	for _, late := range []bool{false, true} {
		h := newHookTest(t, "echo before; echo $$ > $D/say; cat $D/go; echo after; exit 3")
		var order bytes.Buffer
		must(gob.NewEncoder(&order).Encode(h.c))
		exe, err := os.Executable()
		must(err)
		first := &exec.Cmd{Path: exe, Args: []string{exe, "__run_hook"}, Stdin: &order, Stderr: os.Stderr,
			SysProcAttr: &syscall.SysProcAttr{Setpgid: true}}
		must(first.Start())
		pid := h.said()[0]
		must(unix.Kill(-first.Process.Pid, unix.SIGKILL))
		first.Wait()
		if !lives(pid) {
			t.Fatal("the program has ended with the agent")
		}
		if late {
			h.goOn()
			lock, err := atomic.Wait(t.Context(), h.c.file("lock"))
			must(err)
			lock.Release()
		}
		r, err := h.h.run(t.Context(), h.c, func(l string) {
			if h.lines = append(h.lines, l); l == "before" && !late {
				h.goOn()
			}
		})
		if err != nil || r.Exit != 3 || r.Attempt != 1 || !slices.Equal(h.lines, []string{"before", "go", "after"}) {
			t.Errorf("late %v: run = %+v, %v with lines %q, want exit 3 of attempt 1 and all lines", late, r, err, h.lines)
		}
		h.wantRuns(1)
	}
}

func TestHookGoesOnWhenTheRunIsCancelled(t *testing.T) {
	h := newHookTest(t, "echo $$ > $D/say; cat $D/go")
	stopping := errors.New("agent is stopping")
	ctx, cancel := context.WithCancelCause(t.Context())
	_, errc := h.began(h.h, ctx)
	h.said()
	cancel(stopping)
	if err := <-errc; !errors.Is(err, stopping) {
		t.Errorf("cancelled run = %v, want the cause", err)
	}
	if err := h.h.forget(h.c.Dir, h.c.Label); !errors.Is(err, atomic.ErrLocked) {
		t.Errorf("forget while the program runs = %v, want ErrLocked", err)
	}
	if _, err := h.h.run(ctx, h.c, nil); !errors.Is(err, stopping) {
		t.Errorf("run with a cancelled context = %v, want the cause", err)
	}
	go h.goOn()
	if r := h.mustRun(); r.Err() != nil {
		t.Error(r.Err())
	}
	h.wantRuns(1)
}

func TestHookTwoAgentsRunItOnce(t *testing.T) {
	h := newHookTest(t, "echo $$ > $D/say; cat $D/go; exit 4")
	one, _ := h.began(h.h, t.Context())
	two, _ := h.began(&hookRunner{}, t.Context())
	h.said()
	h.goOn()
	if a, b := one(), two(); a.Exit != 4 || !a.Ended.Equal(b.Ended) {
		t.Errorf("results %+v and %+v, want the same", a, b)
	}
	h.wantRuns(1)
}

func TestHookIsRunAgainWhenItsSupervisorWasKilled(t *testing.T) {
	h := newHookTest(t, `[ $DEPLOY_ATTEMPT = 2 ] && exit 5
sleep 1000 & printf half; echo $PPID $$ $! > $D/say; wait`)
	lines := make(chan string, 10)
	done := make(chan hookResult, 1)
	go func() {
		defer close(done)
		r, err := h.h.run(h.Context(), h.c, func(l string) { lines <- l })
		if err != nil {
			t.Errorf("run: %v", err)
		}
		done <- r
	}()
	ids := h.said()
	must(unix.Kill(ids[0], unix.SIGKILL))
	if r := <-done; r.Attempt != 2 || r.Exit != 5 {
		t.Errorf("run = %+v, want attempt 2", r)
	}
	for _, pid := range ids[1:] {
		if lives(pid) {
			t.Errorf("process %d of the first attempt lives during the second", pid)
		}
	}
	if a, b := <-lines, <-lines; a != "half" || b != "[attempt 2]" {
		t.Errorf("lines %q, %q, want the half line of the first attempt, and a mark", a, b)
	}
	h.wantRuns(2)
}

func TestHookThatKillsItsSupervisorIsGivenUp(t *testing.T) {
	h := newHookTest(t, "kill -KILL $PPID")
	if r, err := h.run(); err == nil || !strings.Contains(err.Error(), "3 supervisors") {
		t.Errorf("run = %+v, %v, want an error", r, err)
	}
	h.wantRuns(3)
}

func TestHookSupervisorIgnoresPoliteSignals(t *testing.T) {
	h := newHookTest(t, "kill -TERM $PPID; kill -HUP $PPID; kill -INT $PPID; kill -QUIT $PPID; kill -TSTP $PPID; kill -USR1 $PPID; exit 6")
	if r := h.mustRun(); r.Exit != 6 || r.Attempt != 1 {
		t.Errorf("run = %+v, want exit 6 of attempt 1", r)
	}
}
