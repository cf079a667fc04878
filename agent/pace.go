package agent

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"deploytools/atomic"
)

// pace removes trees in small batches with pauses between them.
type pace struct {
	ctx     context.Context
	removed int
	point   func(string) // nil: for trees alone
}

// step comes before each removal. It returns an error when ctx is done.
func (p *pace) step() error {
	p.removed++
	if p.removed%batch == 0 {
		return sleep(p.ctx, batchPause)
	}
	return p.ctx.Err()
}

// hide gives the directory name in dir, as the first step of its removal, a name that
// says so: one without a dot is whole. It is durable then.
func hide(dir, name string) (hidden string, err error) {
	hidden = "." + name + ".partial"
	return hidden, atomic.Rename(filepath.Join(dir, name), filepath.Join(dir, hidden))
}

// removeTree removes the tree name in dir. It follows no link, enters nothing that is
// mounted in it, needs no right that its owner can give himself, and when ctx is done
// leaves the rest.
func (p *pace) removeTree(dir, name string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return p.remove(root, name)
}

func (p *pace) remove(root *os.Root, name string) error {
	info, err := root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.IsDir() {
		if info.Mode().Perm()&0o700 != 0o700 {
			if err := root.Chmod(name, 0o700); err != nil {
				return err
			}
		}
		if err := p.empty(root, name); err != nil {
			return err
		}
	}
	if err := p.step(); err != nil {
		return err
	}
	return root.Remove(name)
}

// empty removes what is in a directory, a batch of names at a time.
func (p *pace) empty(root *os.Root, dir string) error {
	for {
		f, err := root.Open(dir)
		if err != nil {
			return err
		}
		var names []string
		if err = notMounted(f); err == nil {
			names, err = f.Readdirnames(batch)
		}
		f.Close()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, n := range names {
			if err := p.remove(root, path.Join(dir, n)); err != nil {
				return err
			}
		}
	}
}
