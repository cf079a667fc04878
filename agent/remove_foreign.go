package agent

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

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

// clearAround removes what is ours of a directory, and leaves the rest in it.
func (a *Agent) clearAround(p *pace, own []string, name, hidden string) error {
	if err := atomic.MkdirAll(a.path(hidden), 0o700); err != nil {
		return err
	}
	for _, path := range own {
		if err := atomic.Rename(path, a.path(hidden, filepath.Base(path))); err != nil {
			return err
		}
		a.crash("removal hid some of " + name)
	}
	return p.removeTree(a.o.Dir, hidden)
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
