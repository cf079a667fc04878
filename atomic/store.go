package atomic

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// A Store publishes sets of files at fixed paths, one set at a time. It is a
// directory for its owner alone, with the journal of the set under way, the
// record of what is published, and former contents that are kept. Stores of
// several processes and several Stores exclude each other where they change the
// same directories. It is safe for concurrent use.
type Store struct {
	disk disk
	dir  string
}

// Names in the directory of a store.
const (
	lockName      = "lock"
	journalName   = "journal.json"
	undoName      = "journal-back.json" // the journal of a set that goes back
	publishedName = "published.json"
	keptName      = "kept"
	previewName   = "preview"
)

// OfStore reports whether a Store gives this name to something in its directory.
func OfStore(name string) bool {
	return slices.Contains([]string{lockName, journalName, undoName, publishedName, keptName, previewName}, name)
}

// OpenStore opens the store in dir and makes it if there is none.
func OpenStore(dir string) (*Store, error) { return disk{}.openStore(dir) }

func (d disk) openStore(dir string) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err == nil {
		err = d.mkdirAll(filepath.Join(dir, keptName), 0o700)
	}
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir) // no destination may lie in it
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open store: %w", err)
	}
	return &Store{disk: d, dir: dir}, nil
}

func (s *Store) path(name string) string { return filepath.Join(s.dir, name) }

// hold takes the lock of the store and sweeps what a crash has left in it.
func (s *Store) hold(ctx context.Context) (*Lock, error) {
	lock, err := Wait(ctx, s.path(lockName))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBusy, err)
	}
	if err := s.disk.sweep(s.dir); err != nil {
		lock.Release()
		return nil, err
	}
	return lock, nil
}

// read returns the journal, nil if no set is under way, and the record.
func (s *Store) read() (*journal, *published, error) {
	j, p := &journal{}, &published{}
	back, err := s.disk.readJSON(s.path(undoName), j)
	under := back
	if err == nil && !back {
		under, err = s.disk.readJSON(s.path(journalName), j)
	}
	if err != nil {
		return nil, nil, err
	}
	if _, err := s.disk.readJSON(s.path(publishedName), p); err != nil {
		return nil, nil, err
	}
	for _, format := range []int{j.Format, p.Format} {
		if format > formatVersion {
			return nil, nil, fmt.Errorf("store %s: has format %d, and this program knows %d at most", s.dir, format, formatVersion)
		}
	}
	if !under {
		return nil, p, nil
	}
	if j.Try == p.Try { // the record has it: what is left is to tidy up
		j.State = Finished
	} else if back {
		j.State = Undoing
	}
	return j, p, nil
}

// A folder is the directory of destinations: open, to sync it, and locked.
type folder struct {
	path string
	file *os.File
	id   [2]uint64 // device and inode
}

// strangerPatience is how long a set that is under way waits for the lock of a
// directory. Whoever may read a directory can lock it: that must not keep the old
// files from coming back. What a set does there holds without the lock as well,
// since it looks at each file before and after.
const strangerPatience = 10 * time.Second

// folders opens the directories and locks them. One that has several names is
// locked once, and all in one order, so that two sets that have directories in
// common do not wait for each other for ever. For a set that is under way those
// are passed over that are not there any more, and locks that do not come.
func (d disk) folders(ctx context.Context, paths []string, underWay bool) (all []folder, err error) {
	defer func() {
		if err != nil {
			closeFolders(all)
			all = nil
		}
	}()
	for _, path := range paths {
		if slices.ContainsFunc(all, func(f folder) bool { return f.path == path }) {
			continue
		}
		file, err := d.openDir(path)
		if underWay && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return all, err
		}
		f := folder{path: path, file: file}
		all = append(all, f)
		var st unix.Stat_t
		if err := unix.Fstat(int(file.Fd()), &st); err != nil {
			return all, fmt.Errorf("cannot look at %s: %w", path, err)
		}
		all[len(all)-1].id = [2]uint64{st.Dev, st.Ino}
	}
	slices.SortFunc(all, func(a, b folder) int { return slices.Compare(a.id[:], b.id[:]) })
	patient := ctx
	if underWay {
		var cancel context.CancelFunc
		patient, cancel = context.WithTimeout(ctx, strangerPatience)
		defer cancel()
	}
	for i, f := range all {
		if i > 0 && f.id == all[i-1].id {
			continue
		}
		err := lockFolder(patient, f)
		if underWay && errors.Is(err, ErrBusy) && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return all, err
		}
	}
	return all, nil
}

// lockFolder waits until it has the lock of the directory itself: it needs no
// file of its own there, and is one lock whatever path leads to it.
func lockFolder(ctx context.Context, f folder) error {
	again := time.NewTicker(waitInterval)
	defer again.Stop()
	for {
		err := unix.Flock(int(f.file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case err == unix.EINTR:
			continue
		case err != unix.EWOULDBLOCK:
			return fmt.Errorf("cannot lock %s: %w", f.path, err)
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return fmt.Errorf("%w: %s is locked: %w", ErrBusy, f.path, context.Cause(ctx))
		}
	}
}

func closeFolders(all []folder) {
	for _, f := range all {
		unix.Flock(int(f.file.Fd()), unix.LOCK_UN) // see Lock.Release
		f.file.Close()
	}
}

// Unfinished returns the set that is under way, as a crash or Close has left
// it, or nil. The caller closes it.
func (s *Store) Unfinished(ctx context.Context) (*Set, error) {
	lock, err := s.hold(ctx)
	if err != nil {
		return nil, err
	}
	j, p, err := s.read()
	if err != nil || j == nil {
		lock.Release()
		return nil, err
	}
	return s.take(ctx, lock, j, p)
}

// Prepared returns the set of this ID: one that is under way, or the one that
// finished last. Else the error wraps fs.ErrNotExist; then nothing of the set
// is left. The caller closes it.
func (s *Store) Prepared(ctx context.Context, id string) (*Set, error) {
	lock, err := s.hold(ctx)
	if err != nil {
		return nil, err
	}
	j, p, err := s.read()
	switch {
	case err != nil:
	case j != nil && j.ID == id:
		return s.take(ctx, lock, j, p)
	case p.ID == id && p.Try != "":
		return &Set{store: s, lock: lock, record: p, journal: &journal{ID: id, Try: p.Try, State: Finished}, tidy: true}, nil
	default:
		err = fmt.Errorf("set %s: %w", id, fs.ErrNotExist)
	}
	lock.Release()
	return nil, err
}

// take makes the set of a journal, with the locks of its directories. A
// directory that somebody has removed since, with all that was in it, must not
// keep the set from its end.
func (s *Store) take(ctx context.Context, lock *Lock, j *journal, p *published) (*Set, error) {
	set := &Set{store: s, lock: lock, journal: j, record: p}
	var err error
	if set.folders, err = s.disk.folders(ctx, j.directories(), true); err != nil {
		set.Close()
		if !errors.Is(err, ErrBusy) {
			err = fmt.Errorf("set %s: %w", j.ID, err)
		}
		return nil, err
	}
	return set, nil
}

func (j *journal) directories() []string {
	var dirs []string
	for _, it := range j.Items {
		dirs = append(dirs, filepath.Dir(it.Path))
	}
	return dirs
}
