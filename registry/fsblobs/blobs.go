package fsblobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"

	"deploytools/atomic"
	"deploytools/layers/digest"
	"deploytools/registry"
)

// Blobs is a registry.Blobs and a registry.Adopter.
type Blobs struct{ s *store }

// Sweep removes what calls of Put that a crash cut short have left. Only the
// process that owns the directory (by the lock of its state file) may call it,
// before its first Put. Uploads are not its business.
func (b *Blobs) Sweep() error { return atomic.Sweep(b.s.files) }

func (b *Blobs) path(d digest.Digest) string { return filepath.Join(b.s.files, d.String()) }

// Put is registry.Blobs's. It writes the blob anew if it is there, which mends
// one that the disk has spoiled.
func (b *Blobs) Put(ctx context.Context, d digest.Digest, r io.Reader) error {
	if err := b.put(ctx, d, r); err != nil {
		return fmt.Errorf("cannot store blob %s: %w", d, err)
	}
	return nil
}

func (b *Blobs) put(ctx context.Context, d digest.Digest, r io.Reader) error {
	if err := b.s.ready(ctx); err != nil {
		return err
	}
	f, err := atomic.Create(b.path(d), 0o600)
	if err != nil {
		return err
	}
	defer f.Abort() // nothing, once Commit has returned nil
	content := digest.NewReader(reader{ctx, r}, d)
	if _, err := io.CopyBuffer(f, content, make([]byte, 128<<10)); err != nil {
		return err
	}
	return b.s.settled(f.Commit())
}

// reader ends with its context.
type reader struct {
	ctx context.Context
	r   io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.r.Read(p)
}

// Open is registry.Blobs's.
func (b *Blobs) Open(ctx context.Context, d digest.Digest) (registry.Blob, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	f, err := os.Open(b.path(d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("blob %s: %w", d, registry.ErrNoBlob)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open blob: %w", err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot open blob %s: %w", d, err)
	}
	return blob{f, info.Size()}, nil
}

// blob is a registry.Blob.
type blob struct {
	f    *os.File
	size int64
}

func (b blob) ReadAt(p []byte, off int64) (int, error) { return b.f.ReadAt(p, off) }
func (b blob) Size() int64                             { return b.size }
func (b blob) Close() error                            { return b.f.Close() }

// Delete is registry.Blobs's.
func (b *Blobs) Delete(ctx context.Context, d digest.Digest) error {
	if err := b.s.ready(ctx); err != nil {
		return err
	}
	return b.s.settled(atomic.Remove(b.path(d)))
}

// List is registry.Blobs's.
func (b *Blobs) List(ctx context.Context) iter.Seq2[registry.BlobInfo, error] {
	return func(yield func(registry.BlobInfo, error) bool) {
		for info, err := range b.s.regular(ctx, b.s.files) {
			if err != nil {
				yield(registry.BlobInfo{}, err)
				return
			}
			d, err := digest.Parse(info.Name())
			if err != nil {
				continue
			}
			if !yield(registry.BlobInfo{Digest: d, Size: info.Size(), ModTime: info.ModTime()}, nil) {
				return
			}
		}
	}
}

// Adopt is registry.Adopter's. As Put does, it replaces a blob that is there.
//
// The order is the promise: the bytes are synced, then the file changes its
// name, then both directories are synced. A crash leaves the upload or the
// blob, and Adopt goes on from either.
func (b *Blobs) Adopt(ctx context.Context, name string, d digest.Digest) error {
	if err := registry.CheckUploadName(name); err != nil {
		return err
	}
	if err := b.s.ready(ctx); err != nil {
		return err
	}
	if err := b.adopt(name, d); err != nil {
		return fmt.Errorf("cannot make upload %s blob %s: %w", name, d, err)
	}
	return nil
}

func (b *Blobs) adopt(name string, d digest.Digest) error {
	upload := filepath.Join(b.s.uploads, name)
	err := b.s.syncFile(upload)
	if err == nil {
		err = b.s.settled(atomic.Rename(upload, b.path(d)))
	}
	if errors.Is(err, fs.ErrNotExist) { // adopted before, perhaps
		err = b.s.resync(b.path(d))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return registry.ErrNoUpload
	}
	return err
}
