package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"deploytools/registry/wire"
)

// broken returns a host in Broken, on which v1 was live.
func broken(h *host) {
	h.src.put("v1", one("1"))
	h.want("v1", nil)
	h.hooks.exit = func(env map[string]string) int {
		if env["DEPLOY_ACTION"] == "rollback" {
			return 1
		}
		return 0
	}
	h.src.put("v2", with(failHook))
	h.want("v1", ErrBroken)
	if n := h.runs("rollback"); n != 3 {
		h.Errorf("%d rollbacks, want 3 tries", n)
	}
	h.calls, h.hooks.exit = nil, nil
}

func TestBrokenWaitsForSomebody(t *testing.T) {
	for name, act := range map[string]func(h *host){
		"a person":      func(h *host) { must(h.agent.Retry(h.Context())) },
		"a revision":    func(h *host) { h.src.put("v3", one("3")) },
		"OLDROOT again": func(h *host) { h.hooks.effect(map[string]string{"NEWROOT": h.agent.Record().Live.Dir}) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, h *host) {
				broken(h)
				stop := h.serve()
				pass(time.Hour)
				if s := h.agent.Record().State; s != Broken || len(h.calls) > 0 {
					t.Errorf("in %s after %d hooks by itself, want Broken", s, len(h.calls))
				}
				act(h)
				pass(time.Hour)
				stop()
				want := map[string]string{"a person": "v1", "a revision": "v3", "OLDROOT again": "v1"}[name]
				if n := h.lines("INFO", `msg="serves again"`); (n == 1) != (name == "OLDROOT again") || n > 1 {
					t.Errorf("said %d times that OLDROOT serves again", n)
				}
				if h.live() != want || h.agent.Record().State == Broken && name != "a person" {
					t.Errorf("%q is live in %s, want %s", h.live(), h.agent.Record().State, want)
				}
			})
		})
	}
}

// The rollback's hook says that all is well, and nothing answers.
func TestOldRootThatDoesNotServeIsBroken(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.src.put("v1", one("1"))
		h.want("v1", nil)
		failing := false
		h.env = func() bool { return failing }
		h.seam = func(p string) { failing = failing || p == "entered Reverifying" }
		h.src.put("v2", with(failHook))
		h.want("v1", ErrBroken)
		if r := h.agent.Record(); h.runs("rollback") != 1 || r.State != Broken || !strings.Contains(r.Deployment.Broken, "old version failed") {
			t.Errorf("%d rollbacks, in %s: %+v", h.runs("rollback"), r.State, r.Deployment)
		}
		if h.lines("ERROR", "neither root serves") != 1 {
			t.Errorf("no alarm:\n%s", h.logged)
		}
		h.seam, failing = func(string) {}, false
		h.want("v1", ErrBroken)
		if r := h.agent.Record(); r.State != Idle || r.Last.Outcome() != NotServing {
			t.Errorf("in %s, the last one is %q", r.State, r.Last.Outcome())
		}
		h.want("v1", ErrRolledBack) // failed here before
	})
}

// A machine that has no descriptor left for a moment is no broken service; and where
// the hook of the way back could not even be begun, OLDROOT is not taken for serving
// before it was, whatever the checks say.
func TestHookThatCannotBeginIsRunBeforeOldRootServes(t *testing.T) {
	for _, test := range []struct {
		deaf int
		want error
	}{{1, ErrRolledBack}, {attempts - 1, ErrRolledBack}, {attempts, ErrBroken}, {2 * attempts, ErrBroken}} {
		t.Run(fmt.Sprint(test.deaf, " times"), func(t *testing.T) {
			bubble(t, func(t *testing.T, h *host) {
				h.src.put("v1", one("1"))
				h.want("v1", nil)
				h.src.put("v2", with(failHook))
				h.hooks.deaf = test.deaf
				if err := h.run(); !errors.Is(err, test.want) || h.live() != "v1" {
					t.Errorf("Run = %v, %s is live, want %v", err, h.live(), test.want)
				}
				h.hooks.deaf = 0
				h.run()
				if r := h.agent.Record(); r.State != Idle || h.runs("rollback") != 1 || h.live() != "v1" {
					t.Errorf("in %s, %q live, %d rollbacks, want one\n%s", r.State, h.live(), h.runs("rollback"), h.logged)
				}
			})
		})
	}
}

// The link could not be moved back: the deployment is closed only when it is.
func TestBrokenLinkIsMendedBeforeAnythingElse(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.src.put("v1", one("1"))
		h.want("v1", nil)
		h.src.put("v2", with(failVerify))
		h.seam = func(p string) {
			if p == "effect of Verifying" {
				must(os.Remove(h.dir + "/current"))
				must(os.Mkdir(h.dir+"/current", 0o755))
			}
		}
		if err := h.run(); !errors.Is(err, ErrBroken) || h.runs("rollback") != 0 {
			t.Errorf("Run = %v after %d rollbacks", err, h.runs("rollback"))
		}
		h.src.put("v3", one("3"))
		if err := h.run(); err == nil || h.agent.Record().State != Discarding {
			t.Errorf("Run = %v in %s, want to stay in Discarding", err, h.agent.Record().State)
		}
		must(os.Remove(h.dir + "/current"))
		h.seam = func(p string) {
			if link, _ := os.Readlink(h.dir + "/current"); p == "entered Idle" && h.live() == "v1" && link != h.agent.Record().Live.Dir {
				t.Errorf("Idle, and `current` names %q", link)
			}
		}
		h.want("v3", nil)
	})
}

// Where no agent runs, and where it ends before its next look, retry counts all
// the same.
func TestRetryOfWhatIsBrokenIsOnRecord(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		broken(h)
		a, release, err := Alone(t.Context(), Options{Dir: h.dir})
		must(err)
		err = a.Retry(t.Context())
		release()
		if s := a.Record().State; err != nil || s != Discarding {
			t.Errorf("Retry = %v, in %s on record, want Discarding", err, s)
		}
		h.want("v1", ErrRolledBack) // it was tried once more
		if n := h.runs("deploy"); n != 1 {
			t.Errorf("%d deploys, want one", n)
		}
	})
}

// A retry without an agent leaves a deployment to close, which a repair found under way.
func TestRepairAfterARetryWithoutAnAgent(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		broken(h)
		a, release, err := Alone(t.Context(), Options{Dir: h.dir})
		must(err)
		must(a.Retry(t.Context()))
		release()
		h.o.Mode.Once = false
		next := h.new()
		ended := make(chan error, 1)
		go func() {
			outcome, err := next.RepairAwaited(t.Context())
			if err == nil {
				err = (<-outcome).Err
			}
			ended <- err
		}()
		synctest.Wait()
		ctx, stop := context.WithCancel(t.Context())
		go next.Run(ctx)
		pass(time.Hour)
		select {
		case err := <-ended:
			if err != nil || h.live() != "v1" {
				t.Errorf("%v, %q is live\n%s", err, h.live(), h.logged)
			}
		default:
			t.Errorf("the repair has not ended\n%s", h.logged)
		}
		stop()
	})
}

// A registry that hangs does not hold up who closes what is broken.
func TestBrokenServesPeopleWhileTheRegistryHangs(t *testing.T) {
	for name, act := range map[string]func(h *host){
		"retry":    func(h *host) { must(h.agent.Retry(h.Context())) },
		"rollback": func(h *host) { h.rollback("") },
	} {
		bubble(t, func(t *testing.T, h *host) {
			h.o.Verify.Checks = nil
			broken(h)
			asked := make(chan struct{})
			h.o.Source = hangingPoll{h.src, asked}
			stop := h.serve()
			<-asked
			began := time.Now()
			act(h)
			<-asked // in the next poll
			if waited := time.Since(began); waited > 0 || h.agent.Record().State == Broken {
				t.Errorf("%s: waits %v, then in %s", name, waited, h.agent.Record().State)
			}
			stop()
		})
	}
}

// hangingPoll tells that it is polled, and does not answer.
type hangingPoll struct {
	*fakeRegistry
	asked chan<- struct{}
}

func (s hangingPoll) Poll(ctx context.Context, _ string) (wire.PollState, error) {
	select {
	case s.asked <- struct{}{}:
	case <-ctx.Done():
	}
	<-ctx.Done()
	return wire.PollState{}, context.Cause(ctx)
}

// The rollback's hook fails three times, and the checks of OLDROOT pass right
// after it. Whoever waits hears the word that the history has.
func TestClosedBrokenDeploymentIsToldAsBroken(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.versions(2)
		h.hooks.exit = func(env map[string]string) int {
			if env["LAYER_0_VERSION"] == "v2" {
				must(os.WriteFile(h.dir+"/serving", []byte(filepath.Base(env["NEWROOT"])), 0o644))
			}
			return 1
		}
		stop := h.serve()
		out := h.rollback("1")
		pass(time.Minute)
		stop()
		got, d := <-out, h.agent.Record().Last
		if d == nil || d.Outcome() != NotServing {
			t.Fatalf("last %+v\n%s", d, h.logged)
		}
		if !errors.Is(got.Err, ErrBroken) || errors.Is(got.Err, ErrRolledBack) || !strings.Contains(got.Err.Error(), "the rollback failed as well") || strings.Contains(got.Err.Error(), "neither") {
			t.Errorf("whoever waits hears %v", got.Err)
		}
		if h.lines("ERROR", "configuration broken") != 1 || h.lines("", "configuration rolled back") != 0 {
			t.Errorf("the log:\n%s", h.logged)
		}
	})
}

// A rollback out of Broken to what is live closed the deployment, ran no hook, and was
// told as a success.
func TestRollbackOutOfBrokenToWhatIsLiveIsNoSuccess(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		broken(h)
		stop := h.serve()
		pass(time.Minute)
		out := <-h.rollback("")
		if !errors.Is(out.Err, ErrBroken) || !strings.Contains(out.Err.Error(), "hook of the way back") || h.agent.Record().State != Idle || len(h.calls) != 0 {
			t.Errorf("rollback = %v in %s after %d hooks, want that it failed", out.Err, h.agent.Record().State, len(h.calls))
		}
		done, err := h.agent.RepairAwaited(t.Context())
		must(err)
		if out := <-done; out.Err != nil || h.live() != "v1" || h.runs("deploy") != 1 {
			t.Errorf("repair = %v, %q is live after %d hooks", out.Err, h.live(), h.runs("deploy"))
		}
		stop()
	})
}

// A way back that had failed as well was shown by status, and neither by why nor by
// the registry where another revision than the last one was wanted.
func TestFailedWayBackIsTold(t *testing.T) {
	verb := func(v string) string { return "VERB " + v }
	const also = "; the rollback failed as well: hook of the way back: "
	told := func(h *host, when, want string) {
		h.Helper()
		s := h.agent.Status()
		why := s.Why(verb)
		if says := strings.Join(why.Says, "\n"); strings.Count(says, also) != 1 || !strings.Contains(says, want) {
			h.Errorf("%s: why says %q, want %q once", when, says, want)
		}
		do := strings.Join(why.Do, "\n")
		if !strings.Contains(do, "VERB repair has the hook make live once more") || strings.Contains(do, "VERB log shows") != (why.Cause == Cause(BlockFailed)) {
			h.Errorf("%s: to do is %q", when, do)
		}
	}
	bubble(t, func(t *testing.T, h *host) {
		h.versions(2)
		h.hooks.exit = func(env map[string]string) int {
			must(os.WriteFile(h.dir+"/serving", []byte(filepath.Base(env["NEWROOT"])), 0o644))
			return 1
		}
		h.src.put("v3", one("3"))
		stop := h.serve()
		pass(time.Minute)
		told(h, "the newest failed", "is not tried again by itself: revision 3: ")
		h.rollback("1")
		pass(time.Minute)
		stop()
		r := h.agent.Record()
		got := h.agent.report(heard{wanted: &wire.ReportedRevision{Revision: 3, Digest: h.src.now.Digest}})
		if r.Last.Outcome() != NotServing || r.Last.New.Configuration.Revision != 1 || got.Deployment.Revision != 3 {
			t.Fatalf("last %+v, told %+v\n%s", r.Last, got.Deployment, h.logged)
		}
		if reason := got.Deployment.Reason; strings.Count(reason, also) != 2 || !strings.Contains(reason, "; besides, revision 1 failed: ") {
			t.Errorf("told %q", reason)
		}
		r.unmark(h.src.now.Digest) // as if nothing but the rollback had failed
		h.agent.saved = r
		told(h, "a rollback failed", "The last deployment, of revision 1, failed: ")
	})
}
