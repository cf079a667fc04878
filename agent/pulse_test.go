package agent

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"deploytools/layers/digest"
	"deploytools/registry/wire"
)

// A service manager restarts what is not alive: that must be true of a machine
// that hangs, and of nothing else, however long it takes.
func TestAliveIsWhatGetsOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newFakeRegistry()
		h := newHost(t, src)
		h.patience = 40 * time.Minute
		h.o.Verify.Total = time.Hour
		h.o.Hook.Timeout = time.Hour
		v1 := archive(files{"version": "1", failVerify: ""})
		src.put("v1", v1)
		src.fetch = func(_ digest.Digest, _ int64, w io.Writer) error { // slow, but it moves
			for i := range v1 {
				if i%5 == 0 {
					time.Sleep(50 * time.Second)
				}
				if _, err := w.Write(v1[i : i+1]); err != nil {
					return err
				}
			}
			return nil
		}
		h.hooks.exit = func(map[string]string) int { time.Sleep(50 * time.Minute); return 0 }
		defer h.serve()()
		for range 24 * 60 {
			pass(time.Minute)
			if !h.agent.Alive() {
				t.Fatalf("in %s: not alive\n%s", h.agent.Record().State, h.logged)
			}
		}
		if r := h.agent.Record(); r.State != Idle || r.Last == nil || r.Last.Verdict != Bad {
			t.Errorf("a day later: %s, %+v, want a rollback", r.State, r.Last)
		}
	})
}

func TestHangIsNotAlive(t *testing.T) {
	hang := make(chan struct{})
	for name, stuck := range map[string]func(*stubborn){
		"poll":  func(s *stubborn) { s.poll = hang },
		"fetch": func(s *stubborn) { s.fetch = hang },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src := newFakeRegistry()
				src.put("v1", archive(files{"version": "1"}))
				s := &stubborn{fakeRegistry: src}
				hang = make(chan struct{})
				stuck(s)
				h := newHost(t, src)
				h.o.Source = s
				stop := h.serve()
				pass(5 * time.Minute)
				if !h.agent.Alive() {
					t.Error("not alive, while a deadline may still end it")
				}
				pass(30 * time.Minute)
				if h.agent.Alive() {
					t.Errorf("alive in %s after half an hour in which nothing moved", h.agent.Record().State)
				}
				close(hang)
				pass(time.Minute)
				if !h.agent.Alive() {
					t.Error("not alive after it went on")
				}
				stop()
			})
		})
	}
}

// stubborn does not heed its contexts.
type stubborn struct {
	*fakeRegistry
	poll, fetch chan struct{}
}

func (s *stubborn) Poll(ctx context.Context, name string) (wire.PollState, error) {
	if c := s.poll; c != nil {
		<-c
	}
	return s.fakeRegistry.Poll(ctx, name)
}

func (s *stubborn) Fetch(ctx context.Context, d digest.Digest, offset int64, w io.Writer) error {
	if c := s.fetch; c != nil {
		<-c
	}
	return s.fakeRegistry.Fetch(ctx, d, offset, w)
}
