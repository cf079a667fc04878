package agent

import (
	"strings"
	"testing"
)

// "call failure: exit status 1" was said of the deployment, and of the way back, in
// the same words.
func TestAFailureSaysWhichRunOfAProgramItWas(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		broken(h)
		d := h.agent.Record().Deployment
		if !strings.HasPrefix(d.Reason, `hook of the deployment: "./deploy.sh" call failure: `) || !strings.HasPrefix(d.Broken, `hook of the way back: "./deploy.sh" call failure: `) {
			t.Errorf("reasons %q and %q", d.Reason, d.Broken)
		}
	})
	bubble(t, func(t *testing.T, h *host) {
		h.o.Hook.CheckScript, h.o.Hook.RemoveScript = "./check.sh", "./remove.sh"
		h.src.put("v1", with(failCheck))
		h.want("", ErrRolledBack)
		if got := h.agent.Record().Last.Reason; !strings.HasPrefix(got, `check script: "./check.sh" call failure: `) {
			t.Errorf("reason %q", got)
		}
		h.hooks.exit = func(env map[string]string) int {
			if env["DEPLOY_PHASE"] == "check" {
				return 0
			}
			return 1
		}
		h.src.put("v2", one("2"))
		h.want("", ErrBroken)
		if got := h.agent.Record().Deployment.Broken; !strings.HasPrefix(got, `remove script of the way back: "./remove.sh" call failure: `) {
			t.Errorf("broken %q", got)
		}
	})
}
