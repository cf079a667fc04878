package registry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"deploytools/layers/digest"
	"deploytools/layers/manifest"
	"deploytools/registry"
	"deploytools/registry/enginetest"
)

// caller is who does things in these tests.
var caller = registry.Caller{User: "ann", Role: registry.Admin, Fingerprint: "SHA256:ann", Comment: "ann@desk"}

// act is what they do.
var act = registry.Act{Caller: caller, Command: []string{"test"}}

func addVersion(ctx context.Context, r *registry.Registry, component, version string, d digest.Digest) (registry.Added, error) {
	return r.AddVersion(ctx, act, registry.NewVersion{Component: component, Version: version, Digest: d}, nil)
}

func deleteVersion(ctx context.Context, r *registry.Registry, component, version string) error {
	_, err := r.DeleteVersion(ctx, act, component, version, false)
	return err
}

func deleteComponent(ctx context.Context, r *registry.Registry, component string) error {
	_, err := r.DeleteComponent(ctx, act, component)
	return err
}

func deleteConfiguration(ctx context.Context, r *registry.Registry, name string) error {
	_, err := r.DeleteConfiguration(ctx, act, name)
	return err
}

// world is what survives a registry: its engines, and the time.
type world struct {
	meta  registry.Meta
	blobs registry.Blobs
	spool registry.Spool
	files *atomic.Int64 // uploads that are open
	clock *clock
}

// clock is the time of a world. Checks of uploads may read it at any time.
type clock struct {
	mu sync.Mutex // guards t
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) set(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = t
}

func (c *clock) advance(d time.Duration) { c.set(c.now().Add(d)) }

func newWorld() *world {
	blobs, spool := enginetest.NewBlobs()
	w := &world{meta: enginetest.NewMeta(enginetest.MetaOptions{Rerun: 2}), blobs: blobs, files: new(atomic.Int64)}
	w.spool = counting{spool, w.files}
	w.clock = &clock{t: time.Date(2026, 11, 21, 20, 0, 0, 0, time.UTC)}
	return w
}

// copying is a world whose blobs cannot adopt uploads.
func copying() *world {
	w := newWorld()
	blobs, spool := enginetest.NewCopyingBlobs()
	w.blobs, w.spool = blobs, counting{spool, w.files}
	return w
}

// options are those of a registry over the engines of w.
func (w *world) options() registry.Options {
	return registry.Options{Meta: w.meta, Blobs: w.blobs, Spool: w.spool, Check: check, Now: w.clock.now}
}

// open starts a registry, which ends with the test.
func (w *world) open(t *testing.T) *registry.Registry { return start(t, w.options()) }

func start(t *testing.T, o registry.Options) *registry.Registry {
	t.Helper()
	r := registry.New(o)
	t.Cleanup(r.Close)
	return r
}

// check takes everything that does not begin with "bad" for a layer of one
// file.
func check(ctx context.Context, r io.Reader, _ func(int64) error) (registry.Archive, error) {
	b, err := io.ReadAll(r)
	a := registry.Archive{
		Size: int64(len(b)), Unpacked: int64(len(b)), Entries: 1,
		Manifest: manifest.Manifest{{Path: "f", Type: manifest.File, Size: int64(len(b)), Digest: digest.Of(b)}}.All(),
	}
	if err == nil && bytes.HasPrefix(b, []byte("bad")) {
		err = fmt.Errorf("begins with bad: %w", registry.ErrRefused)
	}
	return a, err
}

// counting counts the uploads that are open.
type counting struct {
	registry.Spool
	files *atomic.Int64
}

type countedUpload struct {
	registry.Upload
	files *atomic.Int64
}

func (c counting) Create(ctx context.Context, name string) (registry.Upload, error) {
	u, err := c.Spool.Create(ctx, name)
	return c.count(u, err)
}

func (c counting) Resume(ctx context.Context, name string) (registry.Upload, error) {
	u, err := c.Spool.Resume(ctx, name)
	return c.count(u, err)
}

func (c counting) count(u registry.Upload, err error) (registry.Upload, error) {
	if err != nil {
		return nil, err
	}
	c.files.Add(1)
	return countedUpload{u, c.files}, nil
}

func (u countedUpload) Close() error {
	u.files.Add(-1)
	return u.Upload.Close()
}

// wantClosed expects that no upload is open.
func (w *world) wantClosed(t *testing.T) {
	t.Helper()
	if n := w.files.Load(); n != 0 {
		t.Errorf("%d uploads are open, want 0", n)
	}
}

// wantSpooled expects n uploads in the spool.
func (w *world) wantSpooled(t *testing.T, n int) {
	t.Helper()
	var have []registry.UploadInfo
	for u, err := range w.spool.List(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		have = append(have, u)
	}
	if len(have) != n {
		t.Errorf("the spool holds %v, want %d uploads", have, n)
	}
}

// receive begins an upload and writes content to it.
func receive(t *testing.T, r *registry.Registry, path, content string) *registry.Incoming {
	t.Helper()
	in, err := r.Receive(t.Context(), caller, path)
	if err != nil {
		t.Fatalf("Receive = %v", err)
	}
	write(t, in, content, 0)
	return in
}

func write(t *testing.T, in *registry.Incoming, content string, off int64) {
	t.Helper()
	if n, err := in.WriteAt([]byte(content), off); n != len(content) || err != nil {
		t.Fatalf("WriteAt(%d) = %d, %v", off, n, err)
	}
}

func finish(t *testing.T, in *registry.Incoming) registry.UploadState {
	t.Helper()
	u, err := in.Finish(t.Context())
	if err != nil {
		t.Fatalf("Finish = %v", err)
	}
	return u
}

// upload stores content as an upload.
func upload(t *testing.T, r *registry.Registry, content string) registry.UploadState {
	t.Helper()
	return finish(t, receive(t, r, "/"+content, content))
}

// verdict waits for the verdict on u.
func verdict(t *testing.T, r *registry.Registry, u registry.UploadState) registry.UploadState {
	t.Helper()
	got, err := r.Verdict(t.Context(), u.ID, nil)
	if err != nil {
		t.Fatalf("Verdict = %v", err)
	}
	return got
}

// addver makes a version of content that is uploaded.
func addver(t *testing.T, r *registry.Registry, component, version, content string) registry.Added {
	t.Helper()
	a, err := addVersion(t.Context(), r, component, version, digest.Of([]byte(content)))
	if err != nil {
		t.Fatalf("AddVersion(%s:%s) = %v", component, version, err)
	}
	return a
}

// add uploads content and makes a version of it.
func add(t *testing.T, r *registry.Registry, component, version, content string) registry.Added {
	t.Helper()
	upload(t, r, content)
	return addver(t, r, component, version, content)
}

func wantKind(t *testing.T, what string, err, kind error) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("%s = %v, want %v", what, err, kind)
	}
}

// fsck expects that what the engines hold is whole: every version has its
// blobs, every blob is referenced or doomed, and every layer of the newest
// revisions is a version.
func (w *world) fsck(t *testing.T) {
	t.Helper()
	w.wantSound(t)
	keys := map[string]string{}
	err := w.meta.View(t.Context(), func(tx registry.Tx) error {
		for k, v := range tx.Scan("") {
			keys[k] = string(v)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("fsck: %v", err)
	}
	blobs := map[string]bool{}
	for b, err := range w.blobs.List(t.Context()) {
		if err != nil {
			t.Fatalf("fsck: %v", err)
		}
		blobs[b.Digest.String()] = true
	}
	if s := verify(t, w.open(t)); s.Broken != 0 {
		t.Errorf("fsck: audit log: %+v", s)
	}
	recorded := map[string]bool{}
	for _, e := range audit(t, w.open(t), registry.AuditFilter{}) {
		result, _, _ := strings.Cut(e.Result, ", removed ")
		recorded[e.Name+" "+result] = true
	}
	has := func(prefix string) bool {
		for k := range keys {
			if strings.HasPrefix(k, prefix) {
				return true
			}
		}
		return false
	}
	for d := range blobs {
		if !has("ref/"+d+"/") && !has("doomed/"+d) {
			t.Errorf("fsck: nothing knows the blob %s", d)
		}
	}
	for k, text := range keys {
		group, rest, _ := strings.Cut(k, "/")
		switch group {
		case "version":
			var v registry.Version
			if err := json.Unmarshal([]byte(text), &v); err != nil {
				t.Fatalf("fsck: %s: %v", k, err)
			}
			for _, d := range []digest.Digest{v.Digest, v.Manifest} {
				if d.IsZero() { // imported, and no layer
					continue
				}
				if !blobs[d.String()] || !has("ref/"+d.String()+"/"+rest) {
					t.Errorf("fsck: version %s lacks %s", rest, d)
				}
			}
			if v.By != "imported" && !recorded[fmt.Sprintf("%s added version %s, %s", v.Component, v.Version, v.Digest)] {
				t.Errorf("fsck: version %s is not on record", rest)
			}
			if order := fmt.Sprintf("order/%s/%016x", v.Component, v.Seq); keys[order] == "" {
				t.Errorf("fsck: version %s lacks %s", rest, order)
			}
		case "blob":
			if !blobs[rest] {
				t.Errorf("fsck: %s is recorded and not stored", k)
			}
		case "ref":
			if _, version, _ := strings.Cut(rest, "/"); keys["version/"+version] == "" {
				t.Errorf("fsck: %s refers to no version", k)
			}
		case "config":
			var rev registry.Revision
			if err := json.Unmarshal([]byte(text), &rev); err != nil {
				t.Fatalf("fsck: %s: %v", k, err)
			}
			if rev.By != "imported" && !recorded[fmt.Sprintf("%s revision %d: %s", rev.Name, rev.Revision, rev.What)] {
				t.Errorf("fsck: revision %d of %s is not on record", rev.Revision, rev.Name)
			}
			for _, l := range rev.Layers {
				if !rev.Deleted && !strings.Contains(keys["version/"+l.Name+"/"+l.Version], l.Hash.String()) {
					t.Errorf("fsck: %s has the layer %s:%s, which is no version", k, l.Name, l.Version)
				}
			}
		}
	}
}

// wantSound expects that Fsck, reading everything, finds nothing.
func (w *world) wantSound(t *testing.T) {
	t.Helper()
	r := registry.New(w.options())
	defer r.Close()
	got, err := r.Fsck(t.Context(), registry.FsckOptions{ReadData: true})
	if err != nil || len(got.Faults) > 0 {
		t.Errorf("Fsck = %+v, %v, want no faults", got.Faults, err)
	}
}

// broken is a Meta that a failed write has made read-only.
type broken struct{ registry.Meta }

func (broken) Update(context.Context, func(registry.Tx) error) error { return registry.ErrReadOnly }

func TestStoringTellsReadOnlyStorage(t *testing.T) {
	meta := enginetest.NewMeta(enginetest.MetaOptions{})
	blobs, spool := enginetest.NewBlobs()
	o := registry.Options{Meta: meta, Blobs: blobs, Spool: spool, Check: check}
	r := registry.New(o)
	defer r.Close()
	if err := r.Storing(t.Context()); err != nil {
		t.Errorf("Storing = %v", err)
	}
	o.Meta = broken{meta}
	r = registry.New(o)
	defer r.Close()
	if err := r.Storing(t.Context()); !errors.Is(err, registry.ErrReadOnly) {
		t.Errorf("Storing with read-only storage = %v, want ErrReadOnly", err)
	}
}
