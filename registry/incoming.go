package registry

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"deploytools/layers/digest"
)

// Incoming is one upload that is being received. It ends with the first Finish,
// Suspend or Abort. Safe for concurrent use, also while it ends.
type Incoming struct {
	r      *Registry
	caller Caller
	file   Upload

	// Writes hold mu for reading, whatever cuts or ends the upload for writing:
	// the length of the file and what data knows of it never part.
	mu    sync.RWMutex
	state UploadState // ID, Path, User, Fingerprint and Started never change
	data  *arriving
	hash  *hashing
	check *checking
	over  bool // Finish, Suspend or Abort has begun

	heard atomic.Int64 // when the last write came, in nanoseconds
}

type hashing struct {
	done   chan struct{}
	digest digest.Digest // after done
	err    error
}

// hashBuffers are taken by what has come, not by what somebody may send.
var hashBuffers = sync.Pool{New: func() any { return new([enough]byte) }}

func hashOf(f *follower) (digest.Digest, error) {
	h := digest.NewWriter()
	for {
		f.await(enough)
		b := hashBuffers.Get().(*[enough]byte)
		n, err := f.Read(b[:])
		h.Write(b[:n])
		hashBuffers.Put(b)
		if err == io.EOF {
			return h.Digest(), nil
		}
		if err != nil {
			return digest.Digest{}, err
		}
	}
}

// Receive begins an upload by c under the name path, which says nothing about
// where it is kept. The archive is hashed and checked while it arrives.
func (r *Registry) Receive(ctx context.Context, c Caller, path string) (*Incoming, error) {
	in := &Incoming{r: r, caller: c, state: UploadState{
		ID: strings.ToLower(rand.Text()), Path: path, User: c.User, Fingerprint: c.Fingerprint, Started: r.now(),
	}}
	if err := r.admit(ctx, c, in.state.ID); err != nil {
		return nil, err
	}
	err := r.o.Meta.Update(ctx, func(tx Tx) (err error) {
		if in.state.Seq, err = nextSeq(tx); err != nil {
			return err
		}
		return put(tx, keyUpload(in.state.ID), in.state)
	})
	if err != nil {
		r.inbox.leave(in.state.ID, 0)
		return nil, err
	}
	if in.file, err = r.o.Spool.Create(ctx, in.state.ID); err == nil {
		in.data = newArriving(in.file)
		if err = in.begin(); err == nil {
			return in, nil
		}
		in.file.Close()
	}
	r.inbox.leave(in.state.ID, 0)
	return nil, errors.Join(err, r.RemoveUpload(context.WithoutCancel(ctx), in.state.ID))
}

// begin starts hashing and checking from the first byte.
func (in *Incoming) begin() error {
	h, err := in.r.inbox.hash(in.data)
	if err != nil {
		return err
	}
	c, err := in.r.inbox.start(in.state.ID, in.state.Fingerprint, in.data)
	if err != nil {
		in.data.fail(err)
		<-h.done
		return err
	}
	in.hash, in.check = h, c
	in.touch()
	in.r.inbox.enter(in)
	return nil
}

func (in *Incoming) touch() { in.heard.Store(in.r.o.Now().UnixNano()) }

// ID names the upload.
func (in *Incoming) ID() string { return in.state.ID }

// Started returns when the upload began.
func (in *Incoming) Started() time.Time { return in.state.Started }

// Size returns how long the upload is so far, in bytes.
func (in *Incoming) Size() int64 {
	in.mu.RLock()
	defer in.mu.RUnlock()
	return in.data.size()
}

// ReadAt reads what has arrived, before the upload ends.
func (in *Incoming) ReadAt(p []byte, off int64) (int, error) {
	in.mu.RLock()
	defer in.mu.RUnlock()
	if in.over {
		return 0, errEnded
	}
	return in.file.ReadAt(p, off)
}

// WriteAt writes p at off, in any order as long as it is not far ahead of the
// first gap. Space, quota and size limits are looked at before anything is
// written. After an error the upload can only fail: nothing
// more is written, and Finish returns that error.
func (in *Incoming) WriteAt(p []byte, off int64) (int, error) {
	in.mu.RLock()
	defer in.mu.RUnlock()
	if err := in.data.writable(); err != nil {
		return 0, err
	}
	if err := in.roomFor(int64(len(p)), off); err != nil {
		in.data.fail(err)
		return 0, err
	}
	if len(p) == 0 {
		return 0, nil // no file grows by it, and no engine is asked
	}
	in.touch()
	n, err := in.file.WriteAt(p, off)
	if err == nil {
		err = in.data.wrote(off, off+int64(n))
	}
	if err != nil {
		in.data.fail(err)
	}
	return n, err
}

func (in *Incoming) roomFor(n, off int64) error {
	o := &in.r.o
	if end := off + n; off < 0 || end < off || end > o.MaxUpload {
		return uploadTooLarge(o.MaxUpload)
	}
	if n == 0 {
		return nil
	}
	if err := in.data.near(off); err != nil {
		return err
	}
	return in.reach(off + n)
}

// reach asks for the room that the upload takes when it ends at to.
func (in *Incoming) reach(to int64) error {
	o := &in.r.o
	look, err := in.r.inbox.usage.reach(in.state.ID, to, o.Quota)
	if err != nil || !look {
		return err
	}
	free, err := o.Spool.Free(in.r.inbox.ctx)
	if err == nil && free < o.MinFree {
		err = fail(ErrRefused, "no space: uploads leave %d bytes free at the registry, and %d are left", o.MinFree, free)
	}
	return err
}

func uploadTooLarge(limit int64) error {
	return fail(ErrRefused, "upload is larger than %d bytes", limit).hint("ask for a greater -max-upload at the registry")
}

// Truncate makes the upload size bytes long.
func (in *Incoming) Truncate(size int64) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if err := in.data.writable(); err != nil {
		return err
	}
	err := in.cut(size)
	if err != nil {
		in.data.fail(err)
	}
	return err
}

func (in *Incoming) cut(size int64) error {
	if size < 0 || size > in.r.o.MaxUpload {
		return uploadTooLarge(in.r.o.MaxUpload)
	}
	if err := in.reach(size); err != nil {
		return err
	}
	// What is never written is not in the file before the end, so that a dead
	// registry leaves no long file with little in it.
	have, err := in.file.Size()
	if err == nil && size < have {
		err = in.file.Truncate(size)
	}
	if err != nil {
		return err
	}
	in.data.truncated(size)
	in.r.inbox.usage.cut(in.state.ID, size)
	return nil
}

// Finish ends the upload: it is durable, and its digest known, when Finish
// returns nil. Whether it may become a version is told later: see Verdict.
// After an error nothing of it stays.
func (in *Incoming) Finish(ctx context.Context) (UploadState, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.over {
		return in.state, errEnded
	}
	in.over = true
	var partials []string
	err := in.settle()
	if err == nil {
		partials, err = in.record(ctx)
	}
	if err != nil {
		return in.state, errors.Join(err, in.forget(ctx))
	}
	in.r.inbox.leave(in.state.ID, in.state.Size)
	if !in.data.record() {
		in.file.Close() // the registry stops, and the check is gone
	}
	in.r.removeAll(context.WithoutCancel(ctx), partials) // else they expire
	return in.state, nil
}

// settle waits until all of the upload is durable and hashed.
func (in *Incoming) settle() error {
	size, err := in.lengthen()
	if err != nil {
		return err
	}
	again, err := in.data.finish()
	if err != nil {
		return err
	}
	if again {
		in.stopReaders(errRewritten)
		in.data = arrived(in.file, size)
		if err := in.begin(); err != nil {
			return err
		}
	}
	synced := make(chan error, 1)
	go func() { synced <- in.file.Sync() }()
	<-in.hash.done
	in.state.Digest, in.state.Size = in.hash.digest, size
	return errors.Join(in.hash.err, <-synced)
}

// lengthen gives the file the length of the upload and returns it.
func (in *Incoming) lengthen() (int64, error) {
	size, err := in.data.bounded()
	if err != nil {
		return 0, err
	}
	have, err := in.file.Size()
	switch {
	case err != nil:
		return 0, err
	case have < size:
		return size, in.file.Truncate(size)
	case have > size:
		return 0, fmt.Errorf("internal error: upload %s is %d bytes long and not %d", in.state.ID, have, size)
	}
	return size, nil
}

// record makes the upload known as complete, and the one at its path. What was
// cut off there before is of no more use.
func (in *Incoming) record(ctx context.Context) (partials []string, err error) {
	in.state.Complete, in.state.Written = true, in.r.now()
	err = in.r.o.Meta.Update(ctx, func(tx Tx) error {
		if b, err := tx.Get(keyUpload(in.state.ID)); err != nil {
			return err
		} else if b == nil {
			return fail(ErrNotFound, "upload was removed before its end")
		}
		if err := tx.Put(keyReceived(in.state.Digest, in.state.ID), []byte{}); err != nil {
			return err
		}
		_, own, err := in.r.boxOf(tx, Caller{Fingerprint: in.state.Fingerprint})
		if err != nil {
			return err
		}
		if partials, err = displace(tx, own, in.state.Path, in.state.ID); err != nil {
			return err
		}
		if err := put(tx, keyUpload(in.state.ID), in.state); err != nil {
			return err
		}
		what := fmt.Sprintf("uploaded %d bytes, %s", in.state.Size, in.state.Digest)
		return in.r.record(tx, fileAct(in.caller, "put", in.state.Path), done{what: what})
	})
	return partials, err
}

var (
	errRewritten       = errors.New("upload was written again")
	errAborted   error = fail(ErrConflict, "upload was aborted") // whoever still writes to it is told
)

// stopReaders ends the hash and the check and waits for them.
func (in *Incoming) stopReaders(why error) {
	in.data.fail(why)
	<-in.hash.done
	<-in.check.done
}

// Abort forgets the upload, even when ctx is done: nothing of it stays. After
// Finish or another Abort it does nothing.
func (in *Incoming) Abort(ctx context.Context) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.over {
		return nil
	}
	in.over = true
	return in.forget(ctx)
}

func (in *Incoming) forget(ctx context.Context) error {
	in.stopReaders(errAborted)
	in.r.inbox.leave(in.state.ID, 0)
	err := in.r.RemoveUpload(context.WithoutCancel(ctx), in.state.ID)
	if errors.Is(err, ErrNotFound) {
		err = nil // somebody else has removed it
	}
	return errors.Join(in.file.Close(), err)
}
