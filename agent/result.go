package agent

import "fmt"

// Result is what has become of what a person asked for.
type Result struct {
	Deployment *Deployment // that it came to; it may be under way still. Nil: none
	Err        error       // as those of a Run in Mode.Once
}

// waitsFor is what somebody waits for.
type waitsFor int

const (
	waitsForRest waitsFor = iota // the machine waits
	waitsForRollback
	waitsForDryRun
	waitsForRepair
)

// waiter is somebody who waits, and may have gone away.
type waiter struct {
	what waitsFor
	seq  uint64 // Record.Seq when the wait began
	done chan Result
}

func newWaiter(what waitsFor) *waiter { return &waiter{what: what, done: make(chan Result, 1)} }

// closed tells those who wait for it that the deployment d has ended.
func (a *Agent) closed(d *Deployment) {
	var left []*waiter
	for _, w := range a.waiters {
		switch {
		case w.what == waitsForDryRun && d.Dry, w.what == waitsForRepair && d.Repair, w.what == waitsForRollback && a.rec.Wanted == "" && d.ByHand:
			w.done <- Result{d, d.outcome()}
		default:
			left = append(left, w)
		}
	}
	a.waiters = left
	if d.Dry {
		a.dry = false
	}
}

// outcome is what a closed deployment has to say.
func (d *Deployment) outcome() error {
	switch d.Verdict {
	case "", DryRun:
		return nil
	case Bad:
		return d.failure()
	}
	return fmt.Errorf("%s: %s", d.Verdict, d.Reason)
}

// failure is how a closed deployment failed: in the same word as its Outcome.
func (d *Deployment) failure() error {
	if d.Broken != "" {
		return wasBroken(d.whyBad())
	}
	return fmt.Errorf("%w: %s", ErrRolledBack, d.whyBad())
}

// whyBad is the reason of the verdict, and that of a rollback which failed as well.
func (d *Deployment) whyBad() string {
	if d.Broken == "" {
		return d.Reason
	}
	return d.Reason + "; the rollback failed as well: " + d.Broken
}

// wasBroken is the ErrBroken of a deployment that is closed: what serves by now
// is another question, so it does not say that neither version works.
type wasBroken string

func (e wasBroken) Error() string { return string(NotServing) + ": " + string(e) }

func (wasBroken) Is(target error) bool { return target == ErrBroken }

// settled tells those who wait for a rollback that there is none: the root is
// live by now, or err.
func (a *Agent) settled(err error) {
	var left []*waiter
	for _, w := range a.waiters {
		if w.what != waitsForRollback {
			left = append(left, w)
			continue
		}
		w.done <- Result{a.rec.Last, err}
	}
	a.waiters = left
}

// rest tells everybody who waits what the machine has come to, which waits now.
// err is why it does; nil: there is nothing to do.
func (a *Agent) rest(err error) {
	for _, w := range a.waiters {
		out := Result{Err: err}
		if r := a.Record(); r.Deployment != nil {
			out.Deployment = r.Deployment
		} else if r.Last != nil && r.Seq > w.seq {
			out.Deployment = r.Last
		}
		if err == nil && w.what != waitsForDryRun {
			out.Err = a.verdict()
		}
		w.done <- out
	}
	a.waiters, a.dry = nil, false
}
