package atomic

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A Set is a plan under way. It holds the locks of its store and of the
// directories of its files until Close; closing decides nothing, and the set is
// found again by [Store.Prepared]. Commit, Undo and Finish are idempotent, also
// across a crash at any point: who does not know how far the last call came
// calls again. A Set belongs to one goroutine at a time.
type Set struct {
	store    *Store
	lock     *Lock
	folders  []folder
	journal  *journal
	record   *published
	warnings []string
	tidy     bool // nothing of it is left to tidy up
}

// ID returns the ID of the plan.
func (set *Set) ID() string { return set.journal.ID }

// State returns how far the set has come.
func (set *Set) State() State { return set.journal.State }

// Changed lists the paths, as the plan has them, at which something changes.
func (set *Set) Changed() []string {
	var paths []string
	for _, it := range set.journal.Items {
		if it.Action != actSame {
			paths = append(paths, it.Given)
		}
	}
	return paths
}

// Warnings lists what was not as the plan wants it, and is no reason to fail:
// what this Set has met since it was made. Each names its file.
func (set *Set) Warnings() []string { return set.warnings }

func (set *Set) warn(it *item, warnings []string) {
	for _, w := range warnings {
		set.warnings = append(set.warnings, it.Given+": "+w)
	}
}

// Close gives the locks back. The set stays as it is.
func (set *Set) Close() error {
	closeFolders(set.folders)
	set.folders = nil
	if set.lock == nil {
		return nil
	}
	return set.lock.Release()
}

// Commit gives every destination its new content, and makes that durable. It
// does nothing if ctx is done before it begins; once begun it does not stop.
// After an error the destinations may be old and new: either Undo, or Commit
// again. An error that wraps [ErrChanged] says that a destination is not what
// it was; if the set is still Prepared, none was changed.
func (set *Set) Commit(ctx context.Context) error {
	if err := set.commit(ctx); err != nil {
		return fmt.Errorf("set %s: %w", set.ID(), err)
	}
	return nil
}

func (set *Set) commit(ctx context.Context) error {
	switch set.State() {
	case Committed, Finished:
		return nil
	case Undoing, Undone:
		return fmt.Errorf("%w: it is %s", ErrEnded, set.State())
	case Prepared:
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		for i := range set.journal.Items {
			if err := set.unchanged(&set.journal.Items[i], (*item).untouched); err != nil {
				return err
			}
		}
		if err := set.write(Committing); err != nil {
			return err
		}
	case Committing:
	default:
		return fmt.Errorf("%w: it is %s", ErrUnfinished, set.State())
	}
	for i := range set.journal.Items {
		it := &set.journal.Items[i]
		if err := set.commitOne(it); err != nil {
			return fmt.Errorf("%s: %w", it.Given, err)
		}
	}
	if err := set.sync(); err != nil {
		return err
	}
	return set.write(Committed)
}

// unchanged fails if somebody has changed the destination since Prepare, its
// owner or mode as well: a new file may have been given those that it had then.
func (set *Set) unchanged(it *item, still func(*item, node) bool) error {
	now, err := set.store.disk.node(it.Path)
	if err == nil && (now.exists != (it.Old != nil) || now.exists && !still(it, now)) {
		err = fmt.Errorf("%s: %w", it.Given, ErrChanged)
	}
	return err
}

// mended ends an exchange of the destination that a crash has cut short, and
// returns what lies there then.
func (set *Set) mended(it *item) (node, error) {
	if err := set.store.disk.mendExchange(it.Aside); err != nil {
		return node{}, err
	}
	return set.store.disk.node(it.Path)
}

func (set *Set) commitOne(it *item) error {
	d := set.store.disk
	if it.Action == actSame {
		return nil
	}
	now, err := set.mended(it)
	if err != nil {
		return err
	}
	if it.Action == actRemove && !now.exists || it.Action != actRemove && it.isNew(now) {
		return nil // an earlier call came that far
	}
	if err := set.unchanged(it, (*item).isOld); err != nil {
		return err
	}
	switch it.Action {
	case actCreate:
		return d.renameNew(it.Aside, it.Path)
	case actRemove:
		return d.renameNew(it.Path, it.Aside)
	}
	return set.exchangeChecked(it)
}

// exchangeChecked puts the new file in place, and takes it back if what it
// finds aside then is not the old one, which somebody has replaced just now.
func (set *Set) exchangeChecked(it *item) error {
	d := set.store.disk
	staged, err := d.node(it.Aside)
	if err != nil {
		return err
	}
	if !it.isNew(staged) {
		return fmt.Errorf("its new content at %s: %w", it.Aside, ErrChanged)
	}
	if err := d.exchange(it.Aside, it.Path); err != nil {
		return err
	}
	old, err := d.node(it.Aside)
	if err != nil || it.isOld(old) {
		return err
	}
	if err := d.exchange(it.Aside, it.Path); err != nil {
		return err
	}
	return ErrChanged
}

// Finish closes the set. A committed one becomes what is published: its old
// contents are kept, as many as the plan says, and there is no way back any
// more. One that was undone leaves nothing behind. What somebody else had written
// stays where it is until it can be kept; then Finish is to be called again.
func (set *Set) Finish(context.Context) error {
	if err := set.finish(); err != nil {
		return fmt.Errorf("set %s: %w", set.ID(), err)
	}
	return nil
}

func (set *Set) finish() error {
	switch set.State() {
	case Finished:
		if set.tidy {
			return nil
		}
		// Whether the record came to the disk is not known: see ErrUnsynced.
		if err := set.store.disk.writeJSON(set.store.path(publishedName), set.record); err != nil {
			return err
		}
	case Committed:
		next := set.publish()
		err := set.store.disk.writeJSON(set.store.path(publishedName), next)
		if err == nil || errors.Is(err, ErrUnsynced) {
			set.record, set.journal.State = next, Finished
		}
		if err != nil {
			return err
		}
	case Undoing, Undone:
		return set.finishUndone()
	default:
		return fmt.Errorf("%w: it is %s", ErrUnfinished, set.State())
	}
	return set.tidyUp()
}

// now is the time that the record shows to people; nothing depends on it.
func now() time.Time { return time.Now().UTC().Truncate(time.Second) }

// write makes the journal say that the set has come to state.
func (set *Set) write(state State) error {
	next := *set.journal
	next.State = state
	if err := set.store.disk.writeJSON(set.store.path(journalName), next); err != nil {
		return err
	}
	set.journal.State = state
	return nil
}

// sync makes durable what was changed in the directories.
func (set *Set) sync() error {
	var errs []error
	for _, f := range set.folders {
		errs = append(errs, set.store.disk.settle(f.file))
	}
	return errors.Join(errs...)
}

// discard removes what was prepared, and the journal last.
func (set *Set) discard() error {
	if set.journal == nil {
		return nil
	}
	d := set.store.disk
	for _, it := range set.journal.Items {
		for _, name := range []string{it.Aside, it.Aside + "~"} {
			if n, err := d.node(name); err != nil {
				return err
			} else if n.exists {
				if err := d.remove(name); err != nil {
					return err
				}
			}
		}
	}
	if err := set.sync(); err != nil {
		return err
	}
	if err := d.removeTree(set.store.path(previewName)); err != nil {
		return err
	}
	return errors.Join(d.removeSynced(set.store.path(undoName)), d.removeSynced(set.store.path(journalName)))
}
