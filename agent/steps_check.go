package agent

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"deploytools/atomic"
	"deploytools/registry/wire"
	"deploytools/verify"
	"deploytools/verify/spec"
)

// wayBack is the link to OLDROOT that Restoring only renames; reserve is room
// for the record on a disk that has become full. xfs wants some
// 200 KiB to be free before it makes a file.
const (
	wayBack     = ".back"
	reserve     = ".reserve"
	reserveSize = 16 * reservePart
	reservePart = 128 << 10
)

// check is the step of Checking: the last one that touches nothing.
func (a *Agent) check(ctx context.Context) error {
	d := a.rec.Deployment
	if _, err := a.outside(); err != nil && !d.Anytime && !d.ByHand && !d.Repair && !d.Dry && !a.asked {
		return err // it closed meanwhile
	}
	if err := a.chooseBack(ctx, d); err != nil {
		return err
	}
	if err := a.hooksThere(d); err != nil {
		return err
	}
	if err := a.renew(ctx, d); err != nil {
		return err
	}
	if err := a.stage(ctx, a.rec.Deployment); err != nil {
		return err
	}
	d = a.rec.Deployment
	if err := a.checkScript(ctx, d); err != nil {
		return err
	}
	if err := a.unspoilt(ctx, d); err != nil {
		return err
	}
	if err := a.settleChecks(d); err != nil {
		return err
	}
	if d.Dry || a.o.Mode.DryRun {
		return &definite{verdict: DryRun, err: errors.New("a dry run ends before the switch")}
	}
	if err := a.baseline(ctx, d); err != nil {
		return err
	}
	link, err := a.link()
	if err != nil {
		return err
	}
	if link == noLink {
		return fmt.Errorf("%s is no link: move it away", a.path("current"))
	}
	if link != d.Link && d.Link != noLink { // from where it was to be moved away
		return &definite{verdict: Superseded, err: fmt.Errorf("`current` was moved by hand to %q", link)}
	}
	return a.prepareWayBack(d)
}

// hooksThere reports the first of the programs of this deployment and of its
// way back that cannot be started, or cannot read NEWROOT. That is the host's fault and no version's:
// it is waited for, while nothing has been touched.
func (a *Agent) hooksThere(d *Deployment) error {
	programs := []string{a.o.Hook.CheckScript, a.o.Hook.Script}
	if d.Back == nil {
		programs = append(programs, a.o.Hook.RemoveScript)
	}
	for _, path := range programs {
		if path == "" {
			continue
		}
		if err := a.hooks.startable(path); err != nil {
			return err
		}
		if err := a.hooks.readable(a.path(d.New.Dir)); err != nil {
			return err
		}
	}
	return nil
}

// checkScript runs the check script on NEWROOT.
func (a *Agent) checkScript(ctx context.Context, d *Deployment) error {
	if a.o.Hook.CheckScript == "" {
		return nil
	}
	result, err := a.runHook(ctx, d, "check", "check")
	if err != nil {
		return err
	}
	if err := result.as("check"); err != nil && result.Exit == int(wire.NotNow) && !result.TimedOut {
		return errors.Join(fmt.Errorf("%w: %w", ErrNotNow, err), a.hooks.forget(a.evidence(d), "check"))
	} else if err != nil {
		return bad(err)
	}
	return nil
}

// baseline looks at OLDROOT before the switch, with the checks of NEWROOT, and
// with its own where these are others.
func (a *Agent) baseline(ctx context.Context, d *Deployment) error {
	if d.From == nil {
		return nil
	}
	look := func(s spec.Spec) (*verify.Report, error) {
		vars := a.vars(d.From, nil)
		r, err := a.looked(ctx, Superseded, func(ctx context.Context) verify.Report { return a.look.once(ctx, s, vars) })
		return &r, cmp.Or(err, context.Cause(ctx)) // what was cancelled is no baseline
	}
	var err error
	its, old := a.specOf(&d.New), a.specOf(d.From)
	if len(its.Checks) > 0 {
		d.Baseline, err = look(its)
	}
	if err == nil && len(old.Checks) > 0 && !sameSpec(old, its) {
		d.OldBaseline, err = look(old)
	}
	return err
}

func sameSpec(x, y spec.Spec) bool {
	a, errA := json.Marshal(x)
	b, errB := json.Marshal(y)
	return errA == nil && errB == nil && bytes.Equal(a, b)
}

// before returns the baseline that Back is compared with after a rollback.
func (d *Deployment) before() verify.Report {
	switch {
	case d.OldBaseline != nil:
		return *d.OldBaseline
	case d.Baseline != nil:
		return *d.Baseline
	}
	return verify.Report{}
}

func (a *Agent) prepareWayBack(d *Deployment) error {
	if d.Back != nil {
		if err := atomic.Symlink(d.Back.Dir, a.path(wayBack)); err != nil {
			return err
		}
	}
	if d.ByHand { // on a full disk nothing else helps
		return a.enoughToSwitch()
	}
	return a.keepReserve()
}

// keepReserve makes the reserve, unless it is there, whole.
func (a *Agent) keepReserve() error {
	if a.reserved() == reserveSize {
		return nil
	}
	return atomic.WriteFile(a.path(reserve), bytes.Repeat([]byte("reserve\n"), reserveSize/8), 0o600)
}

// enoughToSwitch is an error if there is so little room left, with the reserve, that the
// hook's files or the record might not be written behind the switch.
func (a *Agent) enoughToSwitch() error {
	on, err := diskOf(a.o.Dir)
	if left := on.free + a.reserved(); err == nil && left < reserveSize/2 {
		err = &noRoom{fmt.Sprintf("no room in %s: a rollback needs %s, of which the reserve is used up", a.o.Dir, Size(reserveSize/2)), Size(left)}
	}
	return err
}

// reserved returns how much of the reserve there is, in bytes.
func (a *Agent) reserved() int64 {
	info, err := os.Lstat(a.path(reserve))
	if err != nil || !info.Mode().IsRegular() {
		return 0
	}
	return info.Size()
}

// renewReserve makes it again after a full disk, when others are not in need of the
// room. Before a switch it has to be there; else it need not.
func (a *Agent) renewReserve() {
	if on, err := diskOf(a.o.Dir); err == nil && on.free > 2*reserveSize && a.rec.Live != nil {
		a.keepReserve()
	}
}

// freed reports whether some of the reserve was given for what has met a full disk.
func (a *Agent) freed(err error) bool {
	_, is := errors.AsType[*noRoom](err)
	return full(err) && !is && a.urgent() && a.freeReserve()
}

// freeReserve gives a part of it to what cannot wait, and reports whether there was one. It
// goes in parts since whoever fills the disk may take one first, and since what needs them
// comes step by step.
func (a *Agent) freeReserve() bool {
	left := (a.reserved() - 1) / reservePart * reservePart
	var err error
	if left > 0 {
		err = os.Truncate(a.path(reserve), left)
	} else {
		err = os.Remove(a.path(reserve))
	}
	if err == nil {
		a.log().Warn("disk is full, some of the reserve freed", "left", max(left, 0))
	}
	return err == nil
}

// urgent reports whether what is done cannot wait for room on the disk: a way back, or
// what a person wants that needs none but for records.
func (a *Agent) urgent() bool {
	d := a.rec.Deployment
	return a.obeys || a.rec.Wanted != "" || d != nil && d.ByHand || a.rec.State.among(Switching, Broken)
}

// vars is what checks of the root may refer to.
func (a *Agent) vars(r, old *Root) verify.Vars {
	v := verify.Vars{NewRoot: a.path(r.Dir), NewID: r.Configuration.Hash.String(), Name: r.Configuration.Name,
		Revision: fmt.Sprint(r.Configuration.Revision)}
	if old != nil {
		v.OldID = old.Configuration.Hash.String()
	}
	return v
}
