package agent

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"deploytools/atomic"
)

// start brings the directory into order and decides where to go on.
func (a *Agent) start(ctx context.Context) error {
	for _, dir := range []string{"roots", "cache"} {
		if err := atomic.MkdirAll(a.path(dir), 0o755); err != nil {
			return err
		}
	}
	// The hook's files are its supervisor's, who may be at work there.
	if err := atomic.MkdirAll(a.path("deployments"), 0o711); err != nil {
		return err
	}
	for _, dir := range []string{"", "roots", "cache"} {
		if err := atomic.Sweep(a.path(dir)); err != nil {
			return err
		}
	}
	r, err := a.load()
	if errors.Is(err, errDamaged) {
		a.log().Error("record damaged", "error", err)
		aside := a.path("journal.json.damaged")
		if err := atomic.Rename(a.path("journal.json"), aside); err != nil {
			return err
		}
		r, err = nil, nil
	}
	if err != nil {
		return err
	}
	if r == nil {
		if r, err = a.recover(ctx); err != nil {
			return err
		}
		a.rec = r
		if err := a.settle(ctx); err != nil {
			return err
		}
		return a.save()
	}
	if r.Name != a.o.Name {
		return fmt.Errorf("%s %w %q, not %q", a.o.Dir, ErrForeign, r.Name, a.o.Name)
	}
	if r.Removing != nil {
		return fmt.Errorf("configuration %q %w", r.Name, ErrRemoving)
	}
	a.rec, a.retrying = r, true
	a.publish()
	return a.resume()
}

// resume corrects the state for what happened while no agent ran.
func (a *Agent) resume() error {
	boot, err := bootID()
	if err != nil {
		return err
	}
	s, d := a.rec.State, a.rec.Deployment
	if s == Hooking || s == Verifying {
		link, err := a.link()
		if err != nil {
			return err
		}
		if link != d.New.Dir {
			// The rollback had begun, on a disk that did not take the record.
			return a.failed(s, bad(errors.New("the rollback had begun before the agent ended")))
		}
	}
	if a.rec.Boot == boot {
		return nil
	}
	// What the hook had started is gone.
	switch s {
	case Verifying:
		return a.enter(Hooking)
	case Reverifying:
		return a.enter(Rehooking)
	}
	return nil
}

// noLink is what link returns where somebody has put something else.
const noLink = "(no link)"

// link returns what `current` says; empty: it is not there.
func (a *Agent) link() (string, error) {
	link, err := os.Readlink(a.path("current"))
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "", nil
	case errors.Is(err, unix.EINVAL):
		return noLink, nil
	}
	return link, err
}
