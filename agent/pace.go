package agent

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
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

// removeTree removes the tree name in dir. It follows no link, needs no right
// that its owner can give himself, and when ctx is done leaves the rest.
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
		names, err := f.Readdirnames(batch)
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
