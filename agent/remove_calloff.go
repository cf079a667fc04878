package agent

import (
	"errors"
	"fmt"
	"io/fs"

	"deploytools/atomic"
)

// callOffRemoval is the end of a removal of which nothing was removed yet: all is
// as before it, but for what a remove script that failed has done. One that has
// done its work has left nothing that serves, so it is too late then.
func (a *Agent) callOffRemoval() error {
	m := a.rec.Removing
	late := fmt.Errorf("it is too late to call it off: configuration %q %w, and the remove script has done its work", a.rec.Name, ErrRemoving)
	if m.Left {
		return late
	}
	if m.Root != nil {
		c := hookCall{Dir: a.evidence(m.deployment()), Label: leaveLabel}
		lock, err := atomic.Acquire(c.file("lock"))
		if errors.Is(err, atomic.ErrLocked) {
			return fmt.Errorf("the remove script of %s runs: %w", a.rec.Name, ErrUnderWay)
		}
		if err == nil {
			err = lock.Release()
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if p := program(c); p.Attempt > 0 && p.Failure == "" { // it was not seen to
			return late
		}
	}
	a.rec.Removing = nil
	if err := a.save(); err != nil {
		return err
	}
	a.log().Info("removal called off")
	return nil
}
