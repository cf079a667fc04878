package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"deploytools/atomic"
	"deploytools/layers/digest"
)

// Kept is one thing on disk that a collection may remove, and what the next one
// will do with it.
type Kept struct {
	Path  string `json:"path"` // relative to the agent's directory
	Kind  string `json:"kind"` // root, layer, rest
	Stays bool   `json:"stays"`
	Why   string `json:"why"`
	Bytes int64  `json:"size_bytes"` // of a layer; of a root, what its layers unpack to, where that is known
}

// ExplainCollection returns what the next collection removes, and why the rest
// stays: roots, layers, and what was begun. It removes nothing.
func (a *Agent) ExplainCollection() ([]Kept, error) {
	r := a.Record()
	roots, err := a.roots()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	n := a.needed(r, roots)
	out := []Kept{}
	entries, err := os.ReadDir(a.path("roots"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	byName := map[string]*Root{}
	for _, root := range roots {
		byName[filepath.Base(root.Dir)] = root
	}
	for _, e := range entries {
		if e.IsDir() {
			out = append(out, a.explainRoot(r, n, e.Name(), byName[e.Name()]))
		}
	}
	cached, err := os.ReadDir(a.path("cache"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range cached {
		if k, ok := a.explainLayer(n, e); ok {
			out = append(out, k)
		}
	}
	return out, nil
}

func (a *Agent) explainRoot(r *Record, n needed, name string, root *Root) Kept {
	k := Kept{Path: filepath.Join("roots", name), Kind: "root"}
	if root != nil {
		for _, l := range root.Configuration.Layers {
			k.Bytes += l.Unpacked
		}
	}
	d := r.Deployment
	is := func(root *Root) bool { return root != nil && root.Dir == k.Path }
	link, _ := a.link()
	switch hidden, staged := atomic.Staged(name); {
	case staged && rootName.MatchString(hidden):
		k.Kind, k.Why = "rest", "what was begun, or is half deleted"
	case !rootName.MatchString(name):
		k.Stays, k.Why = true, "not ours"
	case is(r.Live):
		k.Stays, k.Why = true, "live"
	case is(r.Back):
		k.Stays, k.Why = true, "where a rollback leads"
	case d != nil && (is(&d.New) || is(d.From) || is(d.Back)):
		k.Stays, k.Why = true, "of the deployment under way"
	case r.Wanted == k.Path:
		k.Stays, k.Why = true, "a person wants it live"
	case filepath.Clean(link) == k.Path:
		k.Stays, k.Why = true, "`current` names it"
	case n.roots[name]:
		k.Stays, k.Why = true, fmt.Sprintf("among the %d earlier roots to keep", a.o.Keep.Roots)
	case root == nil || root.Committed.IsZero():
		k.Why = "never committed"
	default:
		k.Why = fmt.Sprintf("older than the %d earlier roots to keep", a.o.Keep.Roots)
	}
	return k
}

func (a *Agent) explainLayer(n needed, e os.DirEntry) (Kept, bool) {
	k := Kept{Path: filepath.Join("cache", e.Name()), Kind: "layer"}
	name := strings.TrimSuffix(strings.TrimPrefix(e.Name(), "."), ".partial")
	info, err := e.Info()
	if err != nil || !info.Mode().IsRegular() {
		return k, false
	}
	k.Bytes = info.Size()
	d, err := digest.Parse(name)
	old := info.ModTime().Add(a.o.Keep.CacheAge)
	switch {
	case err != nil:
		k.Kind, k.Stays, k.Why = "rest", true, "not ours"
	case n.layers[d]:
		k.Stays, k.Why = true, "of a root that stays"
	case time.Now().Before(old):
		k.Stays, k.Why = true, "no root has it; it goes after "+stamp(old)
	default:
		k.Why = "no root that stays has it"
	}
	if err == nil && name != e.Name() {
		k.Kind = "rest"
	}
	return k, true
}
