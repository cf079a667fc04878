package registry_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"deploytools/layers/digest"
	"deploytools/registry"
	"deploytools/registry/wire"
)

var longAgo = time.Date(2017, 3, 1, 11, 0, 0, 0, time.UTC)

// oldVersion is a version of an upstream database; n orders it.
func oldVersion(component, version, content string, n int) registry.UpstreamVersion {
	return registry.UpstreamVersion{Component: component, Version: version, Hash: digest.Of([]byte(content)), Ctime: longAgo.Add(time.Duration(n) * time.Millisecond)}
}

func oldState(name string, n int, versions ...registry.UpstreamVersion) registry.UpstreamState {
	s := registry.UpstreamState{Name: name, Mtime: longAgo.Add(time.Duration(n) * time.Minute)}
	for _, v := range versions {
		s.Layers = append(s.Layers, wire.Layer{Name: v.Component, Version: v.Version, File: wire.FileName(v.Hash), Hash: v.Hash, Ctime: v.Ctime})
	}
	s.Hash = wire.ContentHash(s.Layers)
	return s
}

// old is a small upstream registry: one layer is missing, one damaged, and one
// no archive.
func (w *world) old(t *testing.T) registry.Upstream {
	t.Helper()
	for _, content := range []string{"one", "two", "conf", "bad archive", "nobody's"} {
		if err := w.blobs.Put(t.Context(), digest.Of([]byte(content)), strings.NewReader(content)); err != nil {
			t.Fatal(err)
		}
	}
	damaged := oldVersion("code", "v3", "three", 3)
	w.blobs.Put(t.Context(), damaged.Hash, strings.NewReader("three"))
	w.spoil(t, damaged.Hash)
	v1, v2, c1 := oldVersion("code", "v9", "one", 1), oldVersion("code", "v10", "two", 2), oldVersion("config", "v1", "conf", 0)
	return registry.Upstream{
		Versions: []registry.UpstreamVersion{v2, v1, c1, damaged, oldVersion("code", "v4", "four", 4), oldVersion("junk", "v1", "bad archive", 5)},
		Configurations: []registry.UpstreamConfiguration{
			{Name: "web", States: []registry.UpstreamState{oldState("web", 1, v1, c1), oldState("web", 2, v2, c1)}},
			{Name: "gone", States: []registry.UpstreamState{oldState("gone", 1, v1)}, Deleted: true},
		},
	}
}

func (w *world) importOld(t *testing.T, up registry.Upstream) registry.Imported {
	t.Helper()
	got, err := registry.Import(t.Context(), up, registry.ImportOptions{Blobs: w.blobs, Check: check, Now: w.clock.now})
	if err != nil {
		t.Fatalf("Import = %v", err)
	}
	for key, value := range got.Records {
		text := string(value)
		w.set(t, key, &text)
	}
	return got
}

func TestImportTakesEverythingOver(t *testing.T) {
	w := newWorld()
	got := w.importOld(t, w.old(t))
	if got.Versions != 6 || got.Configurations != 1 || got.Revisions != 4 || got.Layers != 3 {
		t.Errorf("Import = %+v", got)
	}
	kinds := map[string]registry.FaultKind{}
	for _, f := range got.Faults {
		for _, name := range []string{"code:v3", "code:v4", "junk:v1"} {
			if strings.Contains(f.Text, name) {
				kinds[name] = f.Kind
			}
		}
	}
	if len(got.Faults) != 3 || kinds["code:v3"] != registry.DamagedFault || kinds["code:v4"] != registry.MissingFault || kinds["junk:v1"] != registry.DamagedFault {
		t.Errorf("Import found %+v", got.Faults)
	}
	r := w.open(t)
	var names []string
	versions, err := r.Versions(t.Context(), "code")
	for _, v := range versions {
		names = append(names, v.Version)
	}
	if want := "v9 v10 v3 v4"; err != nil || strings.Join(names, " ") != want {
		t.Errorf("versions %q, %v, want %s", names, err, want)
	}
	history, err := r.History(t.Context(), "web")
	if err != nil || len(history) != 2 || history[0].What != "code v9 -> v10" || !history[1].Mtime.Equal(longAgo.Add(time.Minute)) {
		t.Errorf("history %+v, %v", history, err)
	}
	if _, err := r.Rollback(t.Context(), act, "web", 1); err != nil {
		t.Errorf("Rollback = %v", err)
	}
	if _, err := r.Rollback(t.Context(), act, "gone", 1); err != nil {
		t.Errorf("Rollback of a deleted configuration = %v", err)
	}
	if a := addver(t, r, "code", "v11", "one"); a.Version.Manifest.IsZero() {
		t.Errorf("a version of imported content has no manifest: %+v", a)
	}
	_, _, err = r.OpenLayer(t.Context(), "", digest.Of([]byte("three")))
	wantKind(t, "OpenLayer of damaged content", err, registry.ErrDamaged)
	if b, _, err := r.OpenLayer(t.Context(), "", digest.Of([]byte("bad archive"))); err != nil {
		t.Errorf("OpenLayer of what upstream served = %v", err)
	} else {
		b.Close()
	}
}

// TestWhatAnImportLackedIsMended by uploading it again, and what nobody needs is
// collected.
func TestWhatAnImportLackedIsMended(t *testing.T) {
	w := newWorld()
	w.importOld(t, w.old(t))
	r := w.open(t)
	for version, content := range map[string]string{"v3": "three", "v4": "four"} {
		add(t, r, "code", version, content)
	}
	if got := w.faults(t, true); len(got) != 1 || got[0].Kind != registry.UnreferencedFault {
		t.Errorf("Fsck = %+v, want nobody's blob", got)
	}
	collect(t, r, registry.CollectOptions{})
	w.fsck(t)
	w.clock.advance(48 * time.Hour)
	collect(t, r, registry.CollectOptions{})
	versions, _ := r.Versions(t.Context(), "code")
	for _, v := range versions {
		if v.Manifest.IsZero() {
			t.Errorf("version %s has no manifest", v.Version)
		}
		if b, _, err := r.OpenLayer(t.Context(), "", v.Digest); err != nil {
			t.Errorf("version %s: %v", v.Version, err)
		} else {
			b.Close()
		}
	}
	if b, err := w.blobs.Open(t.Context(), digest.Of([]byte("nobody's"))); err == nil {
		b.Close()
		t.Error("nobody's blob is still there")
	}
	w.fsck(t)
}

func TestADryRunOfAnImportStoresNothing(t *testing.T) {
	w := newWorld()
	up := w.old(t)
	before, want := 0, registry.Imported{}
	for range w.blobs.List(t.Context()) {
		before++
	}
	dry, err := registry.Import(t.Context(), up, registry.ImportOptions{Blobs: w.blobs, Check: check, DryRun: true})
	for range w.blobs.List(t.Context()) {
		before--
	}
	want = w.importOld(t, up)
	if err != nil || before != 0 || len(dry.Records) != len(want.Records) || len(dry.Faults) != len(want.Faults) {
		t.Errorf("a dry run of Import = %+v, %v, and stored %d blobs; the import = %+v", dry, err, -before, want)
	}
}

// What our names cannot hold stops an import (B-24), and -skip passes over it
// alone.
func TestWhatCannotBeImportedIsNamedOrPassedOver(t *testing.T) {
	w := newWorld()
	up := w.old(t)
	bad := oldVersion("my code", "v1", "one", 9)
	up.Versions = append(up.Versions, bad)
	up.Configurations = append(up.Configurations, registry.UpstreamConfiguration{Name: "..", States: []registry.UpstreamState{oldState("..", 1, bad)}})
	up.Unreadable = []string{"configuration \"x\": nonsense"}
	_, err := registry.Import(t.Context(), up, registry.ImportOptions{Blobs: w.blobs, Check: check})
	if !errors.Is(err, registry.ErrConflict) {
		t.Fatalf("Import = %v, want ErrConflict", err)
	}
	for _, want := range []string{`"my code"`, `".."`, "nonsense"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("Import = %v, and does not name %s", err, want)
		}
	}
	rest, left := registry.Importable(up)
	if len(left) != 3 {
		t.Errorf("Importable leaves %q, want three things", left)
	}
	if got := w.importOld(t, rest); got.Versions != 6 || got.Configurations != 1 {
		t.Errorf("Import of the rest = %+v", got)
	}
}

// A configuration whose version is not there (B-08) is named.
func TestImportNamesDanglingLayers(t *testing.T) {
	w := newWorld()
	up := w.old(t)
	up.Configurations[0].States = append(up.Configurations[0].States, oldState("web", 3, oldVersion("code", "v77", "one", 1)))
	got := w.importOld(t, up)
	found := false
	for _, f := range got.Faults {
		found = found || strings.Contains(f.Text, "code:v77")
	}
	if !found {
		t.Errorf("Import = %+v, want code:v77 named", got.Faults)
	}
}
