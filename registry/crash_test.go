package registry_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"deploytools/layers/digest"
	"deploytools/registry"
)

var errCrashed = errors.New("the power is out")

// crashing lets so many calls through to the engines and fails all later ones,
// those that clean up included: what the engines hold then is what a crash
// leaves.
type crashing struct{ left atomic.Int64 }

func (c *crashing) down() error {
	if c.left.Add(-1) < 0 {
		return errCrashed
	}
	return nil
}

// options are those of a registry over the engines of w that crashes after n
// calls.
func (w *world) crashing(n int) (registry.Options, *crashing) {
	c := &crashing{}
	c.left.Store(int64(n))
	o := w.options()
	o.Meta = crashingMeta{o.Meta, c}
	o.Spool = crashingSpool{o.Spool, c}
	b := crashingBlobs{o.Blobs, c}
	if a, ok := o.Blobs.(registry.Adopter); ok {
		o.Blobs = crashingAdopter{b, a}
	} else {
		o.Blobs = b
	}
	return o, c
}

type crashingMeta struct {
	registry.Meta
	c *crashing
}

func (m crashingMeta) View(ctx context.Context, fn func(registry.Tx) error) error {
	if err := m.c.down(); err != nil {
		return err
	}
	return m.Meta.View(ctx, fn)
}

func (m crashingMeta) Update(ctx context.Context, fn func(registry.Tx) error) error {
	if err := m.c.down(); err != nil {
		return err
	}
	return m.Meta.Update(ctx, fn)
}

type crashingBlobs struct {
	registry.Blobs
	c *crashing
}

func (b crashingBlobs) Put(ctx context.Context, d digest.Digest, r io.Reader) error {
	if err := b.c.down(); err != nil {
		return err
	}
	return b.Blobs.Put(ctx, d, r)
}

func (b crashingBlobs) Open(ctx context.Context, d digest.Digest) (registry.Blob, error) {
	if err := b.c.down(); err != nil {
		return nil, err
	}
	return b.Blobs.Open(ctx, d)
}

func (b crashingBlobs) Delete(ctx context.Context, d digest.Digest) error {
	if err := b.c.down(); err != nil {
		return err
	}
	return b.Blobs.Delete(ctx, d)
}

type crashingAdopter struct {
	crashingBlobs
	a registry.Adopter
}

func (b crashingAdopter) Adopt(ctx context.Context, name string, d digest.Digest) error {
	if err := b.c.down(); err != nil {
		return err
	}
	return b.a.Adopt(ctx, name, d)
}

type crashingSpool struct {
	registry.Spool
	c *crashing
}

func (s crashingSpool) Create(ctx context.Context, name string) (registry.Upload, error) {
	if err := s.c.down(); err != nil {
		return nil, err
	}
	u, err := s.Spool.Create(ctx, name)
	return crashingUpload{u, s.c}, err
}

func (s crashingSpool) Resume(ctx context.Context, name string) (registry.Upload, error) {
	if err := s.c.down(); err != nil {
		return nil, err
	}
	return s.Spool.Resume(ctx, name)
}

func (s crashingSpool) Remove(ctx context.Context, name string) error {
	if err := s.c.down(); err != nil {
		return err
	}
	return s.Spool.Remove(ctx, name)
}

func (s crashingSpool) List(ctx context.Context) iter.Seq2[registry.UploadInfo, error] {
	return func(yield func(registry.UploadInfo, error) bool) {
		if err := s.c.down(); err != nil {
			yield(registry.UploadInfo{}, err)
			return
		}
		s.Spool.List(ctx)(yield)
	}
}

type crashingUpload struct {
	registry.Upload
	c *crashing
}

func (u crashingUpload) WriteAt(p []byte, off int64) (int, error) {
	if err := u.c.down(); err != nil {
		return 0, err
	}
	return u.Upload.WriteAt(p, off)
}

func (u crashingUpload) Sync() error {
	if err := u.c.down(); err != nil {
		return err
	}
	return u.Upload.Sync()
}

// eachCrash calls act with a registry that crashes after 0, 1, 2... calls of
// its engines, until act comes through, and then after with one that works.
// Both happen in a bubble of their own with a new world that prepare has made.
func eachCrash(t *testing.T, prepare func(*testing.T, *registry.Registry), act func(context.Context, *registry.Registry) error, after func(*testing.T, *world, *registry.Registry)) {
	for name, make := range map[string]func() *world{"adopting": newWorld, "copying": copying} {
		through := false
		for n := 0; !through; n++ {
			t.Run(fmt.Sprintf("%s/%d", name, n), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := make()
					before := w.open(t)
					prepare(t, before)
					before.Close()

					o, c := w.crashing(n)
					r := registry.New(o)
					err := act(t.Context(), r)
					synctest.Wait()
					through = err == nil && c.left.Load() >= 0
					if err != nil && c.left.Load() >= 0 {
						t.Errorf("the act failed without a crash: %v", err)
					}
					c.left.Store(0)
					r.Close()
					w.fsck(t)
					after(t, w, w.open(t))
				})
			})
			if n > 200 {
				t.Fatal("the act never comes through")
			}
		}
	}
}

// wantCollected lets all times run out and expects that only want blobs are
// left, and no upload.
func wantCollected(t *testing.T, w *world, r *registry.Registry, want int) {
	t.Helper()
	for range 2 { // the first sweep may doom, the second collects
		w.clock.advance(1000 * time.Hour)
		if _, err := r.Sweep(t.Context()); err != nil {
			t.Fatalf("Sweep = %v", err)
		}
	}
	w.fsck(t)
	w.wantSpooled(t, 0)
	n := 0
	for range w.blobs.List(t.Context()) {
		n++
	}
	if n != want {
		t.Errorf("%d blobs are left, want %d", n, want)
	}
}

// addAgain makes the version, uploading it again if it must.
func addAgain(t *testing.T, r *registry.Registry, component, version, content string) {
	t.Helper()
	_, err := addVersion(t.Context(), r, component, version, digest.Of([]byte(content)))
	if err != nil {
		t.Errorf("AddVersion after the crash = %v: neither the upload nor the version is there", err)
	}
}

func TestCrashInAddVersion(t *testing.T) {
	eachCrash(t,
		func(t *testing.T, r *registry.Registry) {
			verdict(t, r, upload(t, r, "content"))
			verdict(t, r, upload(t, r, "content"))
		},
		func(ctx context.Context, r *registry.Registry) error {
			_, err := addVersion(ctx, r, "code", "v1", digest.Of([]byte("content")))
			return err
		},
		func(t *testing.T, w *world, r *registry.Registry) {
			addAgain(t, r, "code", "v1", "content")
			w.fsck(t)
			wantCollected(t, w, r, 2)
		})
}

// TestCrashInAddVersionThenSweep lets everything expire between the crash and
// the next try: the content is gone as a whole, or there as a whole.
func TestCrashInAddVersionThenSweep(t *testing.T) {
	eachCrash(t,
		func(t *testing.T, r *registry.Registry) { upload(t, r, "content") }, // and no verdict perhaps
		func(ctx context.Context, r *registry.Registry) error {
			_, err := addVersion(ctx, r, "code", "v1", digest.Of([]byte("content")))
			return err
		},
		func(t *testing.T, w *world, r *registry.Registry) {
			_, err := r.Versions(t.Context(), "code")
			if added := err == nil; added {
				wantCollected(t, w, r, 2)
			} else {
				wantCollected(t, w, r, 0)
			}
			add(t, r, "code", "v1", "content")
			wantCollected(t, w, r, 2)
		})
}

func TestCrashInReceive(t *testing.T) {
	eachCrash(t,
		func(*testing.T, *registry.Registry) {},
		func(ctx context.Context, r *registry.Registry) error {
			in, err := r.Receive(ctx, caller, "/x")
			if err != nil {
				return err
			}
			if _, err := in.WriteAt([]byte("content"), 0); err != nil {
				in.Abort(ctx)
				return err
			}
			u, err := in.Finish(ctx)
			if err != nil {
				return err
			}
			_, err = r.Verdict(ctx, u.ID, nil)
			return err
		},
		func(t *testing.T, w *world, r *registry.Registry) {
			all, err := r.Uploads(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, u := range all {
				if u.Complete {
					addAgain(t, r, "code", "v1", "content")
					wantCollected(t, w, r, 2)
					return
				}
			}
			_, err = addVersion(t.Context(), r, "code", "v1", digest.Of([]byte("content")))
			wantKind(t, "AddVersion of what was never complete", err, registry.ErrNotFound)
			wantCollected(t, w, r, 0)
		})
}

func TestCrashInDeleteVersionAndSweep(t *testing.T) {
	eachCrash(t,
		func(t *testing.T, r *registry.Registry) {
			add(t, r, "code", "v1", "one")
			add(t, r, "code", "v2", "two")
		},
		func(ctx context.Context, r *registry.Registry) error {
			if err := deleteVersion(ctx, r, "code", "v1"); err != nil {
				return err
			}
			time.Sleep(1000 * time.Hour)
			_, err := r.Sweep(ctx)
			return err
		},
		func(t *testing.T, w *world, r *registry.Registry) {
			versions, err := r.Versions(t.Context(), "code")
			if err != nil {
				t.Fatal(err)
			}
			add(t, r, "code", "v3", "one") // the content may be half gone: it has to come back whole
			w.fsck(t)
			if len(versions) == 2 {
				if err := deleteVersion(t.Context(), r, "code", "v1"); err != nil {
					t.Error(err)
				}
			}
			wantCollected(t, w, r, 4)
		})
}

func TestCrashInSuspendAndResume(t *testing.T) {
	eachCrash(t,
		func(t *testing.T, r *registry.Registry) { suspend(t, receive(t, r, "/x", "half of")) },
		func(ctx context.Context, r *registry.Registry) error {
			all, err := r.Uploads(ctx)
			if err != nil {
				return err
			}
			in, err := r.Resume(ctx, caller, all[0].ID)
			if err != nil {
				return err
			}
			if _, err := in.WriteAt([]byte(" it"), in.Size()); err != nil {
				in.Abort(ctx)
				return err
			}
			return in.Suspend(ctx)
		},
		func(t *testing.T, w *world, r *registry.Registry) {
			all, err := r.Uploads(t.Context())
			if err != nil || len(all) > 1 {
				t.Fatalf("Uploads() = %+v, %v", all, err)
			}
			for _, u := range all { // whatever is left can go on, and what it says to hold it holds
				in := resume(t, r, u.ID)
				content := "half of it"
				if in.Size() != u.Size {
					t.Errorf("Size() = %d, listed as %d", in.Size(), u.Size)
				}
				write(t, in, content[u.Size:], u.Size)
				if u = finish(t, in); u.Digest != digest.Of([]byte(content)) {
					t.Errorf("the digest is %s, want that of %q", u.Digest, content)
				}
				verdict(t, r, u)
			}
			w.fsck(t)
			wantCollected(t, w, r, 0)
		})
}
