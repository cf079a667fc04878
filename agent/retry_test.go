package agent

import (
	"errors"
	"testing"
	"time"
)

// A second run of cron said that all is well, with nothing deployed.
func TestOnceSaysAgainThatTheConfigurationFailedHere(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.src.put("v1", with(failHook))
		h.want("", ErrRolledBack)
		err := h.run()
		want := `rolled back: configuration "web", revision 1, failed here before: hook of the deployment: "./deploy.sh" call failure: exit status 1`
		if !errors.Is(err, ErrRolledBack) || err.Error() != want || h.runs("deploy") != 1 {
			t.Errorf("Run = %v after %d deploys, want %s", err, h.runs("deploy"), want)
		}
	})
}

func TestRetryLetsGoOfMarksAndHolds(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.src.put("v1", one("1"))
		h.want("v1", nil)
		failing := 1
		h.hooks.exit = func(env map[string]string) int {
			if env["DEPLOY_ACTION"] == "deploy" {
				return failing
			}
			return 0
		}
		h.src.put("v2", one("2"))
		h.want("v1", ErrRolledBack)
		stop := h.serve()
		must(h.agent.Hold(h.Context(), "release freeze", Until{}))
		stop()
		failing = 0
		h.want("v1", ErrHeld)
		h.o.Mode.Retry = true
		h.want("v2", nil)
		h.o.Mode.Once = false
		if _, err := New(h.o); err == nil {
			t.Error("New takes Retry without Once")
		}
	})
}

func TestRetryClosesWhatIsBroken(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		broken(h)
		h.o.Mode.Retry = true
		n := len(h.calls)
		h.want("v1", ErrRolledBack)
		if s := h.agent.Record().State; s != Idle || len(h.calls) < n+2 {
			t.Errorf("in %s after %d calls, want Idle after one more try", s, len(h.calls)-n)
		}
	})
}

// A script that was not there was found out only after the switch, and neither
// root served.
func TestHookThatIsNotThereIsWaitedForBeforeTheSwitch(t *testing.T) {
	for _, program := range []string{"./deploy.sh", "./check.sh", "./remove.sh"} {
		bubble(t, func(t *testing.T, h *host) {
			h.o.Hook.CheckScript, h.o.Hook.RemoveScript = "./check.sh", "./remove.sh"
			first := program == "./remove.sh" // it is of use to a first deployment only
			want := ""
			if !first {
				h.src.put("v1", one("1"))
				h.want("v1", nil)
				want = "v1"
			}
			h.calls = nil
			missing := errors.New("no such file")
			h.hooks.unready = map[string]error{program: missing}
			h.src.put("v2", one("2"))
			if err := h.run(); !errors.Is(err, missing) {
				t.Errorf("%s missing: Run = %v", program, err)
			}
			stop := h.serve()
			pass(time.Hour)
			r := h.agent.Record()
			if r.State != Checking || len(r.Marks) > 0 || len(h.calls) > 0 || h.live() != want {
				t.Errorf("%s missing: in %s with marks %v after %d calls, %q is live", program, r.State, r.Marks, len(h.calls), h.live())
			}
			if n := h.lines("WARN", "no such file"); n != 1 {
				t.Errorf("%s missing: said %d times, want once\n%s", program, n, h.logged)
			}
			stop()
			h.hooks.unready = nil
			h.want("v2", nil)
			h.hooks.unready = map[string]error{"./remove.sh": missing}
			h.src.put("v3", one("3"))
			h.want("v3", nil)
		})
	}
}
