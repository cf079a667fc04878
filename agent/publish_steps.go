package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"deploytools/atomic"
)

// What a deployment does at fixed paths is one set of package atomic, which goes
// the same way as the link `current`: prepared in Checking, committed in Switching
// before the link moves, undone in Restoring after the link is back, finished in
// Committing or Discarding. So the files are NEWROOT's whenever the link says
// NEWROOT, and a machine that finds the link elsewhere knows that the set is to
// be undone.

// storeName is the directory of the sets.
const storeName = "published"

// setPatience is how long a step waits for the locks of a set's directories.
const setPatience = time.Minute

// Publishing is what a deployment does at fixed paths.
type Publishing struct {
	Changes  []Change // by path; what stays as it is is not among them
	Warnings []string `json:",omitempty"` // what could not be as it should
}

// Change is what a deployment does at one path.
type Change struct {
	Path string     `json:"path"`
	Does ChangeKind `json:"does"`
	From string     `json:"from,omitempty"` // the file in the root
}

// ChangeKind says what becomes of the file there.
type ChangeKind string

// The kinds of changes.
const (
	Created  ChangeKind = "new"
	Replaced ChangeKind = "replaced"
	Removed  ChangeKind = "removed"
)

func (a *Agent) store() (*atomic.Store, error) { return atomic.OpenStore(a.path(storeName)) }

// stage prepares the set of a deployment. What an earlier try of Checking has
// prepared goes first. The record names the set before anything of it is there.
func (a *Agent) stage(ctx context.Context, d *Deployment) error {
	a.staged = ""
	if err := a.undoSet(ctx, d.New.Set, true); err != nil {
		return err
	}
	files, err := a.publishes(d)
	if err != nil {
		return err
	}
	d.New.Published, d.Publishing = files, nil
	targets := a.targets(a.path(d.New.Dir), files)
	if len(targets) == 0 {
		return nil
	}
	d.New.Set = d.ID
	if err := a.save(); err != nil {
		return err
	}
	d = a.rec.Deployment
	a.crash("set announced")
	if err := a.unclaimed(files); err != nil {
		d.New.Set, d.New.Published = "", nil
		return errors.Join(err, a.save()) // the other one, too, may only be asking
	}
	if err := a.prepare(ctx, d, targets); err != nil {
		return fmt.Errorf("cannot publish: %w", err)
	}
	a.crash("set prepared")
	return a.writeRoot(&d.New)
}

// targets is what has to be done that the files lie at their paths, and those
// that were published before and are not among them no longer.
func (a *Agent) targets(root string, files []Published) []atomic.Target {
	var all []atomic.Target
	for _, p := range files {
		t := atomic.Target{Path: p.To, Digest: p.Digest.String(), Metadata: atomic.Metadata{Mode: p.Mode, Owner: p.Owner, Group: p.Group},
			Open: func() (io.ReadCloser, error) { return os.OpenInRoot(root, p.From) }}
		if _, err := os.Lstat(p.To); t.Mode == 0 && errors.Is(err, fs.ErrNotExist) {
			t.Mode = p.Perm
		}
		all = append(all, t)
	}
	for _, p := range a.rec.Published {
		if goes(p, files) {
			all = append(all, atomic.Target{Path: p.To, Remove: true})
		}
	}
	return all
}

// goes reports whether a published file is to be removed, for these take its
// place. Its directory may be gone, or have been moved, with a link left behind.
func goes(p Published, files []Published) bool {
	now := p
	err := now.resolve()
	switch {
	case errors.Is(err, fs.ErrNotExist), slices.ContainsFunc(files, func(f Published) bool { return f.resolve() == nil && f.To == now.To || f.To == p.To }):
		return false
	case err == nil && now.To != p.To:
		return p.intact() == nil // else it is another file, at another place
	}
	return true
}

// prepare prepares the deployment's set, and notes what it will do.
func (a *Agent) prepare(ctx context.Context, d *Deployment, targets []atomic.Target) error {
	if err := a.settle(ctx); err != nil {
		return err
	}
	there := map[string]bool{}
	for _, t := range targets {
		_, err := os.Lstat(t.Path)
		there[t.Path] = err == nil
	}
	set, err := a.prepareSet(ctx, d.New.Set, targets)
	if err != nil {
		return err
	}
	defer set.Close()
	preview, err := set.Staged(a.o.Hook.User.reader())
	if err != nil {
		return err
	}
	if d.SetJournal, err = set.Journal(); err != nil {
		return err
	}
	a.staged = preview.Dir
	d.Publishing = &Publishing{Warnings: set.Warnings()}
	for _, path := range set.Changed() {
		c := Change{Path: path, Does: Removed}
		if i := slices.IndexFunc(d.New.Published, func(p Published) bool { return p.To == path }); i >= 0 {
			c.Does, c.From = Replaced, d.New.Published[i].From
			if !there[path] {
				c.Does = Created
			}
		}
		d.Publishing.Changes = append(d.Publishing.Changes, c)
	}
	for _, w := range set.Warnings() {
		a.log().Warn("published with a difference", "error", w)
	}
	return nil
}

func (a *Agent) prepareSet(ctx context.Context, id string, targets []atomic.Target) (*atomic.Set, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, setPatience, fmt.Errorf("waited %v", setPatience))
	defer cancel()
	s, err := a.store()
	if err != nil {
		return nil, err
	}
	return s.Prepare(ctx, atomic.Plan{ID: id, Files: targets})
}

// withSet calls do with a set, unless nothing is left of it. If the store has lost
// it, the deployment's own set is one that has come to the state lost; "": it is none.
func (a *Agent) withSet(ctx context.Context, id string, lost atomic.State, do func(context.Context, *atomic.Set) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, setPatience, fmt.Errorf("waited %v", setPatience))
	defer cancel()
	s, err := a.store()
	if err != nil {
		return err
	}
	set, err := s.Prepared(ctx, id)
	if d := a.rec.Deployment; errors.Is(err, fs.ErrNotExist) && lost != "" && d.New.Set == id && d.SetJournal != nil {
		if set, err = s.Adopt(ctx, d.SetJournal, lost); err == nil {
			a.warnPublishing(d, "published files without their journal", fmt.Sprintf("somebody has removed the journal of the published files from %s: the agent goes by its own copy", a.path(storeName)))
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer set.Close()
	return do(ctx, set)
}

// commitSet puts the files of a deployment in their places. That it cannot, because
// somebody has changed one of them since Checking, is no version's fault.
func (a *Agent) commitSet(ctx context.Context, id string) error {
	if id == "" {
		return nil
	}
	there := false
	err := a.withSet(ctx, id, "", func(ctx context.Context, set *atomic.Set) error {
		there = true
		err := set.Commit(ctx)
		if errors.Is(err, atomic.ErrChanged) || errors.Is(err, atomic.ErrBusy) {
			return &definite{verdict: Withdrawn, err: err}
		}
		return err
	})
	if err == nil && !there { // else the link would move without its files
		return &definite{verdict: Withdrawn, err: fmt.Errorf("what was prepared is gone from %s", a.path(storeName))}
	}
	return err
}

// undoSet puts back what was there before, and with end leaves nothing of the
// set. It can be called again.
func (a *Agent) undoSet(ctx context.Context, id string, end bool) error {
	if id == "" {
		return nil
	}
	return a.withSet(ctx, id, atomic.Undoing, func(ctx context.Context, set *atomic.Set) error { return a.undo(ctx, set, end) })
}

func (a *Agent) undo(ctx context.Context, set *atomic.Set, end bool) error {
	if set.State() == atomic.Finished {
		return nil
	}
	err := set.Undo(ctx)
	for _, w := range set.Warnings() {
		a.log().Warn("put back with a difference", "error", w)
	}
	if err == nil && end && set.State() == atomic.Undone {
		err = set.Finish(ctx)
	}
	return err
}

// finishSet has a set that is committed count as what is published.
func (a *Agent) finishSet(ctx context.Context, id string) error {
	if id == "" {
		return nil
	}
	return a.withSet(ctx, id, atomic.Committed, func(ctx context.Context, set *atomic.Set) error { return set.Finish(ctx) })
}

// backSet names the set that publishes what the root has that a rollback leads
// to, where that is another one than served before.
func (d *Deployment) backSet() string { return d.ID + backSuffix }

const backSuffix = "-back"

// republishes reports whether the way back leads to another root than the one
// that had published what is undone.
func (d *Deployment) republishes() bool {
	back := d.target()
	return back != nil && !sameRoot(back, d.From)
}

// unpublish is the part of Restoring at fixed paths.
func (a *Agent) unpublish(ctx context.Context, d *Deployment) error {
	if d.republishes() && a.begunBack(ctx, d) {
		return a.commitSet(ctx, d.backSet())
	}
	if err := a.undoSet(ctx, d.New.Set, d.republishes()); err != nil || !d.republishes() {
		return err
	}
	targets := a.targets(a.path(d.Back.Dir), d.Back.Published)
	if len(targets) == 0 {
		return nil
	}
	set, err := a.prepareSet(ctx, d.backSet(), targets)
	if err != nil {
		return err
	}
	set.Close()
	a.crash("way back prepared")
	return a.commitSet(ctx, d.backSet())
}

// begunBack reports whether the way back's own set has come to its commit.
func (a *Agent) begunBack(ctx context.Context, d *Deployment) (begun bool) {
	a.withSet(ctx, d.backSet(), "", func(_ context.Context, set *atomic.Set) error {
		begun = set.State() != atomic.Preparing && set.State() != atomic.Prepared
		return nil
	})
	return begun
}

// closeSets is the part of Discarding at fixed paths. It returns what is
// published then.
func (a *Agent) closeSets(ctx context.Context, d *Deployment) ([]Published, error) {
	if d.Switched {
		if err := a.unpublish(ctx, d); err != nil {
			return nil, err
		}
	}
	if err := a.undoSet(ctx, d.New.Set, true); err != nil {
		return nil, err
	}
	if !d.Switched || !d.republishes() {
		return a.rec.Published, nil
	}
	return d.Back.Published, a.finishSet(ctx, d.backSet())
}

// settle ends a set that the record does not name: one that was under way when
// the record was lost. What `current` names decides.
func (a *Agent) settle(ctx context.Context) error {
	if _, err := os.Lstat(a.path(storeName)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, setPatience, fmt.Errorf("waited %v", setPatience))
	defer cancel()
	s, err := a.store()
	if err != nil {
		return err
	}
	set, err := s.Unfinished(ctx)
	if err != nil || set == nil {
		return err
	}
	defer set.Close()
	live, d := a.rec.Live, a.rec.Deployment
	undoing := set.State() == atomic.Undoing || set.State() == atomic.Undone
	switch {
	case d != nil && (set.ID() == d.New.Set || set.ID() == d.backSet()):
		return nil
	case !undoing && (live != nil && set.ID() == live.Set || strings.HasSuffix(set.ID(), backSuffix)):
		return errors.Join(set.Commit(ctx), set.Finish(ctx))
	}
	return a.undo(ctx, set, true)
}
