package atomic

import (
	"context"
	"errors"
	"fmt"
)

// Undo puts everything back as it was before Commit: the old files themselves,
// with all that belongs to them. It looks at no deadline, needs no space on the
// disk, and goes on after an error, which it returns, to the next file; then it
// is to be called again. What somebody else has put at a destination meanwhile
// is kept in the store. Finish closes the set; one that was never committed is
// closed by Undo itself.
func (set *Set) Undo(context.Context) error {
	if err := set.undo(); err != nil {
		return fmt.Errorf("set %s: %w", set.ID(), err)
	}
	return nil
}

func (set *Set) undo() error {
	switch set.State() {
	case Finished:
		return fmt.Errorf("%w: it is finished", ErrEnded)
	case Preparing, Prepared:
		if err := set.discard(); err != nil {
			return err
		}
		set.journal.State = Undone
		return nil
	case Undone:
		return nil
	}
	errs := []error{set.turn()} // a file that is back is better than none, whatever the journal says
	for i := len(set.journal.Items) - 1; i >= 0; i-- {
		it := &set.journal.Items[i]
		if err := set.undoOne(it); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", it.Given, err))
		}
	}
	if err := errors.Join(append(errs, set.sync())...); err != nil {
		return err
	}
	set.journal.State = Undone
	return nil
}

// turn makes the journal say that the set goes back. It does so by its name:
// that takes no space, which is often what is missing then.
func (set *Set) turn() error {
	if set.State() == Undoing {
		return nil
	}
	err := set.store.disk.move(set.store.path(journalName), set.store.path(undoName))
	set.journal.State = Undoing
	return err
}

// undoOne goes by what lies at the hidden name: the new content, then it was
// not committed; nothing, then the new one was moved from there or all is done;
// something else, then that is the old one, unless the old one is back already.
func (set *Set) undoOne(it *item) error {
	d := set.store.disk
	if it.Action == actSame {
		return nil
	}
	now, err := set.mended(it)
	if err != nil {
		return err
	}
	aside, err := d.node(it.Aside)
	switch {
	case err != nil:
		return err
	case !aside.exists:
		return set.undoAlone(it, now)
	case it.isNew(aside):
		d.remove(it.Aside) // the old one is in place: where this cannot be done, Finish does it
		return nil
	case it.Action == actCreate:
		return nil // see undoAlone
	case now.exists && now.inode == it.OldNode:
		return nil // what is aside was somebody else's: see keepStrange
	case !now.exists:
		return d.renameNew(it.Aside, it.Path)
	}
	if err := d.exchange(it.Aside, it.Path); err != nil {
		return err
	}
	if it.isNew(now) {
		d.remove(it.Aside)
		return nil
	}
	set.warn(it, []string{"somebody else had changed it; that is kept"})
	return nil
}

// undoAlone is undoOne where nothing lies aside. What was written into a new file
// goes aside, and is kept: see keepStrange.
func (set *Set) undoAlone(it *item, now node) error {
	d := set.store.disk
	switch {
	case it.Action == actReplace && it.isNew(now):
		return fmt.Errorf("its old content is gone from %s: put it at the path", it.Aside)
	case it.Action == actCreate && it.isNew(now):
		return d.remove(it.Path)
	case it.Action == actCreate && now.exists && now.inode == it.Inode:
		set.warn(it, []string{"somebody else had changed it; that is kept"})
		return d.renameNew(it.Path, it.Aside)
	case it.Action == actReplace && now.exists && now.inode != it.OldNode:
		set.warn(it, []string{"somebody else had changed it, and its old content is gone"})
	case it.Action != actCreate && !now.exists:
		set.warn(it, []string{"is not there, and its old content is gone"})
	}
	return nil
}

// finishUndone first undoes what was not: after a crash the journal does not say
// how far that came.
func (set *Set) finishUndone() error {
	if err := set.undo(); err != nil {
		return err
	}
	if err := set.keepStrange(); err != nil {
		return err
	}
	return set.discard()
}
