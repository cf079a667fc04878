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

func TestScopeHolds(t *testing.T) {
	for _, test := range []struct {
		scope   registry.Scope
		in, out []string
	}{
		{scope: "", in: []string{"web", "", "x/y"}},
		{scope: "web", in: []string{"web"}, out: []string{"", "we", "webs", "aweb", "WEB"}},
		{scope: "web-*,db", in: []string{"web-", "web-1", "web-a-b", "db"}, out: []string{"web", "db1", "xweb-1", ","}},
		{scope: "*", in: []string{"web", "a.b"}, out: []string{"a/b"}},
		{scope: "?", in: []string{"a", "b"}, out: []string{"", "ab"}},
		{scope: "a*b*c", in: []string{"abc", "axxbyyc", "abbc", "abcbc"}, out: []string{"ab", "acb", "abcd"}},
		{scope: "a**", in: []string{"a", "ab"}, out: []string{"b"}},
		{scope: "web-??", in: []string{"web-01"}, out: []string{"web-1", "web-001"}},
	} {
		for _, name := range test.in {
			if !test.scope.Holds(name) {
				t.Errorf("Scope(%q).Holds(%q) = false, want true", test.scope, name)
			}
		}
		for _, name := range test.out {
			if test.scope.Holds(name) {
				t.Errorf("Scope(%q).Holds(%q) = true, want false", test.scope, name)
			}
		}
	}
}

// A pattern with many stars costs a product of two lengths, and no power of one.
func TestScopeIsNoTrap(t *testing.T) {
	scope, err := registry.ParseScope(strings.Repeat("a*", 60))
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	for range 1000 {
		if scope.Holds(strings.Repeat("a", 59) + strings.Repeat("b", 69)) {
			t.Fatal("a name with one a too few is held")
		}
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("took %v", took)
	}
}

func TestParseScopeRefusesWhatFitsNothing(t *testing.T) {
	for _, text := range []string{"web", "web-*", "*", "?", "web-*,db", "a@b.c+d_e"} {
		if got, err := registry.ParseScope(text); err != nil || got != registry.Scope(text) {
			t.Errorf("ParseScope(%q) = %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"", ",", "web,", ",web", "web, db", "!web", "web/*", "-web", "[ab]", "we\x1bb", strings.Repeat("x", 129)} {
		if got, err := registry.ParseScope(text); err == nil {
			t.Errorf("ParseScope(%q) = %q, want an error", text, got)
		}
	}
}

// In the scope, the newest revision and those of the rollback window count: an
// agent may still be fetching the one before.
func TestScopeShowsLayersOfItsConfigurations(t *testing.T) {
	w := newWorld()
	o := w.options()
	o.RollbackWindow = 2
	r := start(t, o)
	digests := map[string]digest.Digest{}
	for _, v := range []string{"v1", "v2", "v3", "db", "none"} {
		digests[v] = add(t, r, "code", v, v).Version.Digest
	}
	configure(t, r, "web", "code:v1")
	for _, v := range []string{"v2", "v3"} {
		if _, err := r.ChangeConfiguration(t.Context(), act, "web", []registry.LayerRef{{"code", v}}, registry.Checks{}); err != nil {
			t.Fatal(err)
		}
	}
	configure(t, r, "db", "code:db")
	for _, test := range []struct {
		scope registry.Scope
		want  string
	}{
		{"", "v1 v2 v3 db none"}, {"web", "v2 v3"}, {"w*,none", "v2 v3"}, {"db", "db"}, {"*", "v2 v3 db"}, {"other", ""},
	} {
		all, err := r.Layers(t.Context(), test.scope)
		if err != nil {
			t.Fatal(err)
		}
		listed := map[digest.Digest]bool{}
		for _, l := range all {
			listed[l.Digest] = true
		}
		for v, d := range digests {
			want := strings.Contains(" "+test.want+" ", " "+v+" ")
			blob, _, err := r.OpenLayer(t.Context(), test.scope, d)
			if (err == nil) != want || listed[d] != want || err != nil && !errors.Is(err, registry.ErrNotFound) {
				t.Errorf("scope %q: OpenLayer(%s) = %v, listed: %t, want it: %t", test.scope, v, err, listed[d], want)
			}
			if err == nil {
				blob.Close()
			}
		}
	}
	for scope, allowed := range map[registry.Scope]bool{"": true, "web": true, "db": false} {
		for _, err := range r.Files(t.Context(), scope, registry.Side{Name: "code:v3", Digest: digests["v3"]}) {
			if (err == nil) != allowed || err != nil && !errors.Is(err, registry.ErrDenied) {
				t.Errorf("scope %q: Files = %v", scope, err)
			}
		}
	}
	if err := deleteConfiguration(t.Context(), r, "db"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.OpenLayer(t.Context(), "db", digests["db"]); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("OpenLayer for a configuration that was deleted = %v, want not found", err)
	}
}

// What is outside is denied whether it is there or not, so that nobody learns
// which names there are.
func TestOutsideOfTheScopeIsDenied(t *testing.T) {
	r := newWorld().open(t)
	add(t, r, "code", "v1", "v1")
	add(t, r, "code", "v2", "v2")
	configure(t, r, "db", "code:v1")
	configure(t, r, "web-1", "code:v1")
	narrow := act
	narrow.Caller.Configs = "web-*"
	refs := []registry.LayerRef{{"code", "v2"}}
	for _, name := range []string{"db", "none", "web"} {
		_, add := r.AddConfiguration(t.Context(), narrow, name, refs, registry.Checks{}, true)
		_, change := r.ChangeConfiguration(t.Context(), narrow, name, refs, registry.Checks{})
		_, bump := r.BumpConfiguration(t.Context(), narrow, name, []string{"code"})
		_, back := r.Rollback(t.Context(), narrow, name, 1)
		_, remove := r.DeleteConfiguration(t.Context(), narrow, name)
		_, hold := r.Hold(t.Context(), narrow, name, "sale", time.Time{})
		_, resume := r.EndHold(t.Context(), narrow, name)
		_, poll := r.Poll(t.Context(), narrow.Caller, wire.PollRequest{Names: []string{"web-1", name}})
		for what, err := range map[string]error{
			"AddConfiguration": add, "ChangeConfiguration": change, "BumpConfiguration": bump, "Rollback": back,
			"DeleteConfiguration": remove, "Hold": hold, "EndHold": resume, "Poll": poll,
		} {
			if !errors.Is(err, registry.ErrDenied) || err.Error() != `configuration "`+name+`" is not one of your key's: configs="web-*"` {
				t.Errorf("%s(%s) = %v, want it denied", what, name, err)
			}
		}
	}
	if rev, err := r.Configuration(t.Context(), "db"); err != nil || rev.Revision != 1 {
		t.Errorf("db has changed: %+v, %v", rev, err)
	}
	if _, err := r.ChangeConfiguration(t.Context(), narrow, "web-1", refs, registry.Checks{}); err != nil {
		t.Errorf("ChangeConfiguration in the scope = %v", err)
	}
	if _, err := r.AddConfiguration(t.Context(), narrow, "web-2", refs, registry.Checks{}, false); err != nil {
		t.Errorf("AddConfiguration in the scope = %v", err)
	}
	if got, err := r.Poll(t.Context(), narrow.Caller, wire.PollRequest{Names: []string{"web-1"}}); err != nil || got.Configurations[0].Revision != 2 {
		t.Errorf("Poll in the scope = %+v, %v", got, err)
	}
}

func TestRightsAreNotNames(t *testing.T) {
	c := registry.Caller{User: "a", Role: registry.Operator, Configs: "web", Host: "h", Fingerprint: "SHA256:x", Comment: "c", Label: "l", Remote: "1.2.3.4"}
	same := c
	same.User, same.Comment, same.Label, same.Remote = "", "", "", ""
	if !c.SameRights(same) {
		t.Error("names change rights")
	}
	for _, change := range []func(*registry.Caller){
		func(c *registry.Caller) { c.Role = registry.Admin }, func(c *registry.Caller) { c.Configs = "" }, func(c *registry.Caller) { c.Host = "other" }, func(c *registry.Caller) { c.Fingerprint = "" },
	} {
		other := c
		change(&other)
		if c.SameRights(other) {
			t.Errorf("SameRights(%+v) = true", other)
		}
	}
}

func TestParseRole(t *testing.T) {
	for _, want := range []registry.Role{registry.Viewer, registry.Publisher, registry.Operator, registry.Admin, registry.Agent} {
		if got, err := registry.ParseRole(want.String()); got != want || err != nil {
			t.Errorf("ParseRole(%s) = %v, %v", want, got, err)
		}
	}
	for _, name := range []string{"", "Admin", "root", "role(0)", "-1"} {
		if got, err := registry.ParseRole(name); got != registry.NoRole || err == nil {
			t.Errorf("ParseRole(%q) = %v, %v, want an error", name, got, err)
		}
	}
}
