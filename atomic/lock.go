package atomic

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A Lock keeps other processes, and other Locks of this process, out of what
// the lock file stands for. The kernel drops it when the process dies, however
// it dies. It is advisory: it binds those who ask.
//
// The lock file is never removed, and nobody may remove it. Whoever opened it
// before the removal and locks it afterwards holds a file without a name, while
// the next one makes a new file and locks that: two holders.
type Lock struct {
	f *os.File // nil after Release
}

// LockedError says who holds a lock. It wraps [ErrLocked].
type LockedError struct {
	Path string
	PID  int // 0 if it could not be read; it is a help for people, not a proof
}

// Error names the lock file and the process that holds it.
func (e *LockedError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("%s: %v by another process", e.Path, ErrLocked)
	}
	return fmt.Sprintf("%s: %v by process %d", e.Path, ErrLocked, e.PID)
}

// Unwrap returns ErrLocked.
func (e *LockedError) Unwrap() error { return ErrLocked }

// waitInterval is how often Wait looks again. A blocking flock(2) cannot be
// cancelled without a signal, and a lock is held for long or hardly ever.
const waitInterval = 100 * time.Millisecond

// Acquire takes the lock of the file path, which it makes if it is missing, and
// writes the process id into it. It does not wait: if somebody holds the lock,
// the error is a *[LockedError].
func Acquire(path string) (*Lock, error) {
	// The os package opens with O_CLOEXEC: a hook must not inherit the lock.
	// O_NOFOLLOW, because what path names is going to be overwritten.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot lock: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		defer f.Close()
		return nil, &LockedError{Path: path, PID: holder(f)}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot lock %s: %w", path, err)
	}
	// The lock is held whether or not the process id can be written: a full
	// disk must not keep a daemon from starting. Empty first, so that nobody
	// reads the id of a former holder.
	if f.Truncate(0) == nil {
		f.WriteString(strconv.Itoa(os.Getpid()) + "\n")
	}
	return &Lock{f: f}, nil
}

// holder reads the process id that the holder wrote, or 0.
func holder(f *os.File) int {
	b := make([]byte, 32)
	n, _ := f.ReadAt(b, 0)
	line, _, whole := strings.Cut(string(b[:n]), "\n")
	pid, err := strconv.Atoi(line)
	if !whole || err != nil || pid < 0 {
		return 0
	}
	return pid
}

// Wait is Acquire that waits until the lock is free or ctx is done. Then the
// error wraps the cause of ctx, and the [LockedError] if the lock was held.
// Who waits longest does not come first.
func Wait(ctx context.Context, path string) (*Lock, error) {
	if ctx.Err() != nil {
		return nil, fmt.Errorf("cannot lock %s: %w", path, context.Cause(ctx))
	}
	again := time.NewTicker(waitInterval)
	defer again.Stop()
	for {
		l, err := Acquire(path)
		if !errors.Is(err, ErrLocked) {
			return l, err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", err, context.Cause(ctx))
		}
	}
}

// Release gives the lock back. Another Release does nothing.
func (l *Lock) Release() error {
	if l.f == nil {
		return nil
	}
	f := l.f
	l.f = nil
	defer f.Close()
	f.Truncate(0) // nobody holds it; see holder
	// Closing would do, if no process that is just being started had a copy
	// of the descriptor: flock(2) holds until the last one is closed.
	if err := unix.Flock(int(f.Fd()), unix.LOCK_UN); err != nil {
		return fmt.Errorf("cannot release lock %s: %w", f.Name(), err)
	}
	return nil
}
