package agent

import (
	"context"
	"errors"
	"time"

	"deploytools/registry/wire"
)

// refuse keeps away from a directory that a newer version wrote, and says so, at the
// registry too. Ending would have systemd start us again and again.
func (a *Agent) refuse(ctx context.Context, err error) error {
	if !errors.Is(err, errNewer) || a.o.Mode.Once {
		return err
	}
	a.log().Error("held", "error", err)
	a.tell("held: " + line(err))
	a.pulse.rest()
	a.notifier.refuse(err)
	a.show(func(p *present) { p.err = err })
	if a.reports != nil {
		defer a.reports.start(ctx)()
		a.onlyReport(ctx)
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

// onlyReport polls until ctx is done, and does nothing with the answer but to tell the
// registry why.
func (a *Agent) onlyReport(ctx context.Context) {
	timer := time.NewTimer(a.waits.spread())
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		st, err := a.pollOnce(ctx)
		if err != nil {
			a.sayError("refused", "registry not told", err)
			timer.Reset(a.waits.next())
			continue
		}
		a.unsay("refused")
		a.reports.answered(st)
		a.reports.met(nil) // nothing follows from it here
		a.waits.reset()
		timer.Reset(a.waits.poll())
	}
}

// stateUnable is the state in the reports of an agent that keeps away from its directory.
const stateUnable = "Unable"

// keptAway completes the report of an agent that keeps away for why: what `current`
// names is all that is known, and only where the document of that root can be read.
func (a *Agent) keptAway(r *wire.Report, why error) {
	r.State, r.Hold = stateUnable, reportText(line(why))
	r.Boot, _ = bootID()
	if link, err := a.link(); err == nil {
		root, _ := a.committed(link)
		r.Running = reportedRoot(root)
	}
	r.Tag = tagOf(*r)
}

// Refuse does nothing but to say why nothing is done in the directory, until ctx is
// done: for a configuration whose settings cannot be used. It is called in place of
// Run, on what Look returns, and needs the directory for itself, too.
func (a *Agent) Refuse(ctx context.Context, why error) error {
	release, err := a.lock(ctx)
	if err != nil {
		return err
	}
	defer release()
	a.show(func(p *present) { p.started, p.err = now(), why })
	if a.o.Observe.Locked != nil {
		defer a.o.Observe.Locked(a)()
	}
	<-ctx.Done()
	return context.Cause(ctx)
}
