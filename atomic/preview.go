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

// A Reader is another user who is to look at a Preview.
type Reader struct {
	GID int                      // a group of his; who is not in it gets nowhere
	As  func(func() error) error // calls a function with the rights that he has to files
}

// Staged lays out a Preview of a set that is prepared, which is there until the
// set is undone or finished. Only the owner of the store gets there, and the
// reader, if there is one. It consists of symbolic links: what they lead to has the
// owner and mode that it will have at its path, and whoever may not read it there
// may not read it here. Of directories that the reader may not list it has no more
// than the paths of the plan.
func (set *Set) Staged(reader *Reader) (Preview, error) {
	if set.State() != Prepared {
		return Preview{}, fmt.Errorf("set %s: %w: it is %s", set.ID(), ErrEnded, set.State())
	}
	l := &layout{root: set.store.path(previewName), reader: reader, leads: map[string]string{}, dirs: map[string]bool{}}
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
	err := l.make()
	if err == nil && reader != nil {
		err = reader.admit(set.store.dir, 0o710)
	}
	if err != nil {
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
	root   string
	reader *Reader           // nil: nobody else
	leads  map[string]string // where the paths of the plan lead; "": nowhere
	dirs   map[string]bool   // the directories above them
}

func (l *layout) add(path, to string) {
	l.leads[path] = to
	for dir := filepath.Dir(path); !l.dirs[dir]; dir = filepath.Dir(dir) {
		l.dirs[dir] = true
	}
}

// admit gives the reader's group the rights of a directory that perm says.
func (r *Reader) admit(dir string, perm fs.FileMode) error {
	if err := os.Chown(dir, -1, r.GID); err != nil {
		return err
	}
	return os.Chmod(dir, perm)
}

func (l *layout) make() error {
	if err := removeTree(l.root); err != nil {
		return err
	}
	for _, dir := range slices.Sorted(maps.Keys(l.dirs)) { // each after those above it
		made := l.root + strings.TrimSuffix(dir, "/")
		if err := os.Mkdir(made, 0o700); err != nil {
			return err
		}
		besides, err := l.besides(dir)
		if err != nil {
			return err
		}
		for name, to := range besides {
			if err := os.Symlink(to, filepath.Join(made, name)); err != nil {
				return err
			}
		}
		if l.reader != nil {
			if err := l.reader.admit(made, 0o750); err != nil {
				return err
			}
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

// besides returns where the names in dir lead that are none of the plan's, as far as
// the reader may list it.
func (l *layout) besides(dir string) (leads map[string]string, err error) {
	look := func() (err error) {
		leads, err = l.list(dir)
		return err
	}
	if l.reader != nil {
		err = l.reader.As(look)
	} else {
		err = look()
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil, nil
	}
	return leads, err
}

// list is besides for who may. Links are made again with their target in the layout,
// so that a path that leads to a new content by a link does so there too.
func (l *layout) list(dir string) (map[string]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) > maxBesides {
		return nil, err
	}
	leads := map[string]string{}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if _, ours := l.leads[path]; ours || l.dirs[path] || strings.HasPrefix(e.Name(), tempPrefix) {
			continue
		}
		leads[e.Name()] = path
		if e.Type() != fs.ModeSymlink {
			continue
		}
		if target, err := os.Readlink(path); err == nil && filepath.IsAbs(target) {
			leads[e.Name()] = l.root + target
		} else if err == nil {
			leads[e.Name()] = target
		}
	}
	return leads, nil
}
