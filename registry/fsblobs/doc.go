// Package fsblobs is registry.Blobs, registry.Adopter and registry.Spool over
// one directory, in upstream's layout:
//
//	files/DIGEST   blobs, mode 0600
//	uploads/NAME   uploads in flight, mode 0600
//
// What has another name in these directories is neither shown nor touched, but
// for what Sweep is about.
//
// A blob gets its name when its bytes are synced, and Put and Adopt return when
// the name is. A failed sync is never tried again on the same file: a Put is
// refused and has to be sent anew, an upload leaves the spool. After a failed
// sync of a directory nobody can tell which names it has on the disk: from then
// on every change fails with registry.ErrReadOnly, and reading goes on.
//
// Blobs and Spool hold no descriptor and need no closing. Both are safe for
// concurrent use, also by several processes.
//
//	blobs, spool, err := fsblobs.Open(dir)
//	...
//	err = blobs.Sweep() // by the one process that owns dir, when it starts
package fsblobs
