package registry

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"deploytools/layers/digest"
)

// Inbox holds the uploads that are being received or checked by this process.
// Everything that must survive it is in Meta and Spool.
type Inbox struct {
	r    *Registry
	ctx  context.Context // of the checks; ends with close
	stop context.CancelFunc
	wg   sync.WaitGroup // the checks

	mu      sync.Mutex
	running map[string]*checking // by upload
}

// checking is a check that runs.
type checking struct {
	done chan struct{} // closed when the verdict is recorded, or cannot be
	data *arriving
	err  error // after done: why there is no verdict
}

func newInbox(r *Registry) *Inbox {
	ctx, stop := context.WithCancel(context.Background())
	return &Inbox{r: r, ctx: ctx, stop: stop, running: map[string]*checking{}}
}

func (b *Inbox) close() {
	b.stop()
	b.mu.Lock()
	for _, c := range b.running {
		c.data.fail(context.Canceled)
	}
	b.mu.Unlock()
	b.wg.Wait()
}

func (b *Inbox) busy(id string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.running[id] != nil
}

// Incoming is one upload that is being received. WriteAt and ReadAt are safe
// for concurrent use, with each other too; the rest belongs to one goroutine.
// It ends with Finish or Abort.
type Incoming struct {
	r      *Registry
	state  UploadState
	file   Upload
	data   *arriving
	hashed chan hashResult
	check  *checking
}

type hashResult struct {
	digest digest.Digest
	err    error
}

// Receive begins an upload by c under the name path, which says nothing about
// where it is kept. The archive is hashed and checked while it arrives.
func (r *Registry) Receive(ctx context.Context, c Caller, path string) (*Incoming, error) {
	in := &Incoming{r: r, state: UploadState{
		ID: strings.ToLower(rand.Text()), Path: path, User: c.User, Fingerprint: c.Fingerprint, Started: r.now(),
	}}
	if err := r.o.Meta.Update(ctx, func(tx Tx) error { return put(tx, keyUpload(in.state.ID), in.state) }); err != nil {
		return nil, err
	}
	var err error
	if in.file, err = r.o.Spool.Create(ctx, in.state.ID); err != nil {
		return nil, errors.Join(err, r.RemoveUpload(ctx, in.state.ID))
	}
	in.begin(0)
	return in, nil
}

// begin starts hashing and checking from the first byte. The first size bytes
// have arrived.
func (in *Incoming) begin(size int64) {
	in.data = newArriving(in.file)
	in.data.wrote(0, size)
	in.hashed = make(chan hashResult, 1)
	hash, data := in.hashed, in.data
	in.r.inbox.wg.Go(func() {
		h := digest.NewWriter()
		_, err := io.Copy(h, data.reader())
		hash <- hashResult{h.Digest(), err}
	})
	in.check = in.r.inbox.start(in.state.ID, data)
}

// ID names the upload.
func (in *Incoming) ID() string { return in.state.ID }

// Size returns how long the upload is so far, in bytes.
func (in *Incoming) Size() int64 { return in.data.size() }

// ReadAt reads what has arrived.
func (in *Incoming) ReadAt(p []byte, off int64) (int, error) { return in.file.ReadAt(p, off) }

// freeEvery is how many bytes are written between two looks at the free space.
const freeEvery = 64 << 20

// WriteAt writes p at off, in any order. Space and size limits are looked at
// before anything is written.
func (in *Incoming) WriteAt(p []byte, off int64) (int, error) {
	end := off + int64(len(p))
	if off < 0 || end < off || end > in.r.o.MaxUpload {
		return 0, fail(ErrRefused, "upload is larger than %d bytes", in.r.o.MaxUpload).hint("ask for a greater -max-upload at the registry")
	}
	if in.data.look(end) {
		free, err := in.r.o.Spool.Free(in.r.inbox.ctx)
		if err != nil {
			return 0, err
		}
		if free < in.r.o.MinFree {
			return 0, fail(ErrRefused, "no space: uploads leave %d bytes free at the registry, and %d are left", in.r.o.MinFree, free)
		}
	}
	n, err := in.file.WriteAt(p, off)
	if err == nil {
		err = in.data.wrote(off, end)
	}
	return n, err
}

// Truncate makes the upload size bytes long.
func (in *Incoming) Truncate(size int64) error {
	if size < 0 || size > in.r.o.MaxUpload {
		return fail(ErrRefused, "upload is larger than %d bytes", in.r.o.MaxUpload)
	}
	if err := in.file.Truncate(size); err != nil {
		return err
	}
	in.data.truncated(size)
	return nil
}

// Finish ends the upload: it is durable, and its digest known, when Finish
// returns nil. Whether it may become a version is told later: see Verdict.
func (in *Incoming) Finish(ctx context.Context) (UploadState, error) {
	if in.data.finish() {
		// Something was written again after it had been read.
		in.stopReaders(errRewritten)
		in.begin(in.data.size())
		in.data.finish()
	}
	synced := make(chan error, 1)
	go func() { synced <- in.file.Sync() }()
	h := <-in.hashed
	if err := errors.Join(h.err, <-synced); err != nil {
		in.hashed <- h // for Abort
		return in.state, errors.Join(err, in.Abort(ctx))
	}
	in.state.Digest, in.state.Size = h.digest, in.data.size()
	in.state.Complete, in.state.Written = true, in.r.now()
	err := in.r.o.Meta.Update(ctx, func(tx Tx) error {
		if err := tx.Put(keyReceived(in.state.Digest, in.state.ID), []byte{}); err != nil {
			return err
		}
		return put(tx, keyUpload(in.state.ID), in.state)
	})
	if err != nil {
		in.hashed <- h
		return in.state, errors.Join(err, in.Abort(ctx))
	}
	close(in.data.recorded)
	return in.state, nil
}

var (
	errRewritten = errors.New("upload was written again")
	errAborted   = errors.New("upload was aborted")
)

// stopReaders ends the hash and the check and waits for them.
func (in *Incoming) stopReaders(why error) {
	in.data.fail(why)
	<-in.hashed
	<-in.check.done
}

// Abort forgets the upload. Nothing of it stays.
func (in *Incoming) Abort(ctx context.Context) error {
	in.stopReaders(errAborted)
	return errors.Join(in.file.Close(), in.r.RemoveUpload(ctx, in.state.ID))
}

// start runs the check of an upload over data, which may still arrive. Once the
// upload is recorded as complete, it records the verdict and closes the file.
func (b *Inbox) start(id string, data *arriving) *checking {
	c := &checking{done: make(chan struct{}), data: data}
	b.mu.Lock()
	b.running[id] = c
	b.mu.Unlock()
	b.wg.Go(func() {
		defer func() {
			b.mu.Lock()
			if b.running[id] == c {
				delete(b.running, id)
			}
			b.mu.Unlock()
			close(c.done)
		}()
		found, err := b.r.o.Check(b.ctx, data.reader())
		select {
		case <-data.recorded:
			if c.err = err; err == nil || errors.Is(err, ErrRefused) {
				c.err = b.r.judge(b.ctx, id, found, err)
			}
			data.file.Close()
		case <-data.failed: // the file is the Incoming's
			c.err = data.reason()
		}
	})
	return c
}

// judge records the verdict on an upload. The manifest is stored first, doomed
// unless a version comes to reference it.
func (r *Registry) judge(ctx context.Context, id string, found Archive, refusal error) error {
	var text bytes.Buffer
	if refusal == nil {
		if err := found.Manifest.Encode(&text); err != nil {
			return err
		}
		if err := r.storeDoomed(ctx, text.Bytes()); err != nil {
			return err
		}
	}
	return r.o.Meta.Update(ctx, func(tx Tx) error {
		u, ok, err := get[UploadState](tx, keyUpload(id))
		if err != nil || !ok {
			return err // removed meanwhile
		}
		if found.Digest != u.Digest || found.Size != u.Size {
			return fmt.Errorf("internal error: upload %s was hashed as %s and checked as %s", id, u.Digest, found.Digest)
		}
		u.Verdict, u.Unpacked, u.Entries, u.Warnings = Accepted, found.Unpacked, found.Entries, found.Warnings
		if refusal != nil {
			u.Verdict, u.Reason = Refused, refusal.Error()
		} else {
			u.Manifest = digest.Of(text.Bytes())
		}
		return put(tx, keyUpload(id), u)
	})
}

// Verdict waits for the verdict on a complete upload, and checks it now if
// nobody does: after a restart. progress, if not nil, is called about every
// second with the bytes that were checked and their total.
func (r *Registry) Verdict(ctx context.Context, id string, progress func(done, total int64)) (UploadState, error) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		var u UploadState
		var ok bool
		err := r.o.Meta.View(ctx, func(tx Tx) (err error) {
			u, ok, err = get[UploadState](tx, keyUpload(id))
			return err
		})
		switch {
		case err != nil:
			return u, err
		case !ok:
			return u, fail(ErrNotFound, "upload %q not found", id)
		case u.Verdict != Unchecked:
			return u, nil
		}
		c, err := r.inbox.checkOf(ctx, u)
		if err != nil {
			return u, err
		}
		for waiting := true; waiting; {
			select {
			case <-c.done:
				if c.err != nil {
					return u, fmt.Errorf("upload %s cannot be checked: %w", id, c.err)
				}
				waiting = false
			case <-tick.C:
				if progress != nil {
					progress(c.data.position(), u.Size)
				}
			case <-ctx.Done():
				return u, context.Cause(ctx)
			}
		}
	}
}

// checkOf returns the check of u that runs, or starts one.
func (b *Inbox) checkOf(ctx context.Context, u UploadState) (*checking, error) {
	b.mu.Lock()
	c := b.running[u.ID]
	b.mu.Unlock()
	if c != nil {
		return c, nil
	}
	file, err := b.r.OpenUpload(ctx, u.ID)
	if err != nil {
		return nil, err
	}
	data := newArriving(file)
	data.wrote(0, u.Size)
	data.finish()
	close(data.recorded)
	return b.start(u.ID, data), nil
}
