package registry

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"deploytools/layers/digest"
)

// UploadState is the record of one upload.
type UploadState struct {
	ID          string
	Seq         uint64 // orders uploads: a greater one was begun later
	Path        string // as the client named it
	User        string
	Fingerprint string // of the uploader's key
	Started     time.Time
	Written     time.Time // when it was complete; zero before
	Size        int64     // bytes; before it is complete, how much of it is there without a gap
	Complete    bool
	// Suspended: it was cut off before its end, and can go on after Size.
	Suspended bool `json:",omitempty"`
	// Replaced: a later upload has its path, and it is known by its digest only.
	Replaced bool `json:",omitempty"`
	// Receiving: this process receives it now. What neither is received nor
	// complete can be resumed, whether its end was recorded or not.
	Receiving bool `json:"-"`
	// Waiting: its check waits for memory that other checks have.
	Waiting bool          `json:"-"`
	Digest  digest.Digest // once it is complete

	Verdict  Verdict
	Reason   string   `json:",omitempty"` // of a refusal
	Unpacked int64    `json:",omitempty"`
	Entries  int64    `json:",omitempty"`
	Warnings []string `json:",omitempty"`
	Manifest digest.Digest
}

// Verdict says whether an upload may become a version.
type Verdict string

// The verdicts. An upload without one is not complete, or still being checked.
const (
	Unchecked Verdict = ""
	Accepted  Verdict = "accepted"
	Refused   Verdict = "refused"
)

// Uploads returns the uploads that are there, the oldest first.
func (r *Registry) Uploads(ctx context.Context) ([]UploadState, error) {
	out, err := r.uploadRecords(ctx)
	if err == nil {
		err = r.measure(ctx, out)
	}
	return out, err
}

// measure fills in what records of uploads that are not complete do not say.
func (r *Registry) measure(ctx context.Context, all []UploadState) error {
	var spooled map[string]int64
	for i := range all {
		u := &all[i]
		if u.Complete || u.Suspended {
			u.Waiting = r.inbox.waits(u.ID)
			continue
		}
		if n, ok := r.inbox.received(u.ID); ok {
			u.Size, u.Receiving = n, true
			continue
		}
		if spooled == nil {
			spooled = map[string]int64{}
			for f, err := range r.o.Spool.List(ctx) {
				if err != nil {
					return err
				}
				spooled[f.Name] = f.Size
			}
		}
		u.Size = surelyWhole(spooled[u.ID])
	}
	return nil
}

func (r *Registry) uploadRecords(ctx context.Context) ([]UploadState, error) {
	var out []UploadState
	err := r.o.Meta.View(ctx, func(tx Tx) error {
		out = nil
		for key, b := range tx.Scan(prefixUpload) {
			u, err := decode[UploadState](key, b)
			if err != nil {
				return err
			}
			out = append(out, u)
		}
		return nil
	})
	slices.SortFunc(out, func(a, b UploadState) int { return cmp.Compare(a.Seq, b.Seq) })
	return out, err
}

// upload returns the record of an upload.
func (r *Registry) upload(ctx context.Context, id string) (u UploadState, err error) {
	var ok bool
	err = r.o.Meta.View(ctx, func(tx Tx) (err error) {
		u, ok, err = get[UploadState](tx, keyUpload(id))
		return err
	})
	if err == nil && !ok {
		err = fail(ErrNotFound, "upload %q not found", id)
	}
	return u, err
}

// OpenUpload opens a complete upload for reading; the caller closes it.
func (r *Registry) OpenUpload(ctx context.Context, id string) (Upload, error) {
	u, err := r.o.Spool.Resume(ctx, id)
	if errors.Is(err, ErrNoUpload) {
		return nil, fail(ErrNotFound, "upload %q not found", id)
	}
	return u, err
}

// RemoveUpload forgets an upload and its content. Its record goes first: what a
// crash leaves in the spool is removed by Sweep.
func (r *Registry) RemoveUpload(ctx context.Context, id string) error {
	found := false
	err := r.o.Meta.Update(ctx, func(tx Tx) error {
		u, ok, err := get[UploadState](tx, keyUpload(id))
		found = ok
		if err != nil || !ok {
			return err
		}
		return forgetUpload(tx, u)
	})
	if err == nil && !found {
		err = fail(ErrNotFound, "upload %q not found", id)
	}
	if err != nil {
		return err
	}
	r.inbox.gone(id)
	return r.o.Spool.Remove(ctx, id)
}

// removeAll removes uploads; that somebody else has removed one is no error.
func (r *Registry) removeAll(ctx context.Context, ids []string) error {
	for _, id := range ids {
		if err := r.RemoveUpload(ctx, id); err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	return nil
}

func forgetUpload(tx Tx, u UploadState) error {
	if err := tx.Delete(keyUpload(u.ID)); err != nil {
		return err
	}
	if u.Digest.IsZero() {
		return nil
	}
	return tx.Delete(keyReceived(u.Digest, u.ID))
}

// uploadsOf returns the complete uploads with the digest d, acceptable ones
// first.
func (r *Registry) uploadsOf(ctx context.Context, d digest.Digest) ([]UploadState, error) {
	var out []UploadState
	err := r.o.Meta.View(ctx, func(tx Tx) error {
		out = nil
		for key := range tx.Scan(prefixReceived + d.String() + "/") {
			u, ok, err := get[UploadState](tx, keyUpload(nameOf(key)))
			if err != nil {
				return err
			}
			if ok && u.Complete {
				out = append(out, u)
			}
		}
		return nil
	})
	order := map[Verdict]int{Accepted: 1, Unchecked: 2, Refused: 3}
	slices.SortStableFunc(out, func(a, b UploadState) int { return order[a.Verdict] - order[b.Verdict] })
	return out, err
}

// expiredUploads goes by what lies in the spool, where a crash may have left an
// upload without its record, and then by the records, where a crash may have
// left one without its upload.
func (r *Registry) expiredUploads(ctx context.Context) (expired []string, err error) {
	old := r.now().Add(-r.o.UploadExpiry)
	keep := map[string]bool{}
	for u, err := range r.o.Spool.List(ctx) {
		if err != nil {
			return nil, err
		}
		if u.ModTime.After(old) || r.inbox.busy(u.Name) {
			keep[u.Name] = true
		} else {
			expired = append(expired, u.Name)
		}
	}
	records, err := r.Uploads(ctx)
	if err != nil {
		return nil, err
	}
	for _, u := range records {
		if !keep[u.ID] && u.Started.Before(old) && !slices.Contains(expired, u.ID) {
			expired = append(expired, u.ID)
		}
	}
	return expired, nil
}

// expire removes an upload that expiredUploads has found.
func (r *Registry) expire(ctx context.Context, id string) error {
	err := r.RemoveUpload(ctx, id)
	if errors.Is(err, ErrNotFound) {
		err = r.o.Spool.Remove(ctx, id)
	}
	return err
}
