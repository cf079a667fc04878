package atomic

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
)

// Why the order is crash safe. A file is filled under a name that nobody reads.
// fsync(2) brings its bytes and its mode to the disk before rename(2) gives it
// the name that is read: without it a power loss may leave the new name on an
// empty file, since the journal keeps the rename and not the bytes. rename(2)
// replaces the old file in one step, so that there is no instant without either.
// The rename itself lives in the directory: fsync(2) of the file does not write
// it (fsync(2), DESCRIPTION), so the directory is synced before success is told.
// A symbolic link cannot be opened, hence not be synced; its target is written
// with the directory that names it.

// WriteFile makes data the content of the file path, with the mode perm
// whatever the umask is, and makes it durable. A reader that opens path sees
// the old content or the new. The file is a new one: it belongs to the process,
// and other hard links to the old one keep the old content. If path is a
// symbolic link or anything else but a regular file, it is not replaced, and
// the error wraps [ErrOccupied].
func WriteFile(path string, data []byte, perm fs.FileMode) error {
	return disk{}.writeFile(path, data, perm)
}

func (d disk) writeFile(path string, data []byte, perm fs.FileMode) error {
	f, err := d.createFile(path, perm)
	if err != nil {
		return err
	}
	defer f.Abort() // nothing, once Commit has returned nil
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Commit()
}

// Symlink makes link a symbolic link to target, in place of the link that was
// there, if any, and makes that durable. A reader of link gets the old target
// or the new. The target is text; it need not exist. If link is anything but a
// symbolic link, it is not replaced, and the error wraps [ErrOccupied].
func Symlink(target, link string) error { return disk{}.relink(target, link) }

func (d disk) relink(target, link string) error {
	link = filepath.Clean(link)
	if err := d.relinkSynced(target, link); err != nil {
		return fmt.Errorf("cannot link %s: %w", link, nameless(err))
	}
	return nil
}

func (d disk) relinkSynced(target, link string) error {
	dir, err := d.openDir(filepath.Dir(link))
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := d.free(link, fs.ModeSymlink); err != nil {
		return err
	}
	temp := tempName(link)
	if err := d.symlink(target, temp); err != nil {
		return err
	}
	if err := d.rename(temp, link); err != nil {
		d.remove(temp)
		return err
	}
	return d.settle(dir)
}

// Rename gives what is called from the name to, replacing what rename(2)
// replaces, and makes that durable. Only names are synced: the content of a
// file must have been made durable before, or a power loss may leave its new
// name without it. Both names are on one file system. A link made beforehand
// by [Symlink] is put in place by Rename without making anything new.
func Rename(from, to string) error { return disk{}.move(from, to) }

func (d disk) move(from, to string) error {
	from, to = filepath.Clean(from), filepath.Clean(to)
	if err := d.moveSynced(from, to); err != nil {
		return fmt.Errorf("cannot rename %s to %s: %w", from, to, err)
	}
	return nil
}

// moveSynced syncs the directory of the new name first: where a file system
// does not write both in one transaction, a thing with two names is better
// than a thing with none.
func (d disk) moveSynced(from, to string) error {
	into, err := d.openDir(filepath.Dir(to))
	if err != nil {
		return err
	}
	defer into.Close()
	outOf := into
	if filepath.Dir(from) != filepath.Dir(to) {
		if outOf, err = d.openDir(filepath.Dir(from)); err != nil {
			return err
		}
		defer outOf.Close()
	}
	if err := d.rename(from, to); err != nil {
		return err
	}
	if err := d.settle(into); err != nil || outOf == into {
		return err
	}
	return d.settle(outOf)
}

// Remove removes the file, the link or the empty directory path, and makes
// that durable. Absent is no error, and is made durable as well: the call that
// removed it may have been cut short before its sync.
func Remove(path string) error { return disk{}.removeSynced(path) }

func (d disk) removeSynced(path string) error {
	path = filepath.Clean(path)
	dir, err := d.openDir(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot remove %s: %w", path, err)
	}
	defer dir.Close()
	err = d.remove(path)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = d.settle(dir)
	}
	if err != nil {
		return fmt.Errorf("cannot remove %s: %w", path, err)
	}
	return nil
}
