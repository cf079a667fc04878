package atomic

import (
	"errors"
	"fmt"
	"io/fs"
)

// ErrUnsynced says that a change was made and that making it durable failed.
// Readers see the new state, which is whole; after a power loss they may see
// the old one, whole too. Trying to sync again proves nothing: make the change
// again from the start, or stop and say so.
var ErrUnsynced = errors.New("done, but a power loss may undo it")

// ErrOccupied says that the name is taken by something that the call does not
// replace. Nothing was changed.
var ErrOccupied = errors.New("name is taken")

// ErrLocked says that somebody else holds the lock: see [LockedError]. The
// caller holds nothing, and the holder was not disturbed.
var ErrLocked = errors.New("lock is held")

// occupied names what stands in the way.
func occupied(mode fs.FileMode) error {
	kind := "a special file"
	switch mode.Type() {
	case 0:
		kind = "a file"
	case fs.ModeDir:
		kind = "a directory"
	case fs.ModeSymlink:
		kind = "a symbolic link"
	}
	return fmt.Errorf("%w by %s", ErrOccupied, kind)
}

// The errors of sets of files. Each error of [Store.Apply] wraps exactly one of
// them, and every cause.
var (
	// ErrPlanInvalid says that the plan cannot be carried out on this host, now
	// or later: it contradicts itself, or something lies at a destination that
	// is not replaced. Nothing was changed.
	ErrPlanInvalid = errors.New("plan is not possible")

	// ErrBusy says that the lock was not free before the context ended. Nothing
	// was changed.
	ErrBusy = errors.New("busy with another set")

	// ErrUnfinished says that a set that was begun earlier has to be ended
	// first: by its owner, or by Recover. This set has changed nothing.
	ErrUnfinished = errors.New("an earlier set is not finished")

	// ErrPrepareFailed says that the new contents could not be made ready, for
	// want of space for instance. Nothing live was touched, and what was made
	// ready is gone.
	ErrPrepareFailed = errors.New("cannot prepare")

	// ErrValidateFailed says that the new contents were refused. Nothing live
	// was touched, and they are gone.
	ErrValidateFailed = errors.New("refused by validation")

	// ErrChanged says that somebody else has changed a destination since the
	// set was prepared. From Commit: nothing was changed, or it was changed
	// back. It is in an error of Apply beside ErrCommitFailed.
	ErrChanged = errors.New("changed since the set was prepared")

	// ErrCommitFailed says that a destination could not be changed. All are as
	// before; if any could have been seen in between, the reload was run again.
	ErrCommitFailed = errors.New("cannot commit")

	// ErrReloadFailed says that the reload failed with the new contents. All
	// destinations are as before, reloaded and verified.
	ErrReloadFailed = errors.New("reload failed")

	// ErrVerifyFailed says that the new contents did not verify. All
	// destinations are as before, reloaded and verified; or, if the Result says
	// Skipped, nothing was changed and there was nothing to go back to.
	ErrVerifyFailed = errors.New("verification failed")

	// ErrRollbackFailed says that the way back failed too: files could not be
	// put back, or the old ones did not reload or verify. A person has to look.
	// The set stays in the journal with the old contents that are not back, and
	// nothing is tried again before the next Recover or Apply.
	ErrRollbackFailed = errors.New("rollback failed")

	// ErrEnded says that the set is past what was asked: a finished one has no
	// way back, one that goes back cannot be committed. Nothing was changed.
	ErrEnded = errors.New("set has ended")
)
