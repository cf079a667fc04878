package agent

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"deploytools/layers/digest"
	"deploytools/registry/wire"
	"deploytools/verify/spec"
)

func one(version string) []byte { return archive(files{"v": version}) }

// The original tool ran a failing script at every poll, for ever.
func TestFailingHookRunsOncePerRevision(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.src.put("v1", one("1"))
		h.want("v1", nil)
		h.calls = nil
		h.src.put("v2", with(failHook))
		stop := h.serve()
		pass(time.Hour)
		if h.runs("deploy") != 1 || h.runs("rollback") != 1 || h.src.polls < 50 {
			t.Errorf("%d deploys and %d rollbacks in %d polls, want 1 and 1", h.runs("deploy"), h.runs("rollback"), h.src.polls)
		}
		if got := h.agent.Record().Last.Reason; got != `"" call failure: exit status 1` && !strings.Contains(got, "call failure: exit status 1") {
			t.Errorf("reason %q", got)
		}
		h.src.put("v2", with(failHook)) // a person asks once more
		pass(time.Hour)
		if h.runs("deploy") != 2 {
			t.Errorf("%d deploys after a new revision of the same, want 2", h.runs("deploy"))
		}
		h.src.put("v1", one("1"))
		h.src.put("v3", one("3"))
		pass(time.Hour)
		stop()
		if h.live() != "v3" {
			t.Errorf("%q is live, want v3", h.live())
		}
		h.invariants()
	})
}

// A registry of the original kind counts no revisions: that it was changed
// and changed back is what a person does to ask again.
func TestWithoutRevisionsAMarkHoldsUntilTheConfigurationChanges(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		put := func(version string, layer []byte) { h.src.put(version, layer).Revision = 0 }
		put("v1", one("1"))
		h.want("v1", nil)
		put("v2", with(failHook))
		h.want("v1", ErrRolledBack)
		h.want("v1", ErrRolledBack)
		n := h.runs("deploy")
		put("v1", one("1"))
		h.want("v1", nil)
		put("v2", with(failHook))
		h.want("v1", ErrRolledBack)
		if h.runs("deploy") != n+1 {
			t.Errorf("%d deploys more, want 1", h.runs("deploy")-n)
		}
	})
}

func TestCommittedDigestMayBeGoneBackTo(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		for _, v := range []string{"1", "2", "1", "2"} {
			h.src.put("v"+v, one(v))
			h.want("v"+v, nil)
		}
		if got := h.agent.Record().Back.Configuration.Layers[0].Version; got != "v1" {
			t.Errorf("rollback target %s, want v1", got)
		}
	})
}

func TestSupersededBeforeTheSwitchIsNotMarked(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.src.put("v1", one("1"))
		h.src.fetch = func(digest.Digest, int64, io.Writer) error { return wire.ErrUnreachable }
		var said string
		h.o.Observe.Notify = func(s string) { said = s }
		stop := h.serve()
		pass(time.Hour)
		if want := "web: Fetching, revision 1, waiting: cannot fetch layer code:v1: registry is unreachable"; said != want {
			t.Errorf("status %q, want %q", said, want)
		}
		if s := h.agent.Record().State; s != Fetching {
			t.Errorf("in %s, want Fetching", s)
		}
		if n := h.lines("WARN", "step not done"); n != 1 {
			t.Errorf("%d warnings about one and the same error, want 1\n%s", n, h.logged)
		}
		h.src.put("v2", one("2"))
		h.src.set(func() { h.src.fetch = nil })
		pass(time.Hour)
		stop()
		if h.live() != "v2" || len(h.agent.Record().Marks) > 0 || h.lines("INFO", "another configuration, revision 2") != 1 {
			t.Errorf("%q is live with marks %v\n%s", h.live(), h.agent.Record().Marks, h.logged)
		}
		h.invariants()
	})
}

// An agent that was off for a week does not first deploy what was wanted then.
func TestResumedDeploymentIsDroppedIfAnotherIsWanted(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.src.put("v1", one("1"))
		h.src.set(func() {
			h.src.fetch = func(digest.Digest, int64, io.Writer) error { return wire.ErrUnreachable }
		})
		if err := h.run(); !errors.Is(err, wire.ErrUnreachable) {
			t.Errorf("Run = %v", err)
		}
		h.src.set(func() { h.src.fetch = nil })
		h.src.put("v2", one("2"))
		h.want("v2", nil)
		if h.runs("deploy") != 1 {
			t.Errorf("%d deploys, want that of v2 only", h.runs("deploy"))
		}
	})
}

func TestWithdrawnInTheSoakIsNotMarked(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.o.Verify.Soak = 24 * time.Hour
		h.src.put("v1", one("1"))
		stop := h.serve()
		pass(time.Hour)
		if s := h.agent.Record().State; s != Verifying {
			t.Fatalf("in %s, want Verifying", s)
		}
		h.src.put("v2", one("2"))
		pass(2 * time.Minute)
		r := h.agent.Record()
		if r.Last == nil || r.Last.Verdict != Withdrawn || len(r.Marks) > 0 || r.State != Verifying || r.Deployment.From != nil {
			t.Errorf("last %+v, marks %v, now in %s", r.Last, r.Marks, r.State)
		}
		pass(25 * time.Hour)
		stop()
		if h.live() != "v2" || h.agent.Record().Live.Verification != Verified {
			t.Errorf("%q is live\n%s", h.live(), h.logged)
		}
		h.invariants()
	})
}

// withdrawn asserts that v1 serves again, and that nothing is held against v2.
func (h *host) withdrawn() {
	h.Helper()
	r := h.agent.Record()
	if h.live() != "v1" || r.State != Idle || r.Last.Verdict != Withdrawn || len(r.Marks) > 0 {
		h.Errorf("%q is live in %s, last %+v, marks %v\n%s", h.live(), r.State, r.Last, r.Marks, h.logged)
	}
	h.invariants()
}

// Who rolls back at the registry does not wait until the checks give up. An
// agent that is killed right then finds it out once more.
func TestWithdrawnWhileChecksFailIsNotMarked(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		v1 := *h.src.put("v1", one("1"))
		h.want("v1", nil)
		h.patience = 24 * time.Hour
		var killed *host
		h.seam = func(p string) {
			if p == "effect of Verifying" {
				killed = h.copied(memoryDir(t))
			}
		}
		stop := h.serve()
		h.src.put("v2", with(failVerify))
		pass(time.Hour)
		if s := h.agent.Record().State; s != Verifying {
			t.Fatalf("in %s, want Verifying", s)
		}
		h.src.announce(&v1)
		pass(time.Minute)
		h.withdrawn()
		stop()
		if killed == nil {
			t.Fatal("Verifying goes on")
		}
		started := time.Now()
		killed.o.Mode.Once = true
		killed.want("v1", nil)
		if took := time.Since(started); took > time.Minute {
			t.Errorf("after a kill it took %v", took)
		}
		killed.withdrawn()
	})
}

func TestCommandInVerifyingPollsAtOnce(t *testing.T) {
	for name, command := range map[string]func(*Agent, context.Context) error{"resume": (*Agent).Resume, "retry": (*Agent).Retry, "wake": (*Agent).Wake} {
		bubble(t, func(t *testing.T, h *host) {
			v1 := *h.src.put("v1", one("1"))
			h.want("v1", nil)
			h.patience, h.o.Poll.Interval = 24*time.Hour, 12*time.Hour
			h.src.put("v2", with(failVerify))
			stop := h.serve()
			pass(2 * time.Hour)
			h.src.announce(&v1)
			started := time.Now()
			if err := command(h.agent, t.Context()); err != nil || time.Since(started) > 2*time.Second {
				t.Errorf("%s = %v after %v", name, err, time.Since(started))
			}
			pass(time.Second)
			h.withdrawn()
			stop()
		})
	}
}

func TestFailureInTheSoakRollsBack(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.src.put("v1", one("1"))
		h.want("v1", nil)
		h.o.Verify.Soak = time.Hour
		h.src.put("v2", one("2"))
		failing := false
		h.env = func() bool { return failing }
		h.seam = func(p string) { failing = p == "soaking" || failing && p != "entered Rehooking" }
		h.want("v1", ErrRolledBack)
		if got := h.agent.Record().Last.Reason; !strings.Contains(got, "in the soak time") {
			t.Errorf("reason %q", got)
		}
	})
}

func TestWithoutChecksNothingIsVerified(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.o.Verify = spec.Spec{}
		var said string
		h.o.Observe.Notify = func(s string) { said = s }
		h.src.put("v1", one("1"))
		h.want("v1", nil)
		if got := h.agent.Record().Live.Verification; got != Unverified || said != "web: Idle, revision 1 unverified" {
			t.Errorf("verification %q, status %q", got, said)
		}
		if h.lines("INFO", "verification=unverified") != 1 {
			t.Errorf("the log does not say it:\n%s", h.logged)
		}
		h.src.put("v2", one("2"))
		h.want("v2", nil)
		if got := h.agent.Record().Back; got == nil || got.Configuration.Layers[0].Version != "v1" {
			t.Errorf("rollback target %v, want v1: without checks every commit is one", got)
		}
	})
}

func TestWhatFailedBeforeTheSwitchIsTheEnvironment(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.src.put("v1", one("1"))
		h.want("v1", nil)
		h.env = func() bool { return true }
		h.src.put("v2", one("2"))
		h.want("v2", nil)
		r := h.agent.Record()
		if r.Live.Verification != Environment || r.Back.Configuration.Layers[0].Version != "v1" {
			t.Errorf("%s %s, back to %s", h.live(), r.Live.Verification, r.Back.Configuration.Layers[0].Version)
		}
		h.src.put("v3", with(failHook))
		h.want("v1", ErrRolledBack) // the last verified one, although v2 was live
		old := h.calls[len(h.calls)-2]["OLDROOT"]
		if !strings.HasSuffix(old, "/"+r.Live.Dir) {
			t.Errorf("the hook of v3 was told OLDROOT=%s, want what was live, %s", old, r.Live.Dir)
		}
		failing := true
		h.env = func() bool { return failing }
		for _, version := range []string{"v5", "v6"} { // as the environment is, then verified
			h.src.put(version, one(version))
			h.want(version, nil)
			if got := h.agent.Record().Back.Configuration.Layers[0].Version; got != "v1" {
				t.Errorf("%s: rollback target %s, want v1", version, got)
			}
			failing = false
		}
		failing = true
		h.o.Baseline = BaselineStrict
		h.src.put("v4", one("4"))
		h.want("v6", ErrRolledBack)
	})
}

func TestNewFailuresAreNotTheEnvironment(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.src.put("v1", one("1"))
		h.want("v1", nil)
		failing := false
		h.env = func() bool { return failing }
		h.seam = func(p string) { failing = p == "entered Verifying" || failing && p != "entered Reverifying" }
		h.src.put("v2", one("2"))
		h.want("v1", ErrRolledBack)
	})
}

func TestCheckScriptThatSays75IsAskedAgain(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		asked := 0
		h.o.Hook.CheckScript = "./check.sh"
		h.hooks.exit = func(env map[string]string) int {
			if env["DEPLOY_PHASE"] != "check" {
				return 0
			}
			if asked++; asked < 5 {
				return 75
			}
			return 0
		}
		h.src.put("v1", one("1"))
		stop := h.serve()
		pass(time.Hour)
		stop()
		if asked != 5 || h.live() != "v1" || len(h.agent.Record().Marks) > 0 {
			t.Errorf("asked %d times, want 5; %q is live", asked, h.live())
		}
	})
}

// V-13: a dry run was in the documents only.
func TestDryRunEndsBeforeTheSwitch(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.o.Mode.DryRun = true
		h.o.Hook.CheckScript = "./check.sh"
		h.src.put("v1", one("1"))
		h.want("", nil)
		h.want("", nil)
		if len(h.calls) != 1 || h.calls[0]["DEPLOY_PHASE"] != "check" || h.agent.Record().Last.Verdict != DryRun {
			t.Errorf("calls %v, verdict %q", h.calls, h.agent.Record().Last.Verdict)
		}
		h.o.Mode.DryRun = false
		h.want("v1", nil)
	})
}

func TestStoppedHookIsGoneOnWith(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.src.put("v1", one("1"))
		a := h.new()
		ctx, cancel := context.WithCancelCause(t.Context())
		h.seam = func(p string) {
			if p == "before deploy" {
				cancel(errors.New("TERM"))
			}
		}
		if err := a.Run(ctx); err == nil || err.Error() != "TERM" {
			t.Errorf("Run = %v, want the cause", err)
		}
		h.seam = func(string) {}
		h.want("v1", nil)
		if h.runs("deploy") != 1 {
			t.Errorf("%d deploys, want 1", h.runs("deploy"))
		}
	})
}

func TestStopTakesNoArrowAndCountsNoTry(t *testing.T) {
	for _, s := range order[1:8] {
		bubble(t, func(t *testing.T, h *host) {
			h.src.put("v1", one("1"))
			for range 2 * maxTries {
				ctx, cancel := context.WithCancel(t.Context())
				h.seam = func(p string) {
					if p == "entered "+string(s) {
						cancel()
					}
				}
				h.new().Run(ctx)
				cancel()
			}
			h.seam = func(string) {}
			h.want("v1", nil)
		})
	}
}

// A hook that says all is well, and took away what it should make live.
func TestRootThatIsGoneAfterTheHookIsNotCommitted(t *testing.T) {
	for name, take := range map[string]func(dir, root string){
		"the link": func(dir, _ string) { must(os.Remove(dir + "/current")) },
		"the root": func(_, root string) { must(os.RemoveAll(root)) },
	} {
		bubble(t, func(t *testing.T, h *host) {
			h.o.Verify.Checks = nil
			h.src.put("v1", one("1"))
			h.want("v1", nil)
			h.hooks.exit = func(env map[string]string) int {
				if env["DEPLOY_ACTION"] == "deploy" {
					take(h.dir, env["NEWROOT"])
				}
				return 0
			}
			h.src.put("v2", one("2"))
			if err := h.run(); !errors.Is(err, ErrRolledBack) || h.live() != "v1" {
				t.Errorf("without %s Run = %v, %q is live", name, err, h.live())
			}
			if b, _ := os.ReadFile(h.dir + "/serving"); string(b) != filepath.Base(h.agent.Record().Live.Dir) {
				t.Errorf("without %s %q serves", name, b)
			}
			h.invariants()
		})
	}
}
