package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"deploytools/atomic"
)

// deserted returns a host as the hook of v2 leaves it, when no agent comes back.
// v1 is live there.
func deserted(t *testing.T) *host {
	t.Helper()
	return desertedAt(t, "effect of Hooking")
}

// desertedAt is deserted, of an agent that was killed at the point of v2.
func desertedAt(t *testing.T, point string) *host {
	t.Helper()
	h := newHost(t, newFakeRegistry())
	h.src.put("v1", one("1"))
	h.want("v1", nil)
	h.src.put("v2", one("2"))
	points, hosts := h.killed(memoryDir(t))
	i := slices.IndexFunc(points, func(p string) bool { return strings.HasSuffix(p, point) })
	if i < 0 {
		t.Fatalf("points %q", points)
	}
	return hosts[i]
}

func (h *host) rescue() error {
	h.Helper()
	return h.new().Rescue(h.Context(), h.deployment())
}

// guard is that of the deployment, whose root is live.
func (h *host) guard() guard {
	h.Helper()
	link, err := os.Readlink(h.dir + "/current")
	must(err)
	return guard{Dir: h.dir, ID: h.deployment(), Link: link}
}

// deployment is what is under way, or was last.
func (h *host) deployment() string {
	h.Helper()
	r, err := (&Agent{o: Options{Dir: h.dir}}).load()
	must(err)
	if r.Deployment != nil {
		return r.Deployment.ID
	}
	return r.Last.ID
}

func TestRescueTakesTheDeploymentBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := deserted(t)
		if err := h.rescue(); err != nil {
			t.Fatalf("Rescue = %v\n%s", err, h.logged)
		}
		r := h.agent.Record()
		if !r.State.among(Rehooking, Reverifying) || r.Deployment.Verdict != Bad || !strings.Contains(r.Deployment.Reason, "no agent went on within 1m0s") {
			t.Errorf("%s with %+v, want to be handed over when the hook runs", r.State, r.Deployment)
		}
		if h.runs("rollback") != 1 {
			t.Errorf("calls %v, want one rollback", h.calls)
		}
		h.want("v1", ErrRolledBack)
		if r := h.agent.Record(); r.Last.Verdict != Bad || len(r.Marks) != 1 || h.runs("rollback") != 1 {
			t.Errorf("last %+v, marks %v, calls %v", r.Last, r.Marks, h.calls)
		}
	})
}

// A kill at any point of the rescue leaves what an agent can go on with: before
// the verdict is on record the deployment may still be committed, after it never.
func TestCrashInARescue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := deserted(t)
		var points []string
		var hosts []*host
		h.seam = func(point string) {
			points = append(points, point)
			hosts = append(hosts, h.copied(filepath.Join(memoryDir(t), fmt.Sprint(len(points)))))
		}
		must(h.rescue())
		if len(points) < 6 || points[0] != "entered Restoring" {
			t.Fatalf("points %q", points)
		}
		for i, k := range hosts {
			k.want("v1", ErrRolledBack)
			if t.Failed() {
				t.Fatalf("at the kill point %q", points[i])
			}
		}
	})
}

// Nothing that works may be there to go on after a kill of the rescue: another
// rescue does, as long as the link names the new root.
func TestRescueGoesOnWithARescue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := deserted(t)
		var hosts []*host
		h.seam = func(string) { hosts = append(hosts, h.copied(filepath.Join(memoryDir(t), fmt.Sprint(len(hosts))))) }
		must(h.rescue())
		for i, k := range hosts {
			must(k.rescue())
			link, err := os.Readlink(k.dir + "/current")
			if err != nil || !strings.HasPrefix(link, "roots/000001-") {
				t.Errorf("after a kill at point %d and another rescue `current` is %q, %v", i, link, err)
			}
			k.want("v1", ErrRolledBack)
		}
	})
}

// The service manager may have started the new program before its hook: the hook
// brings the old one back.
func TestRescueAfterAKillBeforeTheHook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := desertedAt(t, "effect of Switching")
		must(h.rescue())
		r := h.agent.Record()
		if h.runs("deploy") != 0 || h.runs("rollback") != 1 || !strings.Contains(r.Deployment.Reason, "within 1m0s after the switch") {
			t.Errorf("calls %v, reason %q", h.calls, r.Deployment.Reason)
		}
		h.want("v1", ErrRolledBack)
	})
}

// An agent went on: the rescue comes too late, and is none.
func TestRescueLeavesALivingAgentAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := deserted(t)
		id := h.deployment()
		h.want("v2", nil)
		h.calls = nil
		for _, other := range []string{id, "000099-another"} {
			if err := h.new().Rescue(t.Context(), other); err != nil {
				t.Errorf("Rescue = %v", err)
			}
		}
		h.want("v2", nil)
		if len(h.calls) > 0 {
			t.Errorf("calls %v", h.calls)
		}
	})
}

// The guard looks at what every agent does that works, whatever its age.
func TestGuardSeesWhetherAnAgentWentOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := deserted(t)
		g := h.guard()
		if !g.deserted() {
			t.Error("with nobody there")
		}
		journal := h.dir + "/journal.json"
		was, err := os.ReadFile(journal)
		must(err)
		for what, write := range map[string]func(){
			"a newer agent wrote": func() { must(os.WriteFile(journal, fmt.Appendf(nil, `{"Format":%d}`, format+1), 0o600)) },
			"the link is back":    func() { must(atomic.Symlink("roots/000001-x", h.dir+"/current")) },
			"the record says so":  func() { h.want("v2", nil) },
		} {
			must(os.WriteFile(journal, was, 0o600))
			must(atomic.Symlink(g.Link, h.dir+"/current"))
			if write(); g.deserted() {
				t.Errorf("%s: deserted", what)
			}
		}
		must(os.WriteFile(journal, nil, 0o600))
		if !g.deserted() {
			t.Error("with a record that says nothing")
		}
	})
}

// A hook that runs may be what starts the agent: the guard's time begins after it.
func TestGuardGivesAHookItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := deserted(t)
		g := h.guard()
		hook, err := lockShared(h.dir+"/roots", unix.LOCK_EX)
		must(err)
		began := time.Now()
		outlasted := make(chan bool)
		go func() { outlasted <- g.outlasted() }()
		time.Sleep(5 * guardWait)
		synctest.Wait()
		must(hook.Close())
		if <-outlasted {
			t.Error("an agent has gone on, it says")
		}
		if waited := time.Since(began); waited < 6*guardWait || waited > 7*guardWait {
			t.Errorf("it waited %v, with a hook for %v", waited, 5*guardWait)
		}
	})
}

// A unit that fails again and again has one guard.
func TestOneGuardStands(t *testing.T) {
	h := deserted(t)
	g := h.guard()
	first, err := lockShared(h.dir+"/"+g.Link, unix.LOCK_EX)
	must(err)
	defer first.Close()
	if err := g.stand(); err != nil {
		t.Errorf("stand = %v beside another guard, want nothing", err)
	}
}

// Only what is the agent's own is guarded, and only where there is a way back.
func TestGuardIsForTheAgentItself(t *testing.T) {
	h := newHost(t, newFakeRegistry())
	later, first := &Deployment{ID: "2", New: Root{Dir: "roots/2"}, Back: &Root{}}, &Deployment{ID: "1"}
	a := h.new()
	if a.guardOf(later, "deploy") != nil {
		t.Error("another program is guarded")
	}
	a.o.Hook.Rescue = []string{"-name", "web"}
	if g := a.guardOf(later, "deploy"); g == nil || g.Dir != h.dir || g.Link != "roots/2" {
		t.Errorf("guard %+v", g)
	}
	if a.guardOf(first, "deploy") != nil || a.guardOf(later, "rollback") != nil {
		t.Error("what has no way back is guarded")
	}
}

// Errors of a rescue say that nothing has changed.
func TestRescueKeepsAwayFromANewerRecord(t *testing.T) {
	h := newHost(t, newFakeRegistry())
	must(os.WriteFile(h.dir+"/journal.json", fmt.Appendf(nil, `{"Format":%d}`, format+1), 0o600))
	if err := h.new().Rescue(t.Context(), "1"); !errors.Is(err, errNewer) {
		t.Errorf("Rescue = %v, want errNewer", err)
	}
}
