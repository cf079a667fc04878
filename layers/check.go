package layers

import (
	"context"
	"errors"
	"io"

	"deploytools/layers/digest"
)

// Check reads an archive from r to its end and says whether it may be a layer.
// Info has its digest, its sizes and the manifest of the tree that it makes, but
// for the digests that Options.Digests leaves out. The name is for messages.
//
// Where the archive is refused, the error is a *Refusal and Info holds the
// digest and size all the same, because r was read to its end. Check returns
// after r's current Read when ctx ends.
func Check(ctx context.Context, name string, r io.Reader, o Options) (*Info, error) {
	if o.Room != nil {
		if err := o.Room(streamBytes()); err != nil {
			return &Info{}, err
		}
	}
	t := newTree(nil)
	t.w = &hasher{unwanted: o.Digests == NoDigests, hash: digest.NewWriter()}
	info := &Info{}
	a := openArchive(ctx, name, r, o)
	err := a.whole(t.read(a, info, nil))
	info.Size = a.src.count
	if a.src.hash != nil {
		info.Digest = a.src.hash.Digest()
	}
	if err != nil {
		return info, err
	}
	info.Manifest, err = t.manifest(ctx)
	return info, err
}

// whole ends the reading of a, whose result was err. A refused archive is read
// on to its end for its digest: without it nobody knows what was refused.
func (a *archive) whole(err error) error {
	a.close()
	if !errors.Is(err, ErrRefused) {
		return err
	}
	if _, fault := io.Copy(io.Discard, a.src); fault != nil {
		return a.fault(fault)
	}
	return err
}

// read puts one more layer into the tree, and notes its entries in x.
func (t *tree) read(a *archive, info *Info, x *index) error {
	t.begin(a)
	for {
		e, err := a.next()
		if err == io.EOF {
			break
		}
		if err == nil {
			err = t.add(e)
		}
		if err != nil {
			return err
		}
		if x != nil {
			x.add(e, t)
		}
	}
	info.Entries += int64(a.number)
	info.Unpacked += a.unpacked
	if a.xattrs != "" {
		info.Warnings = append(info.Warnings, a.xattrs)
	}
	return nil
}

// hasher is the writer of Check: it only hashes, or not even that.
type hasher struct {
	unwanted bool
	hash     *digest.Writer
	buf      [64 << 10]byte
}

func (*hasher) mkdir(*node) error           { return nil }
func (*hasher) symlink(*node, *entry) error { return nil }
func (*hasher) link(n, to *node) error      { return nil }
func (*hasher) remove(*node) error          { return nil }
func (*hasher) settle() error               { return nil }
func (h *hasher) file(_ *node, to *digest.Digest, _ *entry, a *archive) error {
	if h.unwanted {
		_, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, a, h.buf[:])
		return err
	}
	h.hash.Reset()
	if _, err := io.CopyBuffer(h.hash, a, h.buf[:]); err != nil {
		return err
	}
	*to = h.hash.Digest()
	return nil
}
