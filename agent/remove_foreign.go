package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"deploytools/atomic"
	"deploytools/layers/digest"
)

// ours tells, for directories in which people may have put something of theirs, the
// names in them that an agent gives. They go in the order of their names, so a
// root before its documents, by which it is known.
var ours = map[string]func(*Agent, os.DirEntry) bool{
	"roots": (*Agent).ourRoot,
	"cache": func(_ *Agent, e os.DirEntry) bool {
		_, ok := cachedLayer(e.Name())
		return ok && e.Type().IsRegular()
	},
	"deployments": func(_ *Agent, e os.DirEntry) bool {
		id, staged := atomic.Staged(e.Name())
		if !staged {
			id = e.Name()
		}
		return rootName.MatchString(id) && e.IsDir()
	},
	storeName: func(_ *Agent, e os.DirEntry) bool { return atomic.OfStore(e.Name()) },
}

func (a *Agent) ourRoot(e os.DirEntry) bool {
	name := e.Name()
	if hidden, staged := atomic.Staged(name); staged {
		return rootName.MatchString(hidden) && e.IsDir()
	}
	if e.IsDir() {
		return rootName.MatchString(name) && a.ownRoot(name)
	}
	suffix := filepath.Ext(name)
	return slices.Contains([]string{".json", ".manifest", indexSuffix, ".pin"}, suffix) && rootName.MatchString(strings.TrimSuffix(name, suffix))
}

// cachedLayer returns the layer that a file in cache/, or a part of one, is of; zero:
// it is a temporary file of the original tool set.
func cachedLayer(file string) (layer digest.Digest, ok bool) {
	name := strings.TrimSuffix(strings.TrimPrefix(file, "."), ".partial")
	layer, err := digest.Parse(name)
	return layer, err == nil || strings.HasPrefix(name, "temp-")
}

// owned returns the paths of what an agent has made in a directory of its, and of
// what somebody else has.
func (a *Agent) owned(dir string) (own, foreign []string, err error) {
	is := ours[dir]
	if is == nil {
		return nil, nil, nil
	}
	entries, err := os.ReadDir(a.path(dir))
	for _, e := range entries {
		if is(a, e) {
			own = append(own, a.path(dir, e.Name()))
		} else {
			foreign = append(foreign, a.path(dir, e.Name()))
		}
	}
	return own, foreign, err
}

// goes returns what is removed of name, and what of others lies in it. A directory of ours
// in which nobody has anything goes as a whole; not so a mount point, or what a link leads to.
func (a *Agent) goes(name string) (gone, foreign []string, err error) {
	path := a.path(name)
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil, nil
	case err != nil:
		return nil, nil, err
	case ours[name] == nil && info.IsDir(), ours[name] != nil && !directory(path):
		return nil, []string{path}, nil // not as we make it
	case ours[name] == nil:
		return []string{path}, nil, nil
	}
	own, foreign, err := a.owned(name)
	if err != nil {
		return nil, nil, err
	}
	mounts, err := mountPoints()
	if err != nil {
		return nil, nil, err
	}
	if at := realPath(path); !info.IsDir() || slices.Contains(mounts, at) {
		return own, append(foreign, path), nil
	}
	if len(foreign) > 0 {
		return own, foreign, nil
	}
	return []string{path}, nil, nil
}

// directory reports whether path is one, or a link to one.
func directory(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// mounted returns the mount points in what a removal would take away.
func (a *Agent) mounted(keepData bool) (all []string, err error) {
	mounts, err := mountPoints()
	if err != nil {
		return nil, err
	}
	for _, name := range removed {
		if ours[name] == nil || keepData && dataOf[name] || !directory(a.path(name)) {
			continue
		}
		own, _, err := a.owned(name)
		if err != nil {
			return nil, err
		}
		for _, path := range own {
			at := realPath(path)
			for _, m := range mounts {
				if (m == at || strings.HasPrefix(m, at+"/")) && !slices.Contains(all, m) {
					all = append(all, m)
				}
			}
		}
	}
	return all, nil
}

// unmounted refuses to remove what somebody has mounted, with what is ours.
func (a *Agent) unmounted(keepData bool) error {
	if r := a.rec.Removing; r != nil {
		keepData, _ = r.keeps(keepData) // which says no in a moment
	}
	all, err := a.mounted(keepData)
	if err == nil && len(all) > 0 {
		err = fmt.Errorf("cannot remove %s: %s: %w", a.rec.Name, strings.Join(all, ", "), ErrMounted)
	}
	return err
}

// clearOne removes what is ours of name, entry by entry: a directory under another name
// first, since what has its own name is whole.
func (a *Agent) clearOne(p *pace, name string) error {
	path := a.path(name)
	if ours[name] == nil {
		if info, err := os.Lstat(path); err == nil && info.IsDir() {
			return nil // not as we make it
		}
		return atomic.Remove(path)
	}
	if !directory(path) {
		return nil
	}
	if err := atomic.Sweep(path); err != nil {
		return err
	}
	own, _, err := a.owned(name)
	if err != nil {
		return err
	}
	for _, path := range own {
		if err := a.clearEntry(p, path); err != nil {
			return err
		}
		a.crash("removal of some of " + name)
	}
	err = unix.Rmdir(path)
	if slices.Contains([]error{unix.ENOTEMPTY, unix.ENOTDIR, unix.EBUSY}, err) { // somebody's, a link, a mount point
		return nil
	}
	return err
}

// clearEntry removes a file, or a directory.
func (a *Agent) clearEntry(p *pace, path string) error {
	info, err := os.Lstat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err != nil || !info.IsDir() {
		return atomic.Remove(path)
	}
	dir, name := filepath.Split(path)
	if _, staged := atomic.Staged(name); !staged {
		if name, err = hide(dir, name); err != nil {
			return err
		}
		a.crash("removal hid " + filepath.Base(path))
	}
	return p.removeTree(dir, name)
}

// Leftovers returns what is still in the directory, for people.
func (a *Agent) Leftovers() []string {
	entries, err := os.ReadDir(a.o.Dir)
	if err != nil {
		return nil
	}
	var all []string
	for _, e := range entries {
		if own, foreign, err := a.owned(e.Name()); err == nil && len(own) == 0 && len(foreign) > 0 {
			all = append(all, foreign...)
			continue
		}
		all = append(all, a.path(e.Name()))
	}
	return all
}
