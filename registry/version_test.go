package registry_test

import (
	"context"
	"fmt"
	"io"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"deploytools/layers/digest"
	"deploytools/registry"
)

func wantVersions(t *testing.T, r *registry.Registry, component string, want ...string) {
	t.Helper()
	versions, err := r.Versions(t.Context(), component)
	if err != nil {
		t.Fatalf("Versions(%s) = %v", component, err)
	}
	var got []string
	for _, v := range versions {
		got = append(got, v.Version)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("Versions(%s) = %v, want %v", component, got, want)
	}
}

func TestAVersionOfAnUpload(t *testing.T) {
	w := newWorld()
	r := w.open(t)
	got := add(t, r, "code", "v:1~rc", "content").Version
	want := registry.Version{
		Component: "code", Version: "v:1~rc", Digest: digest.Of([]byte("content")), Size: 7, Unpacked: 7, Entries: 1,
		Manifest: got.Manifest, Seq: 2, // the upload had 1
		Added: w.clock.now(), By: "ann@desk",
	}
	if !reflect.DeepEqual(got, want) || got.Manifest.IsZero() {
		t.Errorf("AddVersion = %+v, want %+v", got, want)
	}
	blob, info, err := r.OpenLayer(t.Context(), "", got.Digest)
	if err != nil {
		t.Fatalf("OpenLayer = %v", err)
	}
	defer blob.Close()
	b, err := io.ReadAll(io.NewSectionReader(blob, 0, blob.Size()))
	if string(b) != "content" || err != nil || info.Size != 7 || !info.Time.Equal(w.clock.now()) {
		t.Errorf("OpenLayer has %q, %v, %+v", b, err, info)
	}
	if _, _, err := r.OpenLayer(t.Context(), "", got.Manifest); err == nil {
		t.Error("OpenLayer opens a manifest")
	}
	w.wantSpooled(t, 0)
	w.wantClosed(t)
	w.fsck(t)
}

// U-06, B-01: content that is stored already makes versions without an upload.
func TestContentThatIsStoredNeedsNoUpload(t *testing.T) {
	for name, w := range map[string]*world{"adopting": newWorld(), "copying": copying()} {
		r := w.open(t)
		add(t, r, "code", "v1", "content")
		addver(t, r, "code", "v2", "content")
		addver(t, r, "other", "v1", "content")
		n := 0
		for range w.blobs.List(t.Context()) {
			n++
		}
		if n != 2 {
			t.Errorf("%s: %d blobs, want the layer and its manifest", name, n)
		}
		w.fsck(t)
	}
}

// U-07: names are for ever.
func TestVersionsNeverChange(t *testing.T) {
	w := newWorld()
	r := w.open(t)
	first := add(t, r, "code", "v1", "content")
	if again := addver(t, r, "code", "v1", "content"); !again.Existed || !reflect.DeepEqual(again.Version, first.Version) {
		t.Errorf("AddVersion with the same content = %+v, want the first version", again)
	}
	upload(t, r, "content")
	if again := addver(t, r, "code", "v1", "content"); !again.Existed {
		t.Errorf("AddVersion after another upload = %+v", again)
	}
	w.wantSpooled(t, 0)
	other := upload(t, r, "other content")
	_, err := addVersion(t.Context(), r, "code", "v1", other.Digest)
	wantKind(t, "AddVersion with other content", err, registry.ErrConflict)
	if err == nil || err.Error() != `version "v1" already exists` {
		t.Errorf("AddVersion with other content = %v", err)
	}
	wantVersions(t, r, "code", "v1")
	// B-02: the refusal has used nothing up.
	addver(t, r, "code", "v2", "other content")
	w.fsck(t)
	w.wantSpooled(t, 0)
}

func TestWhatAddVersionRefuses(t *testing.T) {
	r := newWorld().open(t)
	for _, test := range []struct {
		component, version string
		kind               error
		text               string
	}{
		{"", "v1", registry.ErrUsage, "name, version and hash should all be set"},
		{"code", "", registry.ErrUsage, "name, version and hash should all be set"},
		{"a:b", "v1", registry.ErrUsage, "name cannot contain : symbol"},
		{"..", "v1", registry.ErrUsage, ""},
		{"code", "v\n1", registry.ErrUsage, ""},
		{"code", "v/1", registry.ErrUsage, ""},
		{"code", "v1", registry.ErrNotFound, "no uploaded file with given hash found"},
	} {
		_, err := addVersion(t.Context(), r, test.component, test.version, digest.Of([]byte("x")))
		wantKind(t, fmt.Sprintf("AddVersion(%q, %q)", test.component, test.version), err, test.kind)
		if err != nil && test.text != "" && err.Error() != test.text {
			t.Errorf("AddVersion(%q, %q) = %q, want %q", test.component, test.version, err, test.text)
		}
	}
}

// B-03: equal content from two sides at once.
func TestEqualContentFromManyAtOnce(t *testing.T) {
	for name, make := range map[string]func() *world{"adopting": newWorld, "copying": copying} {
		for range 20 {
			synctest.Test(t, func(t *testing.T) {
				w := make()
				r := w.open(t)
				var wg sync.WaitGroup
				for i := range 6 {
					wg.Go(func() {
						in, err := r.Receive(t.Context(), caller, "/x")
						if err == nil {
							_, err = in.WriteAt([]byte("content"), 0)
						}
						var u registry.UploadState
						if err == nil {
							u, err = in.Finish(t.Context())
						}
						if err == nil {
							_, err = addVersion(t.Context(), r, "code", fmt.Sprint("v", i), u.Digest)
						}
						if err != nil {
							t.Errorf("%s: job %d: %v", name, i, err)
						}
					})
				}
				wg.Wait()
				if versions, err := r.Versions(t.Context(), "code"); len(versions) != 6 || err != nil {
					t.Errorf("%s: Versions = %+v, %v", name, versions, err)
				}
				synctest.Wait()
				w.wantClosed(t)
				w.fsck(t)
			})
		}
	}
}

// B-06: the order is that of adding, at one instant of a clock that stands
// still, whatever the names are.
func TestOrderWithinOneInstant(t *testing.T) {
	r := newWorld().open(t)
	var want []string
	for i := range 20 {
		v := fmt.Sprint("v", (i*7+9)%20)
		add(t, r, "code", v, v)
		want = append(want, v)
	}
	wantVersions(t, r, "code", want...)
}

func TestVersionsInUseAreKept(t *testing.T) {
	w := newWorld()
	r := w.open(t)
	add(t, r, "code", "v1", "one")
	add(t, r, "code", "v2", "two")
	configure(t, r, "web", "code:v1")
	err := deleteVersion(t.Context(), r, "code", "v1")
	wantKind(t, "DeleteVersion", err, registry.ErrConflict)
	if err == nil || err.Error() != `version is used by configuration "web"` {
		t.Errorf("DeleteVersion = %v", err)
	}
	err = deleteComponent(t.Context(), r, "code")
	wantKind(t, "DeleteComponent", err, registry.ErrConflict)
	wantVersions(t, r, "code", "v1", "v2")
	if err := deleteVersion(t.Context(), r, "code", "v2"); err != nil {
		t.Errorf("DeleteVersion = %v", err)
	}
	wantVersions(t, r, "code", "v1")
	for err, text := range map[error]string{
		deleteVersion(t.Context(), r, "code", "zz"): `no version "zz" for component "code" found`,
		deleteComponent(t.Context(), r, "zzz"):      `no component "zzz" found`,
	} {
		if err == nil || err.Error() != text {
			t.Errorf("%v, want %s", err, text)
		}
	}
	w.fsck(t)
}

func TestUnknownComponentIsAnError(t *testing.T) { // U-13
	r := newWorld().open(t)
	_, err := r.Versions(t.Context(), "zzz")
	wantKind(t, "Versions", err, registry.ErrNotFound)
	if err == nil || err.Error() != `"zzz" component not found` {
		t.Errorf("Versions = %v", err)
	}
}

func TestComponentsAreNamedOnce(t *testing.T) {
	r := newWorld().open(t)
	for _, v := range []string{"b:v1", "a:v2", "a:v1", "a.b:v1"} {
		component, version, _ := strings.Cut(v, ":")
		add(t, r, component, version, v)
	}
	got, err := r.Components(t.Context())
	if err != nil || fmt.Sprint(len(got)) != "3" {
		t.Errorf("Components() = %v, %v, want a, a.b and b", got, err)
	}
}

// A component with more versions than fit into one Update goes as a whole.
func TestDeleteComponentWithManyVersions(t *testing.T) {
	w := newWorld()
	r := w.open(t)
	for i := range 40 {
		add(t, r, "code", fmt.Sprint("v", i), fmt.Sprint("content ", i))
	}
	add(t, r, "codec", "v1", "kept")
	if err := deleteComponent(t.Context(), r, "code"); err != nil {
		t.Fatalf("DeleteComponent = %v", err)
	}
	if got, err := r.Components(t.Context()); len(got) != 1 || err != nil {
		t.Errorf("Components() = %v, %v, want codec", got, err)
	}
	wantCollected(t, w, r, 2)
}

func TestTrimKeepsWhatARollbackNeeds(t *testing.T) {
	w := newWorld()
	o := w.options()
	o.MaxVersions, o.RollbackWindow = 2, 3
	r := start(t, o)
	add(t, r, "code", "v0", "0")
	configure(t, r, "web", "code:v0")
	for i := 1; i <= 5; i++ {
		v := fmt.Sprint("v", i)
		add(t, r, "code", v, v)
		change(t, r, "web", "code:"+v)
	}
	// The newest three revisions have v3, v4 and v5; adding v5 was the last trim,
	// when they were v2, v3 and v4.
	wantVersions(t, r, "code", "v2", "v3", "v4", "v5")
	got := add(t, r, "code", "v6", "6")
	if fmt.Sprint(got.Trimmed) != "[v2]" {
		t.Errorf("Trimmed = %v, want v2", got.Trimmed)
	}
	wantVersions(t, r, "code", "v3", "v4", "v5", "v6")
	for _, to := range []uint64{5, 4} {
		if _, err := r.Rollback(t.Context(), act, "web", to); err != nil {
			t.Errorf("Rollback to %d = %v", to, err)
		}
	}
	w.fsck(t)
}

func TestTrimOfManyGoesOnWithTheNextVersion(t *testing.T) {
	w := newWorld()
	r := w.open(t)
	for i := range 40 {
		add(t, r, "code", fmt.Sprint("v", i), fmt.Sprint(i))
	}
	o := w.options()
	o.MaxVersions = 3
	r = start(t, o)
	for i := 40; i < 45; i++ {
		add(t, r, "code", fmt.Sprint("v", i), fmt.Sprint(i))
	}
	wantVersions(t, r, "code", "v42", "v43", "v44")
	w.fsck(t)
}

// A version deleted while its twin is added: the content stays with the twin.
func TestAddAndDeleteOfOneContentAtOnce(t *testing.T) {
	for range 30 {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			r := w.open(t)
			add(t, r, "code", "v1", "content")
			var wg sync.WaitGroup
			wg.Go(func() {
				if err := deleteVersion(t.Context(), r, "code", "v1"); err != nil {
					t.Error(err)
				}
			})
			wg.Go(func() { addver(t, r, "code", "v2", "content") })
			wg.Wait()
			wantVersions(t, r, "code", "v2")
			wantCollected(t, w, r, 2)
		})
	}
}

func TestTheSequenceOutlivesARestart(t *testing.T) {
	w := newWorld()
	add(t, w.open(t), "code", "v2", "two")
	r := w.open(t)
	add(t, r, "code", "v1", "one")
	wantVersions(t, r, "code", "v2", "v1")
}

func TestAddVersionStopsWaitingWhenItsCallerDoes(t *testing.T) {
	w := newWorld()
	r := w.open(t)
	u := upload(t, r, "content")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := addVersion(ctx, r, "code", "v1", u.Digest); err == nil {
		t.Error("AddVersion with a cancelled context succeeds")
	}
	addver(t, r, "code", "v1", "content")
}
