package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"deploytools/registry/wire"
)

// poll is the step of Idle: it asks the registry once, and is done when there is
// something to deploy.
func (a *Agent) poll(ctx context.Context) error {
	a.derive()
	if !a.o.Mode.Once {
		a.collect.start(a, a.o.Keep.Delay)
	}
	st, err := a.ask(ctx)
	if err != nil {
		return err
	}
	a.heed(st)
	if err := a.watchLink(st); err != nil {
		return err
	}
	if absent(st) {
		a.say("want", "configuration not there", "")
		return errStay
	}
	if err := a.letGo(st); err != nil {
		return err
	}
	if a.expectNothing(st) {
		return errStay
	}
	c, err := a.configuration(ctx, st)
	if err != nil {
		return err
	}
	if live := a.rec.Live; live != nil && live.Configuration.Hash == c.Hash {
		return a.relabel(c)
	}
	a.unsay("want")
	return a.deploy(c)
}

func absent(st wire.PollState) bool { return st.Revision == 0 && st.Digest.IsZero() }

// expectNothing reports whether st needs no deployment now, and says why.
func (a *Agent) expectNothing(st wire.PollState) bool {
	r := a.rec
	if a.o.Mode.DryRun && r.Last != nil && r.Last.Verdict == DryRun &&
		r.Last.New.Configuration.Digest == st.Digest && r.Last.New.Configuration.Revision == st.Revision {
		return true
	}
	if r.Hold != nil {
		a.say("want", "held", r.Hold.Reason, "revision", st.Revision, "reason", r.Hold.Reason)
		return true
	}
	if m := r.marked(st); m != nil {
		a.say("want", "configuration failed here before", st.Digest.String(), "revision", st.Revision, "error", m.Reason)
		if a.result == nil { // else this Run has just seen it fail
			a.result = fmt.Errorf("%w: configuration %q, revision %d, failed here before: %s", ErrRolledBack, a.o.Name, st.Revision, m.Reason)
		}
		return true
	}
	if r.Live != nil && r.Live.Configuration.Digest == st.Digest && r.Live.Configuration.Revision == st.Revision {
		return true
	}
	if a.held != "" && a.result == nil {
		a.result = fmt.Errorf("%w: %s", ErrRegistryHolds, a.held)
	}
	return a.held != ""
}

// letGo drops the marks of what a registry without revisions has changed: no
// revision would tell that it changed back, which is a person asking.
func (a *Agent) letGo(st wire.PollState) error {
	before := len(a.rec.Marks)
	a.rec.Marks = slices.DeleteFunc(a.rec.Marks, func(m Mark) bool {
		return st.Revision == 0 && m.Revision == 0 && m.Digest != st.Digest
	})
	if len(a.rec.Marks) == before {
		return nil
	}
	return a.save()
}

// relabel takes over a configuration of the same content, so that the record
// and the state file have its names. The root and the hook are not concerned.
func (a *Agent) relabel(c *wire.Configuration) error {
	live := *a.rec.Live
	live.Configuration = c
	if err := a.writeRoot(&live); err != nil {
		return err
	}
	a.rec.Live = &live
	if err := a.save(); err != nil {
		return err
	}
	a.log().Info("configuration relabelled", "configuration", c.Name, "revision", c.Revision)
	a.derive()
	return errStay
}

// deploy opens a deployment of c.
func (a *Agent) deploy(c *wire.Configuration) error {
	return a.open(Root{Configuration: c, Spec: a.o.Verify})
}

// goBack opens the deployment of the root that was committed before, or of
// another one if that was modified.
func (a *Agent) goBack(ctx context.Context) error {
	back, c, err := a.best(ctx, a.rec.Back, a.rec.Live.Dir)
	if err != nil {
		return err
	}
	if back == nil {
		return errors.New("cannot roll back: no earlier root is left")
	}
	if !c.Whole() {
		a.log().Error("rollback to a modified root", "configuration", a.o.Name, "root", back.Dir, "error", c)
	}
	if err := a.open(*back); err != nil {
		return err
	}
	a.rec.Deployment.ByHand = true
	return nil
}

func (a *Agent) open(root Root) error {
	link, err := a.link()
	if err != nil {
		return err
	}
	a.collect.stop()
	r := a.rec
	r.Seq++
	d := &Deployment{ID: id(r.Seq, root.Configuration), Started: now(), New: root, From: r.Live, Back: r.Live, Link: link}
	if r.Live != nil && r.Live.Verification == Environment && r.Back != nil {
		d.Back = r.Back
	}
	r.Deployment = d
	return nil
}
