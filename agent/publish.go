package agent

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"deploytools/layers/digest"
)

// Publish says what of the roots lies at fixed paths as well.
type Publish struct {
	Files []Mapping // the host's own
	// Allow are prefixes that destinations have to be below. Without any the
	// host's own mappings may be anywhere, and what a root says is not read.
	Allow []string
	// Agents are directories of agents: no two of these publish to one path, nor of
	// those that lie where ours does, or where the units have theirs.
	Agents []string
}

// Check refuses what can be known to be wrong without looking at a disk.
func (p *Publish) Check() error {
	seen := map[string]bool{}
	for _, m := range p.Files {
		if err := m.check(m.From); err != nil {
			return err
		}
		if seen[m.To] {
			return fmt.Errorf("two files cannot be published to %s", m.To)
		}
		seen[m.To] = true
	}
	for _, prefix := range p.Allow {
		if !filepath.IsAbs(prefix) {
			return fmt.Errorf("prefix %q: should be an absolute path", prefix)
		}
	}
	return nil
}

// Published is a file that lies at a fixed path.
type Published struct {
	Mapping               // To has no link in the path of its directory
	Digest  digest.Digest // of the bytes
	Perm    fs.FileMode   // of the file in the root
}

// publishes returns what NEWROOT publishes on this host, by destination. What a root of an
// earlier time lacks, which a person goes back to, it publishes not.
func (a *Agent) publishes(d *Deployment) ([]Published, error) {
	root, err := os.OpenRoot(a.path(d.New.Dir))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	all, err := a.wants(root)
	if err != nil {
		return nil, err
	}
	allow := a.prefixes()
	var found []Published
	by := map[string]*wanted{}
	for i := range all {
		w := &all[i]
		p, err := w.find(root, d.ByHand)
		if err == nil && p == nil {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", w.where, err)
		}
		if err := p.resolve(); err != nil {
			return nil, fmt.Errorf("%s: %w", w.where, err)
		}
		if err = a.allowed(p, allow); err == nil && by[p.To] != nil {
			err = fmt.Errorf("%s is published to by %s already", p.To, by[p.To].where)
		}
		if err != nil {
			return nil, w.refuse(err)
		}
		by[p.To] = w
		found = append(found, *p)
	}
	slices.SortFunc(found, func(x, y Published) int { return cmp.Compare(x.To, y.To) })
	return found, nil
}

// wants returns the host's mappings, and the root's where those are read.
func (a *Agent) wants(root *os.Root) ([]wanted, error) {
	var all []wanted
	for _, m := range a.o.Publish.Files {
		all = append(all, wanted{m, "-publish " + m.From + "=" + m.To, false})
	}
	if len(a.o.Publish.Allow) == 0 {
		return all, nil
	}
	info, err := root.Stat(mappingsName)
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	var text []byte
	switch {
	case err == nil && !info.Mode().IsRegular():
		err = errors.New("is no regular file")
	case err == nil && info.Size() > maxMappingsBytes:
		err = fmt.Errorf("has %d bytes, and cannot have more than %d", info.Size(), maxMappingsBytes)
	case err == nil:
		text, err = root.ReadFile(mappingsName)
	}
	if err != nil {
		return nil, bad(fmt.Errorf("%s: %w", mappingsName, err))
	}
	its, err := parseMappings(text)
	if err != nil {
		return nil, bad(err)
	}
	return append(all, its...), nil
}

// find looks at the file in the root; nil: it is not there, and need not be.
func (w *wanted) find(root *os.Root, lenient bool) (*Published, error) {
	info, err := root.Stat(w.From) // first: to open a fifo would wait
	if errors.Is(err, fs.ErrNotExist) && (w.Optional || lenient) {
		return nil, nil
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, bad(fmt.Errorf("the root has no file %s", w.From))
	case err != nil: // a link out of the root too
		return nil, bad(err)
	case !info.Mode().IsRegular():
		return nil, bad(fmt.Errorf("%s in the root is no regular file", w.From))
	}
	f, err := root.Open(w.From)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h := digest.NewWriter()
	if _, err := io.Copy(h, f); err != nil {
		return nil, err
	}
	return &Published{w.Mapping, h.Digest(), info.Mode().Perm()}, nil
}

// resolve gives the destination its one path. Its directory is the host's to make.
func (p *Published) resolve() error {
	dir, err := filepath.EvalSymlinks(filepath.Dir(p.To))
	if err != nil {
		return fmt.Errorf("cannot publish to %s: %w", p.To, err)
	}
	p.To = filepath.Join(dir, filepath.Base(p.To))
	return nil
}

// allowed refuses a destination where nothing may be published.
func (a *Agent) allowed(p *Published, allow []string) error {
	own, err := filepath.EvalSymlinks(a.o.Dir)
	switch {
	case err != nil:
		return err
	case len(allow) > 0 && !below(p.To, allow):
		return fmt.Errorf("%s is not below any of -publish-allow: %s", p.To, strings.Join(a.o.Publish.Allow, ", "))
	case below(p.To, []string{own}):
		return fmt.Errorf("%s is in the agent's own directory", p.To)
	}
	return nil
}

// prefixes returns those that are there, without links in them. An empty list
// would allow everything, so there is always one.
func (a *Agent) prefixes() []string {
	var all []string
	for _, prefix := range a.o.Publish.Allow {
		if real, err := filepath.EvalSymlinks(prefix); err == nil {
			all = append(all, real)
		} else {
			all = append(all, filepath.Clean(prefix))
		}
	}
	return all
}

// unclaimed refuses what another agent of this host publishes to. Whoever asks
// has its own on record by then: of two that ask at once, one at least is refused.
func (a *Agent) unclaimed(files []Published) error {
	if len(files) == 0 {
		return nil
	}
	for _, dir := range a.neighbours() {
		b, err := os.ReadFile(filepath.Join(dir, "journal.json"))
		r := new(Record)
		if err != nil || decode(b, r) != nil {
			continue // no agent's, or not ours to judge
		}
		theirs := slices.Clone(r.Published)
		if d := r.Deployment; d != nil {
			theirs = append(theirs, d.New.Published...)
		}
		for _, p := range files {
			if slices.ContainsFunc(theirs, func(t Published) bool { return t.sameFile(p) }) {
				return fmt.Errorf("configurations %s and %s cannot both publish to %s; the other one is in %s", a.o.Name, r.Name, p.To, dir)
			}
		}
	}
	return nil
}

// sameFile reports whether both are published to one file: by one path, or because
// one directory is mounted at two places.
func (p Published) sameFile(q Published) bool {
	return p.To == q.To || filepath.Base(p.To) == filepath.Base(q.To) && sameDir(filepath.Dir(p.To), filepath.Dir(q.To))
}

// neighbours returns directories in which other agents may work.
func (a *Agent) neighbours() []string {
	all := slices.Clone(a.o.Publish.Agents)
	for _, parent := range []string{filepath.Dir(a.o.Dir), UnitDir} {
		entries, _ := os.ReadDir(parent) // what cannot be looked at has nothing to say
		for _, e := range entries {
			all = append(all, filepath.Join(parent, e.Name()))
		}
	}
	slices.Sort(all)
	return slices.DeleteFunc(slices.Compact(all), func(dir string) bool { return sameDir(dir, a.o.Dir) })
}

func sameDir(x, y string) bool {
	a, errA := os.Stat(x)
	b, errB := os.Stat(y)
	return x == y || errA == nil && errB == nil && os.SameFile(a, b)
}
