package boltmeta

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"deploytools/atomic"
	"deploytools/registry"
)

// KeptSuffix is added to the name of an upstream file that was imported.
const KeptSuffix = ".upstream"

// Import puts a state file of ours in the place of the upstream one at path,
// which stays beside it under its name and KeptSuffix. fill is given what the
// old one holds and returns the records of the new one. With an error, and
// wherever a crash cuts Import short, path is as it was or imported whole; a
// file that needs no import is an error.
//
// Nobody else has the old file open meanwhile, or the error is ErrInUse.
func Import(path string, o Options, fill func(registry.Upstream) (map[string][]byte, error)) error {
	unlock, err := LockDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer unlock()
	return importing{path: path, o: o, fill: fill}.run()
}

// importing is one import; step, if not nil, is called before each change on
// disk and can fail it.
type importing struct {
	path string
	o    Options
	fill func(registry.Upstream) (map[string][]byte, error)
	step func(name string) error
}

func (i importing) at(name string) error {
	if i.step == nil {
		return nil
	}
	return i.step(name)
}

func (i importing) run() error {
	// Open all the time, so that upstream's program cannot begin to write.
	old, up, err := openUpstream(i.path, i.o)
	if err != nil {
		return err
	}
	defer old.Close()
	records, err := i.fill(up)
	if err != nil {
		return err
	}
	if err := i.replace(records); err != nil {
		return fmt.Errorf("cannot import state file %q: %w", i.path, err)
	}
	return nil
}

// replace makes the new file whole and durable under a hidden name, gives the
// old one its second name, and then takes its first with rename(2): at each
// moment path is one of the two.
func (i importing) replace(records map[string][]byte) (err error) {
	if err := i.at("create"); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(i.path), newPattern)
	if err != nil {
		return err
	}
	defer f.Close()
	defer func() {
		if err != nil && i.at("clean") == nil {
			atomic.Remove(f.Name())
		}
	}()
	if err := i.at("fill"); err != nil {
		return err
	}
	if err := fill(f); err != nil {
		return err
	}
	if err := i.store(f.Name(), records); err != nil {
		return err
	}
	if err := i.at("sync"); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := i.at("keep"); err != nil {
		return err
	}
	if err := keep(i.path, i.path+KeptSuffix); err != nil {
		return err
	}
	if err := i.at("rename"); err != nil {
		return err
	}
	return atomic.Rename(f.Name(), i.path) // and both names are durable: one directory
}

// keep gives the old file its second name. An import that was cut short may
// have done so.
func keep(path, kept string) error {
	err := os.Link(path, kept)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	a, errA := os.Stat(path)
	b, errB := os.Stat(kept)
	if err := errors.Join(errA, errB); err != nil {
		return err
	}
	if !os.SameFile(a, b) {
		return fmt.Errorf("%s is in the way: rename it", kept)
	}
	return nil
}

// store writes the records.
func (i importing) store(path string, records map[string][]byte) error {
	b, err := bolt.Open(path, 0o600, &bolt.Options{NoSync: true}) // replace syncs all of it
	if err != nil {
		return err
	}
	db := newDB(b)
	for batch := range slices.Chunk(slices.Sorted(maps.Keys(records)), registry.MaxWrites) {
		if err = i.at("store"); err != nil {
			break
		}
		err = db.Update(context.Background(), func(tx registry.Tx) error {
			for _, key := range batch {
				if err := tx.Put(key, records[key]); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			break
		}
	}
	return errors.Join(err, db.Close())
}

// LockDir keeps other calls of LockDir out of a directory: imports and restores. The lock ends with the
// process, however it ends, and leaves no file.
func LockDir(dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = fmt.Errorf("directory %s is being filled by another process: %w", dir, ErrInUse)
		}
		return nil, err
	}
	return func() { f.Close() }, nil
}
