package verify

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"deploytools/verify/spec"
)

func soaking(d time.Duration, names ...string) spec.Spec {
	s := named(names...)
	s.Soak = d
	return s
}

func TestSoakLooksEveryFiveSecondsAndAtTheEnd(t *testing.T) {
	for _, row := range []struct {
		soak time.Duration
		want []time.Duration
	}{
		{18 * time.Second, seconds(5, 10, 15, 18)},
		{15 * time.Second, seconds(5, 10, 15)},
		{3 * time.Second, seconds(1, 2, 3)},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := newScript(map[string][]Kind{"a": {""}})
			r := soak(t.Context(), soaking(row.soak, "a"), Vars{}, p.probe)
			if !r.OK || !r.Verified || r.Took != row.soak || !slices.Equal(p.asked["a"], row.want) {
				t.Errorf("soak %v: looked at %v, want %v: %+v", row.soak, p.asked["a"], row.want, r)
			}
		})
	}
}

func TestSoakConfirmsAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newScript(map[string][]Kind{"a": {"", Dial}, "b": {""}})
		r := soak(t.Context(), soaking(time.Hour, "a", "b"), Vars{}, p.probe)
		if want := seconds(5, 10, 11, 12); r.OK || !slices.Equal(p.asked["a"], want) {
			t.Errorf("looked at %v, want %v: %+v", p.asked["a"], want, r)
		}
		if a, b := r.Findings[0], r.Findings[1]; a.Kind != Dial || a.Attempts != 4 || !b.OK {
			t.Errorf("findings %+v", r.Findings)
		}
	})
}

func TestSoakForgivesAndTellsASingleFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newScript(map[string][]Kind{"a": {"", Dial, Dial, ""}})
		r := soak(t.Context(), soaking(16*time.Second, "a"), Vars{}, p.probe)
		if want := seconds(5, 10, 11, 12, 16); !r.OK || !slices.Equal(p.asked["a"], want) {
			t.Errorf("looked at %v, want %v: %+v", p.asked["a"], want, r)
		}
		if got, want := r.Findings[0].Detail, "2 of 5 looks failed, the last: dial: scripted"; got != want {
			t.Errorf("Detail = %q, want %q", got, want)
		}
	})
}

func TestSoakDoesNotEndOnAnUnconfirmedFailure(t *testing.T) {
	for last, ok := range map[Kind]bool{Dial: false, "": true} {
		synctest.Test(t, func(t *testing.T) {
			p := newScript(map[string][]Kind{"a": {"", "", Dial, Dial, last}})
			r := soak(t.Context(), soaking(15*time.Second, "a"), Vars{}, p.probe)
			if want := seconds(5, 10, 15, 16, 17); r.OK != ok || !slices.Equal(p.asked["a"], want) {
				t.Errorf("then %q: looked at %v, want %v: %+v", last, p.asked["a"], want, r)
			}
		})
	}
}

func TestSoakCutShortIsNoSuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newScript(map[string][]Kind{"a": {""}})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(12*time.Second, cancel)
		r := soak(ctx, soaking(time.Hour, "a"), Vars{}, p.probe)
		if f := r.Findings[0]; r.OK || f.Kind != Cancelled || r.Took != 12*time.Second || f.Attempts != 2 {
			t.Errorf("cancelled: %+v", r)
		}
		ctx, cancel = context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		r = soak(ctx, soaking(time.Hour, "a"), Vars{}, p.probe)
		if f := r.Findings[0]; r.OK || f.Kind != Timeout || f.Check != "a" || !strings.Contains(f.Detail, "time was over") {
			t.Errorf("deadline: %+v", r)
		}
	})
}

func TestSoakWithoutChecksWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := soak(t.Context(), soaking(7*time.Second), Vars{}, look)
		if !r.OK || r.Verified || r.Took != 7*time.Second {
			t.Errorf("report %+v", r)
		}
	})
}
