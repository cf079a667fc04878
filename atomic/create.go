package atomic

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// errFileEnded says that a File was committed or aborted before.
var errFileEnded = errors.New("file has ended")

// A File is a regular file that is written piece by piece under a hidden name
// and gets its final name when it is complete: [WriteFile] for content that does
// not fit into memory, or that shows only at its end whether it is right. It
// ends with [File.Commit] or [File.Abort]; until then it holds two open
// descriptors.
type File struct {
	disk disk
	path string
	perm fs.FileMode
	dir  *os.File // the directory of path
	f    *os.File // the temp; nil when the File has ended
	err  error    // the first failed write: what is missing cannot be committed
}

// Create begins to write the file path. Readers of path see what they saw
// before until Commit, which does the rest of what WriteFile says.
func Create(path string, perm fs.FileMode) (*File, error) { return disk{}.createFile(path, perm) }

func (d disk) createFile(path string, perm fs.FileMode) (*File, error) {
	w := &File{disk: d, path: filepath.Clean(path), perm: perm}
	if err := w.make(); err != nil {
		return nil, w.cannot(err)
	}
	return w, nil
}

func (w *File) make() (err error) {
	if w.dir, err = w.disk.openDir(filepath.Dir(w.path)); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			w.dir.Close()
		}
	}()
	if err := w.disk.free(w.path, 0); err != nil {
		return err
	}
	w.f, err = w.disk.create(tempName(w.path))
	return err
}

// Write adds p. After an error the File can only be aborted.
func (w *File) Write(p []byte) (int, error) {
	if w.f == nil {
		return 0, w.cannot(errFileEnded)
	}
	if w.err != nil {
		return 0, w.cannot(w.err)
	}
	var n int
	if n, w.err = w.disk.write(w.f, p); w.err != nil {
		return n, w.cannot(w.err)
	}
	return n, nil
}

// Commit makes what was written the content of the file and makes that durable.
// The File has ended then, whatever Commit returns.
func (w *File) Commit() error {
	if w.f == nil {
		return w.cannot(errFileEnded)
	}
	err := w.err
	if err == nil {
		err = w.publish()
	}
	if err != nil {
		w.Abort()
		return w.cannot(err)
	}
	return nil
}

func (w *File) publish() error {
	if err := w.disk.chmod(w.f, w.perm); err != nil {
		return err
	}
	if err := w.disk.fsync(w.f); err != nil {
		return err
	}
	if err := w.disk.rename(w.f.Name(), w.path); err != nil {
		return err
	}
	defer w.close() // nothing is left to abort
	return w.disk.settle(w.dir)
}

// Abort removes what was written. Once the File has ended, it does nothing.
func (w *File) Abort() error {
	if w.f == nil {
		return nil
	}
	err := w.disk.remove(w.f.Name())
	w.close()
	if err != nil {
		return fmt.Errorf("cannot abort writing %s: %w", w.path, err)
	}
	return nil
}

// close releases the descriptors. After fsync they have nothing left to report.
func (w *File) close() {
	w.f.Close()
	w.dir.Close()
	w.f = nil
}

func (w *File) cannot(err error) error {
	return fmt.Errorf("cannot write %s: %w", w.path, nameless(err))
}
