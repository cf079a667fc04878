package agent

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"deploytools/registry/wire"
)

// scenario is a deployment to be killed at every point.
type scenario struct {
	name  string
	later bool // v1 is live before
	layer []byte
	want  error // of an undisturbed Run
	exit  func(env map[string]string) int
}

var good = files{"etc/motd": "two", "a": "b"}

func with(extra string) []byte { return archive(files{"etc/motd": "two", extra: ""}) }

func scenarios() []scenario {
	failRollback := func(env map[string]string) int {
		if env["DEPLOY_ACTION"] == "rollback" {
			return 1
		}
		return 0
	}
	var all []scenario
	for _, s := range []scenario{
		{name: "good", layer: archive(good)},
		{name: "refused layer", layer: archive(files{"../x": ""}), want: ErrRolledBack},
		{name: "check script fails", layer: with(failCheck), want: ErrRolledBack},
		{name: "hook fails", layer: with(failHook), want: ErrRolledBack},
		{name: "verification fails", layer: with(failVerify), want: ErrRolledBack},
		{name: "rollback fails too", layer: with(failHook), want: ErrBroken, exit: failRollback},
	} {
		for _, s.later = range []bool{false, true} {
			all = append(all, s)
		}
	}
	return all
}

// prepare returns a host on which the scenario's deployment comes next.
func (s scenario) prepare(t *testing.T) *host {
	h := newHost(t, newFakeRegistry())
	h.o.Hook.CheckScript, h.o.Hook.RemoveScript = "./check.sh", "./remove.sh"
	if s.later {
		h.src.put("v1", archive(files{"etc/motd": "one"}))
		h.want("v1", nil)
	}
	h.hooks.exit = s.exit
	h.src.put("v2", s.layer)
	h.calls = nil
	return h
}

// live is the version that has to be live in the end.
func (s scenario) live() string {
	switch {
	case s.want == nil:
		return "v2"
	case s.later:
		return "v1"
	}
	return ""
}

// killed runs the agent and returns, for each point that it passes, the host as
// a kill at this point would leave it.
func (h *host) killed(into string) (points []string, hosts []*host) {
	h.seam = func(point string) {
		point = fmt.Sprintf("%02d %s", len(points), point)
		points = append(points, point)
		hosts = append(hosts, h.copied(filepath.Join(into, point)))
	}
	h.run()
	h.seam = func(string) {}
	return points, hosts
}

func TestCrashAtEveryPoint(t *testing.T) {
	for _, s := range scenarios() {
		t.Run(fmt.Sprintf("%s, later %t", s.name, s.later), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := s.prepare(t)
				points, hosts := h.killed(memoryDir(t))
				if len(points) < 8 {
					t.Fatalf("only %d points: %q", len(points), points)
				}
				for i, k := range hosts {
					k.afterKill(s, points[i])
				}
			})
		})
	}
}

// afterKill runs a new agent to its rest and asserts that the scenario ended as
// without the kill.
func (h *host) afterKill(s scenario, point string) {
	h.Helper()
	err := h.run()
	// The verdict may have been told by the Run that was killed.
	told := s.want == ErrRolledBack && err == nil && h.agent.Record().Last != nil && h.agent.Record().Last.Verdict == Bad
	if !errors.Is(err, s.want) && !told {
		h.Errorf("after a kill at %q: Run = %v, want %v\n%s", point, err, s.want, h.logged)
	}
	if got := h.live(); got != s.live() {
		h.Errorf("after a kill at %q: %q is live, want %q\n%s", point, got, s.live(), h.logged)
	}
	h.invariants()
	h.calls = nil
	h.run()
	if len(h.calls) > 0 {
		h.Errorf("after a kill at %q: the host came to rest, and the next Run calls %v", point, h.calls)
	}
	if h.Failed() {
		h.Fatalf("at the kill point %q", point)
	}
}

// The way back needs no registry: it is gone from the switch on.
func TestCrashOnTheWayBackWithoutRegistry(t *testing.T) {
	for _, s := range scenarios() {
		if s.name != "hook fails" && s.name != "verification fails" {
			continue
		}
		synctest.Test(t, func(t *testing.T) {
			h := s.prepare(t)
			h.o.Observe.Enter = func(state State) {
				if state == Switching {
					h.src.set(func() { h.src.down = wire.ErrUnreachable })
				}
			}
			points, hosts := h.killed(memoryDir(t))
			switched := slices.IndexFunc(points, func(p string) bool { return strings.HasSuffix(p, "entered Switching") })
			for i, k := range hosts {
				if i < switched {
					continue
				}
				if err := k.run(); !errors.Is(err, wire.ErrUnreachable) {
					t.Errorf("%s: Run = %v, want to be stopped by the registry in Idle", points[i], err)
				}
				if k.live() != s.live() || k.agent.Record().State != Idle {
					t.Errorf("%s: %q is live in %s, want %q\n%s", points[i], k.live(), k.agent.Record().State, s.live(), k.logged)
				}
				k.invariants()
			}
		})
	}
}

// A kill on the way back does not cost the root that a person would go back to.
func TestCrashOnTheWayBackKeepsTheRootBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, newFakeRegistry())
		for _, v := range []string{"1", "2"} {
			h.src.put("v"+v, one(v))
			h.want("v"+v, nil)
		}
		before := h.agent.Record().Back.Dir
		h.src.put("v3", with(failVerify))
		points, hosts := h.killed(memoryDir(t))
		for i, k := range hosts {
			k.run()
			if back := k.agent.Record().Back; back == nil || back.Dir != before {
				t.Errorf("after a kill at %q: back is %+v, want %s", points[i], back, before)
			}
		}
	})
}

// Once it is on record, a person's rollback ends where it was to end.
func TestCrashInARollbackByHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, newFakeRegistry())
		for _, v := range []string{"1", "2"} {
			h.src.put("v"+v, one(v))
			h.want("v"+v, nil)
		}
		stop := h.serve()
		pass(time.Minute)
		h.src.put("v3", one("3"))
		var points []string
		var hosts []*host
		h.seam = func(p string) {
			points, hosts = append(points, p), append(hosts, h.copied(filepath.Join(memoryDir(t), "copy")))
		}
		h.rollback("")
		pass(time.Hour)
		stop()
		if len(points) < 15 || points[0] != "wanted" {
			t.Fatalf("passed %q", points)
		}
		for i, k := range hosts {
			k.o.Mode.Once = true
			k.want("v1", ErrHeld)
			if r := k.agent.Record(); r.Hold.Revision != 3 {
				t.Errorf("after a kill at %q: hold %v", points[i], r.Hold)
			}
		}
	})
}

// A kill can hit what a kill has left.
func TestCrashTwice(t *testing.T) {
	for _, s := range scenarios() {
		if s.name != "verification fails" || !s.later {
			continue
		}
		synctest.Test(t, func(t *testing.T) {
			_, hosts := s.prepare(t).killed(memoryDir(t))
			for _, k := range hosts {
				points, again := k.killed(memoryDir(t))
				for i, kk := range again {
					kk.afterKill(s, points[i])
				}
			}
		})
	}
}
