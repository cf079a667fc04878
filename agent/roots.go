package agent

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"deploytools/atomic"
	"deploytools/layers/digest"
	"deploytools/layers/manifest"
	"deploytools/registry/wire"
)

// id names a deployment, and the root that its first try fills.
func id(seq uint64, c *wire.Configuration) string {
	return fmt.Sprintf("%06d-%s", seq, c.Hash.Short())
}

// A root's document lies in roots/, also where the root itself is elsewhere.
func (a *Agent) rootFile(r *Root, suffix string) string {
	return a.path("roots", filepath.Base(r.Dir)+suffix)
}

// writeRoot makes the root's document durable.
func (a *Agent) writeRoot(r *Root) error {
	b, err := encode(r)
	if err != nil {
		return fmt.Errorf("internal error: %w", err)
	}
	return atomic.WriteFile(a.rootFile(r, ".json"), b, 0o600)
}

// sealRoot makes the manifest of a tree that was just filled durable, and notes
// in r what tells whether either has changed since.
func (a *Agent) sealRoot(r *Root, m iter.Seq2[manifest.Entry, error]) error {
	file := a.rootFile(r, ".manifest")
	w, err := atomic.Create(file, 0o600)
	if err != nil {
		return err
	}
	defer w.Abort() // does nothing after Commit
	text := digest.NewWriter()
	if err := manifest.Encode(io.MultiWriter(w, text), m); err != nil {
		return err
	}
	if err := w.Commit(); err != nil {
		return err
	}
	info, err := os.Lstat(file)
	if err != nil {
		return err
	}
	r.Manifest, r.Filled = text.Digest(), info.ModTime().UTC()
	return nil
}

// roots returns the complete roots that have a readable document, in the order
// of their commits and by name. A damaged document is said and passed by: its root is
// then one that was never committed. The error wraps errNewer where one is.
func (a *Agent) roots() ([]*Root, error) {
	entries, err := os.ReadDir(a.path("roots")) // not Glob, to which the directory's name can be a pattern
	if err != nil {
		return nil, err
	}
	var roots []*Root
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || filepath.Ext(e.Name()) != ".json" {
			continue
		}
		r, err := readRoot(a.path("roots", e.Name()))
		if errors.Is(err, errDamaged) || errors.Is(err, fs.ErrNotExist) {
			a.log().Warn("root's document not used", "root", e.Name(), "error", err)
			continue
		}
		if err != nil {
			return nil, err
		}
		if info, err := os.Lstat(a.path(r.Dir)); err == nil && info.IsDir() {
			roots = append(roots, r)
		}
	}
	slices.SortFunc(roots, func(x, y *Root) int {
		return cmp.Or(cmp.Compare(x.Seq, y.Seq), x.Committed.Compare(y.Committed), cmp.Compare(x.Dir, y.Dir))
	})
	return roots, nil
}

// committed returns the committed root of that name, relative to the agent's
// directory; nil: there is none. Documents of other roots do not matter.
func (a *Agent) committed(dir string) (*Root, error) {
	r, err := readRoot(a.path("roots", filepath.Base(dir)+".json"))
	switch {
	case errors.Is(err, errDamaged), errors.Is(err, errNewer), errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	}
	if info, err := os.Lstat(a.path(r.Dir)); err != nil || !info.IsDir() || r.Dir != dir || r.Committed.IsZero() {
		return nil, nil
	}
	return r, nil
}

func readRoot(file string) (*Root, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	r := new(Root)
	if err := decode(b, r); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if want := strings.TrimSuffix(filepath.Base(file), ".json"); r.Configuration == nil || filepath.Base(r.Dir) != want || !filepath.IsLocal(r.Dir) {
		return nil, fmt.Errorf("%s: is about %q: %w", file, r.Dir, errDamaged)
	}
	return r, nil
}
