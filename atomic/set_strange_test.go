package atomic

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// replaced puts another file in place, as an editor does.
func (s site) replaced(t *testing.T, name, data string) {
	t.Helper()
	s.write(t, name+".tmp", data, 0o644)
	must(os.Rename(s.etc+"/"+name+".tmp", s.etc+"/"+name))
}

func TestWhatChangedSincePreparedIsNotReplaced(t *testing.T) {
	for name, change := range map[string]func(s site){
		"replaced": func(s site) { s.replaced(t, "gone", "a person's") },
		"removed":  func(s site) { must(os.Remove(s.etc + "/cert")) },
		"made":     func(s site) { s.replaced(t, "extra", "a person's") },
	} {
		s := newSite(t)
		s.furnish(t)
		set, err := s.Prepare(t.Context(), s.plan("set"))
		must(err)
		change(s)
		want := s.reader()
		if err := set.Commit(t.Context()); !errors.Is(err, ErrChanged) || set.State() != Prepared {
			t.Errorf("%s: Commit = %v, and the set is %s", name, err, set.State())
		}
		must(set.Undo(t.Context()))
		must(set.Close())
		if seen := s.reader(); !slices.Equal(seen, want) {
			t.Errorf("%s: a reader sees %q, want %q", name, seen, want)
		}
		s.tidy(t)
	}
}

// What a person writes while a set is live must neither stop the way back nor
// be lost on it.
func TestUndoKeepsWhatSomebodyElseWrote(t *testing.T) {
	s := newSite(t)
	before, _ := s.furnish(t)
	set, err := s.Prepare(t.Context(), s.plan("set"))
	must(err)
	must(set.Commit(t.Context()))
	s.replaced(t, "cert", "a person's cert")
	s.replaced(t, "gone", "a person's gone")
	must(os.Remove(s.etc + "/extra"))
	must(set.Undo(t.Context()))
	must(set.Close())
	set, err = s.Prepared(t.Context(), "set") // the restart forgets nothing
	must(err)
	must(set.Undo(t.Context()))
	must(set.Finish(t.Context()))
	must(set.Close())
	s.wants(t, before...)
	s.tidy(t)
	all, err := s.Published()
	must(err)
	var kept []string
	for _, f := range all {
		b, err := os.ReadFile(f.Kept[0].File)
		must(err)
		kept = append(kept, string(b))
	}
	if !slices.Equal(kept, []string{"a person's cert", "a person's gone"}) {
		t.Errorf("kept is %q", kept)
	}
}

func TestDriftIsNamedAndKeptWhenPublishedOver(t *testing.T) {
	s := newSite(t)
	s.furnish(t)
	must(s.applies(t, s.plan("one")))
	if d, err := s.Drift(t.Context()); err != nil || len(d) > 0 {
		t.Errorf("Drift = %v, %v", d, err)
	}
	s.write(t, "cert", "a person's", 0o604)
	must(os.Remove(s.etc + "/extra"))
	d, err := s.Drift(t.Context())
	must(err)
	var what []string
	for _, d := range d {
		what = append(what, strings.TrimPrefix(d.Path, s.etc+"/")+": "+d.What)
	}
	if want := []string{"cert: content", "cert: mode 0604, published 0640", "extra: missing"}; !slices.Equal(what, want) {
		t.Errorf("Drift = %q, want %q", what, want)
	}
	p := s.plan("two")
	p.Keep = -1
	r, err := s.Apply(t.Context(), p, Hooks{})
	if err != nil || !slices.ContainsFunc(r.Warnings, func(w string) bool { return strings.Contains(w, "somebody else") }) {
		t.Errorf("Apply = %+v, %v; want a warning", r, err)
	}
	all, err := s.Published()
	must(err)
	if b, err := os.ReadFile(all[0].Kept[0].File); len(all[0].Kept) != 1 || string(b) != "a person's" || !all[0].Kept[0].Drift {
		t.Errorf("kept is %+v: %q, %v", all[0].Kept, b, err)
	}
}

func TestAnotherSetWaitsForItsRecovery(t *testing.T) {
	s := newSite(t)
	s.furnish(t)
	set, err := s.Prepare(t.Context(), s.plan("one"))
	must(err)
	must(set.Close())
	if _, err := s.Prepare(t.Context(), s.plan("two")); !errors.Is(err, ErrUnfinished) || !strings.Contains(err.Error(), "one is prepared") {
		t.Errorf("Prepare = %v", err)
	}
	if _, err := s.Prepared(t.Context(), "two"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Prepared = %v", err)
	}
	set, err = s.Prepare(t.Context(), s.plan("one")) // the same one is made anew
	must(err)
	must(set.Commit(t.Context()))
	must(set.Close())
	if _, err := s.Prepare(t.Context(), s.plan("one")); !errors.Is(err, ErrUnfinished) {
		t.Errorf("Prepare of a committed one = %v", err)
	}
}

func TestEndedSetStaysAsItIs(t *testing.T) {
	s := newSite(t)
	s.furnish(t)
	must(s.applies(t, s.plan("set")))
	set, err := s.Prepared(t.Context(), "set")
	must(err)
	if err := set.Undo(t.Context()); !errors.Is(err, ErrEnded) {
		t.Errorf("Undo of a finished set = %v", err)
	}
	if err := errors.Join(set.Commit(t.Context()), set.Finish(t.Context()), set.Close()); err != nil {
		t.Error(err)
	}
	next := s.plan("next")
	next.Files[0].Bytes = []byte("newer")
	set, err = s.Prepare(t.Context(), next)
	must(err)
	if err := set.Finish(t.Context()); !errors.Is(err, ErrUnfinished) {
		t.Errorf("Finish of a prepared set = %v", err)
	}
	must(set.Commit(t.Context()))
	must(set.Undo(t.Context()))
	if err := set.Commit(t.Context()); !errors.Is(err, ErrEnded) {
		t.Errorf("Commit of a set that went back = %v", err)
	}
	must(set.Close())
}

func TestOnlyWhatDiffersIsReplacedAndForceRunsTheHooks(t *testing.T) {
	s := newSite(t)
	s.furnish(t)
	must(s.applies(t, s.plan("one")))
	old, err := disk{}.node(s.etc + "/extra")
	must(err)
	p := s.plan("two")
	p.Files[0].Bytes = []byte("newer cert")
	r, err := s.Apply(t.Context(), p, Hooks{})
	if err != nil || !slices.Equal(r.Changed, []string{s.etc + "/cert"}) {
		t.Errorf("Apply = %+v, %v", r, err)
	}
	if now, err := (disk{}).node(s.etc + "/extra"); err != nil || now != old {
		t.Errorf("the file that is the same was %+v and is %+v, %v", old, now, err)
	}
	v := &service{site: s}
	p.Force = true
	if r, err := s.Apply(t.Context(), p, v.hooks()); err != nil || r.Skipped || v.told != 1 {
		t.Errorf("forced Apply = %+v, %v; told %d times", r, err, v.told)
	}
	p.Force = false
	h := Hooks{Verify: func(context.Context, Phase) error { return errHook }}
	if r, err := s.Apply(t.Context(), p, h); !errors.Is(err, ErrVerifyFailed) || !r.Skipped || r.RolledBack {
		t.Errorf("Apply of what is there and does not verify = %+v, %v", r, err)
	}
}

// A file that lies there rightly and was not published by this store may be
// what a crash left of one whose state is lost: who reads it is told.
func TestEqualButUnrecordedIsNotSkipped(t *testing.T) {
	s := newSite(t)
	s.write(t, "f", "x", 0o644)
	v := &service{site: s}
	p := Plan{ID: "set", Files: []Target{{Path: s.etc + "/f", Bytes: []byte("x")}}}
	if r, err := s.Apply(t.Context(), p, v.hooks()); err != nil || r.Skipped || v.told != 1 {
		t.Errorf("Apply = %+v, %v; told %d times", r, err, v.told)
	}
	if r, err := s.Apply(t.Context(), p, v.hooks()); err != nil || !r.Skipped || v.told != 1 {
		t.Errorf("Apply again = %+v, %v; told %d times", r, err, v.told)
	}
}

// Former contents go to the store's file system, if that is another one, with
// all that belongs to them.
func TestKeptIsCopiedToAnotherFileSystem(t *testing.T) {
	s := newSite(t)
	s.furnish(t)
	must(unix.Setxattr(s.etc+"/cert", "user.note", []byte("mine"), 0))
	s.disk = disk{gate: crossing{s.path(keptName)}}
	must(s.applies(t, s.plan("set")))
	all, err := s.Published()
	must(err)
	kept := all[0].Kept[0].File
	n, err := disk{}.node(kept)
	must(err)
	b, err := os.ReadFile(kept)
	must(err)
	note, err := attribute(kept, "user.note")
	if string(b) != "old cert" || n.mode != 0o640 || string(note) != "mine" || err != nil {
		t.Errorf("kept is %q, %+v, note %q, %v", b, n, note, err)
	}
	s.tidy(t)
}

// crossing makes renames into a directory cross to another file system.
type crossing struct{ dir string }

func (c crossing) do(op, path string, call func() error) error {
	if op == "rename" && strings.HasPrefix(path, c.dir) && !strings.Contains(path, tempPrefix) && !copied(path) {
		return unix.EXDEV
	}
	return call()
}

// copied reports whether the temp of a copy is there that is to be renamed.
func copied(path string) bool {
	entries, err := os.ReadDir(path[:strings.LastIndex(path, "/")])
	must(err)
	return slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return isTemp(e.Name()) })
}

// raced puts another file at a destination just before the names are exchanged.
type raced struct{ s site }

func (r raced) do(op, path string, call func() error) error {
	if op == "exchange" && !strings.Contains(r.s.reader()[0], "late") {
		must(os.WriteFile(r.s.etc+"/.late", []byte("a late edit"), 0o644))
		must(os.Rename(r.s.etc+"/.late", path))
	}
	return call()
}

func TestLateEditIsNotLost(t *testing.T) {
	s := newSite(t)
	s.furnish(t)
	s.disk = disk{gate: raced{s}}
	r, err := s.Apply(t.Context(), s.plan("set"), Hooks{})
	if !errors.Is(err, ErrChanged) || !errors.Is(err, ErrCommitFailed) || !r.RolledBack {
		t.Errorf("Apply = %+v, %v", r, err)
	}
	s.wants(t, `cert -rw-r--r-- "a late edit"`, `gone -rw----r-- "old"`)
}

// Somebody may remove a program with its directory while a set is live.
func TestSetEndsWithoutItsDirectory(t *testing.T) {
	for name, end := range map[string]func(set *Set) error{
		"forward": func(set *Set) error { return set.Finish(t.Context()) },
		"back":    func(set *Set) error { return errors.Join(set.Undo(t.Context()), set.Finish(t.Context())) },
	} {
		s := newSite(t)
		s.furnish(t)
		set, err := s.Prepare(t.Context(), s.plan("set"))
		must(err)
		must(set.Commit(t.Context()))
		must(set.Close())
		must(os.RemoveAll(s.etc))
		set, err = s.Prepared(t.Context(), "set")
		must(err)
		if err := end(set); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		must(set.Close())
		if set, err := s.Unfinished(t.Context()); set != nil || err != nil {
			t.Errorf("%s: %v, %v is left", name, set, err)
		}
	}
}

func TestPruneGoesByCountAndAge(t *testing.T) {
	s := newSite(t)
	for n := range 4 {
		must(s.applies(t, Plan{ID: "set", Files: []Target{{Path: s.etc + "/f", Bytes: []byte{'0' + byte(n)}}}}))
	}
	left := func() int {
		all, err := s.Published()
		must(err)
		s.tidy(t)
		return len(all[0].Kept)
	}
	for _, c := range []struct {
		keep      int
		olderThan time.Duration
		want      int
	}{{9, 0, 3}, {9, time.Hour, 3}, {2, 0, 2}, {9, time.Nanosecond, 0}} {
		if err := s.Prune(t.Context(), c.keep, c.olderThan); err != nil || left() != c.want {
			t.Errorf("Prune(%d, %v) = %v and leaves %d, want %d", c.keep, c.olderThan, err, left(), c.want)
		}
	}
}

// unsyncedRecord fails the sync that follows the rename of the record.
type unsyncedRecord struct {
	record string
	due    bool
}

func (u *unsyncedRecord) do(op, path string, call func() error) error {
	switch {
	case op == "rename" && path == u.record:
		u.due = true
	case op == "fsync" && u.due:
		u.due = false
		return unix.EIO
	}
	return call()
}

// The record that is in place and may not be on the disk says that the set is
// finished: going back then would leave old files and a record of new ones.
func TestUnsyncedRecordFinishesTheSet(t *testing.T) {
	s := newSite(t)
	_, after := s.furnish(t)
	s.disk = disk{gate: &unsyncedRecord{record: s.path(publishedName)}}
	r, err := s.Apply(t.Context(), s.plan("set"), Hooks{})
	if err != nil || r.RolledBack || len(r.Warnings) != 1 {
		t.Errorf("Apply = %+v, %v; want a warning", r, err)
	}
	rec := &recording{dir: s.dir}
	next := site{&Store{disk: disk{gate: rec}, dir: s.dir}, s.etc}
	if r, err := next.Recover(t.Context(), nil); err != nil || !r.Recovered || r.RolledBack {
		t.Errorf("Recover = %+v, %v", r, err)
	}
	if !slices.Contains(rec.calls, "rename "+publishedName) {
		t.Error("the record is not written again")
	}
	s.wants(t, after...)
	next.tidy(t)
}
