package registry_test

import (
	"testing"
	"time"

	"deploytools/registry"
	"deploytools/registry/wire"
)

// held returns the hold of a configuration as each way to ask tells it.
func held(t *testing.T, r *registry.Registry, name string) *wire.Hold {
	t.Helper()
	reply, err := r.Poll(t.Context(), registry.Caller{}, wire.PollRequest{Names: []string{name}})
	if err != nil {
		t.Fatal(err)
	}
	rev, err := r.Configuration(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	all, err := r.Configurations(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	h := reply.Configurations[0].Hold
	for _, other := range []*wire.Hold{rev.Hold, all[0].Hold} {
		if (h == nil) != (other == nil) || h != nil && *h != *other {
			t.Errorf("the poll tells the hold %+v, the configuration %+v", h, other)
		}
	}
	return h
}

func TestAHoldIsToldUntilItEnds(t *testing.T) {
	w, r := stocked(t)
	configure(t, r, "web", "code:v1")
	if h := held(t, r, "web"); h != nil {
		t.Errorf("held without a reason: %+v", h)
	}
	until := w.clock.now().Add(time.Hour)
	if what, err := r.Hold(t.Context(), act, "web", "sale", until); err != nil || what != "held: sale, until 2026-11-21T21:00:00Z" {
		t.Errorf("Hold = %q, %v", what, err)
	}
	change(t, r, "web", "code:v2") // changes go on, deliveries do not
	if h := held(t, r, "web"); h == nil || h.Reason != "sale" || !h.Until.Equal(until) {
		t.Errorf("the hold is %+v", h)
	}
	w.clock.set(until.Add(-1))
	if held(t, r, "web") == nil {
		t.Error("it ended early")
	}
	w.clock.set(until)
	if h := held(t, r, "web"); h != nil {
		t.Errorf("it has not ended: %+v", h)
	}
	if what, err := r.EndHold(t.Context(), act, "web"); err != nil || what != "was not held" {
		t.Errorf("EndHold of a hold that has ended = %q, %v", what, err)
	}

	// One without an end, which another one replaces.
	for _, reason := range []string{"first", "second"} {
		if _, err := r.Hold(t.Context(), act, "web", reason, time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	w.clock.advance(10000 * time.Hour)
	if h := held(t, r, "web"); h == nil || h.Reason != "second" || !h.Until.IsZero() {
		t.Errorf("the hold is %+v", h)
	}
	if what, err := r.EndHold(t.Context(), act, "web"); err != nil || what != "resumed, was held: second" {
		t.Errorf("EndHold = %q, %v", what, err)
	}
	if h := held(t, r, "web"); h != nil {
		t.Errorf("after EndHold it is held: %+v", h)
	}
}

// A hold outlives its configuration: what comes back comes back held.
func TestADeletedConfigurationStaysHeld(t *testing.T) {
	_, r := stocked(t)
	configure(t, r, "web", "code:v1")
	if _, err := r.Hold(t.Context(), act, "web", "sale", time.Time{}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := deleteConfiguration(t.Context(), r, "web"); err != nil {
			t.Fatal(err)
		}
		rollback(t, r, "web", 1)
	}
	if held(t, r, "web") == nil {
		t.Error("it came back without its hold")
	}
	if err := deleteConfiguration(t.Context(), r, "web"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.EndHold(t.Context(), act, "web"); err != nil {
		t.Errorf("EndHold of what was deleted = %v", err)
	}
	_, err := r.EndHold(t.Context(), act, "web")
	wantKind(t, "EndHold of what is neither there nor held", err, registry.ErrNotFound)
}

func TestWhatHoldRefuses(t *testing.T) {
	w, r := stocked(t)
	configure(t, r, "web", "code:v1")
	for name, test := range map[string]struct {
		name, reason string
		until        time.Time
		kind         error
	}{
		"no reason":        {"web", "", time.Time{}, registry.ErrUsage},
		"a long reason":    {"web", string(make([]byte, wire.MaxReason+1)), time.Time{}, registry.ErrUsage},
		"two lines":        {"web", "a\nb", time.Time{}, registry.ErrUsage},
		"over already":     {"web", "sale", w.clock.now(), registry.ErrUsage},
		"no configuration": {"nope", "sale", time.Time{}, registry.ErrNotFound},
	} {
		_, err := r.Hold(t.Context(), act, test.name, test.reason, test.until)
		wantKind(t, "Hold with "+name, err, test.kind)
	}
	if h := held(t, r, "web"); h != nil {
		t.Errorf("it is held all the same: %+v", h)
	}
}
