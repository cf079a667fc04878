package registry

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// stalled is how long nothing has come of an upload before the same operator
// may take it over: the connection that it came over is dead, and only the
// registry has not noticed yet.
const stalled = 10 * time.Second

var errBeingWritten error = fail(ErrConflict, "upload is being written in another session")

// errTakenOver is what the writer of an upload is told that went on elsewhere.
var errTakenOver error = fail(ErrConflict, "upload goes on in another session")

// Resume goes on with an upload of c that was cut off, after the bytes that are
// there: see Size. So it does with a complete one that is refused, which can be
// nothing else than a part of what was meant. ErrConflict: it is complete, or
// somebody still writes it.
func (r *Registry) Resume(ctx context.Context, c Caller, id string) (*Incoming, error) {
	if other := r.inbox.receiver(id); other != nil {
		if other.state.Fingerprint != c.Fingerprint || r.o.Now().UnixNano()-other.heard.Load() < int64(stalled) {
			return nil, errBeingWritten
		}
		if err := other.suspend(ctx, errTakenOver); err != nil {
			return nil, err
		}
	}
	if err := r.admit(ctx, c, id); err != nil {
		return nil, err
	}
	in := &Incoming{r: r, caller: c, state: UploadState{ID: id}}
	if err := in.goOn(ctx, c); err != nil {
		r.inbox.leave(in.state.ID, 0)
		return nil, err
	}
	return in, nil
}

func (in *Incoming) goOn(ctx context.Context, c Caller) error {
	if err := in.r.inbox.idle(ctx, in.state.ID); err != nil {
		return err
	}
	whole, err := in.reopen(ctx, c)
	if err != nil {
		return err
	}
	in.data = resumed(in.file, whole)
	if _, err = in.r.inbox.usage.reach(in.state.ID, whole, in.r.o.Quota); err == nil {
		err = in.begin()
	}
	if err != nil {
		// Without this it would be a part as a dead registry leaves it, and
		// shorter.
		in.keep(context.WithoutCancel(ctx), whole)
		in.file.Close()
	}
	return err
}

// reopen opens the file of an upload, cut after what is surely there, and makes
// its record that of one which is being received.
func (in *Incoming) reopen(ctx context.Context, c Caller) (whole int64, err error) {
	r, id := in.r, in.state.ID
	u, err := r.upload(ctx, id)
	switch {
	case err != nil:
		return 0, err
	case u.Fingerprint != c.Fingerprint:
		return 0, fail(ErrNotFound, "upload %q not found", id)
	case u.Complete && u.Verdict != Refused:
		return 0, fail(ErrConflict, "a complete upload cannot be continued")
	}
	if in.file, err = r.OpenUpload(ctx, id); err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			in.file.Close()
		}
	}()
	have, err := in.file.Size()
	if err != nil {
		return 0, err
	}
	whole = surelyWhole(have)
	if u.Complete || u.Suspended {
		whole = min(u.Size, have) // a power cut may have taken the end
	}
	err = r.o.Meta.Update(ctx, func(tx Tx) error {
		now, ok, err := get[UploadState](tx, keyUpload(id))
		switch {
		case err != nil:
			return err
		case !ok:
			return fail(ErrNotFound, "upload %q not found", id)
		case now.Complete != u.Complete || now.Suspended != u.Suspended:
			return errBeingWritten
		}
		if err := forgetUpload(tx, now); err != nil {
			return err
		}
		in.state = UploadState{
			ID: id, Seq: now.Seq, Path: now.Path, User: c.User, Fingerprint: now.Fingerprint, Started: now.Started, Replaced: now.Replaced,
		}
		return put(tx, keyUpload(id), in.state)
	})
	if err == nil && have > whole {
		err = in.file.Truncate(whole)
	}
	return whole, err
}

// Suspend ends the upload before its end, even when ctx is done: it can be
// resumed after what has come without a gap. One of which nothing has come, or a
// write of which has failed, is forgotten. After Finish, Abort or another
// Suspend it does nothing.
func (in *Incoming) Suspend(ctx context.Context) error { return in.suspend(ctx, errAborted) }

func (in *Incoming) suspend(ctx context.Context, why error) error {
	ctx = context.WithoutCancel(ctx)
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.over {
		return nil
	}
	in.over = true
	failed := in.data.writable()
	whole := in.data.prefix()
	if whole == 0 || failed != nil && !errors.Is(failed, errClosing) {
		return in.forget(ctx)
	}
	in.stopReaders(why)
	if err := in.keep(ctx, whole); err != nil {
		return errors.Join(err, in.forget(ctx))
	}
	in.r.inbox.leave(in.state.ID, whole)
	return in.file.Close()
}

// keep makes the first bytes durable and records how many they are.
func (in *Incoming) keep(ctx context.Context, whole int64) error {
	have, err := in.file.Size()
	if err == nil && have > whole {
		err = in.file.Truncate(whole)
	}
	if err == nil {
		err = in.file.Sync()
	}
	if err != nil {
		return fmt.Errorf("cannot keep what has come of upload %s: %w", in.state.ID, err)
	}
	in.state.Suspended, in.state.Size = true, whole
	return in.r.o.Meta.Update(ctx, func(tx Tx) error {
		if b, err := tx.Get(keyUpload(in.state.ID)); err != nil {
			return err
		} else if b == nil {
			return fail(ErrNotFound, "upload was removed before its end")
		}
		return put(tx, keyUpload(in.state.ID), in.state)
	})
}
