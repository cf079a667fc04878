package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"deploytools/layers/digest"
)

// Limits of Meta, asserted by registry/enginetest, so that a distributed
// engine can follow the embedded one.
const (
	MaxWrites     = 100     // writes in one Update
	MaxValueBytes = 1 << 20 // a value is shorter than this
	MaxKeyBytes   = 512     // a key is shorter than this
)

var (
	// ErrTooLarge says that an Update broke one of the limits of Meta. Nothing
	// of it was stored.
	ErrTooLarge = errors.New("too much for one update")
	// ErrReadOnly says that the engine could not make a change durable, this
	// one or one before, and takes no more of them until it is opened again;
	// reading goes on. A later change did nothing. Whether the one that failed
	// is there is known only after the next opening.
	ErrReadOnly = errors.New("storage is read-only after a failed write, until the registry is restarted")
	// ErrNoBlob says that no blob has this digest.
	ErrNoBlob = errors.New("no such blob")
	// ErrNoUpload says that the spool holds no upload of this name.
	ErrNoUpload = errors.New("no such upload")
)

// Meta is an ordered map from keys to values with serialisable transactions.
// It knows no rule of the domain. Safe for concurrent use.
//
// Keys are not empty and shorter than MaxKeyBytes, values shorter than
// MaxValueBytes; both may hold any bytes. Get and Scan find nothing under a
// key that cannot be.
type Meta interface {
	// View calls fn with a consistent snapshot and returns its error as it
	// is. Put and Delete fail in it. A ctx that is done before fn begins is
	// an error. In fn, call neither View nor Update of the same Meta.
	View(ctx context.Context, fn func(Tx) error) error
	// Update calls fn and stores what it wrote: all of it, durably, before
	// Update returns nil, and nothing of it when fn or Update returns an error
	// (but see ErrReadOnly). The error of fn is returned as it is. A ctx that
	// is done before fn ends is an error.
	// An optimistic engine may call fn again, so fn has no other effect than
	// its writes and assigns its results afresh each time. More than MaxWrites
	// calls of Put and Delete together are ErrTooLarge. A Put or Delete that
	// failed fails the Update, whatever fn returns. In fn, call neither View
	// nor Update of the same Meta.
	Update(ctx context.Context, fn func(Tx) error) error
	// Close ends the engine. Calls that run finish first; later ones fail,
	// but for Close, which may be called again.
	Close() error
}

// Tx is one transaction, usable only inside the function that was given it and
// by one goroutine at a time. It sees its own writes. After the function its
// methods fail and its loops end.
type Tx interface {
	// Get returns a copy of the value of key, or nil when there is none. (A
	// value of no bytes is not nil.)
	Get(key string) ([]byte, error)
	// Scan yields the pairs whose key starts with prefix, by key in byte
	// order, as they were when the loop began; the loop body may write. The
	// values are copies. An error of the engine ends the loop and is returned
	// by the View or Update around it.
	Scan(prefix string) iter.Seq2[string, []byte]
	// Put sets the value of key. The value is copied; nil is stored as a value
	// of no bytes.
	Put(key string, value []byte) error
	// Delete removes key; removing what is not there is no error.
	Delete(key string) error
}

// Blobs keeps content under its digest. Safe for concurrent use, also by other
// processes. It never serves a blob that is not whole: what List and Open show
// was written to its end and matched its digest. It is durable from the moment
// that a Put or Adopt of it returned nil.
type Blobs interface {
	// Put reads r to its end and stores it under d, durably before it returns
	// nil. Content that does not match is digest.ErrMismatch. A failure leaves
	// nothing behind, or, where only the last step to durability failed, the
	// whole blob: to take it away again could take it from a second Put that
	// succeeded. Storing what is there already stores it anew, which mends a
	// blob that the disk has spoiled; it stays readable meanwhile.
	Put(ctx context.Context, d digest.Digest, r io.Reader) error
	// Open returns the blob; the caller closes it. ErrNoBlob when there is
	// none. A blob that is deleted while it is open stays readable.
	Open(ctx context.Context, d digest.Digest) (Blob, error)
	// Delete removes the blob, durably; removing what is not there is no error.
	Delete(ctx context.Context, d digest.Digest) error
	// List yields every blob, in no order. An error ends the loop, with a zero
	// BlobInfo.
	List(ctx context.Context) iter.Seq2[BlobInfo, error]
}

// Blob is an open blob. Safe for concurrent use.
type Blob interface {
	io.ReaderAt
	io.Closer
	Size() int64 // bytes
}

// BlobInfo describes one stored blob.
type BlobInfo struct {
	Digest  digest.Digest
	Size    int64     // bytes
	ModTime time.Time // when it was stored
}

// Spool keeps uploads in flight, before they are blobs. Its names are made by
// the registry, as CheckUploadName wants them; every method refuses any other.
// Safe for concurrent use. An upload may be open more than once, and what is
// written shows in each; it is written through one Upload at a time.
type Spool interface {
	// Create makes an empty upload. The name must be new.
	Create(ctx context.Context, name string) (Upload, error)
	// Resume opens an upload that is there; ErrNoUpload when there is none.
	Resume(ctx context.Context, name string) (Upload, error)
	// Remove forgets the upload; removing what is not there is no error.
	Remove(ctx context.Context, name string) error
	// List yields the uploads that are there, in no order. An error ends the
	// loop.
	List(ctx context.Context) iter.Seq2[UploadInfo, error]
	// Free returns how many bytes may still be written to the file system of
	// the spool.
	Free(ctx context.Context) (int64, error)
}

// Upload is one open upload. Safe for concurrent use, but for Close.
type Upload interface {
	io.ReaderAt
	io.WriterAt
	// Truncate makes the upload size bytes long.
	Truncate(size int64) error
	// Size returns its length in bytes.
	Size() (int64, error)
	// Sync makes what was written durable. When it fails, nobody can tell any
	// more what is stored (a second fsync would succeed all the same): the
	// upload leaves the spool, and its content has to be sent anew.
	Sync() error
	// Close releases the upload, which stays in the spool.
	Close() error
}

// CheckUploadName says why name cannot be the name of an upload: it has 1 to
// 64 lower-case letters and digits, and so is a file name that no path can
// hide in.
func CheckUploadName(name string) error {
	valid := func(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' }
	for i := range len(name) {
		if !valid(name[i]) {
			return fmt.Errorf("upload name %.80q: should be lower-case letters and digits", name)
		}
	}
	if len(name) == 0 || len(name) > 64 {
		return fmt.Errorf("upload name %.80q: should have 1 to 64 characters", name)
	}
	return nil
}

// UploadInfo describes one upload in the spool.
type UploadInfo struct {
	Name    string
	Size    int64     // bytes
	ModTime time.Time // of the last write
}

// Adopter is an optional ability of Blobs: to take a finished upload of its
// own spool without copying it.
type Adopter interface {
	// Adopt makes the upload the blob d, durably before it returns nil, and
	// takes it out of the spool. The caller has seen that its content has the
	// digest d and that nobody writes to it. A blob that is there is replaced.
	// Adopting again after a crash is no error. ErrNoUpload when there is
	// neither the upload nor the blob. It need not be synced before; where
	// making it durable fails, it leaves the spool as Sync says.
	Adopt(ctx context.Context, name string, d digest.Digest) error
}
