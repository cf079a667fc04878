package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"deploytools/atomic"
)

// errHandedOver ends a rescue: the hook that brings the old agent back runs.
var errHandedOver = errors.New("handed over to the agent of the old version")

// Rescue takes the deployment id back: the new version is the agent's own, and does
// not work. No agent has gone on since its hook has ended, or since whoever switched, or
// went back, was killed. It is the machine's own way back, on the same record: it notes
// the verdict, moves the link, starts the hook with the roots exchanged, and ends as
// soon as that runs.
// The hook starts the old agent, which goes on from there; a kill at any point
// leaves what a kill of an agent leaves, or of a rescue that is to be called again. An
// agent that has the directory and did not go on is ended. If one has gone on after
// all, Rescue changes nothing.
func (a *Agent) Rescue(ctx context.Context, id string) error {
	lock, err := a.seize(ctx)
	if err != nil {
		return fmt.Errorf("cannot use %s: %w", a.o.Dir, err)
	}
	defer lock.Release()
	dir, err := lockDir(a.o.Dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	r, err := a.load()
	if err != nil {
		return err
	}
	if r == nil || !r.astride(id) || !a.linkSays("current", r.Deployment.New.Dir) {
		return nil
	}
	// The service manager starts through the link what only the hook should have:
	// the hook undoes it, whether or not it has run.
	r.Deployment.Hooked = true
	a.rec = r
	a.publish()
	if r.State != Restoring {
		if err := a.failed(r.State, bad(a.desertion(r))); err != nil {
			return err
		}
	}
	ctx, handOver := context.WithCancelCause(ctx)
	defer handOver(nil)
	a.began = func() { handOver(errHandedOver) }
	for a.rec.State.among(Restoring, Discarding) {
		if err := a.advance(ctx); err != nil {
			break
		}
	}
	if err := context.Cause(ctx); err != nil && !errors.Is(err, errHandedOver) {
		return err
	}
	return nil
}

// desertion says what has happened, with what the hook had to say of it.
func (a *Agent) desertion(r *Record) error {
	if r.State == Switching {
		return fmt.Errorf("no agent went on within %v after the switch", guardWait)
	}
	err := fmt.Errorf("no agent went on within %v after the hook", guardWait)
	c := hookCall{Dir: a.evidence(r.Deployment), Label: "deploy"}
	if r, ok, _ := c.result(); ok && r.Err() != nil {
		return fmt.Errorf("%w; %w", err, r.Err())
	}
	return err
}

// seizePatience is how long seize tries.
const seizePatience = 2 * time.Minute

// seize takes the lock of the directory. Whoever holds it has had its time: it is
// asked to end, and killed after hookGrace.
func (a *Agent) seize(ctx context.Context) (*atomic.Lock, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, seizePatience, fmt.Errorf("waited %v", seizePatience))
	defer cancel()
	for {
		short, cancel := context.WithTimeout(ctx, lockPatience)
		lock, err := atomic.Wait(short, a.path("lock"))
		cancel()
		held, ok := errors.AsType[*atomic.LockedError](err)
		if !ok || ctx.Err() != nil {
			return lock, err
		}
		if held.PID > 0 {
			a.log().Warn("agent ended that does not go on", "process", held.PID)
			a.endHolder(held.PID)
		}
	}
}

// endHolder ends the process, if it still holds the lock: a descriptor keeps the
// id from meaning another one.
func (a *Agent) endHolder(pid int) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	lock, err := atomic.Acquire(a.path("lock"))
	if held, ok := errors.AsType[*atomic.LockedError](err); !ok || held.PID != pid {
		if err == nil {
			lock.Release()
		}
		return
	}
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		unix.PidfdSendSignal(fd, sig, nil, 0)
		unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(hookGrace/time.Millisecond))
	}
}
