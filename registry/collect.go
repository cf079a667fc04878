package registry

import (
	"context"
	"errors"
	"io"
	"iter"
	"sync"
	"time"

	"deploytools/layers/digest"
	"deploytools/layers/manifest"
)

// A blob that nothing references is doomed: its mark is written in the Update
// that takes the last reference away, or before content is stored that nothing
// references yet. Every Update that references a digest deletes its mark. When
// a mark has outlived the grace period it is turned into Deleting, and from
// then on nobody can take the blob back; the file goes; the mark goes. A crash
// between any two of these leaves the mark, and the next Sweep goes on.
type doom struct {
	Since    time.Time
	Deleting bool `json:",omitempty"`
}

// storedBlob says that a layer's blob is stored and was found acceptable.
type storedBlob struct {
	Size     int64
	Unpacked int64
	Entries  int64
	Manifest digest.Digest
}

// condemn marks d unless something references it.
func (r *Registry) condemn(tx Tx, d digest.Digest) error {
	if referenced(tx, d) {
		return nil
	}
	old, ok, err := get[doom](tx, keyDoomed(d))
	if err != nil || ok && old.Deleting {
		return err
	}
	return put(tx, keyDoomed(d), doom{Since: r.now()})
}

// reference records that the blobs of v are kept, and saves them.
func reference(tx Tx, v Version) error {
	for _, d := range v.keeps() {
		if err := held(tx, d); err != nil {
			return err
		}
		err := errors.Join(tx.Delete(keyDoomed(d)), tx.Put(keyRef(d, v.Component, v.Version), []byte{}))
		if err != nil {
			return err
		}
	}
	return nil
}

// notDeleting fails while the blob d is being deleted: what is stored under
// its name now might go with it.
func notDeleting(tx Tx, d digest.Digest) error {
	old, _, err := get[doom](tx, keyDoomed(d))
	if err == nil && old.Deleting {
		err = fail(ErrConflict, "content %s is just being collected", d).hint("run the command again in a minute")
	}
	return err
}

// held fails unless the blob d is there: something references it, or it is
// doomed and not yet being deleted. Without either it was collected.
func held(tx Tx, d digest.Digest) error {
	m, doomed, err := get[doom](tx, keyDoomed(d))
	switch {
	case err != nil:
		return err
	case m.Deleting, !doomed && !referenced(tx, d):
		return collected(d)
	}
	return nil
}

func collected(d digest.Digest) error {
	return fail(ErrConflict, "content %s was just collected", d).hint("upload it again")
}

// release takes the references of v back, and dooms what nothing else
// references.
func (r *Registry) release(tx Tx, v Version) error {
	for _, d := range v.keeps() {
		err := errors.Join(tx.Delete(keyRef(d, v.Component, v.Version)), r.condemn(tx, d))
		if err != nil {
			return err
		}
	}
	return nil
}

// storeDoomed stores a manifest, whose digest is d, that nothing references yet,
// or mends it.
func (r *Registry) storeDoomed(ctx context.Context, d digest.Digest, m iter.Seq2[manifest.Entry, error]) error {
	damaged := false
	err := r.o.Meta.Update(ctx, func(tx Tx) error {
		damaged = anyWith(tx, keyDamaged(d))
		if err := notDeleting(tx, d); err != nil {
			return err
		}
		return r.condemn(tx, d)
	})
	if err != nil {
		return err
	}
	if err := putManifest(ctx, r.o.Blobs, d, m); err != nil || !damaged {
		return err
	}
	return r.o.Meta.Update(ctx, func(tx Tx) error { return tx.Delete(keyDamaged(d)) })
}

// putManifest stores the text of m, whose digest is d, as it comes: of a million
// files it has more bytes than all else that is known of them.
func putManifest(ctx context.Context, b Blobs, d digest.Digest, m iter.Seq2[manifest.Entry, error]) error {
	r, w := io.Pipe()
	var encoding sync.WaitGroup
	encoding.Go(func() { w.CloseWithError(manifest.Encode(w, m)) })
	err := b.Put(ctx, d, r)
	r.Close() // Put may have read only a part
	encoding.Wait()
	return err
}

// dueBlobs returns the blobs whose grace is over.
func (r *Registry) dueBlobs(ctx context.Context) ([]digest.Digest, error) {
	var due []digest.Digest
	err := r.o.Meta.View(ctx, func(tx Tx) error {
		due = nil
		for key, b := range tx.Scan(prefixDoomed) {
			m, err := decode[doom](key, b)
			if err != nil {
				return err
			}
			d, err := digest.Parse(nameOf(key))
			if err != nil {
				return err
			}
			if r.due(m) {
				due = append(due, d)
			}
		}
		return nil
	})
	return due, err
}

// due says that the grace of a doomed blob is over.
func (r *Registry) due(m doom) bool { return m.Deleting || !m.Since.Add(r.o.Grace).After(r.now()) }

// collectOne removes d if its grace is over. One collection at a time: two that
// work on the same mark could delete what was stored anew between them.
func (r *Registry) collectOne(ctx context.Context, d digest.Digest) (gone bool, err error) {
	err = r.o.Meta.Update(ctx, func(tx Tx) error {
		gone = false
		m, ok, err := get[doom](tx, keyDoomed(d))
		if err != nil || !ok || !r.due(m) {
			return err // taken back meanwhile, or doomed anew
		}
		if referenced(tx, d) {
			return tx.Delete(keyDoomed(d))
		}
		gone = true
		m.Deleting = true
		if err := errors.Join(tx.Delete(keyBlob(d)), tx.Delete(keyDamaged(d))); err != nil {
			return err
		}
		return put(tx, keyDoomed(d), m)
	})
	if err != nil || !gone {
		return false, err
	}
	if err := r.o.Blobs.Delete(ctx, d); err != nil {
		return false, err
	}
	return true, r.o.Meta.Update(ctx, func(tx Tx) error { return tx.Delete(keyDoomed(d)) })
}
