package agent

import (
	"context"
	"fmt"

	"deploytools/registry/wire"
)

// Repair deploys what is live once more, into a fresh root: layers from the
// cache or the registry, then switch, hook and checks as for any deployment. It
// returns when that is on record. What the registry has does not end a repair, as
// long as nothing of that would be deployed. Without a live root, or where a deployment is under way, it
// is an error.
func (a *Agent) Repair(ctx context.Context) error {
	return a.command(ctx, a.repairNow)
}

// RepairAwaited is Repair; the channel yields how it ended.
func (a *Agent) RepairAwaited(ctx context.Context) (<-chan Result, error) {
	return a.await(ctx, waitsForRepair, a.repairNow)
}

func (a *Agent) repairNow() error {
	switch d := a.rec.Deployment; {
	case d != nil && d.Repair:
		return nil
	case a.rec.State != Idle:
		return fmt.Errorf("cannot repair: %w, in %s", ErrUnderWay, a.rec.State)
	case a.rec.Live == nil:
		return noRoot("cannot repair: nothing is deployed")
	}
	if err := a.deploy(a.rec.Live.Configuration); err != nil {
		return err
	}
	a.rec.Deployment.Repair, a.rec.Deployment.Dry = true, a.o.Mode.DryRun // whoever else waits for a dry run
	return a.enter(Fetching)
}

// asked reports whether a person began the deployment: then the registry does
// not end it.
func (d *Deployment) asked() bool { return d.ByHand || d.Repair }

// overtaken reports whether the registry has something that would be deployed if
// it were not for the repair: the layers of what is live may be gone for good. Where
// `current` was moved, the host would be held instead.
func (a *Agent) overtaken(st wire.PollState) bool {
	link, err := a.link()
	inPlace := err == nil && a.rec.Live != nil && link == a.rec.Live.Dir
	return inPlace && !absent(st) && a.rec.Hold == nil && st.Hold == nil && a.rec.marked(st) == nil
}
