package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"deploytools/atomic"
)

// One of the host's programs runs at a time. Each has a lock beside its files,
// and whoever tidies up deployments/ while it runs takes that away: then the next
// supervisor would lock another file of the same name. So a supervisor holds a
// second lock, of the directory roots: nobody deletes that and has an agent left.

// alone takes that lock for a supervisor; nil: there is none to take. The error
// wraps atomic.ErrLocked while another program runs.
func (c *hookCall) alone() (*os.File, error) {
	for end := time.Now().Add(hookTick); ; time.Sleep(hookTick / 10) {
		f, err := lockShared(c.Alone, unix.LOCK_EX)
		if !errors.Is(err, atomic.ErrLocked) || time.Now().After(end) { // an agent looks at it for a moment
			return f, err
		}
	}
}

// idle is an error that wraps atomic.ErrLocked while a program runs.
func (c *hookCall) idle() error {
	f, err := lockShared(c.Alone, unix.LOCK_SH)
	if f != nil {
		f.Close()
	}
	return err
}

func lockShared(dir string, how int) (*os.File, error) {
	if dir == "" {
		return nil, nil
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = &atomic.LockedError{Path: dir}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot lock: %w", err)
	}
	return f, nil
}

// end ends the program with this label of a deployment that is given up, and
// returns when it has ended: an agent that was killed, or a person who rolls back,
// leaves a check script that runs. Without one it does nothing.
func (h *hookRunner) end(ctx context.Context, dir, label string) error {
	c := &hookCall{Dir: dir, Label: label, Path: label}
	for said := false; ; said = true {
		if _, err := os.Lstat(c.file("attempt.json")); errors.Is(err, os.ErrNotExist) {
			return nil
		}
		lock, err := atomic.Acquire(c.file("lock"))
		switch _, ended, _ := c.result(); {
		case err == nil:
			err = lock.Release()
			if ended || err != nil {
				return err
			}
			return h.endAttempt(c) // its supervisor was killed
		case !errors.Is(err, atomic.ErrLocked):
			return err
		case ended: // it is being released
		default:
			if !said {
				h.logger().Info("program ended that nobody waits for", "command", label)
			}
			if err := h.endAttempt(c); err != nil {
				return err
			}
		}
		if err := sleep(ctx, hookTick); err != nil {
			return err
		}
	}
}

// endAttempt ends the program that was begun last, if it still runs.
func (h *hookRunner) endAttempt(c *hookCall) error {
	last, err := c.lastAttempt()
	if err != nil {
		return err
	}
	boot, err := bootID()
	if err != nil || last.Boot != boot {
		return err
	}
	grace := h.grace
	if grace == 0 {
		grace = hookGrace
	}
	return endLeftover(last, grace)
}
