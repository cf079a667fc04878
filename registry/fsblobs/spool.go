package fsblobs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"math"
	"os"
	"path/filepath"
	"sync"
	syncatomic "sync/atomic"

	"golang.org/x/sys/unix"

	"deploytools/atomic"
	"deploytools/registry"
)

// Spool is a registry.Spool.
type Spool struct{ s *store }

// Create is registry.Spool's.
func (s *Spool) Create(ctx context.Context, name string) (registry.Upload, error) {
	if err := s.s.changeable(); err != nil {
		return nil, err
	}
	return s.open(ctx, name, os.O_CREATE|os.O_EXCL)
}

// Resume is registry.Spool's.
func (s *Spool) Resume(ctx context.Context, name string) (registry.Upload, error) {
	return s.open(ctx, name, 0)
}

// open opens the upload. It is scratch until Sync, so no other step makes its
// name durable.
func (s *Spool) open(ctx context.Context, name string, flag int) (registry.Upload, error) {
	path, err := s.path(ctx, name)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW|flag, 0o600)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("upload %s: %w", name, registry.ErrNoUpload)
	case errors.Is(err, fs.ErrExist):
		return nil, fmt.Errorf("upload %s: already exists", name)
	case err != nil:
		return nil, fmt.Errorf("cannot open upload: %w", err)
	}
	return &upload{f: f, s: s.s}, nil
}

func (s *Spool) path(ctx context.Context, name string) (string, error) {
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	return filepath.Join(s.s.uploads, name), registry.CheckUploadName(name)
}

// Remove is registry.Spool's.
func (s *Spool) Remove(ctx context.Context, name string) error {
	path, err := s.path(ctx, name)
	if err != nil {
		return err
	}
	if err := s.s.changeable(); err != nil {
		return err
	}
	return s.s.settled(atomic.Remove(path))
}

// List is registry.Spool's.
func (s *Spool) List(ctx context.Context) iter.Seq2[registry.UploadInfo, error] {
	return func(yield func(registry.UploadInfo, error) bool) {
		for info, err := range s.s.regular(ctx, s.s.uploads) {
			if err != nil {
				yield(registry.UploadInfo{}, err)
				return
			}
			if registry.CheckUploadName(info.Name()) != nil {
				continue
			}
			if !yield(registry.UploadInfo{Name: info.Name(), Size: info.Size(), ModTime: info.ModTime()}, nil) {
				return
			}
		}
	}
}

// Free is registry.Spool's: what is left for those who are not root.
func (s *Spool) Free(ctx context.Context) (int64, error) {
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(s.s.uploads, &st); err != nil {
		return 0, &fs.PathError{Op: "statfs", Path: s.s.uploads, Err: err}
	}
	if block := uint64(st.Bsize); block > 0 && st.Bavail > math.MaxInt64/block {
		return math.MaxInt64, nil
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// upload is a registry.Upload.
type upload struct {
	f       *os.File
	s       *store
	written syncatomic.Int64 // bytes, by this handle
	growing sync.RWMutex     // writes hold it for reading, so that trim cuts none off
}

func (u *upload) ReadAt(p []byte, off int64) (int, error) { return u.f.ReadAt(p, off) }
func (u *upload) Truncate(size int64) error               { return u.f.Truncate(size) }
func (u *upload) Close() error                            { return u.f.Close() }

// flushEvery is how many bytes are written before the kernel is told to begin
// with bringing them to the disk, so that Sync finds little left to do, and to
// find room for the next ones: to look for it for each write costs more.
const flushEvery = 16 << 20

func (u *upload) WriteAt(p []byte, off int64) (int, error) {
	u.growing.RLock()
	defer u.growing.RUnlock()
	n, err := u.f.WriteAt(p, off)
	if before := u.written.Add(int64(n)) - int64(n); before/flushEvery != (before+int64(n))/flushEvery {
		u.flush(off)
	}
	return n, err
}

// flush promises nothing, as its calls do not: what they cannot do, the writes
// and Sync find. The room is twice what is written until the next flush, since
// writes come in any order; Sync gives back what is too much.
func (u *upload) flush(off int64) {
	c, err := u.f.SyscallConn()
	if err != nil {
		return
	}
	c.Control(func(fd uintptr) {
		unix.SyncFileRange(int(fd), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
		unix.Fallocate(int(fd), unix.FALLOC_FL_KEEP_SIZE, off, 2*flushEvery)
	})
}

func (u *upload) Size() (int64, error) {
	info, err := u.f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (u *upload) Sync() error {
	if err := u.s.changeable(); err != nil {
		return err
	}
	u.trim()
	if err := u.s.syncOrDrop(u.f); err != nil {
		return err
	}
	err := u.s.resync(u.f.Name())
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot sync upload: %w", registry.ErrNoUpload)
	}
	return err
}

// trim gives back the room behind the end, which would stay otherwise, if flush
// has found some.
func (u *upload) trim() {
	u.growing.Lock()
	defer u.growing.Unlock()
	if size, err := u.Size(); err == nil && u.written.Load() >= flushEvery {
		u.f.Truncate(size)
	}
}

// syncFile syncs the upload at path.
func (s *store) syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close() // after fsync it has nothing left to report
	return s.syncOrDrop(f)
}

// syncOrDrop syncs an upload, or takes it out of the spool: the next sync of
// the same file would succeed whatever was lost (fsync(2), NOTES).
func (s *store) syncOrDrop(f *os.File) error {
	err := s.sync(f)
	if err == nil {
		return nil
	}
	dropErr := s.settled(atomic.Remove(f.Name()))
	return errors.Join(fmt.Errorf("cannot sync upload, its content has to be sent anew: %w", err), dropErr)
}
