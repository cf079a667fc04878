package agent

import (
	"time"

	"deploytools/registry/wire"
)

// present is what a running agent knows and does not keep on record.
type present struct {
	started  time.Time
	next     time.Time // end of the wait; zero: a step runs
	waiting  string    // for what to go away; "": for the next poll
	away     time.Time // since when the registry cannot be asked
	newest   wire.PollState
	polled   time.Time // when it said so
	held     string    // the registry's hold in words
	shut     string    // what waits for the window; "": nothing
	opens    time.Time // when that opens
	missing  string    // checks that do not pass yet; "": none that we know of
	patience time.Time // when that is a failure
	looking  *Looking  // what is live is looked at for a revision; nil: it is not
	err      error     // why this agent does nothing
}

// show changes what others see of the present.
func (a *Agent) show(change func(*present)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change(&a.present)
}

// asked notes what came of a poll.
func (p *present) asked(st wire.PollState, err error, away time.Time) {
	p.away = away
	if err == nil {
		p.newest, p.polled = st, now()
	}
}

// unable is why commands cannot be carried out; nil: they can.
func (a *Agent) unable() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.present.err
}
