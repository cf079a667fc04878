package layers

import (
	"context"
	"errors"
	"fmt"
	"io"

	"deploytools/layers/digest"
)

// Check reads an archive from r to its end and says whether it may be a layer.
// Info has its digest, its sizes and the manifest of the tree that it makes.
// The name is for messages.
//
// Where the archive is refused, the error is a *Refusal and Info holds the
// digest and size all the same, because r was read to its end. Check returns
// after r's current Read when ctx ends.
func Check(ctx context.Context, name string, r io.Reader, o Options) (*Info, error) {
	t := newTree(discard{})
	info := &Info{}
	a := openArchive(name, r, o)
	defer a.close()
	err := t.read(ctx, a, info)
	if errors.Is(err, ErrRefused) {
		if fault := a.drain(ctx); fault != nil {
			err = fault // without the digest nobody knows what was refused
		}
	}
	info.Digest, info.Size = a.src.hash.Digest(), a.src.count.Load()
	if err != nil {
		return info, err
	}
	info.Manifest = t.manifest()
	return info, nil
}

// read puts one more layer into the tree.
func (t *tree) read(ctx context.Context, a *archive, info *Info) error {
	t.layer++
	t.a = a
	for {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
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
	}
	info.Entries += int64(a.number)
	info.Unpacked += a.unpacked
	if a.xattrs != "" {
		info.Warnings = append(info.Warnings, a.xattrs)
	}
	return nil
}

// drain reads the rest of a refused archive, for its digest alone.
func (a *archive) drain(ctx context.Context) error {
	a.zip.Close()
	buf := make([]byte, 256<<10)
	for ctx.Err() == nil {
		_, err := a.src.Read(buf)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("cannot read layer %s: %w", a.layer, err)
		}
	}
	return context.Cause(ctx)
}

// discard is the writer of Check: it only hashes.
type discard struct{}

func (discard) mkdir(*node) error      { return nil }
func (discard) symlink(*node) error    { return nil }
func (discard) link(n, to *node) error { return nil }
func (discard) remove(n *node) error   { return nil }
func (discard) settle() error          { return nil }
func (discard) file(n *node, _ *entry, a *archive) error {
	h := digest.NewWriter()
	if _, err := io.Copy(h, a); err != nil {
		return err
	}
	n.content.digest = h.Digest()
	return nil
}
