package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"time"
)

// The methods below are what a person does. They act in Run's goroutine: where the
// machine waits, between two steps, or beside what takes long (see during). They
// wait for that or for their ctx, which then has changed nothing. What they do is
// on record when they return.

// Until says when a hold ends by itself: at a time, or after a while, whatever
// the clock is set to by then. The zero value is never.
type Until struct {
	At    time.Time
	After time.Duration
}

// Hold stops new deployments until Resume, or until a time. One that is under
// way goes on. It takes the place of an earlier hold, but for what a rollback
// by hand holds: that goes on when the time has come.
func (a *Agent) Hold(ctx context.Context, reason string, until Until) error {
	return a.command(ctx, func() error {
		h := &Hold{Reason: oneLine(reason), Since: now(), Standing: true, Until: until.At.UTC()}
		if until.After > 0 {
			boot, err := bootID()
			if err != nil {
				return err
			}
			h.Until, h.Uptime, h.Boot = h.Since.Add(until.After), a.uptime()+until.After, boot
		}
		if old := a.rec.Hold; old != nil {
			h.Link = old.Link // which is known, and holds when the time has come
			if old.Rolled {
				h.Rolled, h.Revision, h.Digest = true, old.Revision, old.Digest
			}
		}
		a.rec.Hold = h
		return a.save()
	})
}

// Resume ends every hold. Where `current` was moved to what is no root of ours, or
// deleted, it names the live root again, if that is there: else the next poll would
// set the same hold. Without a hold it does nothing else. Where a removal has begun, it
// calls that off and leaves the holds as they are; the error wraps ErrRemoving
// where something may be removed already, ErrUnderWay where the remove script runs.
func (a *Agent) Resume(ctx context.Context) error {
	return a.command(ctx, a.resumeNow)
}

func (a *Agent) resumeNow() error {
	if a.rec.Removing != nil {
		return a.callOffRemoval()
	}
	if err := a.relink(); err != nil {
		return err
	}
	h := a.rec.Hold
	a.rec.Hold = nil
	if err := a.save(); err != nil || h == nil {
		return err
	}
	a.log().Info("hold ended by a person", "reason", h.all())
	return nil
}

// relink has `current` name the live root again, if that is there, and `current` no
// other root that could be live, as the next poll will find.
func (a *Agent) relink() error {
	live := a.rec.Live
	if live == nil || a.rec.State != Idle || !a.there(live.Dir) {
		return nil
	}
	link, err := a.link()
	if err != nil || link == live.Dir {
		return err
	}
	if root, err := a.committed(link); root != nil || err != nil {
		return err
	}
	return a.pointAt(live)
}

// Retry lets go of all marks, so that what failed here is tried again, and in
// Broken closes the deployment.
func (a *Agent) Retry(ctx context.Context) error {
	return a.command(ctx, a.retryNow)
}

func (a *Agent) retryNow() error {
	if a.rec.Removing != nil {
		return fmt.Errorf("configuration %q %w", a.rec.Name, ErrRemoving)
	}
	a.rec.Marks = nil
	a.asked, a.filled = true, filled{}
	if a.rec.State == Broken {
		return a.enter(machine[Broken].done)
	}
	return a.save()
}

// Rollback has a committed root made live that is kept, as it lies there: where
// to is empty the one that was live before, else that of this name (with roots/
// or without) or of this revision. It holds until the registry has a later
// revision than the next poll finds, and needs no registry. Twice without a name is
// forward again.
//
// A deployment that is under way is given up for it where that is possible, and
// else ends first; without a name it is the one to take back. One that was itself
// begun by Rollback, and has not come to the switch, is not given up without a
// name: who says it twice waits for it too. The error wraps ErrNoRoot where there is no such root, and ErrLive where that is live. It returns which root it is; the channel
// yields how it ended.
func (a *Agent) Rollback(ctx context.Context, to string) (root string, ended <-chan Result, err error) {
	ended, err = a.await(ctx, waitsForRollback, func() error {
		back, err := a.backTo(ctx, to)
		if err != nil {
			return err
		}
		if root = back.Dir; a.rollingBackTo(root) {
			return nil
		}
		a.rec.Wanted = root
		if err := a.save(); err != nil {
			return err
		}
		a.crash("wanted")
		a.log().Info("rollback wanted", "root", root)
		return nil
	})
	return root, ended, err
}

// rollingBackTo reports whether a person's rollback to the root is under way.
func (a *Agent) rollingBackTo(dir string) bool {
	d := a.rec.Deployment
	return d != nil && d.ByHand && d.New.Dir == dir && a.rec.Wanted == "" && a.rec.State.among(Fetching, Committing)
}

// errNoEarlier is the ErrNoRoot of who names none.
const errNoEarlier = noRoot("cannot roll back: there is no earlier root")

// noRoot is an ErrNoRoot in other words.
type noRoot string

func (e noRoot) Error() string { return string(e) }

func (noRoot) Is(target error) bool { return target == ErrNoRoot }

// backTo returns the root to roll back to.
func (a *Agent) backTo(ctx context.Context, to string) (*Root, error) {
	live, under := a.rec.Live, a.rec.Deployment != nil
	if to == "" {
		back := a.rec.Back
		if d := a.rec.Deployment; under && a.rec.State.preparing() && a.rollingBackTo(d.New.Dir) {
			return &d.New, nil
		}
		if under {
			back = live
		}
		if back == nil {
			return nil, errNoEarlier
		}
		if under {
			return back, nil
		}
		return a.backBest(ctx, back)
	}
	roots, err := a.roots()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	revision, err := strconv.ParseUint(to, 10, 64)
	isRevision := err == nil && revision > 0
	var found *Root
	for _, r := range roots { // the last of them was committed last
		if !r.Committed.IsZero() && (r.Dir == to || filepath.Base(r.Dir) == to || isRevision && r.Configuration.Revision == revision) {
			found = r
		}
	}
	switch {
	case found == nil:
		return nil, fmt.Errorf("cannot roll back to %q: %w", to, ErrNoRoot)
	case live != nil && found.Dir == live.Dir && !under:
		return nil, fmt.Errorf("cannot roll back to %s: %w", found.Dir, ErrLive)
	}
	return found, nil
}

// backBest returns back, or if that was modified another committed root of another
// version than the live one.
func (a *Agent) backBest(ctx context.Context, back *Root) (*Root, error) {
	live := a.rec.Live
	best, _, err := a.best(ctx, back, func(r *Root) bool { return live != nil && live.sameLayers(r) }, a.examine)
	if err == nil && best == nil {
		err = errNoEarlier
	}
	return best, err
}

// RunOnce polls now. The channel yields what has become of that when the machine
// next waits, as a Run in Mode.Once would end.
func (a *Agent) RunOnce(ctx context.Context) (<-chan Result, error) {
	return a.await(ctx, waitsForRest, func() error {
		a.result, a.asked, a.filled = nil, true, filled{}
		return nil
	})
}

// DryRun fetches, unpacks and checks what the registry has now, and does not
// switch, whether or not anything is held or has failed before. A deployment
// under way is an error that wraps ErrUnderWay. The channel yields how it
// ended.
func (a *Agent) DryRun(ctx context.Context) (<-chan Result, error) {
	return a.await(ctx, waitsForDryRun, func() error {
		if a.rec.State != Idle {
			return fmt.Errorf("cannot do a dry run: %w, in %s", ErrUnderWay, a.rec.State)
		}
		a.dry = true
		return nil
	})
}

// await is command for somebody who waits for what comes of it.
func (a *Agent) await(ctx context.Context, what waitsFor, do func() error) (<-chan Result, error) {
	w := newWaiter(what)
	err := a.command(ctx, func() error {
		if err := do(); err != nil {
			return err
		}
		w.seq = a.rec.Seq
		if a.rec.Deployment != nil {
			w.seq-- // it is waited for too
		}
		a.waiters = append(a.waiters, w)
		return nil
	})
	return w.done, err
}

// Wake ends the wait for the next poll or try.
func (a *Agent) Wake(ctx context.Context) error {
	return a.command(ctx, func() error { return nil })
}

// command has Run's goroutine do something, and returns what came of it. What was
// not written is undone.
func (a *Agent) command(ctx context.Context, do func() error) error {
	result := make(chan error, 1)
	run := func() {
		before, d := a.rec.clone(), a.rec.Deployment
		a.obeys = true
		err := do()
		a.obeys = false
		if err != nil {
			*a.rec = *before
			a.rec.Deployment = d // which the step that runs reads, and no act changes
		}
		result <- err
	}
	if err := a.unable(); err != nil {
		return err
	}
	if a.alone {
		run()
		return <-result
	}
	select {
	case a.commands <- run:
		return <-result
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// obey does what a person wants, where the machine has time for it.
func (a *Agent) obey() {
	select {
	case do := <-a.commands:
		do()
	default:
	}
}

// during runs f in another goroutine and does what people want meanwhile. f must
// not touch the record. Where a person wants another root, f is not begun, or is
// stopped, and the error is definite with the verdict; without a verdict it goes on.
// Where a person has the machine enter another state, f is stopped, and the error
// is errAgain.
func (a *Agent) during(ctx context.Context, verdict Verdict, f func(context.Context) error) error {
	if err := a.unwanted(verdict); err != nil {
		return err
	}
	state := a.rec.State
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan func() error, 1)
	go func() {
		var err error
		defer func() {
			p := recover()
			ended <- func() error {
				if p != nil {
					panic(p)
				}
				return err
			}
		}()
		err = f(ctx)
	}()
	for {
		select {
		case end := <-ended:
			return end()
		case do := <-a.commands:
			do()
			select {
			case a.hurry <- struct{}{}:
			default:
			}
			err := a.unwanted(verdict)
			if a.rec.State != state { // it is another step's turn
				err = errAgain
			}
			if err != nil {
				cancel()
				(<-ended)()
				return err
			}
		}
	}
}

// unwanted is the verdict on a deployment that a person does not want, and
// errAgain where there is none.
func (a *Agent) unwanted(verdict Verdict) error {
	d := a.rec.Deployment
	switch {
	case verdict == "" || a.rec.Wanted == "":
		return nil
	case d == nil:
		return errAgain
	case d.New.Dir == a.rec.Wanted:
		return nil
	}
	return &definite{verdict: verdict, err: errors.New("a rollback by hand has taken its place")}
}
