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

// Poll returns the newest revision and digest of each name, as agents ask, and
// which report of theirs is known. A name outside of the caller's scope is
// ErrDenied: an agent whose key is wrong is to say so, and not that there is
// nothing to do.
func (r *Registry) Poll(ctx context.Context, c Caller, q wire.PollRequest) (wire.PollReply, error) {
	var out wire.PollReply
	for _, name := range q.Names {
		if err := c.CheckScope(name); err != nil {
			return out, err
		}
	}
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
			if ok && c.Role == Agent {
				tag, _, err := get[string](tx, reporterOf(c, name, q.Instance).key(prefixTold))
				if err != nil {
					return err
				}
				s.Reported = &tag
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

// Layers returns the layers that a version references, by digest: all of them,
// or those of the configurations in scope. See OpenLayer.
func (r *Registry) Layers(ctx context.Context, scope Scope) ([]StoredLayer, error) {
	byDigest := map[digest.Digest]StoredLayer{}
	err := r.o.Meta.View(ctx, func(tx Tx) error {
		clear(byDigest)
		seen, err := r.layersOf(tx, scope)
		if err != nil {
			return err
		}
		for key, b := range tx.Scan(prefixVersion) {
			v, err := decode[Version](key, b)
			if err != nil {
				return err
			}
			if scope != "" && !seen[v.Digest] {
				continue
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

// layersOf returns the digests of the layers that the configurations in scope
// have, or had in one of their newest Options.RollbackWindow revisions: an agent
// may be in the middle of fetching one that was just replaced. It returns nil
// for the scope of everything.
func (r *Registry) layersOf(tx Tx, scope Scope) (map[digest.Digest]bool, error) {
	if scope == "" {
		return nil, nil
	}
	seen := map[digest.Digest]bool{}
	for key := range tx.Scan(prefixConfig) {
		name := nameOf(key)
		if !scope.Holds(name) {
			continue
		}
		current, _, err := get[Revision](tx, key)
		if err != nil {
			return nil, err
		}
		if current.Deleted {
			continue
		}
		for n := current.Revision; n > 0 && n+uint64(r.o.RollbackWindow) > current.Revision; n-- {
			rev, _, err := get[Revision](tx, keyRevision(name, n))
			if err != nil {
				return nil, err
			}
			for _, l := range rev.Layers {
				seen[l.Hash] = true
			}
		}
	}
	return seen, nil
}

// Layer describes a layer that some version references and, where scope is not
// everything, a configuration in scope; damaged or not. What is outside of the
// scope is ErrHidden.
func (r *Registry) Layer(ctx context.Context, scope Scope, d digest.Digest) (StoredLayer, error) {
	info := StoredLayer{Digest: d}
	err := r.o.Meta.View(ctx, func(tx Tx) error {
		seen, err := r.layersOf(tx, scope)
		if err != nil {
			return err
		}
		for key := range tx.Scan(prefixRef + d.String() + "/") {
			ref := strings.Split(strings.TrimPrefix(key, prefixRef), "/")
			v, ok, err := get[Version](tx, keyVersion(ref[1], ref[2]))
			if err != nil {
				return err
			}
			if ok && v.Digest == d { // and not a manifest
				if scope != "" && !seen[d] {
					return noLayer(ErrHidden, d)
				}
				info.Size, info.Time = v.Size, v.Added
				return nil
			}
		}
		return noLayer(ErrNotFound, d)
	})
	return info, err
}

// OpenLayer opens what Layer describes; the caller closes it. A layer that is
// damaged is ErrDamaged.
func (r *Registry) OpenLayer(ctx context.Context, scope Scope, d digest.Digest) (Blob, StoredLayer, error) {
	info, err := r.Layer(ctx, scope, d)
	if err != nil {
		return nil, info, err
	}
	b, err := r.openBlob(ctx, d)
	return b, info, err
}

func noLayer(kind error, d digest.Digest) error {
	return fail(kind, "no layer has the digest %s", d)
}

// HasLayer reports whether the content d can become a version without an
// upload: it and its manifest are stored, not damaged and not being collected.
func (r *Registry) HasLayer(ctx context.Context, d digest.Digest) (ok bool, err error) {
	err = r.o.Meta.View(ctx, func(tx Tx) error {
		b, found, err := get[storedBlob](tx, keyBlob(d))
		ok = found
		for _, d := range []digest.Digest{d, b.Manifest} {
			if held := held(tx, d); errors.Is(held, ErrConflict) || isDamaged(tx, d) {
				ok = false
			} else if err == nil {
				err = held
			}
		}
		return err
	})
	return ok, err
}
