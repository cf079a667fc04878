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
func (r *Registry) Version(ctx context.Context, l LayerRef) (Version, error) {
	v, ok, err := r.lookUp(ctx, l.Component, l.Version)
	if err == nil && !ok {
		err = fail(ErrNotFound, "no version %q for component %q found", l.Version, l.Component)
	}
	return v, err
}

// Files yields what the layer d holds, by path, as its manifest tells. name is
// for errors. An error ends the loop; what was read from a damaged manifest is
// told at its end.
func (r *Registry) Files(ctx context.Context, name string, d digest.Digest) iter.Seq2[manifest.Entry, error] {
	return func(yield func(manifest.Entry, error) bool) {
		b, of, err := r.openManifest(ctx, name, d)
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

// openManifest opens the manifest of the layer d, and returns its digest.
func (r *Registry) openManifest(ctx context.Context, name string, d digest.Digest) (Blob, digest.Digest, error) {
	var layer storedBlob
	err := r.o.Meta.View(ctx, func(tx Tx) (err error) {
		layer, _, err = get[storedBlob](tx, keyBlob(d))
		return err
	})
	if err == nil && layer.Manifest.IsZero() {
		err = fail(ErrNotFound, "content of %s, %s, is not kept any more: its files are not known", name, d)
	}
	if err != nil {
		return nil, digest.Digest{}, err
	}
	b, err := r.o.Blobs.Open(ctx, layer.Manifest)
	if err != nil {
		err = fmt.Errorf("cannot open the manifest of %s: %w", name, err)
	}
	return b, layer.Manifest, err
}

// Side is one side of a comparison: a layer, or nothing where Digest is zero.
type Side struct {
	Name   string // for errors
	Digest digest.Digest
}

// DiffFiles yields the files that differ between two layers, by path. An error
// ends the loop.
func (r *Registry) DiffFiles(ctx context.Context, old, new Side) iter.Seq2[manifest.Change, error] {
	files := func(s Side) iter.Seq2[manifest.Entry, error] {
		if s.Digest.IsZero() {
			return manifest.Manifest(nil).All()
		}
		return r.Files(ctx, s.Name, s.Digest)
	}
	return manifest.Diff(files(old), files(new))
}
