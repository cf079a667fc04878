package registry_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"deploytools/registry"
	"deploytools/verify/spec"
)

// checksOf returns the checks that travel with the newest revision.
func checksOf(t *testing.T, r *registry.Registry, name string) []string {
	t.Helper()
	rev, err := r.Configuration(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	if err := rev.Check(); err != nil {
		t.Errorf("Configuration(%s): %v", name, err)
	}
	if rev.Verify == nil {
		return nil
	}
	return rev.Verify.Lines()
}

func tcp(addrs ...string) *[]spec.Check {
	all := []spec.Check{}
	for _, addr := range addrs {
		all = append(all, spec.Check{Type: spec.TCP, Addr: addr})
	}
	return &all
}

func TestChecksArePartOfARevision(t *testing.T) {
	_, r := stocked(t)
	three, soak, none := 3, time.Minute, time.Duration(0)
	add := func(checks registry.Checks, replace bool, layers ...string) registry.Change {
		t.Helper()
		c, err := r.AddConfiguration(t.Context(), act, "web", refs(t, layers...), checks, replace)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	change := func(checks registry.Checks, layers ...string) registry.Change {
		t.Helper()
		c, err := r.ChangeConfiguration(t.Context(), act, "web", refs(t, layers...), checks)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	want := func(what string, c registry.Change, changed string, lines ...string) {
		t.Helper()
		if got := checksOf(t, r, "web"); !slices.Equal(got, lines) {
			t.Errorf("%s: the checks are %q, want %q", what, got, lines)
		}
		if changed != "" && (!c.Changed() || c.New.What != changed) {
			t.Errorf("%s: changed %v, %q, want %q", what, c.Changed(), c.New.What, changed)
		}
		if changed == "" && c.Changed() {
			t.Errorf("%s: is revision %d, want no new one", what, c.New.Revision)
		}
	}
	one := add(registry.Checks{Checks: tcp("localhost:25"), Soak: &soak}, false, "code:v1")
	want("addconf", one, "created", "type=tcp,addr=localhost:25", "soak=1m0s")
	want("changeconf of a layer", change(registry.Checks{}, "code:v2"), "code v1 -> v2", "type=tcp,addr=localhost:25", "soak=1m0s")
	two := change(registry.Checks{Checks: tcp("localhost:26", "localhost:27"), Successes: &three})
	want("changeconf of the checks", two, "checks changed", "type=tcp,addr=localhost:26", "type=tcp,addr=localhost:27", "successes=3", "soak=1m0s")
	if two.Old.Digest == two.New.Digest || two.Old.Hash != two.New.Hash {
		t.Error("other checks: want another digest and the same content hash")
	}
	want("the same again", change(registry.Checks{Checks: tcp("localhost:26", "localhost:27")}), "",
		"type=tcp,addr=localhost:26", "type=tcp,addr=localhost:27", "successes=3", "soak=1m0s")
	want("both at once", change(registry.Checks{Soak: &none}, "code:v3"), "code v2 -> v3, checks changed",
		"type=tcp,addr=localhost:26", "type=tcp,addr=localhost:27", "successes=3")
	want("addconf -replace", add(registry.Checks{}, true, "base:v1"), "replaced", "type=tcp,addr=localhost:26", "type=tcp,addr=localhost:27", "successes=3")
	if _, err := r.BumpConfiguration(t.Context(), act, "web", []string{"base"}); err != nil {
		t.Fatal(err)
	}
	if got := checksOf(t, r, "web"); len(got) != 3 {
		t.Errorf("bumpconf: the checks are %q", got)
	}
	want("checks removed", change(registry.Checks{Checks: tcp()}), "checks removed")
	want("rollback", rollback(t, r, "web", 1), "rolled back to revision 1", "type=tcp,addr=localhost:25", "soak=1m0s")
}

func TestWrongChecksMakeNoRevision(t *testing.T) {
	_, r := stocked(t)
	configure(t, r, "web", "code:v1")
	many := -1
	large := slices.Repeat([]spec.Check{{Type: spec.HTTP, URL: "http://localhost/", Body: strings.Repeat("x", 4000)}}, 17)
	for name, checks := range map[string]registry.Checks{
		"no port":             {Checks: tcp("localhost")},
		"one name twice":      {Checks: &[]spec.Check{{Type: spec.TCP, Addr: "a:1", Name: "x"}, {Type: spec.TCP, Addr: "a:2", Name: "x"}}},
		"a negative number":   {Successes: &many},
		"larger than allowed": {Checks: &large},
	} {
		if c, err := r.ChangeConfiguration(t.Context(), act, "web", nil, checks); err == nil {
			t.Errorf("%s: is revision %d", name, c.New.Revision)
		}
	}
	if got := checksOf(t, r, "web"); got != nil {
		t.Errorf("the checks are %q, want none", got)
	}
}
