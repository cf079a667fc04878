package registry

import (
	"cmp"
	"context"
	"io"
	"iter"
	"sync"
	syncatomic "sync/atomic"
	"time"

	"deploytools/layers/manifest"
)

// Options say what a Registry works with and within which limits.
type Options struct {
	Meta  Meta
	Blobs Blobs
	Spool Spool
	// Check reads an archive to its end and says whether it may be a layer.
	// See CheckFunc.
	Check CheckFunc
	// Identity returns what else the registry is made of, by name: the host
	// keys, without which hosts do not know a restored one. Backups carry it.
	Identity func() (map[string][]byte, error)
	// Now is the clock; nil: time.Now. Order never depends on it.
	Now func() time.Time

	MaxVersions    int           // newest versions of a component that are kept; 0: all
	RollbackWindow int           // newest revisions whose versions are kept; 0: 10
	UploadExpiry   time.Duration // after the last write; 0: 24 hours
	Grace          time.Duration // of a blob that nothing references; 0: 24 hours; at least UploadExpiry

	AuditKeep int // newest entries of the audit log that are kept; 0: all

	MaxUpload int64 // bytes of one upload; 0: 16 GiB
	MinFree   int64 // bytes that uploads leave free on the disk; 0: 1 GiB
	Quota     Quota // of uploads

	CheckMemory int64 // bytes that the checks that run have together; one more has what it needs; 0: 256 MiB
}

// CheckFunc reads the archive r to its end. It returns what it found, with the
// size set in any case, or an error: one that wraps ErrRefused
// speaks about the archive and holds for ever, any other about reading it.
//
// It calls room before it takes so many bytes more of memory, and ends with
// room's error. Nil: there is enough.
type CheckFunc func(ctx context.Context, r io.Reader, room func(bytes int64) error) (Archive, error)

// Archive is what checking found out about one.
type Archive struct {
	Size     int64    // bytes
	Unpacked int64    // bytes of its files
	Entries  int64    // files, directories and links
	Warnings []string // what is accepted but will not be applied
	// Manifest yields the entries of the tree that it makes, by path, as often as it
	// is wanted; nil: none.
	Manifest iter.Seq2[manifest.Entry, error]
}

// Registry is the domain: every rule about versions, configurations and
// uploads, over engines that know none. It holds no state of its own but the
// checks that run (Inbox). Safe for concurrent use; several processes may work
// on the same engines.
type Registry struct {
	o        Options
	inbox    *Inbox
	sweeping sync.Mutex       // one collection at a time: see collectOne
	backups  syncatomic.Int64 // that are being written
}

// New returns a Registry over the engines of o, which stay the caller's to
// close, after Close.
func New(o Options) *Registry {
	if o.Now == nil {
		o.Now = time.Now
	}
	o.RollbackWindow = cmp.Or(o.RollbackWindow, 10)
	o.UploadExpiry = cmp.Or(o.UploadExpiry, 24*time.Hour)
	// The manifest of an upload is such a blob, and outlives it.
	o.Grace = max(cmp.Or(o.Grace, 24*time.Hour), o.UploadExpiry)
	o.MaxUpload = cmp.Or(o.MaxUpload, 16<<30)
	o.MinFree = cmp.Or(o.MinFree, 1<<30)
	o.Quota = o.Quota.orDefault()
	o.CheckMemory = cmp.Or(o.CheckMemory, 256<<20)
	r := &Registry{o: o}
	r.inbox = newInbox(r)
	return r
}

// Close ends the checks that run; what they were about is checked again when
// somebody asks.
func (r *Registry) Close() { r.inbox.close() }

// Storing returns nil if changes can be stored now, without storing one, and
// else why not: an engine that has become read-only says ErrReadOnly.
func (r *Registry) Storing(ctx context.Context) error {
	return r.o.Meta.Update(ctx, func(Tx) error { return nil })
}

// Now returns the time by the clock of the records.
func (r *Registry) Now() time.Time { return r.now() }

// now returns the time as records keep it.
func (r *Registry) now() time.Time { return r.o.Now().UTC().Round(0) }
