package agent

import (
	"context"
	"fmt"
	"time"

	"deploytools/atomic"
	"deploytools/verify"
)

// Do and undo of what makes a root live: the link, then the hook.

// attempts is how often a step of the way back tries by itself.
const attempts = 3

// switchRoot is the step of Switching.
func (a *Agent) switchRoot(ctx context.Context) error {
	boot, err := bootID()
	if err != nil {
		return err
	}
	d := a.rec.Deployment
	d.SwitchBoot, d.SwitchUptime = boot, verify.Uptime()
	var files error
	err = a.persist(ctx, func() error {
		if files = a.commitSet(ctx, d.New.Set); files != nil {
			return files
		}
		a.crash("set committed")
		return atomic.Symlink(d.New.Dir, a.path("current"))
	})
	if files != nil {
		a.crossed.met(d, files)
	}
	if last := a.rec.Last; files != nil && ctx.Err() == nil && !isDefinite(files) &&
		(last == nil || last.Verdict != Withdrawn || last.New.Configuration.Digest != d.New.Configuration.Digest) {
		return &definite{verdict: Withdrawn, err: files} // the host's, as in Checking; a second time it is not waited for
	}
	return err
}

// restore is the step of Restoring: it undoes switchRoot. Where the way back
// was prepared, it is renames, which need no room on the disk.
func (a *Agent) restore(ctx context.Context) error {
	d := a.rec.Deployment
	return a.persist(ctx, func() error {
		if err := a.pointAt(d.target()); err != nil {
			return err
		}
		a.crash("link back")
		return a.unpublish(ctx, d)
	})
}

// hook is the step of Hooking.
func (a *Agent) hook(ctx context.Context) error {
	d := a.rec.Deployment
	if a.o.Hook.Script == "" {
		return nil
	}
	return a.persist(ctx, func() error {
		result, err := a.runHook(ctx, d, "deploy", "deploy")
		if failed := result.as("deploy"); err == nil && failed != nil {
			err = &definite{Bad, failed, result.Unbegun && result.Attempt == 1}
		}
		return err
	})
}

// rehook is the step of Rehooking: it undoes hook by running it for OLDROOT. A
// first deployment is undone by the remove script; a hook that never ran, by
// nothing. Each attempt has files of its own, so that their number survives a
// restart.
func (a *Agent) rehook(ctx context.Context) error {
	d := a.rec.Deployment
	kind := a.undoes(d)
	n := 0
	return a.persist(ctx, func() error {
		n++
		if err := a.awaitQuiet(ctx, d); err != nil || kind == "" {
			return err
		}
		// The hook's supervisor may have been killed, and the hook not.
		if err := a.hooks.end(ctx, a.evidence(d), "deploy"); err != nil {
			return err
		}
		result, err := a.runHook(ctx, d, kind, undoLabel(kind, n))
		if err != nil {
			return fmt.Errorf("%s: %w", purposes[kind], err)
		}
		return result.as(kind)
	})
}

// undoes returns the kind of the program that undoes the hook; empty: there is none,
// or nothing to undo.
func (a *Agent) undoes(d *Deployment) string {
	switch {
	case d.Hooked && d.Back != nil && a.o.Hook.Script != "":
		return "rollback"
	case d.Hooked && d.Back == nil && a.o.Hook.RemoveScript != "":
		return "remove"
	}
	return ""
}

// undoLabel names the files of the nth attempt of rehook.
func undoLabel(kind string, n int) string {
	if n == 1 {
		return kind
	}
	return fmt.Sprintf("%s-%d", kind, n)
}

// rehooked reports whether rehook got as far as to begin its program, where it has
// one. Otherwise nobody has told the service that OLDROOT is back.
func (a *Agent) rehooked(d *Deployment) bool {
	kind := a.undoes(d)
	for n := range attempts {
		c := hookCall{Dir: a.evidence(d), Label: undoLabel(kind, n+1)}
		if last, err := c.lastAttempt(); err == nil && last.Attempt > 0 {
			return true
		}
	}
	return kind == ""
}

// persist calls do up to three times, until it succeeds or fails definitely.
func (a *Agent) persist(ctx context.Context, do func() error) error {
	for n := 1; ; n++ {
		err := do()
		if err == nil || n == attempts || isDefinite(err) || ctx.Err() != nil {
			return err
		}
		a.log().Warn("step tried again", "state", a.rec.State, "attempt", n, "error", err)
		if a.freed(err) { // at once: who fills the disk takes that too
			continue
		}
		if err := sleep(ctx, time.Duration(n)*time.Second); err != nil {
			return err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// target is the root that `current` goes back to; nil: it goes away. As long as
// no hook has run, that is what served, else the last root that surely did.
func (d *Deployment) target() *Root {
	if d.Hooked {
		return d.Back
	}
	return d.From
}

// pointAt moves `current` to the root, or away. It can be called again.
func (a *Agent) pointAt(r *Root) error {
	if r == nil {
		return atomic.Remove(a.path("current"))
	}
	if a.linkSays("current", r.Dir) {
		// Perhaps by a rename that was killed before its sync. Both links are in
		// one directory, and Remove syncs it.
		return atomic.Remove(a.path(wayBack))
	}
	if a.linkSays(wayBack, r.Dir) {
		return atomic.Rename(a.path(wayBack), a.path("current"))
	}
	return atomic.Symlink(r.Dir, a.path("current"))
}
