package registry

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"deploytools/layers/digest"
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
	if anyWith(tx, prefixRef+d.String()+"/") {
		return nil
	}
	old, ok, err := get[doom](tx, keyDoomed(d))
	if err != nil || ok && old.Deleting {
		return err
	}
	return put(tx, keyDoomed(d), doom{Since: r.now()})
}

// reference records that component:version is kept in d, and saves d.
func reference(tx Tx, d digest.Digest, component, version string) error {
	if err := held(tx, d); err != nil {
		return err
	}
	if err := tx.Delete(keyDoomed(d)); err != nil {
		return err
	}
	return tx.Put(keyRef(d, component, version), []byte{})
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
	case m.Deleting, !doomed && !anyWith(tx, prefixRef+d.String()+"/"):
		return collected(d)
	}
	return nil
}

func collected(d digest.Digest) error {
	return fail(ErrConflict, "content %s was just collected", d).hint("upload it again")
}

// release takes the reference back and dooms d if it was the last one.
func (r *Registry) release(tx Tx, d digest.Digest, component, version string) error {
	if err := tx.Delete(keyRef(d, component, version)); err != nil {
		return err
	}
	return r.condemn(tx, d)
}

// storeDoomed stores content that nothing references yet.
func (r *Registry) storeDoomed(ctx context.Context, content []byte) error {
	d := digest.Of(content)
	err := r.o.Meta.Update(ctx, func(tx Tx) error {
		if err := notDeleting(tx, d); err != nil {
			return err
		}
		return r.condemn(tx, d)
	})
	if err != nil {
		return err
	}
	return r.o.Blobs.Put(ctx, d, bytes.NewReader(content))
}

// collect removes the blobs whose grace is over. One Sweep at a time: two that
// work on the same mark could delete what was stored anew between them.
func (r *Registry) collect(ctx context.Context) (n int, err error) {
	r.sweeping.Lock()
	defer r.sweeping.Unlock()
	var due []digest.Digest
	err = r.o.Meta.View(ctx, func(tx Tx) error {
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
	for _, d := range due {
		if err != nil {
			break
		}
		var gone bool
		if gone, err = r.collectOne(ctx, d); gone {
			n++
		}
	}
	if err != nil {
		err = fmt.Errorf("cannot collect: %w", err)
	}
	return n, err
}

// due says that the grace of a doomed blob is over.
func (r *Registry) due(m doom) bool { return m.Deleting || !m.Since.Add(r.o.Grace).After(r.now()) }

func (r *Registry) collectOne(ctx context.Context, d digest.Digest) (gone bool, err error) {
	err = r.o.Meta.Update(ctx, func(tx Tx) error {
		gone = false
		m, ok, err := get[doom](tx, keyDoomed(d))
		if err != nil || !ok || !r.due(m) {
			return err // taken back meanwhile, or doomed anew
		}
		if anyWith(tx, prefixRef+d.String()+"/") {
			return tx.Delete(keyDoomed(d))
		}
		gone = true
		m.Deleting = true
		if err := tx.Delete(keyBlob(d)); err != nil {
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
