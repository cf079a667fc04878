package registry

import (
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"deploytools/layers/digest"
)

// Damage is the record of a blob that is not what its digest says, or that is
// not there. It is not served until the same content is stored again.
type Damage struct {
	Digest digest.Digest
	Found  time.Time
	Reason string // for people at the registry
}

// Damaged returns what is known to be damaged, by digest.
func (r *Registry) Damaged(ctx context.Context) (out []Damage, err error) {
	err = r.o.Meta.View(ctx, func(tx Tx) error {
		out = nil
		for key, b := range tx.Scan(prefixDamaged) {
			d, err := decode[Damage](key, b)
			if err != nil {
				return err
			}
			out = append(out, d)
		}
		return nil
	})
	return out, err
}

func isDamaged(tx Tx, d digest.Digest) bool { return anyWith(tx, keyDamaged(d)) }

func damagedContent(d digest.Digest) error {
	return fail(ErrDamaged, "content %s is damaged at the registry and not served", d).hint("upload the same file again and add it under the same name")
}

// openBlob opens a blob to serve it, which a damaged one is not. The caller
// closes it.
func (r *Registry) openBlob(ctx context.Context, d digest.Digest) (Blob, error) {
	err := r.o.Meta.View(ctx, func(tx Tx) error {
		if isDamaged(tx, d) {
			return damagedContent(d)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	b, err := r.o.Blobs.Open(ctx, d)
	if errors.Is(err, ErrNoBlob) {
		err = fail(ErrDamaged, "content %s is lost at the registry", d).hint("run fsck at the registry")
	}
	return b, err
}

// notThere is what is wrong with a blob that was lost.
const notThere = "it is not there"

// wrong reads the blob d to its end and says what is wrong with it; "" is
// nothing. paced, if not nil, is called after each piece with its bytes.
func (r *Registry) wrong(ctx context.Context, d digest.Digest, paced func(n int) error) (reason string, err error) {
	b, err := r.o.Blobs.Open(ctx, d)
	if errors.Is(err, ErrNoBlob) {
		return notThere, nil
	}
	if err != nil {
		return "", err
	}
	defer b.Close()
	h := digest.NewWriter()
	for off, buf := int64(0), make([]byte, 256<<10); ; {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		n, err := b.ReadAt(buf, off)
		h.Write(buf[:n])
		off += int64(n)
		if paced != nil {
			if err := paced(n); err != nil {
				return "", err
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return "it cannot be read: " + err.Error(), nil
		}
	}
	if got := h.Digest(); got != d {
		return "its content has the digest " + got.String(), nil
	}
	return "", nil
}

// examine reads the blob d, keeps it from being served if something is wrong
// with it, and lets it be served again where nothing is. The reason is "" also
// for a blob that no version needs: it is marked, lest one comes to need it.
func (r *Registry) examine(ctx context.Context, d digest.Digest, paced func(n int) error) (reason string, err error) {
	reason, err = r.wrong(ctx, d, paced)
	if err != nil {
		return "", err
	}
	var marked, needed, doomed bool
	err = r.o.Meta.View(ctx, func(tx Tx) error {
		marked, needed, doomed = isDamaged(tx, d), referenced(tx, d), anyWith(tx, keyDoomed(d))
		return nil
	})
	switch {
	case err != nil:
		return "", err
	case reason == "" && marked:
		return "", r.o.Meta.Update(ctx, func(tx Tx) error { return tx.Delete(keyDamaged(d)) })
	case reason == "" || !needed && !doomed:
		return "", nil
	}
	if !marked {
		named, err := r.quarantine(ctx, d, reason)
		if err == nil {
			reason = named
		} else if !errors.Is(err, ErrReadOnly) { // else naming it is all that can be done
			return reason, err
		}
	}
	if !needed {
		return "", nil
	}
	return reason, nil
}

// quarantine marks d and returns the reason, or "" where there is none after
// all: it was collected, or the same content was stored anew since it was read.
// For the latter it looks once more when nobody is served from it any more.
func (r *Registry) quarantine(ctx context.Context, d digest.Digest, reason string) (string, error) {
	gone := false
	err := r.o.Meta.Update(ctx, func(tx Tx) error {
		err := held(tx, d)
		if gone = errors.Is(err, ErrConflict); gone {
			return nil
		}
		if err != nil {
			return err
		}
		return put(tx, keyDamaged(d), Damage{Digest: d, Found: r.now(), Reason: reason})
	})
	if err != nil || gone {
		return "", err
	}
	again, err := r.wrong(ctx, d, nil)
	if err != nil || again != "" {
		return reason, err
	}
	return "", r.o.Meta.Update(ctx, func(tx Tx) error { return tx.Delete(keyDamaged(d)) })
}

// isAnyDamaged reports whether something that v keeps is damaged.
func (r *Registry) isAnyDamaged(ctx context.Context, v Version) (damaged bool, err error) {
	err = r.o.Meta.View(ctx, func(tx Tx) error {
		damaged = slices.ContainsFunc(v.keeps(), func(d digest.Digest) bool { return isDamaged(tx, d) })
		return nil
	})
	return damaged, err
}
