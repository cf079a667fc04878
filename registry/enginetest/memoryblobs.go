package enginetest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"deploytools/layers/digest"
	"deploytools/registry"
)

// shelf holds what a pair of MemoryBlobs and MemorySpool share.
type shelf struct {
	mu      sync.Mutex // guards the following
	blobs   map[digest.Digest]memoryBlob
	uploads map[string]*memoryUpload
}

type memoryBlob struct {
	content []byte // never changed
	stored  time.Time
}

// MemoryBlobs is a registry.Blobs and a registry.Adopter in memory.
type MemoryBlobs struct{ shelf *shelf }

// MemorySpool is a registry.Spool in memory.
type MemorySpool struct{ shelf *shelf }

// NewBlobs returns empty MemoryBlobs, which can adopt the uploads of the
// MemorySpool returned with it.
func NewBlobs() (*MemoryBlobs, *MemorySpool) {
	s := &shelf{blobs: map[digest.Digest]memoryBlob{}, uploads: map[string]*memoryUpload{}}
	return &MemoryBlobs{s}, &MemorySpool{s}
}

// NewCopyingBlobs returns an empty pair as NewBlobs does, but the blobs are no
// registry.Adopter.
func NewCopyingBlobs() (registry.Blobs, *MemorySpool) {
	b, s := NewBlobs()
	return struct{ registry.Blobs }{b}, s
}

// Put is registry.Blobs's.
func (b *MemoryBlobs) Put(ctx context.Context, d digest.Digest, r io.Reader) error {
	content, err := io.ReadAll(digest.NewReader(contextReader{ctx, r}, d))
	if err != nil {
		return fmt.Errorf("cannot store blob %s: %w", d, err)
	}
	b.shelf.mu.Lock()
	defer b.shelf.mu.Unlock()
	b.shelf.add(d, content)
	return nil
}

// add replaces a blob that is there; s.mu is held.
func (s *shelf) add(d digest.Digest, content []byte) {
	s.blobs[d] = memoryBlob{content, time.Now()}
}

// Spoil gives the blob d other content, as a disk may.
func (b *MemoryBlobs) Spoil(d digest.Digest, content []byte) {
	b.shelf.mu.Lock()
	defer b.shelf.mu.Unlock()
	b.shelf.add(d, content)
}

// contextReader stops reading when its context is done.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}

// Open is registry.Blobs's.
func (b *MemoryBlobs) Open(ctx context.Context, d digest.Digest) (registry.Blob, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	b.shelf.mu.Lock()
	defer b.shelf.mu.Unlock()
	m, ok := b.shelf.blobs[d]
	if !ok {
		return nil, fmt.Errorf("blob %s: %w", d, registry.ErrNoBlob)
	}
	return openBlob{bytes.NewReader(m.content)}, nil
}

// openBlob is a registry.Blob.
type openBlob struct{ *bytes.Reader }

func (openBlob) Close() error { return nil }

// Delete is registry.Blobs's.
func (b *MemoryBlobs) Delete(ctx context.Context, d digest.Digest) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	b.shelf.mu.Lock()
	defer b.shelf.mu.Unlock()
	delete(b.shelf.blobs, d)
	return nil
}

// List is registry.Blobs's.
func (b *MemoryBlobs) List(ctx context.Context) iter.Seq2[registry.BlobInfo, error] {
	return func(yield func(registry.BlobInfo, error) bool) {
		b.shelf.mu.Lock()
		all := maps.Clone(b.shelf.blobs)
		b.shelf.mu.Unlock()
		for d, m := range all {
			if ctx.Err() != nil {
				yield(registry.BlobInfo{}, context.Cause(ctx))
				return
			}
			if !yield(registry.BlobInfo{Digest: d, Size: int64(len(m.content)), ModTime: m.stored}, nil) {
				return
			}
		}
	}
}

// Adopt is registry.Adopter's.
func (b *MemoryBlobs) Adopt(ctx context.Context, name string, d digest.Digest) error {
	if err := registry.CheckUploadName(name); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	b.shelf.mu.Lock()
	defer b.shelf.mu.Unlock()
	u, ok := b.shelf.uploads[name]
	if !ok {
		if _, ok := b.shelf.blobs[d]; ok {
			return nil
		}
		return fmt.Errorf("upload %s: %w", name, registry.ErrNoUpload)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	b.shelf.add(d, slices.Clone(u.content))
	delete(b.shelf.uploads, name)
	return nil
}

// Create is registry.Spool's.
func (s *MemorySpool) Create(ctx context.Context, name string) (registry.Upload, error) {
	if err := check(ctx, name); err != nil {
		return nil, err
	}
	s.shelf.mu.Lock()
	defer s.shelf.mu.Unlock()
	if _, ok := s.shelf.uploads[name]; ok {
		return nil, fmt.Errorf("upload %s: already exists", name)
	}
	u := &memoryUpload{written: time.Now()}
	s.shelf.uploads[name] = u
	return u, nil
}

// Resume is registry.Spool's.
func (s *MemorySpool) Resume(ctx context.Context, name string) (registry.Upload, error) {
	if err := check(ctx, name); err != nil {
		return nil, err
	}
	s.shelf.mu.Lock()
	defer s.shelf.mu.Unlock()
	u, ok := s.shelf.uploads[name]
	if !ok {
		return nil, fmt.Errorf("upload %s: %w", name, registry.ErrNoUpload)
	}
	return u, nil
}

// Remove is registry.Spool's.
func (s *MemorySpool) Remove(ctx context.Context, name string) error {
	if err := check(ctx, name); err != nil {
		return err
	}
	s.shelf.mu.Lock()
	defer s.shelf.mu.Unlock()
	delete(s.shelf.uploads, name)
	return nil
}

// List is registry.Spool's.
func (s *MemorySpool) List(ctx context.Context) iter.Seq2[registry.UploadInfo, error] {
	return func(yield func(registry.UploadInfo, error) bool) {
		s.shelf.mu.Lock()
		all := maps.Clone(s.shelf.uploads)
		s.shelf.mu.Unlock()
		for name, u := range all {
			if ctx.Err() != nil {
				yield(registry.UploadInfo{}, context.Cause(ctx))
				return
			}
			size, written := u.state()
			if !yield(registry.UploadInfo{Name: name, Size: size, ModTime: written}, nil) {
				return
			}
		}
	}
}

// Free is registry.Spool's. Memory is taken to be without end.
func (s *MemorySpool) Free(ctx context.Context) (int64, error) {
	return math.MaxInt64, context.Cause(ctx)
}

func check(ctx context.Context, name string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return registry.CheckUploadName(name)
}
