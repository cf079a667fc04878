package verify

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"deploytools/verify/spec"
)

// lives is a probe of a process that ends after these times, each counted from
// the start of the test, and is started again at once.
func lives(ends ...time.Duration) probe {
	start := time.Now()
	return func(context.Context, spec.Check, Vars) Finding {
		n := 0
		for _, end := range ends {
			if time.Since(start) >= end {
				n++
			}
		}
		return Finding{Life: string(rune('a' + n))}
	}
}

func TestAServiceThatKeepsEndingIsNotVerified(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ends []time.Duration
		for d := time.Duration(0); d < time.Minute; d += 1500 * time.Millisecond {
			ends = append(ends, d)
		}
		s := named("web")
		s.Successes, s.Total = 3, 30*time.Second
		r := run(t.Context(), s, Vars{}, nil, lives(ends...))
		if f := r.Findings[0]; r.OK || f.Kind != Restarting && f.Kind != Unsteady {
			t.Errorf("a service that ends every 1.5 s: %+v", f)
		}
		// One that ends once while it starts, and then stays, has time to.
		r = run(t.Context(), s, Vars{}, nil, lives(1500*time.Millisecond))
		if f := r.Findings[0]; !r.OK || f.Attempts < 5 {
			t.Errorf("a service that ends once: %+v", f)
		}
	})
}

func TestSoakFailsWithAServiceThatWasStartedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := named("web")
		s.Soak = time.Minute
		r := soak(t.Context(), s, Vars{}, lives(22*time.Second))
		if f := r.Findings[0]; r.OK || f.Kind != Restarting || r.Took != 27*time.Second {
			t.Errorf("started again after 22 s: %v, %+v", r.Took, f)
		}
		if r := soak(t.Context(), s, Vars{}, lives()); !r.OK {
			t.Errorf("never started again: %+v", r)
		}
	})
}

func TestPausesAreSpreadAndNotShortened(t *testing.T) {
	longest := time.Duration(0)
	for range 1000 {
		d := jitter(16 * time.Second)
		if d < 16*time.Second || d > 18*time.Second {
			t.Fatalf("a pause of 16 s is %v", d)
		}
		longest = max(longest, d)
	}
	if longest < 17*time.Second {
		t.Errorf("the longest of 1000 pauses of 16 s is %v", longest)
	}
}
