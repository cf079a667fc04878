package atomic

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Why the order is crash safe. The tree is filled under a hidden name, so that
// a name without a dot is a complete tree at every instant. Commit calls
// syncfs(2) once, which writes back every file, directory and link of the tree
// (and whatever else the file system holds): one call in place of an fsync(2)
// for each of them. Only then does the tree get its name, by one rename(2) that
// replaces nothing, and the parent is synced before success is told. A power
// loss before the rename is on disk leaves a hidden tree; after it, a tree whose
// content was on disk before its name.
//
// Since Linux 5.8 syncfs(2) reports a write-back that failed since its
// descriptor was opened. The descriptor is therefore opened by Stage, before the
// first byte is written: the kernel writes back long before Commit, and an error
// that somebody else's sync has been told meanwhile would not be told again to a
// descriptor opened later. An error of another file on the same file system
// fails Commit as well, which is the safe side.

// A Dir is a staged directory: a tree that is filled under a hidden name and
// gets its final name when it is complete. It ends with a [Dir.Commit] that
// returns nil or with [Dir.Abort]; until then it holds one open descriptor.
type Dir struct {
	disk  disk
	final string
	path  string   // where the tree is: its hidden name or final
	tree  *os.File // open since the tree was empty; nil when the Dir has ended
	err   error    // why Commit cannot be called any more
}

// Stage makes the empty directory that is to become path, under the hidden name
// ".NAME.partial" beside it and with the mode 0755 whatever the umask is. What
// a crash left under that name is removed first, which takes its time if it is
// large: two Dirs for one path must not be in use at once. If path exists, the
// error wraps [ErrOccupied]. The name of path must not start with a dot.
func Stage(path string) (*Dir, error) { return disk{}.stage(path) }

func (d disk) stage(path string) (*Dir, error) {
	path = filepath.Clean(path)
	t := &Dir{disk: d, final: path, path: stagedName(path)}
	if err := t.make(); err != nil {
		return nil, fmt.Errorf("cannot stage %s: %w", path, err)
	}
	return t, nil
}

func (t *Dir) make() (err error) {
	if !stageable(filepath.Base(t.final)) {
		return errors.New("final name cannot start with a dot or be the root directory")
	}
	if err := t.disk.free(t.final); err != nil {
		return err
	}
	if err := t.disk.removeTree(t.path); err != nil {
		return err
	}
	if err := t.disk.mkdir(t.path); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			t.close()
			t.disk.remove(t.path)
		}
	}()
	if t.tree, err = t.disk.openDir(t.path); err != nil {
		return err
	}
	return t.disk.chmod(t.tree, 0o755)
}

// Path returns where the tree is now: the place to fill, and the final path
// once Commit has returned nil.
func (t *Dir) Path() string { return t.path }

// Commit makes the tree durable and gives it its final name. All files in it
// must be written and closed or idle. It replaces nothing: if the final name
// was taken since Stage, the error wraps [ErrOccupied]. After any error the
// tree is of no more use, and another Commit returns the same error without
// trying: it is to be aborted, and filled again in a new Dir. The final name
// does not exist then, except where the error wraps [ErrUnsynced].
func (t *Dir) Commit() error {
	if t.tree != nil && t.err == nil {
		if t.err = t.commit(); t.err == nil {
			t.close()
		}
	}
	if t.err != nil {
		return fmt.Errorf("cannot commit %s: %w", t.final, t.err)
	}
	return nil
}

func (t *Dir) commit() error {
	parent, err := t.disk.openDir(filepath.Dir(t.final))
	if err != nil {
		return err
	}
	defer parent.Close()
	if err := t.disk.syncfs(t.tree); err != nil {
		return err
	}
	if err := t.disk.renameNew(t.path, t.final); err != nil {
		return err
	}
	t.path = t.final
	return t.disk.settle(parent)
}

// Abort removes the tree, whatever the modes of its directories are. It does
// nothing once Commit has returned nil or Abort has, so it can be deferred. After
// a Commit that failed late it takes the final name back first. If it returns
// an error, the rest of the tree is still there, and it can be called again.
func (t *Dir) Abort() error {
	if t.tree == nil {
		return nil
	}
	if err := t.abort(); err != nil {
		return fmt.Errorf("cannot remove staged %s: %w", t.final, err)
	}
	t.close()
	if t.err == nil {
		t.err = fs.ErrClosed
	}
	return nil
}

// abort hides the tree durably before the first file goes: else a power loss
// could leave half a tree under the name of a complete one.
func (t *Dir) abort() error {
	if hidden := stagedName(t.final); t.path != hidden {
		err := t.disk.moveSynced(t.path, hidden)
		if err == nil || errors.Is(err, ErrUnsynced) {
			t.path = hidden
		}
		if err != nil {
			return err
		}
	}
	return t.disk.removeTree(t.path)
}

func (t *Dir) close() {
	if t.tree != nil {
		t.tree.Close()
		t.tree = nil
	}
}

// removeTree removes path and all below it. Who is not root cannot remove from
// a directory without write permission, so these get it, on a second pass.
// The tree is being removed: a chmod that is confined to it spoils nothing.
func removeTree(path string) error {
	err := os.RemoveAll(path)
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	if err := openUp(path); err != nil {
		return err
	}
	return os.RemoveAll(path)
}

// openUp gives the owner all rights on the directories of a tree. It follows
// no link out of the tree.
func openUp(path string) error {
	if info, err := os.Lstat(path); err != nil || !info.IsDir() {
		return err
	}
	if err := os.Chmod(path, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return err
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return err
		}
		return root.Chmod(name, 0o700) // before WalkDir reads it
	})
}
