package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"deploytools/atomic"
)

// lockPatience is how long Run waits for the lock of another agent. One that
// was killed while it started a program seems to hold it: the program has a copy
// of the descriptor until it is executed.
const lockPatience = 500 * time.Millisecond

// lock takes the directory for this process.
func (a *Agent) lock(ctx context.Context) (release func(), err error) {
	waiting, cancel := context.WithTimeoutCause(ctx, lockPatience, fmt.Errorf("waited %v", lockPatience))
	defer cancel()
	lock, err := atomic.Wait(waiting, a.path("lock"))
	if err != nil {
		return nil, fmt.Errorf("cannot use %s: %w", a.o.Dir, err)
	}
	dir, err := lockDir(a.o.Dir)
	if err != nil {
		lock.Release()
		return nil, err
	}
	if a.locked, err = dir.Stat(); err != nil {
		dir.Close()
		lock.Release()
		return nil, err
	}
	return func() {
		dir.Close()
		lock.Release()
	}, nil
}

// lockDir takes the lock of the original tool set's agent, so that neither
// works in a directory of the other. It ends with the descriptor.
func lockDir(path string) (*os.File, error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		dir.Close()
		return nil, fmt.Errorf("cannot acquire exclusive lock on %q: %w", path, err)
	}
	return dir, nil
}

// displaced is an error if the directory is no longer the one that lock took, or
// nothing is left in it: whoever deletes or replaces it has an agent that nobody
// reaches, beside which another may be at work. The next start makes a new one. What
// cannot be looked at is there.
func (a *Agent) displaced() error {
	here, err := os.Stat(a.o.Dir)
	gone := errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(here, a.locked)
	if !gone {
		_, err = os.Lstat(a.path("roots"))
		gone = errors.Is(err, fs.ErrNotExist)
	}
	if gone {
		return fmt.Errorf("%s was deleted or replaced while the agent worked in it", a.o.Dir)
	}
	return nil
}
