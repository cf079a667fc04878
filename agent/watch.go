package agent

import (
	"context"
	"fmt"
	"slices"
	"time"

	"deploytools/registry/wire"
	"deploytools/verify"
	"deploytools/verify/spec"
)

// Watch is what was seen of the live root since it is live. It changes nothing
// that is deployed: who reads it decides.
type Watch struct {
	Root string `json:",omitzero"` // it is about: Root.Dir; about another root it says nothing

	Failing time.Time `json:",omitzero"` // since when checks fail; zero: they pass, or nobody looked
	Checks  string    `json:",omitzero"` // that fail, and how

	Expires time.Time     `json:",omitzero"` // when the first of the certificates ends that were served
	Expiry  string        `json:",omitzero"` // which check saw it
	Warn    time.Duration `json:",omitzero"` // for how long that check wants it to be valid
	Early   Ending        `json:",omitzero"` // the certificate that a check wants to be told of first, where it is another one

	Inspected  time.Time `json:",omitzero"` // when it was last compared with its manifest
	Altered    time.Time `json:",omitzero"` // since when it is not what was unpacked
	Difference string    `json:",omitzero"` // and in what
}

// Ending is a certificate that was served.
type Ending struct {
	At    time.Time     // when it ends
	Check string        // which check saw it
	Warn  time.Duration // for how long that check wants it to be valid
}

// begins is when its check wants it to be told.
func (e Ending) begins() time.Time { return e.At.Add(-e.Warn) }

const (
	// glanceTime is how long checks of the live root have until a failure counts:
	// looks after 1, 3 and 7 seconds, so that a restart of the service is none.
	glanceTime = 15 * time.Second
	// failingEvery is how often a live root that fails is looked at where nothing
	// else says: somebody wants to know when it is over.
	failingEvery = 5 * time.Minute
)

// Seen returns what was seen of the live root.
func (r *Record) Seen() Watch {
	switch {
	case r.Live == nil:
		return Watch{}
	case r.Watch.Root == r.Live.Dir:
		return r.Watch
	}
	return Watch{Root: r.Live.Dir}
}

// see takes what a look at the live root with these checks found.
func (w *Watch) see(r verify.Report, checks []spec.Check) {
	failed := r.Failed()
	switch {
	case len(failed) == 0:
		w.Failing, w.Checks = time.Time{}, ""
	case w.Failing.IsZero():
		w.Failing = now()
	}
	if len(failed) > 0 {
		w.Checks = oneLine(kinds(failed))
	}
	w.expiry(r, checks)
}

// kinds names what fails without what changes from look to look, so that a record
// is not written for each.
func kinds(failed []verify.Finding) string {
	s := ""
	for i, f := range failed {
		if i > 0 {
			s += "; "
		}
		s += fmt.Sprintf("%s (%s %s): %s", f.Check, f.Type, f.Target, f.Kind)
	}
	return s
}

// expiry takes when the certificates end that were served. A check that saw none
// this time leaves what is known.
func (w *Watch) expiry(r verify.Report, checks []spec.Check) {
	var first, early Ending
	for i, f := range r.Findings {
		if f.NotAfter.IsZero() {
			continue
		}
		one := Ending{At: f.NotAfter.UTC(), Check: fmt.Sprintf("%s (%s %s)", f.Check, f.Type, f.Target)}
		if i < len(checks) {
			one.Warn = checks[i].Warn
		}
		if first.At.IsZero() || one.At.Before(first.At) {
			first = one
		}
		if one.Warn > 0 && (early.At.IsZero() || one.begins().Before(early.begins())) {
			early = one
		}
	}
	if first.At.IsZero() {
		return
	}
	if early == first {
		early = Ending{}
	}
	w.Expires, w.Expiry, w.Warn, w.Early = first.At, first.Check, first.Warn, early
}

// ending returns the certificate to tell of, and whether it ends within the time
// d, or within what its check asks for.
func (w *Watch) ending(d time.Duration, at time.Time) (e Ending, soon bool) {
	first := Ending{w.Expires, w.Expiry, w.Warn}
	for _, e := range []Ending{first, w.Early} {
		if within := max(d, e.Warn); within > 0 && !e.At.IsZero() && !at.Add(within).Before(e.At) {
			return e, true
		}
	}
	return first, false
}

// expiring says that a certificate ends within the time d, or within what its check
// asks for; "": none does.
func (w *Watch) expiring(d time.Duration, at time.Time) string {
	e, soon := w.ending(d, at)
	switch {
	case !soon:
		return ""
	case !at.Before(e.At):
		return fmt.Sprintf("the certificate of %s has ended %s", e.Check, stamp(e.At))
	}
	return fmt.Sprintf("the certificate of %s ends %s", e.Check, stamp(e.At))
}

// lookEvery is the time between two looks at the live root; 0: nobody looks.
func (a *Agent) lookEvery() time.Duration {
	live := a.rec.Live
	switch {
	case live == nil || a.rec.State != Idle || len(a.specOf(live).Checks) == 0 || a.rec.Removing != nil:
		return 0
	case a.o.Checks.Every == 0 && !a.rec.Seen().Failing.IsZero():
		return failingEvery
	}
	return a.o.Checks.Every
}

// unlooked reports whether a Run in Mode.Once, which had nothing to do, should
// look at the live root before it ends: where it starts from time to time, nobody
// else does.
func (a *Agent) unlooked() bool {
	return !a.hasLooked && a.result == nil && !a.o.Mode.DryRun && a.lookEvery() > 0
}

// doubt takes back that the live root was verified: nobody knows whether it serves. What
// it is said to have then follows from a look, if it has checks.
func (a *Agent) doubt() {
	live := *a.rec.Live
	live.Verification = Unverified
	a.rec.Live, a.doubted = &live, len(a.specOf(&live).Checks) > 0
}

// waitWatching is wait for d that looks at the live root in between, when that is
// due. It ends early where a person did something.
func (a *Agent) waitWatching(ctx context.Context, d time.Duration) {
	end := time.Now().Add(d)
	if a.doubted && a.rec.State == Idle {
		a.doubted = false
		if a.glance(ctx) != nil {
			return
		}
	}
	for ctx.Err() == nil {
		every := a.lookEvery()
		due := a.glanced.Add(every)
		if every == 0 || !due.Before(end) {
			a.waitFor(ctx, time.Until(end), now().Add(time.Until(end)))
			return
		}
		if a.waitFor(ctx, time.Until(due), now().Add(time.Until(end))) || ctx.Err() != nil || a.glance(ctx) != nil {
			return
		}
	}
}

// glance looks at the live root, once where all is well. The error says that
// something else is to be done now.
func (a *Agent) glance(ctx context.Context) error {
	live := a.rec.Live
	s := a.specOf(live)
	s.Total, s.Successes, s.Soak = min(glanceTime, s.WithDefaults().Total), 1, 0
	vars := a.vars(live, nil)
	a.pulse.within(2 * glanceTime)
	r, err := a.looked(ctx, Superseded, func(ctx context.Context) verify.Report { return a.look.run(ctx, s, vars, nil) })
	a.glanced, a.hasLooked = time.Now(), true
	switch {
	case err != nil:
		return err
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case a.rec.Live != live:
		return errAgain
	}
	if r.Verified && live.Verification == Unverified && !a.movedTo(live) { // its checks were changed, and did not pass then
		root := *live
		root.Verification = Verified
		if err := a.writeRoot(&root); err != nil {
			a.sayError("watch", "root's document not written", err)
			return nil
		}
		a.rec.Live = &root
	}
	a.saw(r, s.Checks)
	if a.rec.Live == live && a.rec.Watch == a.Record().Watch {
		return nil
	}
	if err := a.save(); err != nil {
		a.sayError("watch", "record not written", err)
	}
	return nil
}

// saw takes what was found, and says what is new.
func (a *Agent) saw(r verify.Report, checks []spec.Check) {
	before := a.rec.Seen()
	w := before
	w.see(r, checks)
	a.rec.Watch = w
	switch live := a.rec.Live; {
	case before.Failing.IsZero() && !w.Failing.IsZero():
		a.log().Error("live root fails its checks", "root", live.Dir, "error", failures(r))
	case w.Checks != before.Checks && w.Checks != "":
		a.log().Warn("live root fails its checks otherwise", "root", live.Dir, "error", failures(r))
	case !before.Failing.IsZero() && w.Failing.IsZero():
		a.log().Info("live root passes its checks again", "root", live.Dir, "since", stamp(before.Failing))
	}
	a.warnExpiry()
}

// warnExpiry says once a day that a certificate ends soon.
func (a *Agent) warnExpiry() {
	w := a.rec.Seen()
	text := w.expiring(a.o.Checks.WarnExpiry, now())
	if text == "" {
		a.unsay("expiry")
		return
	}
	a.say("expiry", "certificate ends soon", text+now().Format(time.DateOnly), "error", text)
}

// relook looks at the live root with the checks of c, which has the same layers
// and other checks. Nothing was switched, so nothing goes back; what fails is
// shown. The error is definite where c asks for what it may not.
func (a *Agent) relook(ctx context.Context, live *Root) error {
	s, from, err := a.gather(live.Configuration, a.path(live.Dir))
	if err != nil {
		return err
	}
	live.Spec, live.From, live.Verification = s, from, Unverified
	s.Total, s.Soak = min(glanceTime+time.Duration(s.Successes)*spec.FirstRetry, s.WithDefaults().Total), 0
	a.pulse.within(2 * s.Total)
	vars, missing := a.vars(live, nil), a.missing(live, s.Total)
	looking := &Looking{live.Configuration.Revision, now(), now().Add(s.Total)}
	a.show(func(p *present) { p.looking = looking })
	r, err := a.looked(ctx, Superseded, func(ctx context.Context) verify.Report { return a.look.run(ctx, s, vars, missing) })
	a.show(func(p *present) { p.looking, p.missing = nil, "" })
	switch {
	case err != nil:
		return err
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case a.rec.Live == nil || a.rec.Live.Dir != live.Dir:
		return errAgain
	case r.Verified && !a.movedTo(live):
		live.Verification = Verified
	}
	w := a.rec.Seen()
	w.Expires, w.Expiry, w.Warn, w.Early = time.Time{}, "", 0, Ending{} // a check saw it that may be gone
	a.rec.Watch = w
	a.saw(r, s.Checks)
	a.glanced, a.hasLooked = time.Now(), true
	return nil
}

// sameChecks reports whether the same checks travel with both.
func sameChecks(x, y *wire.Configuration) bool {
	lines := func(c *wire.Configuration) []string {
		if c.Verify == nil {
			return nil
		}
		return c.Verify.Lines()
	}
	return slices.Equal(lines(x), lines(y))
}

// refuseChecks marks a revision that asks for what it may not, as a deployment of
// it would. What is live stays as it is, and is looked at as before.
func (a *Agent) refuseChecks(c *wire.Configuration, err error) error {
	a.log().Error("checks refused", "revision", c.Revision, "error", err)
	a.rec.mark(c, line(err))
	a.result = fmt.Errorf("%w: configuration %q, revision %d: %w", ErrRolledBack, a.o.Name, c.Revision, err)
	a.rec.Refused = nil // which is told anew after a retry
	if err := a.refuseRevision(wire.PollState{Revision: c.Revision, Digest: c.Digest}, err); err != nil {
		return err
	}
	return errStay
}

// refuseRevision notes for people that what the registry has cannot be taken up, and that no
// deployment says so: its checks may not be carried out here, or it cannot be read,
// as what a newer program has written. It ends with what is taken up, or fails in a
// deployment. It is no mark: what cannot be read is tried again.
func (a *Agent) refuseRevision(st wire.PollState, err error) error {
	if m := a.rec.Refused; m != nil && m.Digest == st.Digest && m.Revision == st.Revision {
		return nil
	}
	a.rec.Refused = &Mark{st.Digest, st.Revision, now(), line(err)}
	return a.save()
}

// watchNew begins to watch the root that d has made live, with what its own looks
// have seen, and its comparison.
func (a *Agent) watchNew(d *Deployment) {
	w := Watch{Root: d.New.Dir}
	if d.Checks != nil {
		w.see(*d.Checks, a.specOf(&d.New).Checks)
	}
	if d.Spoilt != "" {
		w.Altered, w.Difference = now(), oneLine(d.Spoilt)
	}
	a.rec.Watch, a.glanced, a.hasLooked = w, time.Now(), true
}
