package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"deploytools/registry/wire"
)

// The methods below wait for the step that runs to return, or for their ctx: they
// act between two steps, where the machine waits. In Verifying, which may take
// long, they have the registry polled at once.

// Hold stops new deployments until Resume. One that is under way goes on.
func (a *Agent) Hold(ctx context.Context, reason string) error {
	return a.command(ctx, func() error {
		a.rec.Hold = &Hold{Reason: reason, Since: now(), Standing: true}
		return a.save()
	})
}

// Resume ends every hold. Without one it does nothing. Where the hold was for
// `current`, moved to what is no root of ours or deleted, it names the live root
// again: else the next poll would set the same hold.
func (a *Agent) Resume(ctx context.Context) error {
	return a.command(ctx, a.resumeNow)
}

func (a *Agent) resumeNow() error {
	if err := a.relink(); err != nil {
		return err
	}
	a.rec.Hold = nil
	return a.save()
}

// relink moves `current` back from where the hold found it.
func (a *Agent) relink() error {
	h, live := a.rec.Hold, a.rec.Live
	if h == nil || live == nil || a.rec.State != Idle {
		return nil
	}
	link, err := a.link()
	if err != nil || link != h.Link || link == live.Dir {
		return err
	}
	return a.pointAt(live)
}

// Retry lets go of all marks, so that what failed here is tried again, and in
// Broken closes the deployment.
func (a *Agent) Retry(ctx context.Context) error {
	return a.command(ctx, a.retryNow)
}

func (a *Agent) retryNow() error {
	a.rec.Marks = nil
	a.retry = a.rec.State == Broken
	return a.save()
}

// Rollback makes the root live that was committed before the live one, as it
// lies there, and sets a hold until the registry has a later revision than the
// next poll finds. It returns when that is on record, and needs no registry. Twice
// is forward again. Without such a root, or where a deployment waits to try
// again, it is an error.
func (a *Agent) Rollback(ctx context.Context) error {
	return a.command(ctx, func() error {
		switch {
		case a.rec.State != Idle:
			return fmt.Errorf("cannot roll back: a deployment is under way, in %s", a.rec.State)
		case a.rec.Back == nil || a.rec.Live == nil:
			return errors.New("cannot roll back: no earlier root is kept")
		}
		if err := a.goBack(ctx); err != nil {
			return err
		}
		return a.enter(Fetching)
	})
}

// Wake ends the wait for the next poll or try.
func (a *Agent) Wake(ctx context.Context) error {
	return a.command(ctx, func() error { return nil })
}

// command has Run's goroutine do something when it next waits, and returns what
// came of it. What was not written is undone.
func (a *Agent) command(ctx context.Context, do func() error) error {
	result := make(chan error, 1)
	run := func() {
		err := do()
		if err != nil {
			a.rec = a.Record().clone()
		}
		result <- err
	}
	for hurry := a.hurry; ; hurry = nil {
		select {
		case a.commands <- run:
			return <-result
		case hurry <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// heed notes whether the registry holds the configuration, and logs when that
// changes. Such a hold is the registry's to begin and to end: it is not on our
// record, and no clock of ours is asked.
func (a *Agent) heed(st wire.PollState) {
	held := ""
	if h := st.Hold; h != nil {
		held = cmp.Or(oneLine(h.Reason), "no reason given")
		if !h.Until.IsZero() {
			held += ", until " + h.Until.UTC().Format(time.RFC3339)
		}
	}
	switch {
	case held == a.held:
		return
	case held == "":
		a.log().Info("hold of the registry ended", "configuration", a.o.Name, "revision", st.Revision)
	default:
		a.log().Warn("held by the registry", "configuration", a.o.Name, "revision", st.Revision, "reason", held)
	}
	a.held = held
}

// watchLink sets a hold when `current` was moved by hand, and ends one whose
// time has come.
func (a *Agent) watchLink(st wire.PollState) error {
	link, err := a.link()
	if err != nil {
		return err
	}
	want := ""
	if a.rec.Live != nil {
		want = a.rec.Live.Dir
	}
	switch h := a.rec.Hold; {
	case link != want && (h == nil || h.Link != link):
		return a.moved(link, st)
	case h == nil || h.Standing || absent(st):
		return nil
	case h.Digest.IsZero(): // set when the registry could not be asked
		hold := *h
		hold.Revision, hold.Digest = st.Revision, st.Digest
		a.rec.Hold = &hold
		return a.save()
	case h.Link != "" && link == want, st.Revision > h.Revision, st.Revision == 0 && st.Digest != h.Digest:
		a.rec.Hold = nil
		a.log().Info("hold ended", "configuration", a.o.Name, "revision", st.Revision)
		return a.save()
	}
	return nil
}

// moved notes that a person moved `current`. If it names a committed root of
// ours, that is the live one now; if not, the record keeps the one it knew.
func (a *Agent) moved(link string, st wire.PollState) error {
	h := &Hold{Reason: fmt.Sprintf("`current` was moved by hand to %q", link), Since: now(), Link: link, Revision: st.Revision, Digest: st.Digest}
	if a.rec.Hold != nil {
		h.Standing = a.rec.Hold.Standing
	}
	root, err := a.committed(link)
	if err != nil {
		return err
	}
	if root != nil {
		a.rec.Live, a.rec.Back, h.Link = root, a.rec.Live, ""
	}
	a.rec.Hold = h
	a.log().Warn("current moved by hand", "configuration", a.o.Name, "root", link)
	return a.save()
}
