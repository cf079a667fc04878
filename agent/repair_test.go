package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"deploytools/registry/wire"
)

// repairable is a host with v1 and v2 committed; the live root was tampered
// with, and the next Run repairs it.
func repairable(t *testing.T) *host {
	h := newHost(t, newFakeRegistry())
	_, two := twoRoots(h)
	flip(two + "/etc/motd")
	must(os.WriteFile(two+"/left", nil, 0o600))
	h.o.Mode.Repair = true
	h.calls = nil
	return h
}

// liveIsWhole asserts that version is live, in a root that nobody has modified.
func (h *host) liveIsWhole(version, when string) {
	h.Helper()
	found, err := Inspect(h.Context(), h.dir, Inspection{})
	must(err)
	if h.live() != version || len(found.Roots) != 1 || !found.Whole() {
		h.Errorf("%s: %q is live, want %q, whole; have %+v\n%s", when, h.live(), version, found, h.logged)
	}
	if r := h.agent.Record(); r.State != Idle || r.Hold != nil {
		h.Errorf("%s: at rest in %s with hold %v", when, r.State, r.Hold)
	}
}

func TestRepair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := repairable(t)
		if err := h.run(); err != nil {
			t.Fatalf("Run = %v\n%s", err, h.logged)
		}
		h.liveIsWhole("v2", "repaired")
		if h.runs("deploy") != 1 || !strings.HasSuffix(h.calls[0]["OLDROOT"], "000002-"+h.agent.Record().Live.Configuration.Hash.Short()) {
			t.Errorf("calls %v, want one, that from the old root of v2", h.calls)
		}
		if len(h.src.offsets) != 2 {
			t.Errorf("%d fetches, want none but those of v1 and v2", len(h.src.offsets)-2)
		}
	})
}

// A repair that fails goes back to what nobody has modified, and is not tried again.
func TestFailedRepair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := repairable(t)
		h.hooks.exit = func(env map[string]string) int {
			if env["DEPLOY_ACTION"] == "deploy" {
				return 1
			}
			return 0
		}
		if err := h.run(); !errors.Is(err, ErrRolledBack) {
			t.Errorf("Run = %v\n%s", err, h.logged)
		}
		h.liveIsWhole("v1", "hook fails")
		if r := h.agent.Record(); len(r.Marks) != 1 || h.runs("deploy") != 1 {
			t.Errorf("marks %v, %d deploys, want one of each", r.Marks, h.runs("deploy"))
		}
	})
}

func TestCrashInARepair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		points, hosts := repairable(t).killed(memoryDir(t))
		if len(points) < 15 || !strings.HasSuffix(points[0], "entered Fetching") {
			t.Fatalf("passed %q", points)
		}
		for i, k := range hosts {
			k.o.Mode.Repair = i%2 == 0 // asked once more, or not: that is the same
			if err := k.run(); err != nil {
				t.Errorf("after a kill at %q: Run = %v", points[i], err)
			}
			k.liveIsWhole("v2", "after a kill at "+points[i])
		}
	})
}

// Neither a hold nor what the registry has ends a repair, unless the layers are
// not to be had any more.
func TestRepairIsWhatAPersonAsksFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := repairable(t)
		h.src.hold = &wire.Hold{Reason: "sale"}
		h.src.put("v3", archive(files{"etc/motd": "3"}))
		h.o.Verify.Soak = 1e12
		if err := h.run(); !errors.Is(err, nil) && !errors.Is(err, ErrRegistryHolds) {
			t.Errorf("Run = %v", err)
		}
		h.liveIsWhole("v2", "held at the registry")
	})
	synctest.Test(t, func(t *testing.T) {
		h := repairable(t)
		must(os.RemoveAll(h.dir + "/cache"))
		h.src.blobs = nil
		if err := h.run(); !errors.Is(err, wire.ErrNotFound) {
			t.Errorf("Run = %v", err)
		}
		h.src = newFakeRegistry()
		h.o.Source, h.o.Mode.Repair = h.src, false
		h.src.history = 2
		h.src.put("v3", archive(files{"etc/motd": "3"}))
		if err := h.run(); err != nil {
			t.Errorf("Run = %v", err)
		}
		h.liveIsWhole("v3", "layers gone")
	})
}

func TestNothingToRepair(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.o.Mode.Repair = true
		if err := h.run(); err == nil || !strings.Contains(err.Error(), "nothing is deployed") {
			t.Errorf("Run = %v", err)
		}
		h.o.Mode.Repair = false
		h.src.put("v1", one("1"))
		h.o.Hook.CheckScript = "./check.sh"
		h.hooks.exit = func(env map[string]string) int { return int(wire.NotNow) }
		h.run()
		h.o.Mode.Repair = true
		if err := h.run(); !errors.Is(err, ErrUnderWay) || !strings.Contains(err.Error(), "under way, in Checking") {
			t.Errorf("Run = %v", err)
		}
	})
}

// Two people at once: the one who wants a dry run does not make the other's repair
// one.
func TestRepairBesideADryRunIsDone(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.versions(1)
		before := h.agent.Record().Live.Dir
		asked, goOn := make(chan struct{}), make(chan struct{})
		h.o.Source = &slowPoll{h.src, asked, goOn}
		stop := h.serve()
		<-asked
		_, err := h.agent.DryRun(t.Context())
		must(err)
		answered := make(chan Result, 1)
		go func() {
			ended, err := h.agent.RepairAwaited(t.Context())
			must(err)
			answered <- <-ended
		}()
		synctest.Wait()
		close(goOn)
		out := <-answered
		stop()
		if d := out.Deployment; out.Err != nil || d == nil || !d.Repair || d.Dry || h.agent.Record().Live.Dir == before {
			t.Errorf("the repair yields %+v, %v; %s is live as before", d, out.Err, before)
		}
	})
}

// slowPoll tells when it is polled, and waits.
type slowPoll struct {
	*fakeRegistry
	asked, goOn chan struct{}
}

func (s *slowPoll) Poll(ctx context.Context, name string) (wire.PollState, error) {
	select {
	case s.asked <- struct{}{}:
	default:
	}
	<-s.goOn
	return s.fakeRegistry.Poll(ctx, name)
}

// The answer was a failure, with status 1, while the layer was fetched again.
func TestRepairWaitsForALayerThatIsFetchedAgain(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.versions(1)
		live := h.agent.Record().Live
		flip(h.agent.layerFile(live.Configuration.Layers[0].Hash))
		stop := h.serve()
		pass(time.Minute)
		ended, err := h.agent.RepairAwaited(t.Context())
		must(err)
		pass(time.Second)
		select {
		case out := <-ended:
			if out.Err != nil || out.Deployment.Outcome() != Committed || h.agent.Record().Live.Dir == live.Dir {
				t.Errorf("repair: %+v\n%s", out, h.logged)
			}
		default:
			t.Errorf("no answer at once\n%s", h.logged)
		}
		stop()
		h.invariants()
	})
}

// A disk that damages it each time does not keep the machine busy.
func TestLayerIsFetchedAgainAtOnceOnlyOnce(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		a := h.new()
		a.rec = &Record{Deployment: &Deployment{ID: "1"}}
		spoilt := fmt.Errorf("unpacking: %w", &spoiltLayer{errors.New("digest")})
		for _, test := range []struct {
			id   string
			err  error
			want bool
		}{{"1", errors.New("other"), false}, {"1", spoilt, true}, {"1", spoilt, false}, {"2", spoilt, true}} {
			a.rec.Deployment.ID = test.id
			if got := a.refetches(test.err); got != test.want {
				t.Errorf("deployment %s, %v: %t, want %t", test.id, test.err, got, test.want)
			}
		}
	})
}

// After a repair, and after resume of a rollback, `rollback` went to another root of
// the version that was live, and a collection took the version before.
func TestRollbackAfterARepairIsToTheVersionBefore(t *testing.T) {
	for name, modify := range map[string]func(h *host){
		"as it is":           func(*host) {},
		"the record is lost": func(h *host) { must(os.Remove(h.dir + "/journal.json")) },
	} {
		synctest.Test(t, func(t *testing.T) {
			h := newHost(t, newFakeRegistry())
			twoRoots(h)
			h.o.Mode.Repair = true
			must(h.run())
			modify(h)
			h.o.Mode.Repair, h.o.Keep.Roots = false, 1
			h.want("v2", nil)
			stop := h.serve()
			pass(2 * time.Hour) // and a collection
			for i, want := range []string{"v1", "v2", "v1"} {
				if out := <-h.rollback(""); out.Err != nil || h.live() != want {
					t.Errorf("%s: rollback %d: %v, %q is live, want %s\n%s", name, i+1, out.Err, h.live(), want, h.logged)
				}
			}
			must(h.agent.Resume(t.Context()))
			pass(time.Minute)
			if out := <-h.rollback(""); out.Err != nil || h.live() != "v1" {
				t.Errorf("%s: after resume: %v, %q is live, want v1", name, out.Err, h.live())
			}
			stop()
		})
	}
}

// The only version was repaired: there is nothing before it.
func TestRollbackWhereOnlyOneVersionWasLive(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.versions(1)
		h.o.Mode.Repair = true
		must(h.run())
		h.o.Mode.Repair = false
		stop := h.serve()
		if _, _, err := h.agent.Rollback(t.Context(), ""); err != errNoEarlier {
			t.Errorf("Rollback = %v, want %v", err, errNoEarlier)
		}
		stop()
	})
}
