package agent

import (
	"testing"
	"time"
)

// Who joined a deployment was told that there was nothing to deploy.
func TestRunOnceTellsOfTheDeploymentThatItJoins(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.versions(2)
		h.o.Verify.Soak = time.Hour
		stop := h.serve()
		defer stop()
		h.src.put("v3", one("3"))
		pass(10 * time.Minute)
		joined, err := h.agent.RunOnce(t.Context())
		must(err)
		pass(2 * time.Hour)
		if out := <-joined; out.Err != nil || out.Deployment == nil || out.Deployment.New.Configuration.Revision != 3 {
			t.Errorf("joined: %+v", out)
		}
		later, err := h.agent.RunOnce(t.Context())
		must(err)
		pass(time.Minute)
		if out := <-later; out.Err != nil || out.Deployment != nil {
			t.Errorf("after it: %+v", out)
		}
	})
}
