package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"deploytools/atomic"
)

// enter takes an arrow: the record of the new state is made durable, then
// others are told. On the way back an unwritable record is only said. On the
// way forward it is an error, or, once the link has moved, the reason to go
// back: what cannot be remembered must not be begun.
func (a *Agent) enter(next State) error {
	from := a.rec.State
	a.rec.State, a.rec.Entered, a.rec.Tries = next, now(), 0
	if next.counted() {
		a.rec.Tries = 1
	}
	if d := a.rec.Deployment; d != nil {
		d.Switched = d.Switched || next == Switching
		d.Hooked = d.Hooked || next == Hooking
		d.Events = append(d.Events, Event{next, a.rec.Entered})
		d.Events = d.Events[max(0, len(d.Events)-100):]
	}
	if err := a.save(); err != nil {
		switch {
		case next.returning() || next == Discarding:
			a.log().Error("record not written", "state", next, "error", err)
			a.publish()
		case from.among(Switching, Verifying):
			return a.failed(from, fmt.Errorf("cannot write the record: %w", err))
		default:
			a.end()
			return err
		}
	}
	a.begun = next.counted()
	a.log().Info("state entered", "state", next, "from_state", from)
	if next == Idle {
		a.logEnd(a.rec.Last)
		a.closed(a.rec.Last)
	}
	if next.works() {
		a.caughtUp()
	}
	if a.o.Observe.Enter != nil {
		a.o.Observe.Enter(next)
	}
	return nil
}

// save makes the working copy durable and shows it to others. It tries three
// times: each is a new file, so that a failed sync is not asked again. On a full
// disk the reserve gives the room for what cannot wait.
func (a *Agent) save() error {
	boot, err := bootID()
	if err != nil {
		return err
	}
	a.rec.Boot = boot
	b, err := encode(a.rec)
	if err != nil {
		return fmt.Errorf("internal error: %w", err)
	}
	for try := 0; try < 3; try++ {
		if err = atomic.WriteFile(a.path("journal.json"), b, 0o600); err == nil {
			a.publish()
			return nil
		}
		if a.freed(err) {
			try = 0
		}
	}
	return err
}

// publish shows the working copy to others.
func (a *Agent) publish() {
	a.mu.Lock()
	a.saved = a.rec.clone()
	a.mu.Unlock()
	a.notifier.settle(a.saved)
	a.reports.changed()
	a.tell(a.status())
}

// load reads the record. Without one it returns nil; the error wraps errNewer
// or errDamaged, or says why the file cannot be read.
func (a *Agent) load() (*Record, error) { return readRecord(a.path("journal.json")) }

func readRecord(file string) (*Record, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r := new(Record)
	if err := decode(b, r); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if _, known := machine[r.State]; !known || r.State != Idle && (r.Deployment == nil || r.Deployment.New.Configuration == nil) {
		return nil, fmt.Errorf("%s: state %q: %w", file, r.State, errDamaged)
	}
	return r, nil
}

// status is one line for people.
func (a *Agent) status() string {
	r := a.rec
	s := r.Name + ": " + string(r.State)
	if d := r.Deployment; d != nil {
		return s + fmt.Sprintf(", revision %d", d.New.Configuration.Revision)
	}
	switch {
	case r.Hold != nil:
		s += ", held: " + r.Hold.String()
	case r.Live == nil:
		s += ", nothing deployed"
	default:
		s += fmt.Sprintf(", revision %d %s", r.Live.Configuration.Revision, r.Live.Verification)
	}
	if a.held != "" {
		s += ", held by the registry: " + a.held
	}
	if a.shutTo != "" {
		s += ", " + a.shutTo
	}
	return s
}
