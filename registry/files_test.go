package registry_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"deploytools/layers/digest"
	"deploytools/layers/manifest"
	"deploytools/registry"
)

func filesOf(t *testing.T, r *registry.Registry, d digest.Digest) (manifest.Manifest, error) {
	t.Helper()
	var out manifest.Manifest
	for e, err := range r.Files(t.Context(), "", registry.Side{Name: "code:v1", Digest: d}) {
		if err != nil {
			return out, err
		}
		out = append(out, e)
	}
	return out, nil
}

// The manifest lives as long as its layer: a version that shares it keeps it.
func TestFilesLiveAsLongAsTheLayer(t *testing.T) {
	w := newWorld()
	r := w.open(t)
	d := add(t, r, "code", "v1", "content").Version.Digest
	if _, err := addVersion(t.Context(), r, "code", "v2", d); err != nil {
		t.Fatal(err)
	}
	for _, version := range []string{"v1", "v2"} {
		m, err := filesOf(t, r, d)
		if err != nil || len(m) != 1 || m[0].Path != "f" || m[0].Digest != d {
			t.Errorf("Files = %+v, %v", m, err)
		}
		if err := deleteVersion(t.Context(), r, "code", version); err != nil {
			t.Fatal(err)
		}
		w.clock.advance(25 * time.Hour)
		if _, err := r.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	_, err := filesOf(t, r, d)
	wantKind(t, "Files of what was collected", err, registry.ErrNotFound)
	for _, err := range r.DiffFiles(t.Context(), "", registry.Side{}, registry.Side{Name: "code:v1", Digest: d}) {
		wantKind(t, "DiffFiles of what was collected", err, registry.ErrNotFound)
	}
}

// forged are blobs one of which is not what its digest says.
type forged struct {
	registry.Blobs
	d    digest.Digest
	text string
}

type forgedBlob struct{ *strings.Reader }

func (forgedBlob) Close() error { return nil }

func (f forged) Open(ctx context.Context, d digest.Digest) (registry.Blob, error) {
	if d == f.d {
		return forgedBlob{strings.NewReader(f.text)}, nil
	}
	return f.Blobs.Open(ctx, d)
}

func TestADamagedManifestIsTold(t *testing.T) {
	w := newWorld()
	v := add(t, w.open(t), "code", "v1", "content").Version
	o := w.options()
	for name, text := range map[string]string{
		"cut off": "", "no manifest": "x", "another one": manifest.Header + "\n", "cut in a line": manifest.Header + "\nd 0755 0 0",
	} {
		o.Blobs = forged{w.blobs, v.Manifest, text}
		_, err := filesOf(t, start(t, o), v.Digest)
		if err == nil || !strings.HasPrefix(err.Error(), "cannot read the manifest of code:v1: ") {
			t.Errorf("%s: Files = %v", name, err)
		}
		if name == "another one" && !errors.Is(err, digest.ErrMismatch) {
			t.Errorf("%s: Files = %v, want ErrMismatch", name, err)
		}
	}
}
