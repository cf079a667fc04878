package verify

import (
	"context"
	"fmt"
	"time"

	"deploytools/verify/spec"
)

// How Soak looks.
const (
	SoakInterval = 5 * time.Second // between two rounds, or a third of the soak if that is shorter
	SoakMisses   = 3               // so many failures of one check in a row end the soak
)

// Soak looks again and again for s.Soak, the first time after one interval and
// the last time at the end. A check that fails is looked at again 1 s and 2 s
// later, beyond the end if need be; it fails the soak, and ends it, when these
// looks fail too. A failure that was not confirmed is told in Detail of a
// finding that is OK. A process that is started again in the soak time is a failure
// from then on.
//
// Without checks Soak only waits. Without a soak time it does nothing: the
// report is OK and not verified, as nothing was looked at.
func Soak(ctx context.Context, s spec.Spec, v Vars) Report { return soak(ctx, s, v, look) }

func soak(ctx context.Context, s spec.Spec, v Vars, p probe) Report {
	started := time.Now()
	if s.Soak <= 0 {
		return report(started, nil)
	}
	s = s.WithDefaults()
	end := started.Add(s.Soak)
	t := make(tallies, len(s.Checks))
	for i := range t {
		t[i].strict = true
	}
	wait := min(SoakInterval, s.Soak/3)
	for pause(ctx, wait) {
		t.round(ctx, s.Checks, v, p)
		left := time.Until(end)
		switch worst := t.worst(); {
		case worst >= SoakMisses:
			return report(started, t.soaked(ctx))
		case worst > 0:
			wait = spec.FirstRetry
		case left <= 0:
			return report(started, t.soaked(ctx))
		default:
			wait = min(SoakInterval, s.Soak/3, left)
		}
	}
	return report(started, t.cutOff(ctx, s.Checks))
}

// worst is the most failures in a row that a check has now.
func (t tallies) worst() int {
	n := 0
	for _, c := range t {
		n = max(n, c.misses)
	}
	return n
}

// soaked sums up a soak that came to its end, good or bad.
func (t tallies) soaked(ctx context.Context) []Finding {
	all := t.findings(ctx, 1)
	for i, c := range t {
		if all[i].OK && c.allMisses > 0 {
			all[i].Detail = fmt.Sprintf("%d of %d looks failed, the last: %s: %s",
				c.allMisses, c.looks, c.lastMiss.Kind, c.lastMiss.Detail)
		}
	}
	return all
}

// cutOff sums up a soak that ctx ended: no check stood it to the end.
func (t tallies) cutOff(ctx context.Context, checks []spec.Check) []Finding {
	kind, detail := Timeout, "the time was over before the end of the soak"
	if ctx.Err() == context.Canceled {
		kind, detail = Cancelled, "cancelled before the end of the soak"
	}
	var all []Finding
	for i, c := range t {
		f := c.last
		f.Check, f.Type, f.Target = checks[i].Name, checks[i].Type, checks[i].Target()
		f.Attempts = c.looks
		all = append(all, stopped(f, kind, detail))
	}
	return all
}
