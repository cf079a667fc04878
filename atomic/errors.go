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
