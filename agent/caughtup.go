package agent

import "context"

// CatchUp returns what waits, after an act of a person, until the machine has gone on: it
// waits again, or works at a deployment. What Status says then is what the act has led to.
// It is called before the act.
func (a *Agent) CatchUp() (wait func(context.Context)) {
	done := make(chan struct{})
	a.mu.Lock()
	a.behind = append(a.behind, done)
	a.mu.Unlock()
	return func(ctx context.Context) {
		if a.alone || a.Record().State.works() {
			return
		}
		select {
		case <-done:
		case <-ctx.Done():
		}
	}
}

// caughtUp ends the waits of CatchUp.
func (a *Agent) caughtUp() {
	a.mu.Lock()
	behind := a.behind
	a.behind = nil
	a.mu.Unlock()
	for _, done := range behind {
		close(done)
	}
}

// works reports whether a deployment is at work in the state, which may take a while.
func (s State) works() bool { return s != Idle && s != Discarding && s != Broken }
