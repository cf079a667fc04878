package registry_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"deploytools/registry"
	"deploytools/registry/wire"
)

func refs(t *testing.T, layers ...string) []registry.LayerRef {
	t.Helper()
	var out []registry.LayerRef
	for _, l := range layers {
		ref, err := registry.ParseLayerRef(l)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, ref)
	}
	return out
}

func configure(t *testing.T, r *registry.Registry, name string, layers ...string) registry.Change {
	t.Helper()
	c, err := r.AddConfiguration(t.Context(), act, name, refs(t, layers...), registry.Checks{}, false)
	if err != nil {
		t.Fatalf("AddConfiguration(%s) = %v", name, err)
	}
	return c
}

func change(t *testing.T, r *registry.Registry, name string, layers ...string) registry.Change {
	t.Helper()
	c, err := r.ChangeConfiguration(t.Context(), act, name, refs(t, layers...), registry.Checks{})
	if err != nil {
		t.Fatalf("ChangeConfiguration(%s) = %v", name, err)
	}
	return c
}

func rollback(t *testing.T, r *registry.Registry, name string, to uint64) registry.Change {
	t.Helper()
	c, err := r.Rollback(t.Context(), act, name, to)
	if err != nil {
		t.Fatalf("Rollback(%s, %d) = %v", name, to, err)
	}
	return c
}

// layersOf returns the layers of the newest revision as text.
func layersOf(t *testing.T, r *registry.Registry, name string) string {
	t.Helper()
	rev, err := r.Configuration(t.Context(), name)
	if err != nil {
		t.Fatalf("Configuration(%s) = %v", name, err)
	}
	if err := rev.Check(); err != nil {
		t.Errorf("Configuration(%s): %v", name, err)
	}
	var out []string
	for _, l := range rev.Layers {
		out = append(out, l.Name+":"+l.Version)
	}
	return strings.Join(out, " ")
}

func wantLayers(t *testing.T, r *registry.Registry, name, want string) {
	t.Helper()
	if got := layersOf(t, r, name); got != want {
		t.Errorf("%s has the layers %q, want %q", name, got, want)
	}
}

// stocked is a registry with versions v1 to v3 of base, code and data.
func stocked(t *testing.T) (*world, *registry.Registry) {
	w := newWorld()
	return w, w.stock(t)
}

func (w *world) stock(t *testing.T) *registry.Registry {
	t.Helper()
	r := w.open(t)
	for _, c := range []string{"base", "code", "data"} {
		for _, v := range []string{"v1", "v2", "v3"} {
			add(t, r, c, v, c+v)
		}
	}
	return r
}

func TestLayersKeepTheirOrder(t *testing.T) { // U-08
	w, r := stocked(t)
	add(t, r, "code", "v:1", "colon")
	c := configure(t, r, "web", "data:v2", "code:v:1", "base:v3")
	if c.Old != nil || !c.Changed() || c.New.Revision != 1 || c.New.By != "ann@desk" || !c.New.Mtime.Equal(w.clock.now()) {
		t.Errorf("AddConfiguration = %+v", c)
	}
	wantLayers(t, r, "web", "data:v2 code:v:1 base:v3")
}

func TestWhatAddConfigurationRefuses(t *testing.T) {
	_, r := stocked(t)
	configure(t, r, "web", "code:v1")
	for _, test := range []struct {
		name, layers string
		kind         error
		text         string
	}{
		{"new", "", registry.ErrUsage, "configuration should have at least one layer"},
		{"new", "code:v1 code:v2", registry.ErrUsage, `duplicate component "code"`},
		{"new", "code:zz", registry.ErrNotFound, `no version "zz" for component "code" found`},
		{"a/b", "code:v1", registry.ErrUsage, "name cannot contain / symbol"},
		{"..", "code:v1", registry.ErrUsage, ""},
		{"a b", "code:v1", registry.ErrUsage, ""},
		{"web", "code:v2", registry.ErrConflict, `configuration "web" already exists`},
	} {
		_, err := r.AddConfiguration(t.Context(), act, test.name, refs(t, strings.Fields(test.layers)...), registry.Checks{}, false)
		wantKind(t, fmt.Sprintf("AddConfiguration(%q, %s)", test.name, test.layers), err, test.kind)
		if err != nil && test.text != "" && err.Error() != test.text {
			t.Errorf("AddConfiguration(%q, %s) = %q, want %q", test.name, test.layers, err, test.text)
		}
	}
	wantLayers(t, r, "web", "code:v1") // U-09
	if all, err := r.Configurations(t.Context()); len(all) != 1 || err != nil {
		t.Errorf("Configurations() = %+v, %v", all, err)
	}
	for _, bad := range []string{"", "code", ":v1", "code:"} {
		if _, err := registry.ParseLayerRef(bad); err == nil {
			t.Errorf("ParseLayerRef(%q) succeeds", bad)
		}
	}
}

func TestReplaceIsOneRevisionMore(t *testing.T) { // U-09
	_, r := stocked(t)
	configure(t, r, "web", "code:v1")
	c, err := r.AddConfiguration(t.Context(), act, "web", refs(t, "base:v1", "code:v2"), registry.Checks{}, true)
	if err != nil || c.Old == nil || c.New.Revision != 2 {
		t.Errorf("AddConfiguration with replace = %+v, %v", c, err)
	}
	wantLayers(t, r, "web", "base:v1 code:v2")
}

func TestSeveralLayersChangeInOneRevision(t *testing.T) { // U-10
	_, r := stocked(t)
	first := configure(t, r, "web", "base:v1", "code:v1", "data:v1")
	c := change(t, r, "web", "data:v3", "base:v2")
	wantLayers(t, r, "web", "base:v2 code:v1 data:v3")
	if c.New.Revision != 2 || c.New.What != "data v1 -> v3, base v1 -> v2" {
		t.Errorf("ChangeConfiguration = %+v", c.New)
	}
	back := rollback(t, r, "web", 0)
	if back.New.Digest != first.New.Digest || back.New.Hash != first.New.Hash || back.New.Revision != 3 {
		t.Errorf("Rollback = %+v, want the digest of %+v", back.New, first.New)
	}
}

func TestWhatChangeConfigurationRefuses(t *testing.T) {
	_, r := stocked(t)
	configure(t, r, "web", "code:v1")
	for _, test := range []struct {
		name, layers, text string
	}{
		{"web", "", "nothing to do"},
		{"web", "code:zz", `no version "zz" for component "code" found`},
		{"web", "data:v1", `configuration has no layer for component "data"`},
		{"web", "code:v2 code:v3", `duplicate component "code"`},
		{"nope", "code:v1", `configuration "nope" not found`},
	} {
		_, err := r.ChangeConfiguration(t.Context(), act, test.name, refs(t, strings.Fields(test.layers)...), registry.Checks{})
		if err == nil || err.Error() != test.text {
			t.Errorf("ChangeConfiguration(%s, %s) = %v, want %s", test.name, test.layers, err, test.text)
		}
	}
	wantLayers(t, r, "web", "code:v1")
}

func TestAChangeToWhatIsThereIsNoRevision(t *testing.T) {
	w, r := stocked(t)
	configure(t, r, "web", "code:v1")
	w.clock.advance(1)
	if c := change(t, r, "web", "code:v1"); c.Changed() || c.New.Revision != 1 {
		t.Errorf("ChangeConfiguration = %+v, want no change", c)
	}
	if h, err := r.History(t.Context(), "web"); len(h) != 1 || err != nil {
		t.Errorf("History = %+v, %v", h, err)
	}
}

func TestBumpTakesWhatWasAddedLast(t *testing.T) { // U-11, B-06
	_, r := stocked(t)
	configure(t, r, "web", "base:v1", "code:v1")
	add(t, r, "code", "v10", "ten")
	add(t, r, "code", "v9", "nine")
	c, err := r.BumpConfiguration(t.Context(), act, "web", []string{"code", "base"})
	if err != nil || !c.Changed() {
		t.Fatalf("BumpConfiguration = %+v, %v", c, err)
	}
	wantLayers(t, r, "web", "base:v3 code:v9")
	if c, err = r.BumpConfiguration(t.Context(), act, "web", []string{"code"}); err != nil || c.Changed() {
		t.Errorf("BumpConfiguration again = %+v, %v, want no change", c, err)
	}
	for component, text := range map[string]string{
		"zz": `no versions for component "zz" found`, "data": `configuration has no layer for component "data"`,
	} {
		if _, err := r.BumpConfiguration(t.Context(), act, "web", []string{component}); err == nil || err.Error() != text {
			t.Errorf("BumpConfiguration(%s) = %v, want %s", component, err, text)
		}
	}
}

func TestRollbackTwiceIsForward(t *testing.T) {
	_, r := stocked(t)
	configure(t, r, "web", "code:v1")
	_, err := r.Rollback(t.Context(), act, "web", 0)
	wantKind(t, "Rollback of the only revision", err, registry.ErrNotFound)
	if want := `configuration "web" has no earlier revision to go back to`; err.Error() != want {
		t.Errorf("Rollback of the only revision = %v, want %s", err, want)
	}
	change(t, r, "web", "code:v2")
	rollback(t, r, "web", 0)
	wantLayers(t, r, "web", "code:v1")
	rollback(t, r, "web", 0)
	wantLayers(t, r, "web", "code:v2")
	rollback(t, r, "web", 1)
	wantLayers(t, r, "web", "code:v1")
	if _, err := r.Rollback(t.Context(), act, "web", 99); err == nil {
		t.Error("Rollback to a revision that never was succeeds")
	}
	_, err = r.Rollback(t.Context(), act, "nope", 0)
	wantKind(t, "Rollback of nothing", err, registry.ErrNotFound)
}

func TestRollbackNeedsItsVersions(t *testing.T) {
	_, r := stocked(t)
	configure(t, r, "web", "code:v1")
	change(t, r, "web", "code:v2")
	if _, err := r.DeleteVersion(t.Context(), act, "code", "v1", true); err != nil {
		t.Fatal(err)
	}
	_, err := r.Rollback(t.Context(), act, "web", 0)
	wantKind(t, "Rollback to a deleted version", err, registry.ErrNotFound)
	add(t, r, "code", "v1", "not what it was")
	_, err = r.Rollback(t.Context(), act, "web", 0)
	wantKind(t, "Rollback to another version of the same name", err, registry.ErrConflict)
	wantLayers(t, r, "web", "code:v2")
}

func TestADeletedConfigurationComesBack(t *testing.T) {
	w, r := stocked(t)
	configure(t, r, "web", "code:v1")
	if err := deleteConfiguration(t.Context(), r, "web"); err != nil {
		t.Fatal(err)
	}
	_, err := r.Configuration(t.Context(), "web")
	wantKind(t, "Configuration", err, registry.ErrNotFound)
	if err := deleteConfiguration(t.Context(), r, "web"); err == nil || err.Error() != `"web" configuration not found` {
		t.Errorf("DeleteConfiguration again = %v", err)
	}
	if c := rollback(t, r, "web", 0); c.New.Revision != 3 {
		t.Errorf("Rollback = %+v, want revision 3", c.New)
	}
	wantLayers(t, r, "web", "code:v1")
	if err := deleteConfiguration(t.Context(), r, "web"); err != nil {
		t.Fatal(err)
	}
	if c := configure(t, r, "web", "code:v2"); c.New.Revision != 5 {
		t.Errorf("AddConfiguration = %+v, want revision 5: numbers are never used twice", c.New)
	}
	w.fsck(t)
}

// B-07: each of a thousand changes at one instant is in the history, in order.
func TestHistoryWithinOneInstant(t *testing.T) {
	_, r := stocked(t)
	configure(t, r, "web", "code:v1")
	for i := range 999 {
		change(t, r, "web", []string{"code:v2", "code:v1"}[i%2])
	}
	h, err := r.History(t.Context(), "web")
	if err != nil || len(h) != 1000 {
		t.Fatalf("History has %d revisions, %v, want 1000", len(h), err)
	}
	for i, rev := range h {
		n := uint64(1000 - i)
		want := "v1"
		if n%2 == 0 {
			want = "v2"
		}
		if rev.Revision != n || rev.Layers[0].Version != want {
			t.Fatalf("History[%d] is revision %d with %s, want %d with %s", i, rev.Revision, rev.Layers[0].Version, n, want)
		}
	}
	if _, err := r.History(t.Context(), "we"); err == nil {
		t.Error("History of a name's beginning succeeds")
	}
}

func TestConcurrentChangesLoseNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, r := stocked(t)
		configure(t, r, "web", "base:v1", "code:v1", "data:v1")
		var wg sync.WaitGroup
		for _, c := range []string{"base", "code", "data"} {
			wg.Go(func() {
				for _, v := range []string{"v2", "v3", "v1", "v3"} {
					change(t, r, "web", c+":"+v)
				}
			})
		}
		wg.Wait()
		wantLayers(t, r, "web", "base:v3 code:v3 data:v3")
		h, err := r.History(t.Context(), "web")
		if err != nil || len(h) != 13 {
			t.Errorf("History has %d revisions, %v, want 13", len(h), err)
		}
	})
}

// B-08: a layer of a new revision is a version at that moment, or the change
// fails: never does a configuration name what was deleted beside it.
func TestNoLayerDangles(t *testing.T) {
	for range 30 {
		synctest.Test(t, func(t *testing.T) {
			w, r := stocked(t)
			configure(t, r, "web", "code:v1")
			var wg sync.WaitGroup
			var changed, deleted error
			wg.Go(func() {
				_, changed = r.ChangeConfiguration(t.Context(), act, "web", refs(t, "code:v2"), registry.Checks{})
			})
			wg.Go(func() { deleted = deleteVersion(t.Context(), r, "code", "v2") })
			wg.Wait()
			if (changed == nil) == (deleted == nil) {
				t.Errorf("the change: %v, the deletion: %v; want one of them to fail", changed, deleted)
			}
			w.fsck(t)
		})
	}
}

func TestPollTellsTheNewest(t *testing.T) {
	_, r := stocked(t)
	configure(t, r, "web", "code:v1")
	c := change(t, r, "web", "code:v2")
	configure(t, r, "gone", "code:v1")
	if err := deleteConfiguration(t.Context(), r, "gone"); err != nil {
		t.Fatal(err)
	}
	got, err := r.Poll(t.Context(), registry.Caller{}, wire.PollRequest{Names: []string{"web", "gone", "never"}})
	want := []wire.PollState{{Name: "web", Revision: 2, Digest: c.New.Digest}, {Name: "gone"}, {Name: "never"}}
	if err != nil || !slices.Equal(got.Configurations, want) {
		t.Errorf("Poll = %+v, %v, want %+v", got, err, want)
	}
}
