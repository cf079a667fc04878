package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	syncatomic "sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"deploytools/registry/wire"
)

// notified is a host whose notifications are written down.
type notified struct {
	*host
	mu    sync.Mutex
	calls []string
	run   func(ctx context.Context, env map[string]string) error // nil: succeeds
}

func newNotified(h *host) *notified {
	h.o.Hook.NotifyScript = "./notify.sh"
	return &notified{host: h}
}

func (n *notified) script(ctx context.Context, env []string) error {
	vars := map[string]string{}
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		vars[name] = value
	}
	n.mu.Lock()
	n.calls = append(n.calls, strings.TrimSpace(vars["DEPLOY_EVENT"]+" "+vars["DEPLOY_REVISION"]))
	n.mu.Unlock()
	if n.run != nil {
		return n.run(ctx, vars)
	}
	return nil
}

func (n *notified) take() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	got := strings.Join(n.calls, ", ")
	n.calls = nil
	return got
}

// serve runs a new agent as a daemon.
func (n *notified) serve() (stop func()) {
	n.o.Mode.Once = false
	a := n.new()
	a.notifier.run = n.script
	ctx, cancel := context.WithCancel(n.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	return func() {
		n.Helper()
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			n.Errorf("Run = %v, want to be cancelled", err)
		}
	}
}

func (n *notified) want(want string) {
	n.Helper()
	if got := n.take(); got != want {
		n.Errorf("notified %q, want %q\n%s", got, want, n.logged)
	}
}

func TestNotifyTellsEachTroubleOnceAndItsEnd(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		n := newNotified(h)
		n.run = func(_ context.Context, env map[string]string) error {
			if env["DEPLOY_EVENT"] == eventRolledBack && (!strings.Contains(env["DEPLOY_REASON"], failVerify) && !strings.Contains(env["DEPLOY_REASON"], "exit status 1") ||
				env["DEPLOY_EVIDENCE"] != h.dir+"/deployments/"+env["DEPLOY_ID"] || env["DEPLOY_NAME"] != "web" || env["DEPLOY_CURRENT"] != h.dir+"/current") {
				t.Errorf("environment %q", env)
			}
			return nil
		}
		stop := n.serve()
		steps := []struct {
			name string
			do   func()
			want string
		}{
			{"good", func() { h.src.put("v1", one("1")) }, ""},
			{"bad", func() { h.src.put("v2", with(failVerify)) }, "rolled-back 2"},
			{"bad again", func() { h.src.put("v3", with(failHook)) }, "rolled-back 3"},
			{"superseded is no end of it", func() { must(h.agent.Hold(t.Context(), "freeze", Until{})) }, "held"},
			{"one of two ends", func() { must(h.agent.Resume(t.Context())) }, ""},
			{"good again", func() { h.src.put("v4", one("4")) }, "recovered"},
			{"registry away", func() { h.src.set(func() { h.src.down = wire.ErrUnreachable }) }, "registry-away"},
			{"registry back", func() { h.src.set(func() { h.src.down = nil }) }, "recovered"},
			{"bad once more", func() { h.src.put("v5", with(failVerify)) }, "rolled-back 5"},
			{"what serves is wanted", func() { h.src.put("v4b", one("4")) }, "recovered"},
			{"by hand", func() { h.rollback("") }, "held"},
			{"a later one ends the hold", func() { h.src.put("v6", one("6")) }, "recovered"},
		}
		for _, s := range steps {
			s.do()
			pass(3 * time.Hour)
			if got := n.take(); got != s.want {
				t.Errorf("%s: notified %q, want %q\n%s", s.name, got, s.want, h.logged)
			}
		}
		// The next agent says none of it again, nor that what it has not looked at is over.
		h.src.set(func() { h.src.down = wire.ErrUnreachable })
		pass(3 * time.Hour)
		n.want("registry-away")
		stop()
		stop = n.serve()
		pass(3 * time.Hour)
		n.want("")
		h.src.set(func() { h.src.down = nil })
		pass(3 * time.Hour)
		n.want("recovered")
		stop()
	})
}

func TestNotifyBrokenAndServingAgain(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		n := newNotified(h)
		var broken syncatomic.Bool
		h.env = broken.Load
		stop := n.serve()
		h.src.put("v1", one("1"))
		pass(time.Minute)
		h.hooks.exit = func(map[string]string) int { broken.Store(true); return 1 }
		h.src.put("v2", one("2"))
		pass(time.Hour)
		n.want("broken 2")
		broken.Store(false)
		pass(time.Hour)
		n.want("rolled-back 2") // it serves again, and revision 2 still failed here
		if s := h.agent.Record().State; s != Idle {
			t.Errorf("in %s", s)
		}
		h.hooks.exit = nil
		h.src.put("v3", one("3"))
		pass(time.Hour)
		n.want("recovered")
		stop()
	})
}

// Two notifications never run at a time, nothing waits for them, and what came
// and went meanwhile is not told.
func TestNotifyRunsOneAtATimeAndHoldsNothingUp(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		n := newNotified(h)
		running := 0
		release := make(chan struct{})
		n.run = func(ctx context.Context, _ map[string]string) error {
			if running++; running > 1 {
				t.Errorf("%d at a time", running)
			}
			defer func() { running-- }()
			select {
			case <-release:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		stop := n.serve()
		h.src.put("v1", with(failHook))
		pass(time.Minute)
		for i := 2; i < 6; i++ {
			h.src.put(fmt.Sprint("v", i), with(failVerify))
			pass(time.Minute)
			if last := h.agent.Record().Last; last.New.Configuration.Revision != uint64(i) {
				t.Errorf("the machine waits at revision %d, want %d", last.New.Configuration.Revision, i)
			}
		}
		close(release)
		pass(time.Minute)
		n.want("rolled-back 1, rolled-back 5")
		stop()
	})
}

// An agent that is killed before, while, or after the script runs, before it
// is noted: the next one tells it. After it is noted, it does not.
func TestNotifyAtLeastOnceAfterAKill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, newFakeRegistry())
		h.src.put("v1", with(failHook))
		h.o.Hook.NotifyScript = "./notify.sh"
		into := memoryDir(t)
		var over *host
		copies := map[string]*host{}
		var mu sync.Mutex
		kill := func(point string) {
			mu.Lock()
			defer mu.Unlock()
			copies[point] = h.copied(filepath.Join(into, point))
		}
		h.seam = func(point string) {
			if point == "notified" {
				time.Sleep(time.Second)
			}
			if point == "notified" || point == "entered Discarding" {
				kill(point)
			}
		}
		a := h.new()
		a.notifier.run = func(context.Context, []string) error {
			time.Sleep(time.Second) // the machine comes to rest: it must not write what is copied
			kill("in the script")
			over = h.copied(filepath.Join(into, "over"))
			return nil
		}
		if err := a.Run(t.Context()); !errors.Is(err, ErrRolledBack) {
			t.Fatal(err)
		}
		copies["after the end"] = h.copied(filepath.Join(into, "after the end"))
		if len(copies) != 4 {
			t.Fatalf("points %v", copies)
		}
		for point, k := range copies {
			n := newNotified(k)
			for again := range 2 {
				a := k.new()
				a.notifier.run = n.script
				a.Run(t.Context())
				want := "rolled-back 1"
				if again == 1 || point == "after the end" || point == "notified" {
					want = ""
				}
				if got := n.take(); got != want {
					t.Errorf("killed at %q, start %d: notified %q, want %q\n%s", point, again, got, want, k.logged)
				}
			}
		}
		// What the script may have told of ends: that is told too, whether the next
		// agent gets to tell it once more before or not.
		n := newNotified(over)
		over.src.put("v2", one("2"))
		a = over.new()
		a.notifier.run = n.script
		must(a.Run(t.Context()))
		if got := n.take(); strings.TrimPrefix(got, "rolled-back 1, ") != "recovered" {
			t.Errorf("notified %q, want that it is over\n%s", got, over.logged)
		}
	})
}

func TestNotifyTriesAgainAndGivesUp(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		n := newNotified(h)
		n.run = func(context.Context, map[string]string) error { return errors.New("no mail today") }
		stop := n.serve()
		h.src.put("v1", with(failHook))
		pass(time.Hour)
		n.want(strings.TrimSuffix(strings.Repeat("rolled-back 1, ", notifyTries), ", "))
		if h.lines("ERROR", "notification given up") != 1 || h.lines("WARN", "no mail today") != notifyTries-1 {
			t.Errorf("%s", h.logged)
		}
		stop()
	})
}

// A disk that takes nothing does not keep a person from being told, and a file
// of a newer version is not replaced.
func TestNotifyNeedsNoDisk(t *testing.T) {
	newer := fmt.Sprintf(`{"Format":%d}`, format+1)
	for name, spoil := range map[string]func(file string){
		"refused": func(file string) { must(os.Mkdir(file, 0o700)) },
		"damaged": func(file string) { must(os.WriteFile(file, []byte("{"), 0o600)) },
		"newer":   func(file string) { must(os.WriteFile(file, []byte(newer), 0o600)) },
	} {
		bubble(t, func(t *testing.T, h *host) {
			n := newNotified(h)
			spoil(h.dir + "/" + toldName)
			stop := n.serve()
			h.src.put("v1", with(failHook))
			pass(time.Hour)
			n.want("rolled-back 1")
			stop()
			if b, _ := os.ReadFile(h.dir + "/" + toldName); name == "newer" && string(b) != newer {
				t.Errorf("replaced by %s", b)
			}
		})
	}
}

// What follows runs real scripts.

func notifyHost(t *testing.T, script string) *host {
	h := realHost(t, makeLive)
	h.o.Hook.NotifyScript = h.dir + "/notify.sh"
	h.script("notify.sh", script)
	must(unix.Mkfifo(h.dir+"/began", 0o600))
	return h
}

func TestNotifyScriptIsRunAsDocumented(t *testing.T) {
	h := notifyHost(t, `echo "$# $DEPLOY_EVENT $DEPLOY_PHASE $DEPLOY_REVISION $(cat)" >&2; sleep 1000 & echo $! > orphan`)
	h.src.put("v1", with(failHook))
	if err := h.runReal(t.Context()); !errors.Is(err, ErrRolledBack) {
		t.Fatalf("Run = %v", err)
	}
	if h.lines("INFO", `output="0 rolled-back notify 1 "`) != 1 || h.lines("INFO", "msg=notified") != 1 {
		t.Errorf("%s", h.logged)
	}
	killedBy(t, h.dir+"/orphan")
}

// killedBy ends the process whose id is in the file.
func killedBy(t *testing.T, file string) int {
	t.Helper()
	b, err := os.ReadFile(file)
	must(err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	must(err)
	unix.Kill(pid, unix.SIGKILL)
	return pid
}

func TestNotifyScriptEndsWithTheAgentAndIsCalledAnew(t *testing.T) {
	h := notifyHost(t, `echo call >> calls; test -e again && exit 0; sleep 1000 & echo $! > child; echo x > began; wait`)
	h.src.put("v1", with(failHook))
	h.o.Mode.Once = false
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.runReal(ctx) }()
	if _, err := os.ReadFile(h.dir + "/began"); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Run = %v", err)
	}
	if pid := killedBy(t, h.dir+"/child"); lives(pid) {
		t.Errorf("process %d of the script has survived the agent", pid)
	}
	must(os.WriteFile(h.dir+"/again", nil, 0o600))
	h.o.Mode.Once = true
	if err := h.runReal(t.Context()); !errors.Is(err, ErrRolledBack) {
		t.Errorf("Run = %v", err)
	}
	if got := h.calledAs(); got != "deploy v1 1, call, call" {
		t.Errorf("called as %q", got)
	}
}

func TestNotifyScriptThatCannotBeStarted(t *testing.T) {
	h := notifyHost(t, "")
	h.o.Hook.NotifyScript = h.dir + "/nothing"
	h.src.put("v1", with(failHook))
	if err := h.runReal(t.Context()); !errors.Is(err, ErrRolledBack) || h.lines("WARN", "no such file") != 1 {
		t.Errorf("Run = %v\n%s", err, h.logged)
	}
}

// A script whose agent was killed is ended by the next agent, which calls it anew.
func TestNotifyEndsTheScriptOfAKilledAgent(t *testing.T) {
	h := notifyHost(t, `echo $$ > began; exec sleep 1000`)
	a := h.new()
	a.hooks = &hookRunner{}
	gone := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { gone <- a.notifier.script(ctx, a.notifier.environment(eventHeld, trouble{})) }()
	b, err := os.ReadFile(h.dir + "/began")
	must(err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	must(err)
	other := newHost(t, h.src)
	other.o.Hook.NotifyScript = h.o.Hook.NotifyScript
	other.new().notifier.endOrphan()
	if !lives(pid) {
		t.Error("ended by the agent of another directory")
	}
	h.new().notifier.endOrphan()
	if err := <-gone; err == nil || lives(pid) {
		t.Errorf("script = %v, process %d lives: %v", err, pid, lives(pid))
	}
}
