package agent

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"deploytools/atomic"
	"deploytools/layers"
	"deploytools/layers/digest"
)

// indexSuffix names what is known of the layers of a root for the next one. It is
// there only where roots can share files, and nothing but speed depends on it.
const indexSuffix = ".index"

// reuse returns the root whose files NEWROOT may take over, before it has a
// number: the live one, for a deployment's first try. Later tries, and repairs,
// take nothing for granted. What cannot be read of the index is not used.
func (a *Agent) reuse() *layers.Reuse {
	live, d := a.rec.Live, a.rec.Deployment
	if live == nil || d.Repair || d.New.Dir != "" {
		return &layers.Reuse{}
	}
	b, err := os.ReadFile(a.rootFile(live, indexSuffix))
	if err != nil {
		return &layers.Reuse{}
	}
	return &layers.Reuse{
		Dir: a.path(live.Dir), Index: b,
		Proven:   a.patrol.proven.of(live.Dir, 2*a.o.Checks.Inspect),
		Manifest: func() (io.ReadCloser, error) { return openManifest(a.rootFile(live, ".manifest"), live.Manifest) },
	}
}

// takeOver is reuse for a root that is filled next.
func (a *Agent) takeOver() *layers.Reuse {
	a.patrol.proven.linked = true
	return a.reuse()
}

// openManifest opens the text of a manifest that has this digest.
func openManifest(name string, d digest.Digest) (*os.File, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	if err := provedFile(f, d); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// writeIndex keeps the index beside the root, if there is one.
func (a *Agent) writeIndex(r *Root, index [][]byte) error {
	if len(index) == 0 {
		return nil
	}
	w, err := atomic.Create(a.rootFile(r, indexSuffix), 0o600)
	if err != nil {
		return err
	}
	defer w.Abort() // does nothing after Commit
	for _, b := range index {
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	return w.Commit()
}

// index looks at an index.
func (i *inspector) index(name string) {
	b, err := os.ReadFile(filepath.Join(i.dir, name))
	if err == nil {
		i.looked.Records++
		err = layers.CheckIndex(b)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		i.damaged(name, err)
	}
}
