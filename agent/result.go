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
		return fmt.Errorf("%w: %s", ErrRolledBack, d.Reason)
	}
	return fmt.Errorf("%s: %s", d.Verdict, d.Reason)
}

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
