package agent

import (
	"context"
	"testing"
	"time"

	"deploytools/registry/wire"
)

// thinking is a registry that thinks for a while.
type thinking struct{ *fakeRegistry }

func (s *thinking) Poll(ctx context.Context, name string) (wire.PollState, error) {
	time.Sleep(time.Second)
	return s.fakeRegistry.Poll(ctx, name)
}

// The status after retry was that from before anything was tried.
func TestCatchUpSeesWhatAnActLedTo(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.versions(1)
		h.src.put("v2", with(failHook))
		h.want("v1", ErrRolledBack)
		h.o.Source = &thinking{h.src}
		stop := h.serve()
		pass(time.Minute)

		gate := h.block(Hooking)
		for _, act := range []struct {
			name  string
			do    func() error
			under bool
		}{
			{"hold", func() error { return h.agent.Hold(t.Context(), "sale", Until{}) }, false},
			{"retry under a hold", func() error { return h.agent.Retry(t.Context()) }, false},
			{"resume", func() error { return h.agent.Resume(t.Context()) }, true},
			{"hold of a deployment", func() error { return h.agent.Hold(t.Context(), "sale", Until{}) }, true},
		} {
			wait := h.agent.CatchUp()
			if err := act.do(); err != nil {
				t.Fatal(err)
			}
			wait(t.Context())
			s := h.agent.Status()
			if (s.Under != nil) != act.under || s.Next.IsZero() == !act.under {
				t.Errorf("%s: under way %v, next poll %v", act.name, s.Under, s.Next)
			}
		}
		gate()
		pass(time.Hour)
		stop()
		h.invariants()
	})
}
