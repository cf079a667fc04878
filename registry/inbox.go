package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"deploytools/layers/digest"
	"deploytools/layers/manifest"
)

// Inbox holds the uploads that are being received or checked by this process.
// Everything that must survive it is in Meta and Spool.
type Inbox struct {
	r    *Registry
	ctx  context.Context // of the checks; ends with close
	stop context.CancelFunc
	wg   sync.WaitGroup // hashes and checks; Add only with mu held and closed false

	mu      sync.Mutex           // guards the following
	running map[string]*checking // by upload
	live    map[string]receiving // by upload
	closed  bool

	usage  usage
	memory *memory
}

// receiving is an upload that is being received, or about to be: then it is
// zero.
type receiving struct {
	in   *Incoming
	data *arriving
}

// checking is a check that runs.
type checking struct {
	done  chan struct{} // closed when the verdict is recorded, or cannot be
	data  *arriving
	at    atomic.Int64 // how many bytes were read
	share *share
	stop  context.CancelCauseFunc
	err   error // after done: why there is no verdict
}

var (
	errClosing = errors.New("registry is stopping")
	errGone    = errors.New("upload was removed")
)

func newInbox(r *Registry) *Inbox {
	ctx, stop := context.WithCancel(context.Background())
	return &Inbox{
		r: r, ctx: ctx, stop: stop, running: map[string]*checking{}, live: map[string]receiving{},
		usage: usage{live: map[string]*account{}}, memory: newMemory(r.o.CheckMemory),
	}
}

func (b *Inbox) close() {
	b.stop()
	b.mu.Lock()
	b.closed = true
	for _, c := range b.running {
		c.data.fail(errClosing)
	}
	b.mu.Unlock()
	b.wg.Wait()
}

func (b *Inbox) busy(id string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.running[id] != nil
}

// hash runs the hash of data; the result is there when done is closed.
func (b *Inbox) hash(data *arriving) (*hashing, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, errClosing
	}
	h := &hashing{done: make(chan struct{})}
	b.wg.Go(func() {
		defer close(h.done)
		h.digest, h.err = hashOf(data.reader())
	})
	return h, nil
}

// gone ends the check of an upload that was removed.
func (b *Inbox) gone(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c := b.running[id]; c != nil {
		c.stop(errGone)
	}
}

// waits reports whether a check of the upload waits for memory.
func (b *Inbox) waits(id string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.running[id]
	return c != nil && c.share.waits()
}

// Checks returns how many checks go on, and how many wait for memory that these
// have.
func (r *Registry) Checks() (running, waiting int) {
	b := r.inbox
	b.mu.Lock()
	defer b.mu.Unlock()
	waiting = b.memory.waiting()
	return len(b.running) - waiting, waiting
}

// start runs the check of an upload of owner, a fingerprint, over data, which
// may still arrive. Once the upload is recorded as complete, the check records
// the verdict and closes the file. A check of the same upload that runs already
// is returned instead.
func (b *Inbox) start(id, owner string, data *arriving) (*checking, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, errClosing
	}
	if c := b.running[id]; c != nil {
		return c, nil
	}
	ctx, stop := context.WithCancelCause(b.ctx)
	c := &checking{done: make(chan struct{}), data: data, share: b.memory.join(owner), stop: stop}
	b.running[id] = c
	b.wg.Go(func() {
		defer stop(nil)
		c.err = b.check(ctx, id, c)
		c.share.leave()
		b.mu.Lock()
		delete(b.running, id)
		b.mu.Unlock()
		close(c.done)
	})
	return c, nil
}

func (b *Inbox) check(ctx context.Context, id string, c *checking) error {
	found, of, err := b.look(ctx, c)
	if failed := c.data.settled(); failed != nil {
		return failed // the file is the Incoming's
	}
	defer c.data.file.Close()
	if err != nil && !errors.Is(err, ErrRefused) {
		return err
	}
	return b.r.judge(b.ctx, id, found, of, err)
}

// look runs Options.Check, and returns the digest of the manifest as well. What an
// archive makes them do ends no daemon.
func (b *Inbox) look(ctx context.Context, c *checking) (found Archive, of digest.Digest, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("internal error: checking an archive panicked: %v", v)
		}
	}()
	found, err = b.r.o.Check(ctx, &metered{c.data.reader(), &c.at}, func(bytes int64) error { return c.share.grow(ctx, c.data, bytes) })
	if err != nil {
		return found, of, err
	}
	text := digest.NewWriter()
	err = manifest.Encode(text, found.Manifest)
	return found, text.Digest(), err
}

// metered counts what is read.
type metered struct {
	r io.Reader
	n *atomic.Int64
}

func (m *metered) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.n.Add(int64(n))
	return n, err
}

// judge records the verdict on an upload. The manifest is stored first, doomed
// unless a version comes to reference it.
func (r *Registry) judge(ctx context.Context, id string, found Archive, of digest.Digest, refusal error) error {
	if refusal == nil {
		if err := r.storeDoomed(ctx, of, found.Manifest); err != nil {
			return err
		}
	}
	return r.o.Meta.Update(ctx, func(tx Tx) error {
		u, ok, err := get[UploadState](tx, keyUpload(id))
		if err != nil || !ok {
			return err // removed meanwhile
		}
		if found.Size != u.Size {
			return fmt.Errorf("internal error: upload %s of %d bytes was checked as %d bytes", id, u.Size, found.Size)
		}
		u.Verdict, u.Unpacked, u.Entries, u.Warnings = Accepted, found.Unpacked, found.Entries, found.Warnings
		if refusal != nil {
			u.Verdict, u.Reason = Refused, refusal.Error()
		} else {
			u.Manifest = of
		}
		return put(tx, keyUpload(id), u)
	})
}

// CheckProgress says how far a check is.
type CheckProgress struct {
	Done, Total int64 // bytes
	Waiting     bool  // for memory that other checks have
}

// Verdict waits for the verdict on a complete upload, and checks it now if
// nobody does: after a restart. progress, if not nil, is called about every
// second.
func (r *Registry) Verdict(ctx context.Context, id string, progress func(CheckProgress)) (UploadState, error) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		u, err := r.upload(ctx, id)
		switch {
		case err != nil:
			return u, err
		case !u.Complete:
			return u, fail(ErrConflict, "upload %q is not complete", id)
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
				if c.err != nil && !errors.Is(c.err, errGone) {
					return u, fmt.Errorf("upload %s cannot be checked: %w", id, c.err)
				}
				waiting = false
			case <-tick.C:
				if progress != nil {
					progress(CheckProgress{c.at.Load(), u.Size, c.share.waits()})
				}
			case <-ctx.Done():
				return u, context.Cause(ctx)
			}
		}
	}
}

// received returns how much has come of an upload that is being received here.
func (b *Inbox) received(id string) (n int64, ok bool) {
	b.mu.Lock()
	l, ok := b.live[id]
	b.mu.Unlock()
	if l.data == nil {
		return 0, ok
	}
	return l.data.prefix(), true
}

func (b *Inbox) receiver(id string) *Incoming {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.live[id].in
}

// claim makes the upload one that is received here, which it can be only once.
func (b *Inbox) claim(id string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.live[id]; ok {
		return false
	}
	b.live[id] = receiving{}
	return true
}

func (b *Inbox) enter(in *Incoming) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.live[in.state.ID] = receiving{in, in.data}
}

// leave says that the upload is not received any more, and how many bytes stay.
func (b *Inbox) leave(id string, left int64) {
	b.usage.leave(id, left)
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.live, id)
}

// idle waits until no check of the upload runs.
func (b *Inbox) idle(ctx context.Context, id string) error {
	b.mu.Lock()
	c := b.running[id]
	b.mu.Unlock()
	if c == nil {
		return nil
	}
	select {
	case <-c.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
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
	data := arrived(file, u.Size)
	data.record()
	c, err = b.start(u.ID, u.Fingerprint, data)
	if err != nil || c.data != data {
		file.Close()
	}
	return c, err
}
