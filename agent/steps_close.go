package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	"deploytools/atomic"
	"deploytools/registry/wire"
)

// commit is the step of Committing. The commit is the record that enters Idle;
// the document beside the root comes before it, for the case that the record
// is lost.
func (a *Agent) commit(ctx context.Context) error {
	d := a.rec.Deployment
	root := d.New
	root.Committed, root.By, root.Seq = now(), d.ID, a.rec.Seq
	if err := a.writeRoot(&root); err != nil {
		return err
	}
	a.crash("document committed")
	if err := a.finishSet(ctx, root.Set); err != nil {
		return err
	}
	a.keptAside(d)
	d.New = root
	a.rec.Back = a.before(&root, d.Back, d.From, a.rec.Back)
	a.rec.Live, a.rec.Published = &root, root.Published
	a.watchNew(d)
	a.rec.unmark(root.Configuration.Digest)
	if d.ByHand {
		a.rec.Hold = a.rec.Hold.rolledBack()
	} else {
		a.rec.Hold = a.rec.Hold.inPlace()
	}
	a.result, a.crossed = nil, crossed{}
	a.close(d)
	return nil
}

// discard is the step of Discarding. It makes sure that `current` names what
// the record says that serves: in Broken that may have been impossible.
func (a *Agent) discard(ctx context.Context) error {
	a.dropAhead()
	d := a.rec.Deployment
	if err := a.endCheckScript(ctx, d); err != nil {
		return err
	}
	if d.Switched {
		if err := a.pointAt(d.target()); err != nil {
			return err
		}
	}
	published, err := a.closeSets(ctx, d)
	if err != nil {
		return err
	}
	a.rec.Published = published
	if d.Hooked && !sameRoot(d.Back, d.From) {
		a.rec.Live, a.rec.Back = d.Back, a.before(d.Back, a.rec.Back, d.From)
	}
	if d.Verdict == Bad {
		a.result = d.failure()
	}
	a.close(d)
	return nil
}

// endCheckScript ends the check script that nobody waits for any more: it is not
// to run beside the programs of the next deployment. One that cannot be ended keeps
// these waiting by its lock.
func (a *Agent) endCheckScript(ctx context.Context, d *Deployment) error {
	if d.Switched { // it had ended before
		return nil
	}
	err := a.during(ctx, "", func(ctx context.Context) error { return a.hooks.end(ctx, a.evidence(d), "check") })
	if err != nil && ctx.Err() == nil {
		a.sayError("check script", "check script not ended", err)
		return nil
	}
	return err
}

func (a *Agent) close(d *Deployment) {
	d.Ended, d.SetJournal = now(), nil
	if d.Verdict == "" || d.Verdict == Bad { // it says how things are now
		a.rec.Refused = nil
	}
	a.passOn()
	a.rec.Last, a.rec.Deployment = d, nil
}

// derive writes what follows from the record: the state file and the evidence.
// A failure is said and hinders nothing; the next poll tries again.
func (a *Agent) derive() {
	err := errors.Join(a.deriveState(), a.deriveEvidence())
	if err != nil {
		a.sayError("derive", "state file or evidence not written", err)
		return
	}
	a.unsay("derive")
}

func (a *Agent) deriveState() error {
	if a.o.StateFile == "" || a.rec.Live == nil {
		return nil
	}
	want, err := a.rec.Live.Configuration.Encode()
	if err != nil {
		return err
	}
	have, err := os.ReadFile(a.o.StateFile)
	if err == nil && bytes.Equal(have, want) {
		return nil
	}
	if c, damaged := wire.DecodeConfiguration(have); err == nil && damaged == nil {
		if err := a.ours(c); err != nil {
			return err // two agents would write in turn, and neither agent's readers could believe it
		}
	}
	return atomic.WriteFile(a.o.StateFile, want, 0o644)
}

// ours reports that the state file shows another agent's configuration.
func (a *Agent) ours(c *wire.Configuration) error {
	if c.Name == a.o.Name {
		return nil
	}
	return fmt.Errorf("%s is of configuration %q, not %q: give each its own -state", a.o.StateFile, c.Name, a.o.Name)
}

// evidence returns the directory of the deployment's evidence.
func (a *Agent) evidence(d *Deployment) string { return a.path("deployments", d.ID) }

// linkSays reports whether the link name in the directory names target.
func (a *Agent) linkSays(name, target string) bool {
	link, err := os.Readlink(a.path(name))
	return err == nil && link == target
}
