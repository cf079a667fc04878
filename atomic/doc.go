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
// # Sets of files
//
// A [Store] publishes sets of files at fixed paths, such as a certificate and
// its key: all of them or none. [Store.Apply] does it all: it makes the new
// contents ready under hidden names beside the destinations, has them validated,
// exchanges the names, has the files reloaded and verified, and finishes the
// set; or it brings the old files back, and has those reloaded and verified.
// Who has a machine and a record of his own calls the steps himself:
// [Store.Prepare], [Set.Commit], and [Set.Finish] or [Set.Undo] and then Finish.
// He does not use Apply or Recover on the same store, which end what they find.
// A copy of the journal in his record finds the set where the store is gone: see
// [Store.Adopt].
//
// The old file is the same inode all the time, and comes back with all that
// belongs to it. The journal of the store is durable before each effect. After a
// crash or a power loss [Store.Recover], or the next Apply, removes a set that
// was not committed, tidies up after one that was finished, and brings any other
// back; whoever reads the files is told of it. There is no third outcome. N files
// change at N moments, one right after the other: until the reload, who reads
// them may see some old and some new.
//
// A set is finished when the store's record says so, which is one rename. The
// record also holds the former contents that are kept, and [Store.Drift] compares
// it with what is there.
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
