package atomic

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A Preview is where the new contents of a set can be looked at before they are
// live.
type Preview struct {
	// Dir is laid out as another root directory: below it, the paths of the plan
	// lead to the new contents, what the plan removes is missing, and everything
	// beside them and above leads to what is live. A check can pass it to what
	// it asks: nginx -t -p DIR/etc/nginx. What is reached by way of a directory
	// in which the plan has nothing is live, and so is what a program reaches by
	// absolute paths of its own. Of a directory with more than 1,000 entries
	// only those of the plan are there.
	Dir string
	// Paths has for each path, as the plan has it, where its new content is; a
	// path that is to be removed is missing.
	Paths map[string]string
}

// Staged lays out a Preview of a set that is prepared, which is there until the
// set is undone or finished. It consists of symbolic links; only the owner of
// the store gets there.
func (set *Set) Staged() (Preview, error) {
	if set.State() != Prepared {
		return Preview{}, fmt.Errorf("set %s: %w: it is %s", set.ID(), ErrEnded, set.State())
	}
	l := &layout{root: set.store.path(previewName), leads: map[string]string{}, dirs: map[string]bool{}}
	p := Preview{Dir: l.root, Paths: map[string]string{}}
	for _, it := range set.journal.Items {
		to := it.Path
		switch {
		case it.New == nil:
			to = ""
		case it.Action != actSame:
			to = it.Aside
		}
		if to != "" {
			p.Paths[it.Given] = to
		}
		l.add(filepath.Clean(it.Given), to)
		l.add(it.Path, to)
	}
	if err := l.make(); err != nil {
		return Preview{}, fmt.Errorf("set %s: cannot lay out its preview: %w", set.ID(), err)
	}
	return p, nil
}

// maxBesides is how many entries a directory may have for a Preview to show
// those that are none of the plan's. More than that is data, not settings.
const maxBesides = 1000

// layout is a tree of symbolic links that stands for the root directory. It is
// no state: whoever needs it makes it anew.
type layout struct {
	root  string
	leads map[string]string // where the paths of the plan lead; "": nowhere
	dirs  map[string]bool   // the directories above them
}

func (l *layout) add(path, to string) {
	l.leads[path] = to
	for dir := filepath.Dir(path); !l.dirs[dir]; dir = filepath.Dir(dir) {
		l.dirs[dir] = true
	}
}

func (l *layout) make() error {
	if err := removeTree(l.root); err != nil {
		return err
	}
	for _, dir := range slices.Sorted(maps.Keys(l.dirs)) { // each after those above it
		if err := os.Mkdir(l.root+strings.TrimSuffix(dir, "/"), 0o700); err != nil {
			return err
		}
		if err := l.besides(dir); err != nil {
			return err
		}
	}
	for path, to := range l.leads {
		if to == "" {
			continue
		}
		if err := os.Symlink(to, l.root+path); err != nil {
			return err
		}
	}
	return nil
}

// besides links what lies in dir and is none of the plan's. Links are made
// again with their target in the layout, so that a path that leads to a new
// content by a link does so there too.
func (l *layout) besides(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrPermission) {
		return nil
	}
	if err != nil || len(entries) > maxBesides {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if _, ours := l.leads[path]; ours || l.dirs[path] || strings.HasPrefix(e.Name(), tempPrefix) {
			continue
		}
		to := path
		if e.Type() == fs.ModeSymlink {
			if target, err := os.Readlink(path); err == nil && filepath.IsAbs(target) {
				to = l.root + target
			} else if err == nil {
				to = target
			}
		}
		if err := os.Symlink(to, l.root+path); err != nil {
			return err
		}
	}
	return nil
}
