package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"deploytools/registry/wire"
)

// poll is the step of Idle: it asks the registry once, and is done when there is
// something to deploy.
func (a *Agent) poll(ctx context.Context) error {
	a.derive()
	a.watchPublished(ctx)
	if err := a.endHold(); err != nil {
		return err
	}
	if !a.o.Mode.Once {
		a.onPatrol() // first: it asks whether a collection has ended
		a.collect.start(a, a.o.Keep.Delay)
	}
	if opened, err := a.wanted(); opened || err != nil {
		return err
	}
	a.renewReserve()
	st, err := a.askBeside(ctx, Superseded)
	if err != nil {
		return err
	}
	a.heed(st)
	a.waitForWindow("", "", time.Time{})
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
	var c *wire.Configuration
	err = a.during(ctx, Superseded, func(ctx context.Context) (err error) {
		c, err = a.configuration(ctx, st)
		return err
	})
	if errors.Is(err, wire.ErrConfiguration) {
		return errors.Join(err, a.refuseRevision(st, err))
	}
	if err != nil {
		return err
	}
	if a.expectNothing(st) { // a person may have held it meanwhile
		return errStay
	}
	if live := a.rec.Live; live != nil && live.Configuration.Hash == c.Hash {
		if a.dry {
			return errStay
		}
		return a.relabel(ctx, c)
	}
	if shut, err := a.shut(c); shut || err != nil {
		return cmp.Or(err, errStay)
	}
	if err := a.crossed.rests(c.Digest); err != nil {
		return err
	}
	a.unsay("want")
	return a.deploy(c)
}

// askBeside is ask, during which people are served: a registry may take a minute
// to be away.
func (a *Agent) askBeside(ctx context.Context, verdict Verdict) (st wire.PollState, err error) {
	err = a.during(ctx, verdict, func(ctx context.Context) (err error) {
		st, err = a.ask(ctx)
		return err
	})
	return st, err
}

func absent(st wire.PollState) bool { return st.Revision == 0 && st.Digest.IsZero() }

// expectNothing reports whether st needs no deployment now, and says why.
func (a *Agent) expectNothing(st wire.PollState) bool {
	r := a.rec
	if a.dry {
		return r.Live != nil && r.Live.Configuration.Digest == st.Digest
	}
	if a.o.Mode.DryRun && r.Last != nil && r.Last.Verdict == DryRun &&
		r.Last.New.Configuration.Digest == st.Digest && r.Last.New.Configuration.Revision == st.Revision {
		return true
	}
	if r.Hold != nil && !r.Hold.overtaken(st) {
		a.say("want", "held", r.Hold.String(), "revision", st.Revision, "reason", r.Hold.Reason)
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
// revision would tell that it changed back, which is a person asking. Those of one
// that was restored from a backup count from what it has: its next revision is later.
// Where the registry has what is live again, nothing is refused either.
func (a *Agent) letGo(st wire.PollState) error {
	marks, refused := slices.Clone(a.rec.Marks), a.rec.Refused
	if live := a.rec.Live; live != nil && live.Configuration.Digest == st.Digest && live.Configuration.Revision == st.Revision {
		a.rec.Refused = nil
	}
	a.rec.Marks = slices.DeleteFunc(a.rec.Marks, func(m Mark) bool {
		return st.Revision == 0 && m.Revision == 0 && m.Digest != st.Digest
	})
	for i, m := range a.rec.Marks {
		if 0 < st.Revision && st.Revision < m.Revision && m.Digest != st.Digest {
			a.rec.Marks[i].Revision = st.Revision
		}
	}
	if slices.Equal(a.rec.Marks, marks) && a.rec.Refused == refused {
		return nil
	}
	return a.save()
}

// relabel takes over a configuration of the same content, so that the record
// and the state file have its names. The root and the hook are not concerned; what
// is live is looked at where the checks are others.
func (a *Agent) relabel(ctx context.Context, c *wire.Configuration) error {
	live := *a.rec.Live
	others := !a.o.Checks.HostOnly && !sameChecks(live.Configuration, c)
	live.Configuration = c
	if others {
		if err := a.relook(ctx, &live); isDefinite(err) {
			return a.refuseChecks(c, err)
		} else if err != nil {
			return err
		}
	}
	if err := a.writeRoot(&live); err != nil {
		return err
	}
	a.rec.Live, a.rec.Refused = &live, nil
	if h := a.rec.Hold; h != nil { // nothing was done that would end it
		still := *h
		still.Revision, still.Digest = c.Revision, c.Digest
		a.rec.Hold = &still
	}
	if err := a.save(); err != nil {
		return err
	}
	if a.o.Observe.Unchanged != nil {
		a.o.Observe.Unchanged()
	}
	a.log().Info("configuration relabelled", "revision", c.Revision)
	a.derive()
	return errStay
}

// deploy opens a deployment of c.
func (a *Agent) deploy(c *wire.Configuration) error {
	if err := a.open(Root{Configuration: c, Spec: a.o.Verify}); err != nil {
		return err
	}
	a.rec.Deployment.Anytime, a.asked = a.asked, false
	a.rec.Deployment.Dry = a.dry || a.o.Mode.DryRun
	return nil
}

// wanted opens the deployment of the root that a person wants live, if it is not:
// a deployment that was taken back for it may have left it so.
func (a *Agent) wanted() (opened bool, err error) {
	dir := a.rec.Wanted
	if dir == "" {
		return false, nil
	}
	root, err := a.committed(dir)
	if err != nil {
		return false, err
	}
	a.rec.Wanted = ""
	var gone error
	switch {
	case root == nil:
		gone = fmt.Errorf("cannot roll back to %s: %w", dir, ErrNoRoot)
		a.log().Warn("rollback not done", "root", dir, "error", gone)
	case a.rec.Live != nil && a.rec.Live.Dir == dir:
		a.rec.Hold = a.rec.Hold.rolledBack()
		if d := a.rec.Last; d != nil && d.Broken != "" { // it was taken back for this, and nobody has made dir live since
			gone = d.failure()
			a.doubt()
		}
	default:
		return true, a.goBack(root)
	}
	if err := a.save(); err != nil {
		return false, err
	}
	a.settled(gone)
	return false, nil
}

// goBack opens the deployment of a root that was committed before. The evidence and
// what the hook prints need room, too.
func (a *Agent) goBack(back *Root) error {
	if err := a.open(*back); err != nil {
		return err
	}
	if on, err := diskOf(a.o.Dir); err == nil && on.cramped() {
		a.freeReserve()
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
	a.patrol.stop()
	r := a.rec
	r.Seq++
	root.Set, root.Published = "", nil
	d := &Deployment{ID: id(r.Seq, root.Configuration), Started: now(), New: root, From: r.Live, Back: r.Live, Link: link}
	if r.Live != nil && r.Live.Verification == Environment && r.Back != nil {
		d.Back = r.Back
	}
	r.Deployment = d
	return nil
}
