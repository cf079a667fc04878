package registry

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"deploytools/layers/digest"
	"deploytools/registry/wire"
)

// Poll returns the newest revision and digest of each name, as agents ask.
func (r *Registry) Poll(ctx context.Context, q wire.PollRequest) (wire.PollReply, error) {
	var out wire.PollReply
	err := r.o.Meta.View(ctx, func(tx Tx) error {
		out = wire.PollReply{}
		for _, name := range q.Names {
			s := wire.PollState{Name: name}
			rev, ok, err := get[Revision](tx, keyConfig(name))
			if err != nil {
				return err
			}
			if ok && !rev.Deleted {
				s.Revision, s.Digest = rev.Revision, rev.Digest
				if s.Hold, err = r.wireHold(tx, name); err != nil {
					return err
				}
			}
			out.Configurations = append(out.Configurations, s)
		}
		return nil
	})
	return out, err
}

// StoredLayer is a layer in Blobs, as agents see it.
type StoredLayer struct {
	Digest digest.Digest
	Size   int64
	Time   time.Time // when it was stored
}

// Layers returns every layer that a version references, by digest.
func (r *Registry) Layers(ctx context.Context) ([]StoredLayer, error) {
	byDigest := map[digest.Digest]StoredLayer{}
	err := r.o.Meta.View(ctx, func(tx Tx) error {
		clear(byDigest)
		for key, b := range tx.Scan(prefixVersion) {
			v, err := decode[Version](key, b)
			if err != nil {
				return err
			}
			if old, ok := byDigest[v.Digest]; !ok || v.Added.Before(old.Time) {
				byDigest[v.Digest] = StoredLayer{v.Digest, v.Size, v.Added}
			}
		}
		return nil
	})
	out := make([]StoredLayer, 0, len(byDigest))
	for _, l := range byDigest {
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b StoredLayer) int { return slices.Compare(a.Digest[:], b.Digest[:]) })
	return out, err
}

// OpenLayer opens a layer that some version references; the caller closes it.
func (r *Registry) OpenLayer(ctx context.Context, d digest.Digest) (Blob, StoredLayer, error) {
	info := StoredLayer{Digest: d}
	err := r.o.Meta.View(ctx, func(tx Tx) error {
		for key := range tx.Scan(prefixRef + d.String() + "/") {
			ref := strings.Split(strings.TrimPrefix(key, prefixRef), "/")
			v, ok, err := get[Version](tx, keyVersion(ref[1], ref[2]))
			if err != nil {
				return err
			}
			if ok && v.Digest == d { // and not a manifest
				info.Size, info.Time = v.Size, v.Added
				return nil
			}
		}
		return fail(ErrNotFound, "no layer has the digest %s", d)
	})
	if err != nil {
		return nil, info, err
	}
	b, err := r.o.Blobs.Open(ctx, d)
	return b, info, err
}

// HasLayer reports whether the content d can become a version without an
// upload: it and its manifest are stored and not being collected.
func (r *Registry) HasLayer(ctx context.Context, d digest.Digest) (ok bool, err error) {
	err = r.o.Meta.View(ctx, func(tx Tx) error {
		b, found, err := get[storedBlob](tx, keyBlob(d))
		ok = found
		for _, d := range []digest.Digest{d, b.Manifest} {
			if held := held(tx, d); errors.Is(held, ErrConflict) {
				ok = false
			} else if err == nil {
				err = held
			}
		}
		return err
	})
	return ok, err
}
