package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// State is what the agent is doing.
type State string

// The states. The table says what each is for.
const (
	Idle        State = "Idle"
	Fetching    State = "Fetching"
	Unpacking   State = "Unpacking"
	Checking    State = "Checking"
	Switching   State = "Switching"
	Hooking     State = "Hooking"
	Verifying   State = "Verifying"
	Committing  State = "Committing"
	Restoring   State = "Restoring"
	Rehooking   State = "Rehooking"
	Reverifying State = "Reverifying"
	Discarding  State = "Discarding"
	Broken      State = "Broken"
)

// arrows are what a state does and where it leads.
type arrows struct {
	about        string
	step         func(*Agent, context.Context) error
	done, failed State
}

// machine is the whole of it; docs/state-machine.md is drawn from it.
var machine = map[State]arrows{
	Idle:        {"OLDROOT serves; waits for another configuration", (*Agent).poll, Fetching, Idle},
	Fetching:    {"missing layers come into the cache, and are unpacked as they come", (*Agent).fetch, Unpacking, Discarding},
	Unpacking:   {"NEWROOT is filled, digests checked, synced, renamed; nobody sees it yet", (*Agent).unpack, Checking, Discarding},
	Checking:    {"files to publish are staged, check script on NEWROOT, baseline of OLDROOT, way back prepared; dry runs end here", (*Agent).check, Switching, Discarding},
	Switching:   {"published files come to their paths, and the link `current` moves to NEWROOT", (*Agent).switchRoot, Hooking, Restoring},
	Hooking:     {"the hook makes NEWROOT live", (*Agent).hook, Verifying, Restoring},
	Verifying:   {"checks from outside, then the soak time", (*Agent).verify, Committing, Restoring},
	Committing:  {"NEWROOT becomes the root to fall back on", (*Agent).commit, Idle, Committing},
	Restoring:   {"the link `current` moves back to OLDROOT, and published files come back", (*Agent).restore, Rehooking, Broken},
	Rehooking:   {"the hook makes OLDROOT live", (*Agent).rehook, Reverifying, Broken},
	Reverifying: {"OLDROOT is looked at too", (*Agent).reverify, Discarding, Broken},
	Discarding:  {"the deployment is closed", (*Agent).discard, Idle, Discarding},
	Broken:      {"neither root serves: alarm, go back again where that could not even begin, keep looking, wait for a person or a new revision", (*Agent).awaitOperator, Discarding, Broken},
}

// order lists the states as a person reads them.
var order = []State{Idle, Fetching, Unpacking, Checking, Switching, Hooking, Verifying, Committing,
	Restoring, Rehooking, Reverifying, Discarding, Broken}

// States returns all of them, as a person reads them.
func States() []State { return slices.Clone(order) }

// among reports whether s is one of the states from first to last, in order.
func (s State) among(first, last State) bool {
	in := false
	for _, o := range order {
		in = in || o == first
		if o == s {
			return in
		}
		if o == last {
			return false
		}
	}
	return false
}

// counted: a process that dies in such a state again and again dies of it.
func (s State) counted() bool {
	return s.among(Unpacking, Verifying) || s.among(Restoring, Reverifying)
}

// patient: an error in such a state stays there, unless it is definite.
func (s State) patient() bool {
	return s.among(Idle, Checking) || s == Committing || s == Discarding || s == Broken
}

// preparing: nothing was touched yet, so that another configuration can still
// take the place of this one.
func (s State) preparing() bool { return s.among(Fetching, Checking) }

// returning: the record helps, but the way back does not depend on it.
func (s State) returning() bool { return s.among(Restoring, Broken) }

// maxTries is how often a process may die in one state.
const maxTries = 3

// errStay says that a step has nothing to do now. It is no failure.
var errStay = errors.New("nothing to do")

// errAgain says that a step is to begin again at once. It is no failure.
var errAgain = errors.New("begins again")

// definite is an error that trying again cannot help.
type definite struct {
	verdict Verdict
	err     error
	unbegun bool // the hook could not be started: there is nothing of it to undo
}

func (d *definite) Error() string { return d.err.Error() }
func (d *definite) Unwrap() error { return d.err }

func bad(err error) error { return &definite{verdict: Bad, err: err} }

// advance runs the step of the state and takes an arrow. With an error it has
// taken none: errStay, the cause of a cancelled ctx, or what is to be tried again.
func (a *Agent) advance(ctx context.Context) error {
	s := a.rec.State
	arrow := machine[s]
	if s.preparing() {
		if err := a.unwanted(Superseded); err != nil {
			return a.failed(s, err)
		}
	}
	if a.retrying && s.preparing() {
		if err := a.superseded(ctx); err != nil {
			return a.failed(s, err)
		}
	}
	if err := a.begin(); err != nil {
		if _, dead := errors.AsType[*definite](err); dead || !s.patient() {
			return a.failed(s, err)
		}
		return err
	}
	err := arrow.step(a, ctx)
	a.crash("effect of " + string(s))
	if err == nil {
		return a.enter(arrow.done)
	}
	if ctx.Err() != nil { // the agent's own; a step's deadline is a failure
		a.end()
		return context.Cause(ctx)
	}
	_, isDefinite := errors.AsType[*definite](err)
	if errors.Is(err, errStay) || s.patient() && !isDefinite {
		a.end()
		return err
	}
	return a.failed(s, err)
}

// failed takes the failed arrow of s with the verdict that err asks for.
func (a *Agent) failed(s State, err error) error {
	seen := a.rec.Deployment
	a.rec = a.Record().clone()
	d := a.rec.Deployment
	// Of what the step wrote only what it saw is kept: that is evidence.
	if seen != nil {
		d.Checks, d.Soak, d.Restored, d.Publishing = seen.Checks, seen.Soak, seen.Restored, seen.Publishing
		d.New.Spec, d.New.From = seen.New.Spec, seen.New.From
	}
	verdict := Bad
	if definite, ok := errors.AsType[*definite](err); ok {
		verdict = definite.verdict
		d.Hooked = d.Hooked && !definite.unbegun
	}
	if s.returning() {
		d.Broken = line(err)
		if d.Verdict == Bad {
			a.rec.remark(d.New.Configuration.Digest, d.whyBad())
		}
	} else {
		d.Verdict, d.Reason = verdict, line(err)
		if verdict == Bad {
			a.rec.mark(d.New.Configuration, d.Reason)
		}
	}
	if verdict == Bad { // a person must mend it: it is not tried again
		a.log().Error("step failed", "state", s, "error", err)
	}
	return a.enter(machine[s].failed)
}

// begin counts a try of a state whose tries count, before it, so that a death
// in it is seen. enter has counted the first one in its own write.
func (a *Agent) begin() error {
	begun := a.begun
	a.begun = false
	if !a.rec.State.counted() || begun {
		return nil
	}
	if a.rec.Tries >= maxTries {
		return bad(fmt.Errorf("the agent ended %d times in this state", a.rec.Tries))
	}
	a.rec.Tries++
	if err := a.save(); err != nil && !a.rec.State.returning() {
		return err
	}
	return nil
}

// end takes back what a step that took no arrow wrote into the working copy,
// and its try: it returned, so it did not die.
func (a *Agent) end() {
	a.rec = a.Record().clone()
	a.begun = false
	if a.rec.Tries == 0 {
		return
	}
	a.rec.Tries = 0
	if err := a.save(); err != nil {
		a.log().Warn("record not written", "state", a.rec.State, "error", err)
	}
}
