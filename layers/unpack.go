package layers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
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
//
// Of the first 45,000 names or so, what is known is in memory; of all
// others in a file without a name on the file system of dir, if it can have one.
// The caller calls Info.Close.
func Unpack(ctx context.Context, dir string, layers []Layer, o Options) (info *Info, err error) {
	if len(layers) > math.MaxUint16 {
		return nil, fmt.Errorf("%d layers; want %d at most", len(layers), math.MaxUint16)
	}
	o.Digests = AllDigests // the manifest of a root is complete, whoever asks
	d, err := newDisk(dir, o)
	if err != nil {
		return nil, err
	}
	t := d.t
	if !o.Owner {
		t.self = &attributes{uid: uint32(d.uid), gid: uint32(d.gid)}
	}
	info = &Info{scratch: t.scratch}
	again := newAgain(d, layers, o)
	defer func() {
		if err != nil {
			info.Close()
			info = nil
		}
	}()
	defer again.close()
	defer d.close() // first: its workers take files from the earlier root
	err = t.scratch.guard(func() error {
		for _, l := range layers {
			if err := t.stack(ctx, l, o, again, info); err != nil {
				return err
			}
		}
		if err := d.settle(); err != nil {
			return err
		}
		return d.finish(top)
	})
	if err != nil {
		return info, cmp.Or(t.scratch.lost(), err) // a rule that seems to be broken says nothing then
	}
	info.Index = again.text
	info.Manifest, err = t.manifest(ctx)
	return info, err
}

// stack puts one layer on disk: with what an earlier root has of it, if that is
// known.
func (t *tree) stack(ctx context.Context, l Layer, o Options, g *again, info *Info) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if x := g.knows(l); x != nil {
		g.text = append(g.text, x.whole)
		return t.replay(ctx, l, x, g.from, info)
	}
	a, err := openLayer(ctx, l, o)
	if err != nil {
		return err
	}
	defer a.shut()
	x := g.begin(l)
	if err := a.proved(l, t.read(a.archive, info, x), info); err != nil || x == nil {
		return err
	}
	if err := t.w.settle(); err != nil { // then its files have digests
		return err
	}
	g.text = append(g.text, x.text()...)
	return nil
}

// opened is the archive of a layer that is being read.
type opened struct {
	*archive
	shut func()
}

// openLayer opens the archive. The caller calls shut.
func openLayer(ctx context.Context, l Layer, o Options) (*opened, error) {
	r, err := l.Open()
	if err != nil {
		return nil, fmt.Errorf("cannot open layer %s: %w", l.Name, err)
	}
	closed := sync.OnceValue(r.Close)
	stop := context.AfterFunc(ctx, func() { closed() }) // ends a Read that waits
	a := openArchive(ctx, l.Name, r, o)
	return &opened{a, func() { stop(); closed(); a.close() }}, nil
}

// proved ends the reading of a, whose result was err, and compares its digest.
func (a *opened) proved(l Layer, err error, info *Info) error {
	err = a.whole(err)
	if err != nil && !errors.Is(err, ErrRefused) {
		return err
	}
	info.Size += a.src.count
	if got := a.src.hash.Digest(); !l.Digest.IsZero() && got != l.Digest {
		return fmt.Errorf("layer %s: have %s, want %s: %w", l.Name, got, l.Digest, digest.ErrMismatch)
	}
	return err
}

// again is what one Unpack has from an earlier one, and makes for the next. The
// zero value is neither.
type again struct {
	o      Options
	clones bool
	from   *reuser             // nil: nothing is known
	known  map[string]*indexed // by indexKey
	text   [][]byte            // the indexes of the layers so far
}

// newAgain looks whether files can be taken at all. The caller calls close.
func newAgain(d *disk, layers []Layer, o Options) *again {
	g := &again{o: o}
	if o.Reuse == nil {
		return g
	}
	g.clones = canClone(d.dirs[top])
	if r := o.Reuse; r.Dir != "" && len(r.Index) > 0 && (g.clones || slices.ContainsFunc(layers, linked)) {
		g.known, _ = readIndex(r.Index) // what is damaged is not used
		g.from = newReuser(d, r, g.clones)
	}
	return g
}

func linked(l Layer) bool { return l.Link }

func (g *again) close() {
	if g.from != nil {
		g.from.old.close()
	}
}

// usable reports whether files of the layer can be taken from some root.
func (g *again) usable(l Layer) bool {
	return g.o.Reuse != nil && (g.clones || l.Link) && !l.Digest.IsZero()
}

// knows returns the layer's index; nil: it has to be read.
func (g *again) knows(l Layer) *indexed {
	if g.from == nil || !g.usable(l) {
		return nil
	}
	return g.known[indexKey(l.Digest, g.o)]
}

// begin returns where the layer's entries are to be noted; nil: nowhere.
func (g *again) begin(l Layer) *index {
	if !g.usable(l) {
		return nil
	}
	return &index{key: indexKey(l.Digest, g.o)}
}
