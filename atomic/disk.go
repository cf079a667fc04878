package atomic

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// A gate stands before every call to the file system: it may record the call,
// fail it, or let it through by calling it. Tests crash the package with it.
type gate interface {
	do(op, path string, call func() error) error
}

// disk is the file system as the package uses it, one method for each call
// that can fail. The zero value is the real one.
type disk struct {
	gate gate
}

func (d disk) do(op, path string, call func() error) error {
	if d.gate == nil {
		return call()
	}
	return d.gate.do(op, path, call)
}

func (d disk) lstat(path string) (info fs.FileInfo, err error) {
	err = d.do("lstat", path, func() error {
		info, err = os.Lstat(path)
		return err
	})
	return info, err
}

func (d disk) stat(path string) (info fs.FileInfo, err error) {
	err = d.do("stat", path, func() error {
		info, err = os.Stat(path)
		return err
	})
	return info, err
}

// openDir opens a directory, to sync it later. It comes before the change that
// is to be synced: what fails after the change is then only the disk itself,
// and not a right or a descriptor that is missing.
func (d disk) openDir(path string) (f *os.File, err error) {
	err = d.do("open dir", path, func() error {
		f, err = os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY, 0)
		return err
	})
	return f, err
}

func (d disk) readDir(path string) (entries []fs.DirEntry, err error) {
	err = d.do("read dir", path, func() error {
		entries, err = os.ReadDir(path)
		return err
	})
	return entries, err
}

// create makes a file that did not exist, for its owner alone.
func (d disk) create(path string) (f *os.File, err error) {
	err = d.do("create", path, func() error {
		f, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		return err
	})
	return f, err
}

func (d disk) write(f *os.File, data []byte) (n int, err error) {
	err = d.do("write", f.Name(), func() error {
		n, err = f.Write(data)
		return err
	})
	return n, err
}

// chmod sets exactly the mode perm: fchmod(2) does not look at the umask.
func (d disk) chmod(f *os.File, perm fs.FileMode) error {
	return d.do("chmod", f.Name(), func() error { return f.Chmod(perm) })
}

func (d disk) fsync(f *os.File) error {
	return d.do("fsync", f.Name(), f.Sync)
}

// syncfs writes back all that the file system of f holds unwritten.
func (d disk) syncfs(f *os.File) error {
	return d.do("syncfs", f.Name(), func() error {
		return os.NewSyscallError("syncfs", unix.Syncfs(int(f.Fd())))
	})
}

func (d disk) symlink(target, link string) error {
	return d.do("symlink", link, func() error { return os.Symlink(target, link) })
}

// mkdir makes a directory that did not exist, for its owner alone.
func (d disk) mkdir(path string) error {
	return d.do("mkdir", path, func() error { return os.Mkdir(path, 0o700) })
}

func (d disk) remove(path string) error {
	return d.do("remove", path, func() error { return os.Remove(path) })
}

// removeTree removes path and all below it; absent is no error.
func (d disk) removeTree(path string) error {
	return d.do("remove tree", path, func() error { return removeTree(path) })
}

func (d disk) rename(from, to string) error {
	return d.do("rename", to, func() error { return os.Rename(from, to) })
}

// renameNew renames and replaces nothing: if to exists, the error wraps
// ErrOccupied. Some file systems know no flags of renameat2(2) and say EINVAL;
// there a look before the rename has to do, which is as good as long as nobody
// else makes the same name in between.
func (d disk) renameNew(from, to string) error {
	err := d.do("rename new", to, func() error { return renameNoReplace(from, to) })
	switch {
	case errors.Is(err, unix.EEXIST):
		if taken := d.free(to); taken != nil {
			return taken
		}
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		if taken := d.free(to); taken != nil {
			return taken
		}
		return d.rename(from, to)
	}
	return err
}

func renameNoReplace(from, to string) error {
	for {
		err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
		if err == nil {
			return nil
		}
		if err != unix.EINTR { // FUSE and others; os.Rename goes on too
			return &os.LinkError{Op: "renameat2", Old: from, New: to, Err: err}
		}
	}
}

// free returns nil if path is absent or of one of the types that the caller
// replaces. Not being able to tell is an error, not absence.
func (d disk) free(path string, replaces ...fs.FileMode) error {
	info, err := d.lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !slices.Contains(replaces, info.Mode().Type()):
		return occupied(info.Mode())
	}
	return nil
}

// settle makes durable what was changed in dir just before.
func (d disk) settle(dir *os.File) error {
	if err := d.fsync(dir); err != nil {
		return fmt.Errorf("%w: %w", ErrUnsynced, err)
	}
	return nil
}
