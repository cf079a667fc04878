package atomic

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// MkdirAll makes the directory path and those above it that are missing, each
// with the mode perm whatever the umask is, and makes them durable. Directories
// that exist keep their mode; symbolic links to directories count as such. On
// an error those made so far stay, and another call goes on from there. If path
// or one above it is not a directory, the error wraps [ErrOccupied].
func MkdirAll(path string, perm fs.FileMode) error { return disk{}.mkdirAll(path, perm) }

func (d disk) mkdirAll(path string, perm fs.FileMode) error {
	path = filepath.Clean(path)
	if err := d.ensureDir(path, perm); err != nil {
		return fmt.Errorf("cannot make directory %s: %w", path, nameless(err))
	}
	return nil
}

// ensureDir works from the top: nothing is made in a directory before that one
// is durable. So of the directories that a call cut short has left only the
// deepest may be unsynced, and that is the one at which the next call starts.
func (d disk) ensureDir(path string, perm fs.FileMode) error {
	info, err := d.stat(path)
	switch {
	case err == nil && info.IsDir():
		return d.resync(path)
	case err == nil:
		return occupied(info.Mode())
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, fs.ErrNotExist):
		if err := d.ensureDir(filepath.Dir(path), perm); err != nil {
			return err
		}
		return d.newDir(path, perm)
	}
	return err
}

// newDir makes one directory. It appears with its mode: a mode that is set
// later would be missing for ever if the process died in between, since the
// next call leaves alone what exists.
func (d disk) newDir(path string, perm fs.FileMode) error {
	parent, err := d.openDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer parent.Close()
	temp := tempName(path)
	if err := d.mkdirMode(temp, perm); err != nil {
		return err
	}
	if err := d.renameNew(temp, path); err != nil {
		d.remove(temp)
		// Somebody else may have made the same directory meanwhile.
		if info, statErr := d.stat(path); statErr != nil || !info.IsDir() {
			return err
		}
	}
	return d.settle(parent)
}

// mkdirMode makes the directory temp with exactly the mode perm, or leaves none.
func (d disk) mkdirMode(temp string, perm fs.FileMode) error {
	if err := d.mkdir(temp); err != nil {
		return err
	}
	f, err := d.openDir(temp)
	if err == nil {
		defer f.Close()
		err = d.chmod(f, perm)
	}
	if err != nil {
		d.remove(temp)
	}
	return err
}

// resync makes a directory durable that exists already. Where its parent may
// not be opened, or is one whose file system keeps nothing (a mount point of an
// automounter), this package has not made it, and there is nothing to sync.
func (d disk) resync(path string) error {
	parent, err := d.openDir(filepath.Dir(path))
	if errors.Is(err, fs.ErrPermission) {
		return nil
	}
	if err != nil {
		return err
	}
	defer parent.Close()
	if err := d.settle(parent); err != nil && !errors.Is(err, unix.EINVAL) {
		return err
	}
	return nil
}
