package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"deploytools/layers/digest"
	"deploytools/registry/wire"
)

// versions deploys v1 to vN, of which all roots are kept.
func (h *host) versions(n int) {
	h.Helper()
	h.o.Keep.Roots = n
	for i := range n {
		v := fmt.Sprint(i + 1)
		h.src.put("v"+v, one(v))
		h.want("v"+v, nil)
	}
}

func TestRollbackToAnyKeptRoot(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.versions(4)
		roots, err := h.agent.roots()
		must(err)
		stop := h.serve()
		h.src.set(func() { h.src.down = wire.ErrUnreachable })
		for _, test := range []struct{ to, want string }{
			{"2", "v2"}, {filepath.Base(roots[0].Dir), "v1"}, {roots[2].Dir, "v3"}, {"", "v1"},
		} {
			outcome := h.rollback(test.to)
			pass(time.Minute)
			if out := <-outcome; out.Err != nil || h.live() != test.want || out.Deployment.Outcome() != Committed || !out.Deployment.ByHand {
				t.Errorf("Rollback(%q): %+v, %q is live, want %q", test.to, out, h.live(), test.want)
			}
		}
		for to, want := range map[string]error{"9": ErrNoRoot, "v1": ErrNoRoot, "../x": ErrNoRoot, "0": ErrNoRoot, "1": nil} {
			if _, _, err := h.agent.Rollback(t.Context(), to); err == nil || want != nil && !errors.Is(err, want) {
				t.Errorf("Rollback(%q) = %v", to, err)
			}
		}
		stop()
		h.invariants()
	})
}

// The only way back from a bad version whose checks go on for an hour was the
// registry.
func TestRollbackTakesBackWhatIsUnderWay(t *testing.T) {
	for _, in := range []State{Idle, Fetching, Checking, Hooking, Verifying, Reverifying, Broken} {
		t.Run(string(in), func(t *testing.T) {
			bubble(t, func(t *testing.T, h *host) {
				h.versions(2)
				gate := h.block(in)
				stop := h.serve()
				if in != Idle {
					h.src.put("v3", h.bad(in))
				}
				pass(time.Minute)
				if s := h.agent.Record().State; s != in {
					t.Fatalf("in %s\n%s", s, h.logged)
				}
				to := ""
				if in == Broken {
					to = "1"
					gate()
				}
				outcome := h.rollback(to) // while what blocks goes on
				if r, err := h.agent.load(); err != nil || r.Wanted == "" && r.Hold == nil && (r.Deployment == nil || !r.Deployment.ByHand) {
					t.Errorf("it is not on record: %+v, %v", r, err)
				}
				gate()
				pass(time.Hour)
				out := <-outcome
				want := map[State]string{Idle: "v1", Broken: "v1"}[in]
				if want == "" {
					want = "v2"
				}
				r := h.agent.Record()
				if out.Err != nil || h.live() != want || r.State != Idle || r.Hold == nil || r.Wanted != "" || len(r.Marks) > 0 && in != Reverifying && in != Broken {
					t.Errorf("%+v, %q is live in %s, want %q; hold %v, marks %v\n%s", out, h.live(), r.State, want, r.Hold, r.Marks, h.logged)
				}
				stop()
				h.invariants()
			})
		})
	}
}

// Out of Broken it closes the deployment, and nobody knows whether what is live serves:
// that is looked at, and it is not said to be verified.
func TestRollbackOutOfBrokenIsNoVerification(t *testing.T) {
	for _, serves := range []bool{true, false} {
		bubble(t, func(t *testing.T, h *host) {
			h.versions(2)
			h.block(Broken)
			down := true
			h.env = func() bool { return down && h.runs("rollback") > 0 }
			stop := h.serve()
			h.src.put("v3", with(failHook))
			pass(time.Minute)
			if s := h.agent.Record().State; s != Broken {
				t.Fatalf("in %s", s)
			}
			h.src.set(func() { down = !serves })
			must(os.WriteFile(h.dir+"/serving", []byte(filepath.Base(h.agent.Record().Live.Dir)), 0o600)) // a person started it
			outcome := h.rollback("2")
			pass(time.Minute)
			if out := <-outcome; !errors.Is(out.Err, ErrBroken) {
				t.Errorf("it ended with %v", out.Err)
			}
			s := h.status()
			verified, failing := s.Live.Verification == Verified, s.Watched != nil && s.Watched.Failing != nil
			if s.State != Idle || verified != serves || failing == serves {
				t.Errorf("serves: %t; %s, %s, watched %+v", serves, s.State, s.Live.Verification, s.Watched)
			}
			if w := s.Why(func(verb string) string { return verb }); !strings.Contains(strings.Join(w.Do, "; "), "repair has the hook make live once more") {
				t.Errorf("why: %+v", w)
			}
			stop()
		})
	}
}

// bad returns a layer that leads into the state.
func (h *host) bad(in State) []byte {
	if in == Reverifying || in == Broken {
		return with(failHook)
	}
	return one("3")
}

// block keeps the machine in the state until the gate is opened.
func (h *host) block(in State) (gate func()) {
	gone := make(chan struct{})
	open := func() bool {
		select {
		case <-gone:
			return true
		default:
			return false
		}
	}
	switch in {
	case Idle:
		h.o.Source = &hanging{fakeRegistry: h.src}
	case Fetching:
		h.src.fetch = func(digest.Digest, int64, io.Writer) error { return wire.ErrUnreachable }
	case Checking:
		h.hooks.unready = map[string]error{"./deploy.sh": errors.New("no such file")}
		return func() { h.hooks.unready = nil }
	case Hooking:
		h.seam = func(p string) {
			if p == "before deploy" && !open() {
				<-gone
			}
		}
	case Verifying:
		h.o.Verify.Soak = 24 * time.Hour
	case Reverifying:
		h.patience = 10 * time.Minute
		h.env = func() bool { return h.runs("rollback") > 0 && !open() }
	case Broken:
		h.hooks.exit = func(env map[string]string) int {
			if env["DEPLOY_ACTION"] == "rollback" && !open() {
				return 1
			}
			return 0
		}
	}
	return func() {
		select {
		case <-gone:
		default:
			close(gone)
		}
	}
}

// hanging is a registry that answers no poll.
type hanging struct{ *fakeRegistry }

func (h *hanging) Poll(ctx context.Context, _ string) (wire.PollState, error) {
	<-ctx.Done()
	return wire.PollState{}, context.Cause(ctx)
}

func TestRollbackOfAVerificationSurvivesAKillAtEveryPoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, newFakeRegistry())
		h.versions(2)
		h.o.Verify.Soak = time.Hour
		stop := h.serve()
		h.src.put("v3", one("3"))
		pass(10 * time.Minute)
		var points []string
		var hosts []*host
		h.seam = func(p string) {
			points, hosts = append(points, p), append(hosts, h.copied(filepath.Join(memoryDir(t), "copy")))
		}
		h.rollback("")
		pass(time.Minute)
		stop()
		if len(points) < 8 || points[0] != "wanted" || h.live() != "v2" {
			t.Fatalf("passed %q, %q is live", points, h.live())
		}
		for i, k := range hosts {
			k.o.Verify.Soak = 0
			k.o.Mode.Once = true
			k.want("v2", ErrHeld)
			if r := k.agent.Record(); r.Wanted != "" || len(r.Marks) > 0 {
				t.Errorf("after a kill at %q: wanted %q, marks %v", points[i], r.Wanted, r.Marks)
			}
		}
	})
}

func TestHoldEndsByItself(t *testing.T) {
	hour := time.Hour
	for _, test := range []struct {
		name        string
		until       func(now time.Time) Until
		clock, up   time.Duration // what passes, of each
		boot, ended bool
	}{
		{"a duration", func(time.Time) Until { return Until{After: hour} }, hour, hour, false, true},
		{"a duration, not over", func(time.Time) Until { return Until{After: hour} }, hour / 2, hour / 2, false, false},
		{"a duration, the clock put forward", func(time.Time) Until { return Until{After: hour} }, 9 * hour, hour / 2, false, false},
		{"a duration, the clock put back", func(time.Time) Until { return Until{After: hour} }, time.Minute, hour, false, true},
		{"a duration, over after a boot", func(time.Time) Until { return Until{After: hour} }, hour, time.Minute, true, true},
		{"a duration, not over after a boot", func(time.Time) Until { return Until{After: hour} }, hour / 2, 9 * hour, true, false},
		{"a time", func(n time.Time) Until { return Until{At: n.Add(hour)} }, hour, 0, false, true},
		{"a time, not come", func(n time.Time) Until { return Until{At: n.Add(hour)} }, hour / 2, 9 * hour, false, false},
		{"never", func(time.Time) Until { return Until{} }, 99 * hour, 99 * hour, false, false},
	} {
		bubble(t, func(t *testing.T, h *host) {
			up := 5 * hour
			h.up = func() time.Duration { return up }
			h.versions(1)
			stop := h.serve()
			must(h.agent.Hold(t.Context(), "freeze", test.until(time.Now())))
			h.src.put("v2", one("2"))
			stop()
			if test.boot {
				h.agent.rec.Hold.Boot = "another"
				must(h.agent.save())
			}
			h.src.set(func() { h.src.down = wire.ErrUnreachable }) // its end needs no registry
			time.Sleep(test.clock)
			up += test.up
			stop = h.serve()
			pass(time.Minute)
			if held := h.agent.Record().Hold != nil; held == test.ended {
				t.Errorf("%s: held %t", test.name, held)
			}
			stop()
		})
	}
}

// A rollback by hand goes on holding when the time of another hold has come.
func TestHoldOfARollbackOutlivesAnother(t *testing.T) {
	for name, act := range map[string]func(h *host){
		"hold first": func(h *host) {
			must(h.agent.Hold(h.Context(), "freeze", Until{After: time.Hour}))
			h.rollback("")
		},
		"rollback first": func(h *host) {
			<-h.rollback("")
			must(h.agent.Hold(h.Context(), "freeze", Until{After: time.Hour}))
		},
	} {
		bubble(t, func(t *testing.T, h *host) {
			epoch := time.Now()
			h.up = func() time.Duration { return time.Since(epoch) }
			h.versions(2)
			stop := h.serve()
			act(h)
			pass(30 * time.Minute)
			if hold := h.agent.Record().Hold; hold == nil || hold.Reason != "freeze" || h.live() != "v1" {
				t.Errorf("%s: hold %v, %q is live", name, hold, h.live())
			}
			pass(time.Hour)
			if hold := h.agent.Record().Hold; hold == nil || hold.Reason != rolledBackReason || hold.Standing || h.live() != "v1" {
				t.Errorf("%s: then hold %v, %q is live", name, hold, h.live())
			}
			h.src.put("v3", one("3"))
			pass(time.Minute)
			stop()
			if h.live() != "v3" {
				t.Errorf("%s: %q is live after a later revision", name, h.live())
			}
		})
	}
}

func TestDryRunOfAnAgentThatRuns(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.o.Hook.CheckScript = "./check.sh"
		h.versions(1)
		stop := h.serve()
		must(h.agent.Hold(t.Context(), "freeze", Until{}))
		dry := func(want error) *Deployment {
			t.Helper()
			outcome, err := h.agent.DryRun(t.Context())
			must(err)
			out := <-outcome
			if !errors.Is(out.Err, want) {
				t.Errorf("a dry run yields %v, want %v", out.Err, want)
			}
			return out.Deployment
		}
		if d := dry(nil); d != nil {
			t.Errorf("a dry run of what is live: %+v", d)
		}
		h.src.put("v2", one("2"))
		if d := dry(nil); d.Verdict != DryRun || d.New.Configuration.Revision != 2 {
			t.Errorf("of a good one: %+v", d)
		}
		if d := dry(nil); d == nil || d.Verdict != DryRun {
			t.Errorf("once more: %+v", d)
		}
		h.src.put("v3", with(failCheck))
		if d := dry(ErrRolledBack); d.Verdict != Bad || d.Switched {
			t.Errorf("of a bad one: %+v", d)
		}
		h.src.set(func() { h.src.down = wire.ErrUnreachable })
		dry(wire.ErrUnreachable)
		h.src.set(func() { h.src.down = nil })
		pass(time.Hour)
		if h.live() != "v1" || h.runs("deploy") != 1 {
			t.Errorf("%q is live after %d deploys", h.live(), h.runs("deploy"))
		}
		must(h.agent.Resume(t.Context()))
		h.src.put("v4", one("4"))
		pass(time.Minute)
		stop()
		if h.live() != "v4" {
			t.Errorf("%q is live after the hold", h.live())
		}
	})
}

// A process that ends in a dry run goes on with it, and not with a deployment.
func TestDryRunStaysDryAfterAKill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, newFakeRegistry())
		h.versions(1)
		var hosts []*host
		var dry atomic.Bool
		h.seam = func(string) {
			if dry.Load() {
				hosts = append(hosts, h.copied(filepath.Join(memoryDir(t), "copy")))
			}
		}
		stop := h.serve()
		must(h.agent.Hold(t.Context(), "freeze", Until{}))
		h.src.put("v2", one("2"))
		dry.Store(true)
		_, err := h.agent.DryRun(t.Context())
		must(err)
		pass(time.Minute)
		stop()
		if len(hosts) < 5 {
			t.Fatalf("passed %d points", len(hosts))
		}
		for _, k := range hosts {
			k.o.Mode.Once = true
			k.want("v1", ErrHeld)
			if k.runs("deploy") > 0 {
				t.Error("a hook was run")
			}
		}
	})
}

func TestRunOnceTellsWhatComesOfIt(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.versions(1)
		h.o.Poll.Interval = 24 * time.Hour
		stop := h.serve()
		runs := func(want error, live string) *Deployment {
			t.Helper()
			outcome, err := h.agent.RunOnce(t.Context())
			must(err)
			out := <-outcome
			if !errors.Is(out.Err, want) || h.live() != live {
				t.Errorf("%v, %q is live, want %v, %q", out.Err, h.live(), want, live)
			}
			return out.Deployment
		}
		if d := runs(nil, "v1"); d != nil {
			t.Errorf("nothing new: %+v", d)
		}
		h.src.put("v2", one("2"))
		if d := runs(nil, "v2"); d.Outcome() != Committed {
			t.Errorf("a new one: %+v", d)
		}
		h.src.put("v3", with(failHook))
		runs(ErrRolledBack, "v2")
		runs(ErrRolledBack, "v2") // it failed here before
		h.src.set(func() { h.src.down = wire.ErrUnreachable })
		runs(wire.ErrUnreachable, "v2")
		h.src.set(func() { h.src.down = nil })
		must(h.agent.Hold(t.Context(), "freeze", Until{}))
		runs(ErrHeld, "v2")
		stop()
	})
}

// Whoever holds a host while a hook runs was told so when it had ended.
func TestActsAreOnRecordWhileAHookRuns(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.versions(1)
		gate := h.block(Hooking)
		stop := h.serve()
		h.src.put("v2", one("2"))
		pass(time.Minute)
		must(h.agent.Hold(t.Context(), "freeze", Until{}))
		r, err := h.agent.load()
		must(err)
		if r.State != Hooking || r.Hold == nil {
			t.Errorf("in %s, on record is the hold %v", r.State, r.Hold)
		}
		gate()
		pass(time.Minute)
		h.src.put("v3", one("3"))
		pass(time.Minute)
		stop()
		if h.live() != "v2" || h.agent.Record().Live.Verification != Verified {
			t.Errorf("%q is live, %s", h.live(), h.agent.Record().Live.Verification)
		}
	})
}

// A hold that was told as done came between two questions to the registry.
func TestHoldBetweenPollAndDeployment(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.versions(1)
		asked, goOn := make(chan struct{}), make(chan struct{})
		h.o.Source = &slowConfiguration{h.src, asked, goOn}
		stop := h.serve()
		h.src.put("v2", one("2"))
		<-asked
		must(h.agent.Hold(t.Context(), "freeze", Until{}))
		close(goOn)
		pass(time.Minute)
		stop()
		if h.live() != "v1" {
			t.Errorf("%q is live", h.live())
		}
	})
}

// slowConfiguration tells when it is asked for a configuration, and waits.
type slowConfiguration struct {
	*fakeRegistry
	asked, goOn chan struct{}
}

func (s *slowConfiguration) Configuration(ctx context.Context, name string) (*wire.Configuration, error) {
	select {
	case s.asked <- struct{}{}:
	default:
	}
	<-s.goOn
	return s.fakeRegistry.Configuration(ctx, name)
}

// What a step has seen by then stays, and what was not written is not believed.
func TestActThatCannotBeWrittenChangesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.versions(1)
		h.o.Verify.Soak = time.Hour
		stop := h.serve()
		h.src.put("v2", one("2"))
		pass(10 * time.Minute)
		must(os.Rename(h.dir+"/journal.json", h.dir+"/aside"))
		must(os.Mkdir(h.dir+"/journal.json", 0o700))
		must(os.WriteFile(h.dir+"/journal.json/x", nil, 0o600))
		for name, act := range map[string]func() error{
			"Hold":     func() error { return h.agent.Hold(t.Context(), "freeze", Until{}) },
			"Rollback": func() error { _, _, err := h.agent.Rollback(t.Context(), ""); return err },
			"Retry":    func() error { return h.agent.Retry(t.Context()) },
		} {
			if act() == nil {
				t.Errorf("%s is on no record", name)
			}
		}
		must(os.RemoveAll(h.dir + "/journal.json"))
		must(os.Rename(h.dir+"/aside", h.dir+"/journal.json"))
		pass(2 * time.Hour)
		stop()
		if r := h.agent.Record(); h.live() != "v2" || r.Live.Verification != Verified || r.Hold != nil || r.Wanted != "" || r.Last.Checks == nil {
			t.Errorf("%q is live, %s; hold %v, wanted %q", h.live(), r.Live.Verification, r.Hold, r.Wanted)
		}
	})
}

func TestCallerWhoLeavesChangesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.versions(2)
		stop := h.serve()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, _, err := h.agent.Rollback(ctx, "")
		for _, err := range []error{err, h.agent.Hold(ctx, "x", Until{}), h.agent.Retry(ctx)} {
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
		stop()
		if err := h.agent.Hold(ctx, "x", Until{}); !errors.Is(err, context.Canceled) { // nobody runs
			t.Error(err)
		}
	})
}

func TestManyAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.versions(2)
		stop := h.serve()
		ended := make(chan error)
		acts := []func(){
			func() { ended <- h.agent.Hold(t.Context(), "freeze", Until{}) },
			func() { ended <- h.agent.Retry(t.Context()) },
			func() { h.agent.Status(); ended <- nil },
			func() {
				_, outcome, err := h.agent.Rollback(t.Context(), "1")
				if err != nil {
					ended <- err
					return
				}
				out := <-outcome
				ended <- out.Err
			},
		}
		for range 20 {
			for _, act := range acts {
				go act()
			}
		}
		live := 0
		for range 20 * len(acts) {
			if err := <-ended; err != nil && strings.Contains(err.Error(), "it is live") {
				live++
			} else if err != nil {
				t.Error(err)
			}
		}
		stop()
		if h.live() != "v1" || live == 20 {
			t.Errorf("%q is live, and %d found it so", h.live(), live)
		}
		h.invariants()
	})
}

func TestRollbackWithoutANameSaysThatThereIsNoEarlierRoot(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.versions(1)
		stop := h.serve()
		_, _, err := h.agent.Rollback(t.Context(), "")
		if !errors.Is(err, ErrNoRoot) || err.Error() != "cannot roll back: there is no earlier root" {
			t.Errorf("Rollback = %v", err)
		}
		stop()
	})
}

// The check script asked for patience, and the person said it again: that took
// back the rollback itself.
func TestRollbackSaidTwiceIsOneRollback(t *testing.T) {
	for _, to := range []string{"", "1"} {
		bubble(t, func(t *testing.T, h *host) {
			h.versions(2)
			h.o.Hook.CheckScript = "./check.sh"
			var busy atomic.Bool
			busy.Store(true)
			h.hooks.exit = func(env map[string]string) int {
				return map[bool]int{true: 75}[busy.Load() && env["DEPLOY_PHASE"] == "check"]
			}
			stop := h.serve()
			defer stop()
			first := <-h.rollback("")
			if s := h.agent.Record().State; s != Checking || !errors.Is(first.Err, ErrNotNow) {
				t.Fatalf("in %s: %v", s, first.Err)
			}
			second := h.rollback(to)
			pass(time.Minute)
			if r := h.agent.Record(); r.Deployment == nil || !r.Deployment.ByHand || r.Wanted != "" {
				t.Errorf("rollback -to %q gave the rollback up: %+v", to, r.Last)
			}
			busy.Store(false)
			pass(time.Hour)
			if out := <-second; !errors.Is(out.Err, ErrNotNow) || h.live() != "v1" || h.agent.Record().Seq != 3 {
				t.Errorf("%v, %q is live after %d deployments", out.Err, h.live(), h.agent.Record().Seq)
			}
		})
	}
}

// Who wants a rollback given up that waits names the live root.
func TestRollbackThatWaitsIsGivenUpByName(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.versions(2)
		gate := h.block(Checking)
		defer gate()
		stop := h.serve()
		defer stop()
		<-h.rollback("")
		out := h.rollback("2")
		pass(time.Minute)
		if got := <-out; got.Err != nil || h.live() != "v2" || h.agent.Record().State != Idle || h.runs("rollback") != 0 {
			t.Errorf("%v, %q is live in %s", got.Err, h.live(), h.agent.Record().State)
		}
	})
}
