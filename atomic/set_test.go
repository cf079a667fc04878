package atomic

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// site is a store and a directory with files of a program.
type site struct {
	*Store
	etc string
}

func newSite(t *testing.T) site {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	must(err)
	must(os.Mkdir(dir+"/etc", 0o755))
	s, err := disk{gate: unsynced{}}.openStore(dir + "/store")
	must(err)
	return site{s, dir + "/etc"}
}

func (s site) write(t *testing.T, name, data string, mode os.FileMode) {
	t.Helper()
	must(os.WriteFile(s.etc+"/"+name, []byte(data), 0o600))
	must(os.Chmod(s.etc+"/"+name, mode))
}

// wants checks what a reader of the directory sees, and that nothing is hidden.
func (s site) wants(t *testing.T, want ...string) {
	t.Helper()
	seen, hidden := s.look(t)
	if !slices.Equal(seen, want) || len(hidden) > 0 {
		t.Errorf("a reader sees %q, hidden %q; want %q and nothing hidden", seen, hidden, want)
	}
}

func (s site) look(t *testing.T) (seen, hidden []string) {
	t.Helper()
	all, _ := world(t, s.etc)
	for _, line := range all {
		if line[0] == '.' {
			hidden = append(hidden, line)
		} else {
			seen = append(seen, line)
		}
	}
	return seen, hidden
}

func (s site) plan(id string) Plan {
	return Plan{ID: id, Files: []Target{
		{Path: s.etc + "/cert", Bytes: []byte("new cert")},
		{Path: s.etc + "/extra", Bytes: []byte("extra"), Metadata: Metadata{Mode: 0o600}},
		{Path: s.etc + "/gone", Remove: true},
	}}
}

func (s site) furnish(t *testing.T) (before, after []string) {
	s.write(t, "cert", "old cert", 0o640)
	s.write(t, "gone", "old", 0o604)
	return []string{`cert -rw-r----- "old cert"`, `gone -rw----r-- "old"`},
		[]string{`cert -rw-r----- "new cert"`, `extra -rw------- "extra"`}
}

func TestSetGoesForwardAcrossRestarts(t *testing.T) {
	s := newSite(t)
	before, after := s.furnish(t)
	set, err := s.Prepare(t.Context(), s.plan("one"))
	if err != nil {
		t.Fatal(err)
	}
	if seen, _ := s.look(t); !slices.Equal(seen, before) {
		t.Errorf("prepared, a reader sees %q, want %q", seen, before)
	}
	p, err := set.Staged(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{p.Paths[s.etc+"/cert"], p.Dir + s.etc + "/cert"} {
		if b, err := os.ReadFile(path); string(b) != "new cert" {
			t.Errorf("staged %s = %q, %v", path, b, err)
		}
	}
	for _, do := range []func(*Set) error{
		func(set *Set) error { return set.Commit(t.Context()) },
		func(set *Set) error { return set.Commit(t.Context()) },
		func(set *Set) error { return set.Finish(t.Context()) },
		func(set *Set) error { return set.Finish(t.Context()) },
	} {
		set.Close()
		if set, err = s.Prepared(t.Context(), "one"); err != nil {
			t.Fatal(err)
		}
		if err := do(set); err != nil {
			t.Fatal(err)
		}
	}
	set.Close()
	s.wants(t, after...)
}

func TestSetGoesBackAcrossRestarts(t *testing.T) {
	s := newSite(t)
	before, after := s.furnish(t)
	set, err := s.Prepare(t.Context(), s.plan("one"))
	if err != nil {
		t.Fatal(err)
	}
	if err := set.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if seen, _ := s.look(t); !slices.Equal(seen, after) {
		t.Errorf("committed, a reader sees %q, want %q", seen, after)
	}
	for range 2 {
		set.Close()
		if set, err = s.Prepared(t.Context(), "one"); err != nil {
			t.Fatal(err)
		}
		if err := set.Undo(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := set.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	set.Close()
	s.wants(t, before...)
}
