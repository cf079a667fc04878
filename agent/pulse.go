package agent

import (
	"io"
	"sync/atomic"
	"time"
)

// pulseSlack is what anything may take that has no deadline of its own, such as
// the sync of a whole tree on a slow disk. Whatever goes on longer than that
// without an end or a sign of progress, hangs.
const pulseSlack = 10 * time.Minute

// pulse knows until when the machine may be silent. The zero value expects
// nothing. Its clock stands still while the machine sleeps.
type pulse struct {
	since time.Time    // set once, before it is used
	until atomic.Int64 // after since, in nanoseconds; 0: there is nothing to expect
}

// within expects a sign of life after at most d, and pulseSlack.
func (p *pulse) within(d time.Duration) {
	p.until.Store(int64(time.Since(p.since) + d + pulseSlack))
}

// beat is a sign of life in the middle of a step. It never shortens what a step
// was given.
func (p *pulse) beat() {
	next := int64(time.Since(p.since) + pulseSlack)
	for {
		until := p.until.Load()
		if until == 0 || until >= next || p.until.CompareAndSwap(until, next) {
			return
		}
	}
}

func (p *pulse) rest() { p.until.Store(0) }

// Alive reports whether Run gets on: it waits for what has its time still, or has
// moved lately, or does not run. Once it is false only a restart of the process
// helps; what the record says goes on then.
func (a *Agent) Alive() bool {
	until := a.pulse.until.Load()
	return until == 0 || time.Since(a.pulse.since) <= time.Duration(until)
}

// longest returns how long the step of s may take, where all goes well or as
// badly as its deadlines allow.
func (a *Agent) longest(s State) time.Duration {
	spec := a.o.Verify
	if d := a.rec.Deployment; d != nil && s != Reverifying {
		spec = d.New.Spec
	} else if d != nil && d.Back != nil {
		spec = d.Back.Spec
	}
	spec = spec.WithDefaults()
	var look time.Duration // at everything once
	for _, c := range spec.Checks {
		look = max(look, c.Timeout)
	}
	hook := hookRuns * (a.o.Hook.Timeout + hookGrace + hookPatience)
	switch s {
	case Checking:
		return hook + 2*look
	case Hooking:
		return hook
	case Verifying:
		return spec.Total + spec.Soak + 2*look
	case Rehooking:
		return 2 * attempts * hook
	case Reverifying:
		return attempts * (spec.Total + look)
	case Broken:
		return askTimeout + look
	case Fetching, Unpacking: // the rest of them beats
		return askTimeout
	case Idle:
		return 2 * askTimeout
	}
	return 0
}

// beating is a reader whose every read is a sign of life.
type beating struct {
	io.ReadCloser
	p *pulse
}

func (b beating) Read(buf []byte) (int, error) {
	b.p.beat()
	return b.ReadCloser.Read(buf)
}
