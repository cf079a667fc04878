package atomic

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"golang.org/x/sys/unix"
)

// edited writes into a file as an editor or a shell's > does: its inode stays.
func (s site) edited(name, data string) { must(os.WriteFile(s.etc+"/"+name, []byte(data), 0o644)) }

// remade removes a file and makes another, which often gets the same inode.
func (s site) remade(name, data string) {
	must(os.Remove(s.etc + "/" + name))
	s.edited(name, data)
}

func TestWhatWasEditedSincePreparedIsNotReplaced(t *testing.T) {
	for name, change := range map[string]func(site, string, string){"edited": site.edited, "remade": site.remade} {
		s := newSite(t)
		s.furnish(t)
		set, err := s.Prepare(t.Context(), s.plan("set"))
		must(err)
		change(s, "cert", "a person's cert")
		if err := set.Commit(t.Context()); !errors.Is(err, ErrChanged) || set.State() != Prepared {
			t.Errorf("%s: Commit = %v, and the set is %s", name, err, set.State())
		}
		must(set.Undo(t.Context()))
		must(set.Close())
		if seen := s.reader(); !strings.Contains(seen[0], "a person's cert") {
			t.Errorf("%s: a reader sees %q", name, seen)
		}
		s.tidy(t)
	}
}

// The new file has the mode, the owner and the access list that the old one had
// when it was made ready.
func TestWhatWasGivenAwaySincePreparedIsNotReplaced(t *testing.T) {
	needsRoot(t)
	for name, change := range map[string]func(path string) error{
		"mode":      func(path string) error { return os.Chmod(path, 0o600) },
		"owner":     func(path string) error { return os.Chown(path, 11, -1) },
		"group":     func(path string) error { return os.Chown(path, -1, 12) },
		"attribute": func(path string) error { return unix.Setxattr(path, "user.of", []byte("mine"), 0) },
	} {
		for _, late := range []bool{false, true} {
			if late && name == "attribute" {
				continue // a rename changes the only time that tells
			}
			s := newSite(t)
			s.furnish(t)
			gate := &meddling{when: "exchange", meddle: func() { must(change(s.etc + "/cert")) }}
			s.disk = disk{gate: gate}
			set, err := s.Prepare(t.Context(), s.plan("set"))
			must(err)
			if !late {
				gate.once.Do(gate.meddle)
			}
			before := lying(s.etc + "/cert")
			if err := set.Commit(t.Context()); !errors.Is(err, ErrChanged) || !late && set.State() != Prepared {
				t.Errorf("%s, late %t: Commit = %v, and the set is %s", name, late, err, set.State())
			}
			must(set.Undo(t.Context()))
			must(set.Finish(t.Context()))
			must(set.Close())
			if after := lying(s.etc + "/cert"); after.inode != before.inode || !late && after != before {
				t.Errorf("%s, late %t: %+v, and was %+v", name, late, after, before)
			}
			s.tidy(t)
		}
	}
}

// meddling lets somebody act just before the first call of a kind.
type meddling struct {
	when   string
	meddle func()
	once   sync.Once
}

func (m *meddling) do(op, _ string, call func() error) error {
	if op == m.when {
		m.once.Do(m.meddle)
	}
	return call()
}

// A new file that somebody has written into is theirs as much as one that they
// have put in its place.
func TestUndoKeepsWhatWasEdited(t *testing.T) {
	for name, change := range map[string]func(site, string, string){"edited": site.edited, "remade": site.remade} {
		s := newSite(t)
		before, _ := s.furnish(t)
		set, err := s.Prepare(t.Context(), s.plan("set"))
		must(err)
		must(set.Commit(t.Context()))
		change(s, "cert", "a person's cert")
		s.edited("extra", "a person's extra")
		for range 2 { // the restart forgets nothing
			must(set.Undo(t.Context()))
			must(set.Close())
			set, err = s.Prepared(t.Context(), "set")
			must(err)
		}
		must(set.Finish(t.Context()))
		must(set.Close())
		s.wants(t, before...)
		s.tidy(t)
		if kept := s.kept(); !slices.Equal(kept, []string{"a person's cert", "a person's extra"}) {
			t.Errorf("%s: kept is %q", name, kept)
		}
	}
}

// kept returns the newest former content of each path.
func (s site) kept() (all []string) {
	published, err := s.Published()
	must(err)
	for _, f := range published {
		if len(f.Kept) == 0 {
			continue
		}
		b, err := os.ReadFile(f.Kept[0].File)
		must(err)
		all = append(all, string(b))
	}
	return all
}

// "Rolled back" must not be said of what was not: a program that cleans up
// hidden files takes the old content away.
func TestUndoSaysThatTheOldContentIsGone(t *testing.T) {
	s := newSite(t)
	s.furnish(t)
	set, err := s.Prepare(t.Context(), s.plan("set"))
	must(err)
	must(set.Commit(t.Context()))
	must(os.Remove(set.journal.Items[0].Aside))
	if err := set.Undo(t.Context()); err == nil || !strings.Contains(err.Error(), s.etc+"/cert: its old content is gone") {
		t.Errorf("Undo = %v", err)
	}
	s.edited("cert", "old cert, by hand")
	must(set.Undo(t.Context()))
	must(set.Finish(t.Context()))
	must(set.Close())
	s.wants(t, `cert -rw-r----- "old cert, by hand"`, `gone -rw----r-- "old"`)
	s.tidy(t)
}

// refusing fails the calls that it is asked about.
type refusing struct {
	err   error
	calls func(op, path string) bool
}

func (r *refusing) do(op, path string, call func() error) error {
	if r.calls != nil && r.calls(op, path) {
		return r.err
	}
	return call()
}

// Nothing was changed, so the way back is done, though it cannot tidy up.
func TestUndoDoesNotNeedToTidyUp(t *testing.T) {
	s := newSite(t)
	before, _ := s.furnish(t)
	gate := &refusing{err: unix.EROFS}
	s.disk = disk{gate: gate}
	set, err := s.Prepare(t.Context(), s.plan("set"))
	must(err)
	gate.calls = func(op, path string) bool {
		return op != "fsync" && op != "statx" && strings.HasPrefix(path, s.etc+"/")
	}
	if err := set.Commit(t.Context()); !errors.Is(err, unix.EROFS) {
		t.Errorf("Commit = %v", err)
	}
	must(set.Undo(t.Context()))
	if err := set.Finish(t.Context()); !errors.Is(err, unix.EROFS) {
		t.Errorf("Finish = %v", err)
	}
	gate.calls = nil
	must(set.Finish(t.Context()))
	must(set.Close())
	s.wants(t, before...)
	s.tidy(t)
}

// What a person wrote is in one place only: it is not removed for want of room.
func TestWhatAPersonWroteWaitsForItsPlace(t *testing.T) {
	for _, undo := range []bool{false, true} {
		s := newSite(t)
		s.furnish(t)
		must(s.applies(t, s.plan("one")))
		gate := &refusing{err: unix.ENOSPC}
		s.disk = disk{gate: gate}
		p := s.plan("two")
		p.Files[0].Bytes = []byte("newer cert")
		if !undo {
			s.edited("cert", "a person's")
		}
		set, err := s.Prepare(t.Context(), p)
		must(err)
		must(set.Commit(t.Context()))
		if undo {
			s.edited("cert", "a person's")
			must(set.Undo(t.Context()))
		}
		gate.calls = func(op, path string) bool {
			return op == "rename" && strings.HasPrefix(path, s.path(keptName)+"/")
		}
		aside := set.journal.Items[0].Aside
		if err := set.Finish(t.Context()); !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), aside) {
			t.Errorf("Finish = %v", err)
		}
		if b, err := os.ReadFile(aside); string(b) != "a person's" {
			t.Errorf("aside lies %q, %v", b, err)
		}
		gate.calls = nil
		must(set.Finish(t.Context()))
		must(set.Close())
		if kept := s.kept(); len(kept) == 0 || kept[0] != "a person's" {
			t.Errorf("kept is %q", kept)
		}
		s.tidy(t)
	}
}

// A link goes to another file system as a link.
func TestLinkThatSomebodyPutThereIsKept(t *testing.T) {
	s := newSite(t)
	s.furnish(t)
	set, err := s.Prepare(t.Context(), s.plan("set"))
	must(err)
	must(set.Commit(t.Context()))
	must(os.Remove(s.etc + "/cert"))
	must(os.Symlink("/nowhere", s.etc+"/cert"))
	must(set.Undo(t.Context()))
	set.store.disk = disk{gate: crossingOnce{s.path(keptName)}}
	must(set.Finish(t.Context()))
	must(set.Close())
	all, err := s.Published()
	must(err)
	if to, err := os.Readlink(all[0].Kept[0].File); to != "/nowhere" {
		t.Errorf("kept is a link to %q, %v", to, err)
	}
	s.tidy(t)
}

// crossingOnce is crossing for what has no temp of a link.
type crossingOnce struct{ dir string }

func (c crossingOnce) do(op, path string, call func() error) error {
	if op == "rename" && strings.HasPrefix(path, c.dir+"/") {
		entries, err := os.ReadDir(c.dir)
		must(err)
		if !slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return isTemp(e.Name()) }) {
			return unix.EXDEV
		}
	}
	return call()
}

// A directory that is mounted at two places has one file of a name.
func TestOneFileAtTwoMountsIsRefused(t *testing.T) {
	needsRoot(t)
	s := newSite(t)
	alias := s.etc + "-alias"
	must(os.Mkdir(alias, 0o755))
	must(unix.Mount(s.etc, alias, "", unix.MS_BIND, ""))
	t.Cleanup(func() { must(unix.Unmount(alias, 0)) })
	p := Plan{ID: "set", Files: []Target{{Path: s.etc + "/cert"}, {Path: alias + "/key"}}}
	must(s.applies(t, p))
	p.Files[1].Path = alias + "/cert"
	if err := s.applies(t, p); !errors.Is(err, ErrPlanInvalid) || !strings.Contains(err.Error(), "are one file") {
		t.Errorf("Apply = %v", err)
	}
}

// Any user who may read a directory can lock it.
func TestALockedDirectoryDoesNotKeepTheOldFilesAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		before, _ := s.furnish(t)
		set, err := s.Prepare(t.Context(), s.plan("one"))
		must(err)
		must(set.Commit(t.Context()))
		set.Close()
		stranger, err := os.Open(s.etc)
		must(err)
		defer stranger.Close()
		must(unix.Flock(int(stranger.Fd()), unix.LOCK_EX))

		short, cancel := context.WithTimeout(t.Context(), strangerPatience/2)
		defer cancel()
		if _, err := s.Prepared(short, "one"); !errors.Is(err, ErrBusy) {
			t.Errorf("the set is taken within half of the patience: %v", err)
		}
		set, err = s.Prepared(t.Context(), "one")
		if err != nil {
			t.Fatal(err)
		}
		must(set.Undo(t.Context()))
		must(set.Finish(t.Context()))
		set.Close()
		s.wants(t, before...)

		short, cancel = context.WithTimeout(t.Context(), 2*strangerPatience)
		defer cancel()
		if _, err := s.Prepare(short, s.plan("two")); !errors.Is(err, ErrBusy) {
			t.Errorf("a new set does not wait for the lock: %v", err)
		}
	})
}
