package agent

import (
	"errors"
	"testing"
	"time"
)

// Revision 3 has the content of revision 1, which is kept. It failed here, and so
// does a person's rollback to revision 1: revision 3 stays away.
func TestFailedRollbackToTheSameContentKeepsTheMarkOfTheLaterRevision(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.versions(2)
		h.o.Keep.Roots = 5
		h.hooks.exit = func(env map[string]string) int {
			if env["LAYER_0_VERSION"] == "v1" {
				return 1
			}
			return 0
		}
		stop := h.serve()
		h.src.put("v1", one("1"))
		pass(time.Minute)
		out := h.rollback("1")
		pass(time.Minute)
		if out := <-out; !errors.Is(out.Err, ErrRolledBack) {
			t.Fatalf("the rollback ends with %v", out.Err)
		}
		must(h.agent.Resume(t.Context()))
		pass(time.Hour)
		stop()
		if r := h.agent.Record(); !r.Last.ByHand || h.live() != "v2" || len(r.Marks) != 1 || r.Marks[0].Revision != 3 {
			t.Errorf("deployed last: revision %d, want the rollback; %q is live, marks %+v", r.Last.New.Configuration.Revision, h.live(), r.Marks)
		}
		h.invariants()
	})
}
