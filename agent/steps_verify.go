package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"deploytools/verify"
)

// verify is the step of Verifying: NEWROOT has to pass its checks, to go on
// passing for the soak time, and to be what `current` names at the end of it, with
// its files at their paths: hooks, and people, can do anything.
func (a *Agent) verify(ctx context.Context) error {
	d := a.rec.Deployment
	if err := a.unlessAnother(ctx, d, a.verifyRoot); err != nil {
		return err
	}
	if !a.linkSays("current", d.New.Dir) {
		return bad(fmt.Errorf("`current` no longer names %s after the switch", d.New.Dir))
	}
	if info, err := os.Lstat(a.path(d.New.Dir)); err != nil || !info.IsDir() {
		return bad(fmt.Errorf("%s is gone after the switch", d.New.Dir))
	}
	return stillPublished(d.New.Published)
}

// unlessAnother looks at d, and polls all the while: who has something else by
// now does not have to wait for the end. That ends the look, and counts for more
// than what it found.
func (a *Agent) unlessAnother(ctx context.Context, d *Deployment, look func(context.Context, *Deployment) error) error {
	if d.asked() {
		return look(ctx, d)
	}
	looking, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var watching sync.WaitGroup
	watching.Go(func() { cancel(a.awaitAnother(looking, d)) })
	err := look(looking, d)
	withdrawn := context.Cause(looking)
	cancel(nil)
	watching.Wait()
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case withdrawn != nil:
		return &definite{verdict: Withdrawn, err: withdrawn}
	}
	return err
}

func (a *Agent) verifyRoot(ctx context.Context, d *Deployment) error {
	s, vars, missing := a.specOf(&d.New), a.newVars(d), a.missing(&d.New, d.New.Spec.WithDefaults().Total)
	r, err := a.looked(ctx, Withdrawn, func(ctx context.Context) verify.Report { return a.look.run(ctx, s, vars, missing) })
	a.show(func(p *present) { p.missing = "" })
	if err != nil {
		return err
	}
	d.Checks = &r
	for _, f := range r.Findings {
		if f.Warning != "" {
			a.log().Warn("check warns", "check", f.Check, "error", f.Warning)
		}
	}
	switch {
	case r.Verified:
		d.New.Verification = Verified
	case r.OK:
		d.New.Verification = Unverified
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case a.o.Baseline == BaselineEnvironment && d.From != nil && d.Baseline != nil && verify.Environment(*d.Baseline, r):
		d.New.Verification = Environment
		a.log().Warn("checks fail as before the switch", "check", failures(r))
		return nil // it cannot soak: these checks would go on failing
	default:
		return bad(fmt.Errorf("verification failed: %s", failures(r)))
	}
	return a.soak(ctx, d)
}

// missing returns what is called after each round of checks that fail. It warns
// when they fail in another way than before, and shows until when they are tried.
func (a *Agent) missing(r *Root, total time.Duration) func([]verify.Finding) {
	until, before := now().Add(total), ""
	return func(missed []verify.Finding) {
		if text := texts(missed); text != before {
			before = text
			a.show(func(p *present) { p.missing, p.patience = text, until })
			a.log().Warn("checks do not pass yet", "root", r.Dir, "until", until.Format(time.RFC3339), "error", text)
		}
	}
}

// newVars is vars of NEWROOT after the switch. A process of an earlier boot is gone.
func (a *Agent) newVars(d *Deployment) verify.Vars {
	v := a.vars(&d.New, d.From)
	if d.SwitchBoot == a.rec.Boot {
		v.Switched = d.SwitchUptime
	}
	return v
}

// soak goes on looking.
func (a *Agent) soak(ctx context.Context, d *Deployment) error {
	if d.New.Spec.Soak == 0 {
		return nil
	}
	s, vars := a.specOf(&d.New), a.newVars(d)
	r, err := a.looked(ctx, Withdrawn, func(ctx context.Context) verify.Report { return a.look.soak(ctx, s, vars) })
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	d.Soak = &r
	if !r.OK {
		return bad(fmt.Errorf("verification failed in the soak time: %s", failures(r)))
	}
	return nil
}

// looked is during for a look.
func (a *Agent) looked(ctx context.Context, verdict Verdict, look func(context.Context) verify.Report) (r verify.Report, err error) {
	err = a.during(ctx, verdict, func(ctx context.Context) error {
		r = look(ctx)
		return nil
	})
	return r, err
}

// awaitAnother returns when the registry has another configuration, or ctx is
// done. It asks at the interval of polls, and when somebody hurries. It uses
// nothing of the machine but what it is given, and ask.
func (a *Agent) awaitAnother(ctx context.Context, d *Deployment) error {
	waits := newBackoff(a.o.Poll, a.o.Name)
	wait := waits.poll()
	for a.sleepUnhurried(ctx, wait) == nil {
		st, err := a.ask(ctx)
		if err != nil {
			wait = waits.next()
			continue
		}
		if !absent(st) && st.Digest != d.New.Configuration.Digest {
			return another(st)
		}
		waits.reset()
		wait = waits.poll()
	}
	return context.Cause(ctx)
}

// sleepUnhurried is sleep that a person's command ends.
func (a *Agent) sleepUnhurried(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-a.hurry:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// reverify is the step of Reverifying: OLDROOT is looked at with its own
// checks, and must not be worse off than before the switch.
func (a *Agent) reverify(ctx context.Context) error {
	d := a.rec.Deployment
	if d.Back == nil || !d.Hooked || len(a.specOf(d.Back).Checks) == 0 {
		return nil
	}
	return a.persist(ctx, func() error {
		s, vars := a.specOf(d.Back), a.vars(d.Back, &d.New)
		r, err := a.looked(ctx, "", func(ctx context.Context) verify.Report { return a.look.run(ctx, s, vars, nil) })
		if err != nil {
			return err
		}
		d.Restored = &r
		if worse := verify.Worse(d.before(), r); len(worse) > 0 {
			return fmt.Errorf("verification of the old version failed: %s", texts(worse))
		}
		return nil
	})
}

// awaitOperator is the step of Broken: it waits until OLDROOT passes its checks after
// all, for another revision, or for a person. A way back that the machine was too ill
// to go is gone again first: what passes says little of a service that was not told.
func (a *Agent) awaitOperator(ctx context.Context) error {
	d := a.rec.Deployment
	if a.rec.Wanted != "" {
		return nil
	}
	if a.said["broken"] != d.ID {
		a.log().Error("neither root serves", "error", d.Broken)
		a.said["broken"] = d.ID
	}
	st, err := a.askBeside(ctx, Superseded)
	if done, err := aPersonDid(err); done {
		return err
	}
	c := d.New.Configuration
	if err == nil && !absent(st) && (st.Digest != c.Digest || st.Revision > c.Revision) {
		return nil
	}
	if a.unreturned(d) {
		a.pulse.within(a.longest(Restoring) + a.longest(Rehooking) + a.longest(Broken))
		if err := a.takeBack(ctx); err != nil {
			a.log().Warn("still no way back", "error", err)
			return errStay
		}
	}
	if d.Back != nil && len(a.specOf(d.Back).Checks) > 0 {
		s, vars := a.specOf(d.Back), a.vars(d.Back, &d.New)
		r, did := a.looked(ctx, Superseded, func(ctx context.Context) verify.Report { return a.look.once(ctx, s, vars) })
		if done, err := aPersonDid(did); done {
			return err
		}
		if len(verify.Worse(d.before(), r)) == 0 {
			d.Restored = &r
			a.log().Info("serves again", "revision", d.Back.Configuration.Revision, "root", d.Back.Dir)
			return nil
		}
	}
	if err != nil {
		return err
	}
	return errStay
}

// takeBack does what Restoring and Rehooking do.
func (a *Agent) takeBack(ctx context.Context) error {
	if err := a.restore(ctx); err != nil {
		return err
	}
	return a.rehook(ctx)
}

// unreturned reports whether Restoring did not move the link back, or Rehooking did
// not get as far as to begin its program. A link that a person has moved since is
// the person's.
func (a *Agent) unreturned(d *Deployment) bool {
	to := ""
	if r := d.target(); r != nil {
		to = r.Dir
	}
	link, err := a.link()
	return err == nil && (link == d.New.Dir || link == to && !a.rehooked(d))
}

// aPersonDid reports whether what ran beside people in Broken ended since one of
// them closes the deployment: by retry, which is done, or for a rollback.
func aPersonDid(err error) (done bool, _ error) {
	if isDefinite(err) {
		return true, nil
	}
	return errors.Is(err, errAgain), err
}

func isDefinite(err error) bool {
	_, ok := errors.AsType[*definite](err)
	return ok
}

func failures(r verify.Report) string { return texts(r.Failed()) }

func texts(findings []verify.Finding) string {
	var all []string
	for _, f := range findings {
		all = append(all, f.String())
	}
	return strings.Join(all, "; ")
}
