package fsblobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	syncatomic "sync/atomic"

	"deploytools/atomic"
	"deploytools/registry"
)

// store is what the Blobs and the Spool of one directory share.
type store struct {
	files, uploads string
	sync           func(*os.File) error      // (*os.File).Sync; tests let it fail
	broken         syncatomic.Pointer[error] // why nothing is changed any more
}

// Open returns the Blobs and the Spool of the directory dir and makes what is
// missing of it, with the mode 0700.
func Open(dir string) (*Blobs, *Spool, error) {
	s := &store{files: filepath.Join(dir, "files"), uploads: filepath.Join(dir, "uploads"), sync: (*os.File).Sync}
	for _, d := range []string{s.files, s.uploads} {
		if err := atomic.MkdirAll(d, 0o700); err != nil {
			return nil, nil, err
		}
	}
	return &Blobs{s}, &Spool{s}, nil
}

// ready says why a change cannot begin.
func (s *store) ready(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return s.changeable()
}

func (s *store) changeable() error {
	if err := s.broken.Load(); err != nil {
		return *err
	}
	return nil
}

// settled passes on the error of a change that package atomic made, and ends
// all changes when it was made and could not be synced.
func (s *store) settled(err error) error {
	if errors.Is(err, atomic.ErrUnsynced) {
		err = fmt.Errorf("%w: %w", registry.ErrReadOnly, err)
		s.broken.CompareAndSwap(nil, &err)
	}
	return err
}

// resync makes durable that path is there, which a call cut short before its
// own sync may have left undone. rename(2) of a name to itself changes nothing.
func (s *store) resync(path string) error { return s.settled(atomic.Rename(path, path)) }

// regular yields the regular files in dir, without those that go meanwhile.
func (s *store) regular(ctx context.Context, dir string) iter.Seq2[fs.FileInfo, error] {
	return func(yield func(fs.FileInfo, error) bool) {
		err := s.eachRegular(ctx, dir, func(info fs.FileInfo) bool { return yield(info, nil) })
		if err != nil {
			yield(nil, fmt.Errorf("cannot list %s: %w", dir, err))
		}
	}
}

// eachRegular returns nil when yield wants no more.
func (s *store) eachRegular(ctx context.Context, dir string, yield func(fs.FileInfo) bool) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		entries, err := f.ReadDir(256)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		for _, e := range entries {
			info, err := e.Info()
			switch {
			case errors.Is(err, fs.ErrNotExist):
			case err != nil:
				return err
			case info.Mode().IsRegular() && !yield(info):
				return nil
			}
		}
	}
}
