package boltmeta

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	bolt "go.etcd.io/bbolt"

	"deploytools/atomic"
)

// newPattern names files that are being made.
const newPattern = ".state.db-*.new"

// create makes the file path, unless somebody else was faster. A power loss in
// bbolt's own first writes can leave a file that does not open (bbolt #567),
// so the file gets its name when it is whole and synced.
func create(path string) error {
	f, err := os.CreateTemp(filepath.Dir(path), newPattern)
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = fmt.Errorf("directory %s: %w", filepath.Dir(path), e.Err) // and not the name that nobody knows
	}
	if err != nil {
		return fmt.Errorf("cannot make state file %q: %w", path, err)
	}
	defer f.Close()
	err = fill(f)
	if err == nil {
		// link(2) and not rename(2): the file that another process made
		// meanwhile, and has open, must not be replaced.
		err = os.Link(f.Name(), path)
	}
	if errors.Is(err, fs.ErrExist) {
		err = nil
	}
	// This makes the link durable too: it is in the same directory.
	if err := errors.Join(err, atomic.Remove(f.Name())); err != nil {
		return fmt.Errorf("cannot make state file %q: %w", path, err)
	}
	return nil
}

// fill makes f, which is empty, a database without keys, durably.
func fill(f *os.File) error {
	b, err := bolt.Open(f.Name(), 0o600, nil)
	if err != nil {
		return err
	}
	err = b.Update(func(tx *bolt.Tx) error {
		about, err := tx.CreateBucket(bucketAbout)
		if err != nil {
			return err
		}
		if err := about.Put(keyFormat, []byte(strconv.Itoa(format))); err != nil {
			return err
		}
		_, err = tx.CreateBucket(bucketKeys)
		return err
	})
	return errors.Join(err, b.Close(), f.Sync())
}

// sweep removes what calls of create left that were cut short. The caller has
// path open: nobody makes it now, or whoever does will find it there.
func sweep(path string) error {
	dir := filepath.Dir(path)
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if left, _ := filepath.Match(newPattern, e.Name()); left {
			err = errors.Join(err, atomic.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return err
}
