package layers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"deploytools/layers/digest"
)

// Unpack stacks the layers, in order, into the directory dir, which exists and
// is empty. A later layer wins over an earlier one. Info has the manifest of
// what is there afterwards, with the owners that the files really have.
//
// Nothing is written outside dir, whatever the archives hold. An archive whose
// digest is not the layer's is digest.ErrMismatch, also where it would be
// refused: an archive that was exchanged says nothing about the right one.
func Unpack(ctx context.Context, dir string, layers []Layer, o Options) (*Info, error) {
	o.Digests = AllDigests // the manifest of a root is complete, whoever asks
	t := newTree(nil)
	d, err := newDisk(dir, t.top, o)
	if err != nil {
		return nil, err
	}
	defer d.close()
	t.w = d
	info := &Info{}
	for _, l := range layers {
		if err := t.unpack(ctx, l, o, info); err != nil {
			return nil, err
		}
	}
	if err := d.finish(t.top); err != nil {
		return nil, err
	}
	info.Manifest = t.manifest()
	if !o.Owner {
		for i := range info.Manifest {
			info.Manifest[i].UID, info.Manifest[i].GID = os.Geteuid(), os.Getegid()
		}
	}
	return info, nil
}

// unpack puts one layer on disk and compares its digest.
func (t *tree) unpack(ctx context.Context, l Layer, o Options, info *Info) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	r, err := l.Open()
	if err != nil {
		return fmt.Errorf("cannot open layer %s: %w", l.Name, err)
	}
	closed := sync.OnceValue(r.Close)
	defer closed()
	defer context.AfterFunc(ctx, func() { closed() })() // ends a Read that waits
	a := openArchive(ctx, l.Name, r, o)
	err = a.whole(t.read(a, info))
	if err != nil && !errors.Is(err, ErrRefused) {
		return err
	}
	info.Size += a.src.count
	if got := a.src.hash.Digest(); !l.Digest.IsZero() && got != l.Digest {
		return fmt.Errorf("layer %s: have %s, want %s: %w", l.Name, got, l.Digest, digest.ErrMismatch)
	}
	return err
}
