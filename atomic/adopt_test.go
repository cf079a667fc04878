package atomic

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// lose removes the directory of the store, as a person does.
func (s *site) lose() {
	must(os.RemoveAll(s.dir))
	again, err := s.disk.openStore(s.dir)
	must(err)
	s.Store = again
}

// prepared returns a set, and the copy of its journal.
func (s site) prepared(t *testing.T, p Plan) (*Set, []byte) {
	t.Helper()
	set, err := s.Prepare(t.Context(), p)
	must(err)
	copied, err := set.Journal()
	must(err)
	return set, copied
}

// The old files lie beside the new ones, wherever the store is. That they come back
// takes no space; what somebody else wrote is kept when there is some.
func TestAdoptedSetGoesBack(t *testing.T) {
	for _, committed := range []bool{false, true} {
		s := newSite(t)
		before, _ := s.furnish(t)
		set, copied := s.prepared(t, s.plan("set"))
		if committed {
			must(set.Commit(t.Context()))
			s.edited("extra", "a person's")
		}
		must(set.Close())
		s.lose()
		s.disk = disk{gate: &refusing{err: unix.ENOSPC, calls: func(op, _ string) bool { return op == "create" || op == "write" }}}
		set, err := s.Adopt(t.Context(), copied, Undoing)
		if err != nil {
			t.Fatalf("committed %t: %v", committed, err)
		}
		must(set.Undo(t.Context()))
		must(set.Close())
		seen, _ := s.look(t)
		if !slices.Equal(seen, before) {
			t.Errorf("committed %t: a reader sees %q, want %q", committed, seen, before)
		}
		s.disk = disk{}
		if committed {
			set, err := s.Adopt(t.Context(), copied, Undoing)
			must(err)
			must(set.Finish(t.Context()))
			must(set.Close())
			if kept := s.kept(); !slices.Equal(kept, []string{"a person's"}) {
				t.Errorf("kept is %q", kept)
			}
		}
		s.wants(t, before...)
		if _, err := s.Adopt(t.Context(), copied, Undoing); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("committed %t: nothing is left, and Adopt = %v", committed, err)
		}
	}
}

func TestAdoptedSetIsFinished(t *testing.T) {
	s := newSite(t)
	_, after := s.furnish(t)
	set, copied := s.prepared(t, s.plan("set"))
	must(set.Commit(t.Context()))
	must(set.Close())
	s.lose()
	set, err := s.Adopt(t.Context(), copied, Committed)
	must(err)
	must(set.Close()) // a crash: the journal is back
	if set, err = s.Prepared(t.Context(), "set"); err != nil {
		t.Fatal(err)
	}
	must(set.Finish(t.Context()))
	must(set.Close())
	s.wants(t, after...)
	s.tidy(t)
	if kept := s.kept(); !slices.Equal(kept, []string{"old cert", "old"}) {
		t.Errorf("kept is %q", kept)
	}
	if drift, err := s.Drift(t.Context()); err != nil || len(drift) > 0 {
		t.Errorf("Drift = %v, %v", drift, err)
	}
	if _, err := s.Adopt(t.Context(), copied, Committed); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is finished, and Adopt = %v", err)
	}
}

// Another set that is under way began when this one had ended.
func TestAdoptDisturbsNoOtherSet(t *testing.T) {
	s := newSite(t)
	s.furnish(t)
	set, copied := s.prepared(t, s.plan("one"))
	must(set.Commit(t.Context()))
	must(set.Close())
	s.lose()
	two, _ := s.prepared(t, Plan{ID: "two", Files: []Target{{Path: s.etc + "/other"}}})
	must(two.Close())
	if _, err := s.Adopt(t.Context(), copied, Undoing); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Adopt = %v", err)
	}
	if left, err := s.Unfinished(t.Context()); err != nil || left == nil || left.ID() != "two" {
		t.Errorf("Unfinished = %v, %v", left, err)
	}
}

func TestUndoWarnsOfWhatCannotComeBack(t *testing.T) {
	s := newSite(t)
	s.furnish(t)
	set, _ := s.prepared(t, s.plan("set"))
	must(set.Commit(t.Context()))
	must(os.Remove(set.journal.Items[2].Aside))
	must(set.Undo(t.Context()))
	if w := set.Warnings(); len(w) != 1 || !strings.Contains(w[0], s.etc+"/gone: is not there, and its old content is gone") {
		t.Errorf("warnings: %q", w)
	}
	must(set.Close())
}
