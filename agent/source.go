package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"deploytools/layers/digest"
	"deploytools/registry/wire"
)

// Deadlines of what is asked of a registry: askTimeout for one small question,
// stallTimeout for a transfer that does not move. One that moves is never cut.
const (
	askTimeout   = time.Minute
	stallTimeout = time.Minute
)

// guarded calls the registry. A reply that makes our client panic is an error
// of that registry, and not the end of the agent.
func guarded[T any](call func() (T, error)) (v T, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("registry's reply made the client panic: %v", p)
		}
	}()
	return call()
}

// ask polls once. Of the machine it uses only away, so that it must not be
// called twice at a time.
func (a *Agent) ask(ctx context.Context) (wire.PollState, error) {
	st, err := a.pollOnce(ctx)
	if err == nil {
		a.reports.answered(st)
	}
	if ctx.Err() == nil {
		defer func() { a.show(func(p *present) { p.asked(st, err, a.away) }) }()
	}
	switch {
	case err == nil && !a.away.IsZero():
		a.log().Info("registry reached again", "duration_ms", time.Since(a.away).Milliseconds())
		a.away = time.Time{}
	case err != nil && ctx.Err() == nil && a.away.IsZero():
		a.away = time.Now()
	}
	if err == nil || ctx.Err() == nil {
		a.notifier.ask(a.away)
	}
	return st, err
}

func (a *Agent) pollOnce(ctx context.Context) (wire.PollState, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	st, err := guarded(func() (wire.PollState, error) { return a.o.Source.Poll(ctx, a.o.Name) })
	if err != nil {
		return st, fmt.Errorf("cannot poll: %w", err)
	}
	if st.Revision > 0 && st.Digest.IsZero() {
		return st, errors.New("cannot poll: the registry tells a revision without a digest")
	}
	return st, nil
}

// configuration fetches what st announced, and believes nothing of it.
func (a *Agent) configuration(ctx context.Context, st wire.PollState) (*wire.Configuration, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	c, err := guarded(func() (*wire.Configuration, error) { return a.o.Source.Configuration(ctx, a.o.Name) })
	if err == nil && c == nil {
		err = wire.ErrNotFound
	}
	if err == nil {
		err = c.Check()
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read configuration %q: %w", a.o.Name, err)
	}
	if c.Name != a.o.Name || c.Digest != st.Digest || c.Revision != st.Revision {
		return nil, fmt.Errorf("configuration %q, revision %d: is not the revision %d that was announced", c.Name, c.Revision, st.Revision)
	}
	here := *c
	here.Hold = nil // about now, and not about what is deployed
	return &here, nil
}

// transfer fetches a blob from offset. It has no deadline while bytes come.
func (a *Agent) transfer(ctx context.Context, d digest.Digest, offset int64, w io.Writer) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stall := time.AfterFunc(stallTimeout, func() {
		cancel(fmt.Errorf("no byte for %v: %w", stallTimeout, wire.ErrUnreachable))
	})
	defer stall.Stop()
	_, err := guarded(func() (struct{}, error) {
		return struct{}{}, a.o.Source.Fetch(ctx, d, offset, &progress{w, stall, &a.pulse})
	})
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// progress puts the stall off with each write.
type progress struct {
	w     io.Writer
	stall *time.Timer
	pulse *pulse
}

func (p *progress) Write(b []byte) (int, error) {
	p.stall.Reset(stallTimeout)
	p.pulse.beat()
	return p.w.Write(b)
}
