package agent

import (
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"deploytools/atomic"
)

// The disk refuses the result: here its name is taken.
func TestHookResultIsTriedAgainForAMinute(t *testing.T) {
	for _, short := range []bool{true, false} {
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			o := hookOrder{Call: hookCall{Dir: dir, Label: "deploy"}, Patience: hookPatience}
			must(os.Mkdir(o.Call.file("status.json"), 0o700))
			began, done := time.Now(), make(chan error)
			go func() { done <- o.record(hookStatus{Format: hookFormat}) }()
			synctest.Wait() // it was refused, and waits
			if short {
				must(os.Remove(o.Call.file("status.json")))
			}
			err := <-done
			if took := time.Since(began); short != (err == nil) || took > hookPatience || !short && took < hookPatience/2 {
				t.Errorf("short %v: record = %v after %v", short, err, took)
			}
		})
	}
}

// Whoever waits for the result waits as long as the supervisor tries.
func TestHookResultMayComeLate(t *testing.T) {
	h := newHookTest(t, "mkdir $D/deploy.status.json; echo $$ > $D/say; exit 7")
	done, errc := h.began(h.h, t.Context())
	awaitEnd(h.said()[0])
	select {
	case err := <-errc:
		t.Fatalf("run returns %v before there is a result", err)
	default:
	}
	if _, err := atomic.Acquire(h.c.file("lock")); !errors.Is(err, atomic.ErrLocked) {
		t.Errorf("the lock before there is a result: %v, want ErrLocked", err)
	}
	must(os.Remove(h.c.file("status.json")))
	if r := done(); r.Exit != 7 || r.Attempt != 1 {
		t.Errorf("run = %+v, want exit 7 of attempt 1", r)
	}
	h.wantRuns(1)
}

// The supervisor is killed after the end of the program: what that left in the
// background is not taken for the program.
func TestHookLostResultLeavesTheBackgroundAlone(t *testing.T) {
	h := newHookTest(t, `[ $DEPLOY_ATTEMPT = 2 ] && exit 0
mkdir $D/deploy.status.json; sleep 1000 & echo $PPID $$ $! > $D/say`)
	done, _ := h.began(h.h, t.Context())
	ids := h.said()
	awaitEnd(ids[1])
	must(unix.Kill(ids[0], unix.SIGSTOP))
	must(unix.Waitid(unix.P_PID, ids[0], nil, unix.WSTOPPED|unix.WNOWAIT, nil))
	must(os.Remove(h.c.file("status.json")))
	must(unix.Kill(ids[0], unix.SIGKILL))
	if r := done(); r.Err() != nil || r.Attempt != 2 {
		t.Errorf("run = %+v, want success of attempt 2", r)
	}
	if !lives(ids[2]) {
		t.Error("the service in the background has been ended")
	}
	unix.Kill(ids[2], unix.SIGKILL)
}

func TestHookIsNotStartedWithoutItsRecord(t *testing.T) {
	h := newHookTest(t, "")
	must(os.Symlink("nowhere", h.c.file("attempt.json"))) // reads as absent, is not replaced
	if r, err := h.run(); err == nil || !strings.Contains(err.Error(), "attempt.json") {
		t.Errorf("run = %+v, %v, want an error that names the file", r, err)
	}
	h.wantRuns(0)
	must(os.Remove(h.c.file("attempt.json")))
	if r := h.mustRun(); r.Attempt != 1 {
		t.Errorf("run = %+v, want attempt 1", r)
	}
}

func TestHookResultOfAnotherBootDoesNotStand(t *testing.T) {
	for _, script := range []string{"exit 0", "exit 3"} {
		h := newHookTest(t, script)
		h.mustRun()
		boot, err := bootID()
		must(err)
		for _, kind := range []string{"status.json", "attempt.json"} {
			b, err := os.ReadFile(h.c.file(kind))
			must(err)
			must(os.WriteFile(h.c.file(kind), bytes.Replace(b, []byte(boot), []byte("another"), 1), 0o600))
		}
		if r := h.mustRun(); r.Attempt != 2 {
			t.Errorf("run = %+v, want attempt 2", r)
		}
		h.wantRuns(2)
	}
}

func TestHookFilesOfANewerFormatAreLeftAlone(t *testing.T) {
	for _, kind := range []string{"status.json", "attempt.json"} {
		h := newHookTest(t, "")
		newer := []byte(`{"Format":2,"Attempt":{"changed":true}}`)
		must(os.WriteFile(h.c.file(kind), newer, 0o600))
		if _, err := h.run(); err == nil || !strings.Contains(err.Error(), "format 2") {
			t.Errorf("%s: run = %v, want an error that names the format", kind, err)
		}
		if b, _ := os.ReadFile(h.c.file(kind)); !bytes.Equal(b, newer) {
			t.Errorf("%s has been rewritten: %s", kind, b)
		}
		h.wantRuns(0)
	}
}

func TestHookForgetStartsAnew(t *testing.T) {
	h := newHookTest(t, "echo out; exit 3")
	h.mustRun()
	for range 2 {
		if err := h.h.forget(h.c.Dir, h.c.Label); err != nil {
			t.Fatal(err)
		}
	}
	h.lines = nil
	if r := h.mustRun(); r.Attempt != 1 || !slices.Equal(h.lines, []string{"out"}) {
		t.Errorf("run = %+v with lines %q, want attempt 1 and its output only", r, h.lines)
	}
	h.wantRuns(2)
	if err := h.h.forget(h.c.Dir+"/gone", "deploy"); err != nil {
		t.Errorf("forget of a directory that is gone = %v", err)
	}
}

// The supervisor of an agent that died gets the processor only now.
func TestSuperviseTooLateDoesNothing(t *testing.T) {
	h := newHookTest(t, "")
	h.mustRun()
	var said head
	cmd, err := h.h.start(&h.c, &said)
	must(err)
	if err := cmd.Wait(); err != nil {
		t.Errorf("supervisor = %v, %s", err, said.b)
	}
	h.wantRuns(1)
}

// Only a group whose leader has the number of the attempt is the program's. The
// test runs in a session of its own: a fault must not end the developer's.
func TestEndLeftoverEndsNobodyElse(t *testing.T) {
	session, err := unix.Getsid(0)
	must(err)
	if session != os.Getpid() {
		cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	sleep, err := exec.LookPath("sleep")
	must(err)
	start := func(env string, attr syscall.SysProcAttr) int {
		cmd := &exec.Cmd{Path: sleep, Args: []string{"sleep", "1000"}, Env: []string{env}, SysProcAttr: &attr}
		must(cmd.Start())
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		return cmd.Process.Pid
	}
	group := syscall.SysProcAttr{Setpgid: true}
	program := start("DEPLOY_ATTEMPT=4242", group)
	others := []int{start("DEPLOY_ATTEMPT=424", group), start("X=DEPLOY_ATTEMPT=4242", group),
		start("DEPLOY_ATTEMPT=4242", syscall.SysProcAttr{Setsid: true})}
	if err := endLeftover(hookAttempt{Supervisor: session, Attempt: 4242}, hookGrace); err != nil {
		t.Fatal(err)
	}
	if lives(program) {
		t.Error("the program lives")
	}
	for i, pid := range others {
		if !lives(pid) {
			t.Errorf("another process, number %d, has been ended", i)
		}
	}
}

// An agent that dies while it gives the order leaves half of it.
func TestSuperviseDoesNothingWithHalfAnOrder(t *testing.T) {
	h := newHookTest(t, "")
	var order bytes.Buffer
	must(gob.NewEncoder(&order).Encode(hookOrder{Call: h.c}))
	for _, n := range []int{0, order.Len() / 2, order.Len() - 1} {
		exe, err := os.Executable()
		must(err)
		cmd := exec.Command(exe, SuperviseCommand)
		cmd.Stdin = bytes.NewReader(order.Bytes()[:n])
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != superviseRefused || !strings.Contains(string(out), "cannot read the order") {
			t.Errorf("%d bytes: %v, says %q", n, err, out)
		}
	}
	h.wantRuns(0)
}

func TestHookOutputInOrderWithTheLastHalfLine(t *testing.T) {
	h := newHookTest(t, `i=0; while [ $i -lt 1000 ]; do echo $i; i=$((i+1)); echo $i >&2; i=$((i+1)); done; printf 'half\033'`)
	h.mustRun()
	if len(h.lines) != 1001 || h.lines[1000] != "half\x1b" {
		t.Fatalf("%d lines, last %q, want 1001 and the half line, raw", len(h.lines), h.lines[len(h.lines)-1:])
	}
	for i, n := range h.numbers(strings.Join(h.lines[:1000], " ")) {
		if i != n {
			t.Fatalf("line %d is %d", i, n)
		}
	}
}

func TestHookOutputOfAnySizeTakesLittleMemory(t *testing.T) {
	for name, test := range map[string]struct {
		script string
		lines  int // at least, and at most one chunk more: of a MiB
	}{
		"lines":    {"yes 123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789 | head -c 50000000", 1 << 20 / 100},
		"one line": {"head -c 50000000 /dev/zero", 2},
	} {
		h := newHookTest(t, test.script)
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		before, peak, lines, longest := m.HeapAlloc, uint64(0), 0, 0
		_, err := h.h.run(t.Context(), h.c, func(l string) {
			lines, longest = lines+1, max(longest, len(l))
			if lines%1000 == 1 {
				runtime.ReadMemStats(&m)
				peak = max(peak, m.HeapAlloc)
			}
		})
		if err != nil || lines < test.lines || lines > test.lines+3+test.lines/16 || longest > hookLine+len("...") {
			t.Errorf("%s: %d lines, longest %d, %v; want %d", name, lines, longest, err, test.lines)
		}
		if peak > before+10<<20 {
			t.Errorf("%s: heap grew from %d to %d", name, before, peak)
		}
		must(keepOutput(h.c.file("output")))
		b, err := os.ReadFile(h.c.file("output"))
		if err != nil || len(b) < hookEvidence || len(b) > hookEvidence+100 || !bytes.Contains(b, []byte("[48951424 bytes left out]")) {
			t.Errorf("%s: evidence of %d bytes, %v", name, len(b), err)
		}
		if shown, err := readOutput(h.c.file("output")); err != nil || !bytes.Equal(shown, b) {
			t.Errorf("%s: %d bytes of it are shown, %v", name, len(shown), err)
		}
	}
}

// The program, or a service that it left, writes as fast as we read.
func TestTailReturnsFromAFileThatGrowsAllTheTime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "output")
	must(os.WriteFile(path, []byte("a\nb\nha"), 0o600))
	var got []string
	tl := &tail{path: path}
	tl.onLine = func(l string) {
		got = append(got, l)
		f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
		must(err)
		defer f.Close()
		f.WriteString(strings.Repeat("lf\nmore", 100))
	}
	defer tl.close()
	tl.poll(context.Background())
	if !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("poll gives %d lines, want a and b", len(got))
	}
	tl.poll(context.Background())
	if len(got) < 3 || got[2] != "half" {
		t.Errorf("the next poll gives %q, want half", got[2:min(3, len(got))])
	}
}
