package registry

import (
	"context"
	"fmt"
	"io"
	"iter"

	"deploytools/layers/digest"
	"deploytools/layers/manifest"
)

// Version returns the record of a version.
func (r *Registry) Version(ctx context.Context, l LayerRef) (v Version, err error) {
	err = r.o.Meta.View(ctx, func(tx Tx) (err error) {
		v, err = l.find(tx)
		return err
	})
	return v, err
}

// Files yields what a layer holds, by path, as its manifest tells. A layer of no
// configuration in scope is ErrDenied, as for OpenLayer. An error ends the loop;
// what was read from a damaged manifest is told at its end.
func (r *Registry) Files(ctx context.Context, scope Scope, l Side) iter.Seq2[manifest.Entry, error] {
	name := l.Name
	return func(yield func(manifest.Entry, error) bool) {
		b, of, err := r.openManifest(ctx, scope, l)
		if err != nil {
			yield(manifest.Entry{}, err)
			return
		}
		defer b.Close()
		for e, err := range manifest.Read(digest.NewReader(io.NewSectionReader(b, 0, b.Size()), of)) {
			if err != nil {
				err = fmt.Errorf("cannot read the manifest of %s: %w", name, err)
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// openManifest opens the manifest of a layer, and returns its digest.
func (r *Registry) openManifest(ctx context.Context, scope Scope, l Side) (Blob, digest.Digest, error) {
	var layer storedBlob
	err := r.o.Meta.View(ctx, func(tx Tx) error {
		seen, err := r.layersOf(tx, scope)
		if err == nil && scope != "" && !seen[l.Digest] {
			err = fail(ErrDenied, "layer %s is in no configuration of your key: configs=%q", l.Name, string(scope))
		}
		if err != nil {
			return err
		}
		layer, _, err = get[storedBlob](tx, keyBlob(l.Digest))
		return err
	})
	if err == nil && layer.Manifest.IsZero() {
		err = fail(ErrNotFound, "content of %s, %s, is not kept any more: its files are not known", l.Name, l.Digest)
	}
	if err != nil {
		return nil, digest.Digest{}, err
	}
	b, err := r.openBlob(ctx, layer.Manifest)
	if err != nil {
		err = fmt.Errorf("cannot open the manifest of %s: %w", l.Name, err)
	}
	return b, layer.Manifest, err
}

// Side is a layer that is looked at, or in a comparison nothing, where Digest is
// zero.
type Side struct {
	Name   string // for errors
	Digest digest.Digest
}

// DiffFiles yields the files that differ between two layers, by path. scope is as
// for Files. An error ends the loop.
func (r *Registry) DiffFiles(ctx context.Context, scope Scope, old, new Side) iter.Seq2[manifest.Change, error] {
	files := func(s Side) iter.Seq2[manifest.Entry, error] {
		if s.Digest.IsZero() {
			return manifest.Manifest(nil).All()
		}
		return r.Files(ctx, scope, s)
	}
	return manifest.Diff(files(old), files(new))
}
