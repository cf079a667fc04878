package cmd_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"deploytools/agent"
	"deploytools/registry/wire"
)

// TestCrashMatrixKeep lets every fault happen to a repair of a modified root,
// and to a collection: a whole root serves at each moment, and the next agent
// ends what was begun.
func TestCrashMatrixKeep(t *testing.T) {
	t.Parallel()
	s := startSite(t)
	for name, files := range versions {
		s.publish(t, "code", name, files)
	}
	h := &host{s: s, dir: t.TempDir(), name: "kept"}
	h.write(t)
	s.deployctl(t, "addconf", "-name", h.name, "-layer", "code:old")
	h.deploys(t)
	s.deployctl(t, "changeconf", "-name", h.name, "-component", "code", "-version", "good")
	h.deploys(t)

	repair := h.copy(t)
	repair.more = []string{"-repair"}
	repair.tamper(t)
	strikeAll(t, "repair", repair, func(t *testing.T, h *host, log string) {
		if found := h.inspect(t, agent.Inspection{}); !found.Whole() {
			t.Errorf("what serves is %+v\n%s", found.Roots, log)
		}
	})

	back := h.copy(t)
	back.verb = []string{"rollback"}
	strikeBack(t, back)

	collect := h.copy(t)
	for range 2 { // roots that go
		collect.more = []string{"-repair"}
		collect.deploys(t)
	}
	collect.more = []string{"-cleanold"}
	strikeAll(t, "collection", collect, func(t *testing.T, h *host, log string) {
		// Agents of the cases beside this one are in mount namespaces of their own:
		// a root that one of them has open keeps that of the same name here.
		var found *agent.Integrity
		err := poll(func() (bool, error) {
			found = h.inspect(t, agent.Inspection{All: true})
			if len(found.Roots) > 2 {
				h.deploys(t)
			}
			return len(found.Roots) <= 2, nil
		})
		if err != nil || !found.Whole() || len(found.Roots) != 2 {
			t.Errorf("left: %+v, %v\n%s", found, err, log)
		}
	})
}

// strikeAll lets every fault happen at every point of a run of the agent on a copy
// of h, and has check look at it after another run.
func strikeAll(t *testing.T, name string, h *host, check func(t *testing.T, h *host, log string)) {
	t.Helper()
	points := (&stricken{before: h}).countPointsFrom(t, 15)
	for _, f := range faults(8) {
		t.Run(f.name+"/"+name, func(t *testing.T) {
			t.Parallel()
			c := &stricken{fault: f, before: h, old: "old", way: "good"} // old is the root to fall back on
			for n := range f.sample(t, points) {
				c.strike(t, n, func(h *host, ended wire.Status, log string) {
					want, wantStatus := "good", wire.OK
					if c.fails() && ended == wire.RolledBack { // calls that fail may be why
						want, wantStatus = "old", wire.RolledBack
					}
					if got := h.served(t); got != want || ended != wantStatus {
						t.Errorf("point %d: %q serves in the end and the agent ends with %d, want %q and %d\n%s", n, got, ended, want, wantStatus, log)
					}
					h.checkRecord(t, log)
					check(t, h, log)
				})
			}
		})
	}
}

// strikeBack lets every fault happen at every point of a person's rollback. What was
// told to be on record is done, with the hold that comes with it; else all or nothing of it is.
func strikeBack(t *testing.T, h *host) {
	t.Helper()
	points := (&stricken{before: h}).countPointsFrom(t, 15)
	for _, f := range faults(8) {
		t.Run(f.name+"/rollback", func(t *testing.T) {
			t.Parallel()
			c := &stricken{fault: f, before: h, old: "good", way: "old"}
			for n := range f.sample(t, points) {
				c.strike(t, n, func(h *host, ended wire.Status, log string) {
					first, _, _ := strings.Cut(log, "--- again")
					promised := strings.Contains(first, "is on record; it goes on") && !c.fails()
					want, wantStatus := "good", wire.OK
					if got := h.served(t); got == "old" || promised {
						want, wantStatus = "old", wire.NotNow // which says that it is held
					}
					if got := h.served(t); got != want || ended != wantStatus {
						t.Errorf("point %d: %q serves in the end and the agent ends with %d, want %q and %d\n%s", n, got, ended, want, wantStatus, log)
					}
					h.checkRecord(t, log)
					if found := h.inspect(t, agent.Inspection{All: true}); !found.Whole() {
						t.Errorf("point %d: roots are %+v\n%s", n, found.Roots, log)
					}
				})
			}
		})
	}
}

func (h *host) deploys(t *testing.T) {
	t.Helper()
	if out, err := h.run(""); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// tamper adds a file to the live root, and takes a right from another.
func (h *host) tamper(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(h.file("agent/current/left"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(h.file("agent/current/file-07"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// served returns the version that `current` names, whatever was added to it.
func (h *host) served(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(h.file("agent/current/version"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func (h *host) inspect(t *testing.T, what agent.Inspection) *agent.Integrity {
	t.Helper()
	found, err := agent.Inspect(t.Context(), filepath.Join(h.dir, "agent"), what)
	if err != nil {
		t.Fatal(err)
	}
	return found
}
