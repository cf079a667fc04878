package atomic

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// defaultKeep is how many former contents are kept where the plan is silent.
const defaultKeep = 3

// keptFile returns where the old content of an item goes, below the store.
func (j *journal) keptFile(i int) string { return fmt.Sprintf("%s/%s-%d", keptName, j.Try, i) }

// publish returns the record as it is with this set. Old contents that nobody
// is to keep are missing in it: that, and no pattern or age, is what tidyUp
// removes them by.
func (set *Set) publish() *published {
	j := set.journal
	next := &published{Format: formatVersion, ID: j.ID, Try: j.Try, Files: slices.Clone(set.record.Files)}
	for i, it := range j.Items {
		e := next.entry(it.Path)
		if e == nil {
			next.Files = append(next.Files, publishedEntry{Path: it.Path})
			e = &next.Files[len(next.Files)-1]
		}
		if e.ID = j.ID; it.Action != actSame && it.Old != nil {
			e.Kept = slices.Insert(slices.Clone(e.Kept), 0, Kept{File: j.keptFile(i), Digest: it.Old.Digest, Time: now(), Drift: it.Drifted})
		}
		e.Content = it.New
		e.Kept = newest(e.Kept, j.Keep)
	}
	next.Files = slices.DeleteFunc(next.Files, publishedEntry.empty)
	slices.SortFunc(next.Files, func(a, b publishedEntry) int { return strings.Compare(a.Path, b.Path) })
	return next
}

func (e publishedEntry) empty() bool { return e.Content == nil && len(e.Kept) == 0 }

// newest returns what is to be kept of a list. Its order counts and no clock.
func newest(kept []Kept, keep int) []Kept {
	if keep == 0 {
		keep = defaultKeep
	}
	var left []Kept
	n := 0
	for _, k := range kept {
		if k.Drift || n < keep {
			left = append(left, k)
		}
		if !k.Drift {
			n++
		}
	}
	return left
}

// tidyUp brings old contents to where the record says, removes the others, and
// the journal last. That one cannot be kept is a warning: the set is published.
// What somebody else wrote is nowhere but there, and is waited for.
func (set *Set) tidyUp() error {
	for i, it := range set.journal.Items {
		if it.Action == actSame {
			continue
		}
		if err := set.putAway(&it, set.journal.keptFile(i)); err != nil {
			return err
		}
	}
	if err := set.store.sweepKept(set.record); err != nil {
		return err
	}
	if err := set.discard(); err != nil {
		return err
	}
	set.tidy = true
	return nil
}

// putAway moves what lies aside of an item to its place in the store.
func (set *Set) putAway(it *item, to string) error {
	d := set.store.disk
	aside, err := d.node(it.Aside)
	if err != nil || !aside.exists || it.isNew(aside) {
		return err
	}
	e := set.record.entry(it.Path)
	if e == nil {
		return nil // discard removes it
	}
	named := slices.IndexFunc(e.Kept, func(k Kept) bool { return k.File == to })
	if named < 0 {
		return nil
	}
	err = d.rename(it.Aside, set.store.path(to))
	if errors.Is(err, unix.EXDEV) {
		err = d.copyAside(it.Aside, set.store.path(to), aside)
	}
	if err != nil && e.Kept[named].Drift {
		return fmt.Errorf("%s: what somebody else had written there cannot be kept, and lies at %s: %w", it.Given, it.Aside, err)
	}
	if err != nil {
		set.warn(it, []string{fmt.Sprintf("its old content cannot be kept: %v", err)})
	}
	return nil
}

// copyAside copies what was found at a destination, a link as a link.
func (d disk) copyAside(from, to string, n node) error {
	if n.kind != unix.S_IFLNK {
		return d.copyFile(from, to, n)
	}
	target, err := os.Readlink(from)
	if err != nil {
		return err
	}
	return d.relink(target, to)
}

// copyFile copies a file with all that belongs to it to another file system.
func (d disk) copyFile(from, to string, n node) error {
	in, err := os.OpenFile(from, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := d.createFile(to, n.mode.fileMode())
	if err != nil {
		return err
	}
	defer out.Abort() // nothing, once Commit has returned nil
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	if _, err := d.equip(out.f, &content{Mode: n.mode, UID: n.uid, GID: n.gid}, from, false); err != nil {
		return err
	}
	return out.Commit()
}

// keepStrange keeps what somebody else has put at a destination while the set
// was live, and what Undo has therefore left aside.
func (set *Set) keepStrange() error {
	next := *set.record
	next.Format, next.Files = formatVersion, slices.Clone(next.Files)
	found := map[int]node{}
	for i, it := range set.journal.Items {
		aside, err := set.store.disk.node(it.Aside)
		if err != nil {
			return err
		}
		if it.Action == actSame || !aside.exists || it.isNew(aside) {
			continue
		}
		found[i] = aside
		if next.entry(it.Path) == nil {
			next.Files = append(next.Files, publishedEntry{Path: it.Path})
		}
		e := next.entry(it.Path)
		e.Kept = slices.DeleteFunc(slices.Clone(e.Kept), func(k Kept) bool { return k.File == set.journal.keptFile(i) })
		e.Kept = slices.Insert(e.Kept, 0, Kept{File: set.journal.keptFile(i), Time: now(), Drift: true})
	}
	if len(found) == 0 {
		return nil
	}
	if err := set.store.disk.writeJSON(set.store.path(publishedName), next); err != nil {
		return err
	}
	set.record = &next
	for i := range found {
		if err := set.putAway(&set.journal.Items[i], set.journal.keptFile(i)); err != nil {
			return err
		}
	}
	return set.store.syncKept()
}

// sweepKept removes the former contents that the record does not name, and
// makes durable those that it does.
func (s *Store) sweepKept(p *published) error {
	named := map[string]bool{}
	for _, e := range p.Files {
		for _, k := range e.Kept {
			named[k.File] = true
		}
	}
	entries, err := s.disk.readDir(s.path(keptName))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if name := keptName + "/" + e.Name(); !named[name] {
			if err := s.disk.remove(s.path(name)); err != nil {
				return err
			}
		}
	}
	return s.syncKept()
}

// Prune removes former contents beyond the newest keep of each path, and those
// that were replaced longer ago than olderThan, unless that is 0. What
// somebody else had written counts like any other here.
func (s *Store) Prune(ctx context.Context, keep int, olderThan time.Duration) error {
	lock, err := s.hold(ctx)
	if err != nil {
		return err
	}
	defer lock.Release()
	_, p, err := s.read()
	if err != nil || p.Try == "" && len(p.Files) == 0 {
		return err
	}
	for i := range p.Files {
		e := &p.Files[i]
		e.Kept = e.Kept[:min(keep, len(e.Kept))]
		e.Kept = slices.DeleteFunc(e.Kept, func(k Kept) bool { return olderThan > 0 && time.Since(k.Time) > olderThan })
	}
	p.Files = slices.DeleteFunc(p.Files, publishedEntry.empty)
	if err := s.disk.writeJSON(s.path(publishedName), p); err != nil {
		return err
	}
	return s.sweepKept(p)
}

func (s *Store) syncKept() error {
	dir, err := s.disk.openDir(s.path(keptName))
	if err != nil {
		return err
	}
	defer dir.Close()
	return s.disk.settle(dir)
}

// A Published is what a finished set has left at a path.
type Published struct {
	Path   string // without symbolic links
	ID     string // of the set
	Digest string // "" if the set has removed the file
	Size   int64
	Mode   fs.FileMode
	UID    int
	GID    int
	Kept   []Kept // newest first
}

// Published lists what the store has published, by path. It takes no lock.
func (s *Store) Published() ([]Published, error) {
	p := &published{}
	if _, err := s.disk.readJSON(s.path(publishedName), p); err != nil {
		return nil, err
	}
	var all []Published
	for _, e := range p.Files {
		f := Published{Path: e.Path, ID: e.ID}
		if c := e.Content; c != nil {
			f.Digest, f.Size, f.Mode, f.UID, f.GID = c.Digest, c.Size, c.Mode.fileMode(), c.UID, c.GID
		}
		for _, k := range e.Kept {
			k.File = s.path(k.File)
			if n, err := s.disk.node(k.File); err == nil && n.exists {
				f.Kept = append(f.Kept, k)
			}
		}
		all = append(all, f)
	}
	return all, nil
}
