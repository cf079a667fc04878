// Package atomic changes the disk so that a reader, a crash or a power loss
// finds the old state or the new one, whole, and never something in between.
// Every change of state on disk that the programs make goes through it.
//
// # Words
//
// A temp is the hidden file, link or empty directory in which a new state is
// prepared, beside its final name: ".atomic-", 26 random letters and digits,
// ".tmp". A staged directory is a tree that is being filled under the hidden
// name ".NAME.partial" beside its final name NAME. Both start with a dot, so
// that globs and programs that load whole directories pass them by. Durable
// means: it survives a power loss.
//
// # Durability
//
// A call that returns nil has made its change durable. A call that returns an
// error has left the old state in place and has removed its temp, with one
// exception that has a name: an error that wraps [ErrUnsynced] says that the
// new state is in place and that a power loss may undo it. Where a call promises
// something else, it says so.
//
// No sync is ever tried again. After a failed one the kernel may have dropped
// the pages, and a second sync of the same file reports success without the
// data (fsync(2), NOTES). The state has to be written anew, from the start.
//
// A process that is killed, or a disk that fails the clean-up too, leaves temps
// behind. They are never read and hurt nobody; the owner of a directory removes
// them with [Sweep], under its lock, when it starts. Staged directories may be
// large, and deleting makes the next unpacking slow: Sweep leaves them to their
// owner, who tells them by [Staged], and [Stage] removes one of its own name.
//
// # Concurrency
//
// The functions are safe for concurrent use: of two calls for one path, either
// may come last, and its state is whole. They do not order processes: who reads
// a state, decides and writes it back holds a [Lock]. A [Dir] and a [Lock]
// belong to one goroutine at a time.
//
// Trust: the directories belong to the program. Nothing here defends against
// somebody else who may rename things in them during a call.
//
// # Example
//
//	lock, err := atomic.Acquire("/var/lib/x/lock")
//	...
//	err = atomic.Sweep("/var/lib/x")
//	...
//	d, err := atomic.Stage("/var/lib/x/roots/000042-abc")
//	...
//	defer d.Abort() // nothing, once Commit has returned nil
//	err = fill(d.Path())
//	...
//	err = d.Commit()
//	...
//	err = atomic.Symlink("roots/000042-abc", "/var/lib/x/current")
package atomic
