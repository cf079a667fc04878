package verify

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"deploytools/verify/spec"
)

// probe looks once at what c names. It fills Kind, Detail, Want and Got, leaves
// Kind empty when c passes, and returns soon after ctx ends.
type probe func(ctx context.Context, c spec.Check, v Vars) Finding

// probes has one probe per type.
var probes = map[spec.Type]probe{
	spec.TLS:     lookTLS,
	spec.HTTP:    lookHTTP,
	spec.TCP:     lookTCP,
	spec.Exec:    lookExec,
	spec.Process: lookProcess,
}

func look(ctx context.Context, c spec.Check, v Vars) Finding { return probes[c.Type](ctx, c, v) }

// Once looks at everything once, all checks at the same time. It takes as long
// as the slowest check, at most its timeout.
func Once(ctx context.Context, s spec.Spec, v Vars) Report { return once(ctx, s, v, look) }

// Run looks at all checks at the same time, in rounds, until each has passed
// s.Successes times in a row, the last time in the same round, or s.Total is
// over. Before another round it waits 1 s after one in which all passed, and
// otherwise 1 s, 2 s and so on up to 16 s; it does not wait for a round that
// could only begin after the end. Each pause is up to an eighth longer, at random.
//
// A check that failed before the time was over keeps what it failed with. When
// ctx is cancelled (rather than its deadline over), whatever has not passed is
// Cancelled.
func Run(ctx context.Context, s spec.Spec, v Vars) Report {
	return runPaced(ctx, s, v, nil, look, jitter)
}

// RunTelling is Run that calls missed, in its own goroutine, after each round in
// which a check failed, with what failed in it.
func RunTelling(ctx context.Context, s spec.Spec, v Vars, missed func([]Finding)) Report {
	return runPaced(ctx, s, v, missed, look, jitter)
}

func once(ctx context.Context, s spec.Spec, v Vars, p probe) Report {
	s = s.WithDefaults()
	started := time.Now()
	t := make(tallies, len(s.Checks))
	t.round(ctx, s.Checks, v, p)
	return report(started, t.findings(ctx, 1))
}

// run is RunTelling with other probes, and pauses that are exact.
func run(ctx context.Context, s spec.Spec, v Vars, missed func([]Finding), p probe) Report {
	return runPaced(ctx, s, v, missed, p, func(d time.Duration) time.Duration { return d })
}

// jitter makes a pause up to an eighth longer, so that hosts that look at the same
// place do not go on looking at the same time.
func jitter(d time.Duration) time.Duration { return d + rand.N(d/8) }

func runPaced(ctx context.Context, s spec.Spec, v Vars, missed func([]Finding), p probe, pace func(time.Duration) time.Duration) Report {
	s = s.WithDefaults()
	started := time.Now()
	budget, cancel := context.WithTimeout(ctx, s.Total)
	defer cancel()

	t := make(tallies, len(s.Checks))
	for next := spec.FirstRetry; len(t) > 0; {
		passed := t.round(budget, s.Checks, v, p)
		if t.steady(s.Successes) {
			break
		}
		wait := spec.FirstRetry
		if !passed {
			if missed != nil && ctx.Err() == nil {
				missed(t.missed())
			}
			wait, next = next, min(2*next, spec.MaxRetry)
		}
		if !pause(budget, pace(wait)) {
			break
		}
	}
	return report(started, t.findings(ctx, s.Successes))
}

// pause waits for d. It reports false, at once if it can, when ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	if end, ok := ctx.Deadline(); ok && time.Until(end) <= d {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// tally is what is known of one check over several rounds.
type tally struct {
	last      Finding
	looks     int
	passes    int     // in a row, up to now
	misses    int     // in a row, up to now
	allMisses int     // in every round
	lastMiss  Finding // the latest of them
	life      string  // of the process, as of the look before
	strict    bool    // life is that of the first look: no process may be started again
}

type tallies []tally

// round looks once at every check, at the same time, and reports whether all
// passed. It returns after its goroutines have ended.
func (t tallies) round(ctx context.Context, checks []spec.Check, v Vars, p probe) bool {
	found := make([]Finding, len(checks))
	var wg sync.WaitGroup
	for i, c := range checks {
		wg.Go(func() { found[i] = one(ctx, c, v, p) })
	}
	wg.Wait()
	passed := true
	for i, f := range found {
		t[i].add(ctx, f)
		passed = passed && t[i].misses == 0
	}
	return passed
}

// one is one look, with its timeout and everything that a Finding holds.
func one(ctx context.Context, c spec.Check, v Vars, p probe) Finding {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	began := time.Now()
	var f Finding
	if err := c.Validate(spec.FromHost); err != nil {
		f = Finding{Kind: Spec, Detail: err.Error()}
	} else if ctx.Err() != nil {
		f = lost(ctx, Timeout, context.Cause(ctx))
	} else {
		f = p(ctx, c, v)
	}
	f.Check, f.Type, f.Target = c.Name, c.Type, c.Target()
	f.OK = f.Kind == ""
	f.Detail, f.Want, f.Got, f.Warning = clean(f.Detail), clean(f.Want), clean(f.Got), clean(f.Warning)
	f.At, f.Duration = began, time.Since(began)
	return f
}

// add counts one look. A look that was cut off because all the time was over
// does not hide why the look before it failed.
func (t *tally) add(ctx context.Context, f Finding) {
	t.looks++
	f = t.same(f)
	if f.OK {
		t.passes, t.misses = t.passes+1, 0
		t.last = f
		return
	}
	cut := ctx.Err() != nil && (f.Kind == Timeout || f.Kind == Cancelled)
	if t.misses == 0 || !cut {
		t.last = f
	}
	t.passes, t.misses = 0, t.misses+1
	t.allMisses++
	t.lastMiss = t.last
}

// same is f, which fails where the process is in another life than before.
func (t *tally) same(f Finding) Finding {
	if !f.OK || f.Life == "" {
		return f
	}
	before := t.life
	if before == "" || !t.strict {
		t.life = f.Life
	}
	if before != "" && before != f.Life {
		f.OK, f.Kind, f.Detail = false, Restarting, fmt.Sprintf("%s was %s, and is now %s", f.Target, before, f.Life)
	}
	return f
}

// missed returns what failed in the last round.
func (t tallies) missed() []Finding {
	var all []Finding
	for _, c := range t {
		if c.misses > 0 {
			all = append(all, c.last)
		}
	}
	return all
}

// steady reports whether every check passed n times in a row.
func (t tallies) steady(n int) bool {
	for _, c := range t {
		if c.passes < n {
			return false
		}
	}
	return true
}

// findings sums up; n is how many passes in a row were asked for. ctx is the
// caller's.
func (t tallies) findings(ctx context.Context, n int) []Finding {
	var all []Finding
	for _, c := range t {
		f := c.last
		f.Attempts = c.looks
		switch {
		case c.passes >= n:
		case ctx.Err() == context.Canceled:
			f = stopped(f, Cancelled, "cancelled")
		case f.OK:
			f.OK, f.Kind = false, Unsteady
			f.Detail = fmt.Sprintf("passed %d times in a row, want %d", c.passes, n)
			if c.allMisses > 0 {
				f.Detail += "; before that: " + string(c.lastMiss.Kind) + ": " + c.lastMiss.Detail
			}
		}
		all = append(all, f)
	}
	return all
}

// stopped is f where looking ended early, with what had been seen by then.
func stopped(f Finding, kind Kind, detail string) Finding {
	if !f.OK && f.Kind != "" && f.Kind != Cancelled {
		detail += "; last: " + string(f.Kind) + ": " + f.Detail
	}
	f.OK, f.Kind, f.Detail = false, kind, detail
	return f
}
