package layers

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
	"unsafe"

	"deploytools/layers/digest"

	"golang.org/x/sys/unix"
)

const (
	writers     = 2       // goroutines that write small files
	smallFile   = 1 << 20 // a larger one is written while it is read
	queuedFiles = 16      // small files in memory besides those being written
	openDirs    = 512     // directories kept open
	holeBlock   = 4096    // a block of zeros this long in a sparse file is a hole
)

// disk writes a tree below an os.Root. Each directory is opened from its
// parent, one component at a time, and everything is created exclusively in
// the open directory, so no name that an archive chose is ever resolved.
//
// Two goroutines write the small files; whoever needs to know that they are
// done calls settle. Nothing is synced: see the package comment.
type disk struct {
	top  *os.Root
	o    Options
	open []*node // directories with a handle, but for the top

	jobs    chan job
	pending sync.WaitGroup // jobs
	workers sync.WaitGroup

	mu  sync.Mutex
	err error // the first of the writers
}

type job struct {
	n    *node
	e    *entry
	dir  *os.Root
	data []byte
}

var fileBuffers = sync.Pool{New: func() any { return new([]byte) }}

func newDisk(top *os.Root, o Options) *disk {
	d := &disk{top: top, o: o, jobs: make(chan job, queuedFiles)}
	for range writers {
		d.workers.Go(func() {
			for j := range d.jobs {
				d.run(j)
				d.pending.Done()
			}
		})
	}
	return d
}

// run writes one small file, unless another has failed before.
func (d *disk) run(j job) {
	defer fileBuffers.Put(&j.data)
	if d.fault() != nil {
		return
	}
	err := d.create(j.dir, j.n, func(f *os.File) error {
		j.n.content.digest = digest.Of(j.data)
		if j.e.sparse {
			w := &sparseWriter{f: f}
			_, err := w.Write(j.data)
			return j.n.fault(errors.Join(err, w.finish()))
		}
		_, err := f.Write(j.data)
		return j.n.fault(err)
	})
	if err != nil {
		d.mu.Lock()
		d.err = errors.Join(d.err, err)
		d.mu.Unlock()
	}
}

func (d *disk) fault() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

func (d *disk) settle() error {
	d.pending.Wait()
	return d.fault()
}

// close ends the goroutines and closes every directory.
func (d *disk) close() {
	d.pending.Wait()
	close(d.jobs)
	d.workers.Wait()
	d.closeDirs()
}

func (d *disk) closeDirs() {
	for _, n := range d.open {
		n.handle.Close()
		n.handle = nil
	}
	d.open = d.open[:0]
}

// dirOf returns the open directory n.
func (d *disk) dirOf(n *node) (*os.Root, error) {
	if n.handle != nil {
		return n.handle, nil
	}
	if len(d.open) >= openDirs {
		d.pending.Wait() // the writers use them
		d.closeDirs()
	}
	up, err := d.dirOf(n.parent)
	if err != nil {
		return nil, err
	}
	if n.handle, err = up.OpenRoot(n.name); err != nil {
		return nil, err
	}
	d.open = append(d.open, n)
	return n.handle, nil
}

func (d *disk) mkdir(n *node) error {
	up, err := d.dirOf(n.parent)
	if err != nil {
		return err
	}
	return up.Mkdir(n.name, 0o700) // its own mode comes last: finish
}

func (d *disk) symlink(n *node) error {
	up, err := d.dirOf(n.parent)
	if err != nil {
		return err
	}
	if err := up.Symlink(n.target, n.name); err != nil {
		return err
	}
	if d.o.Owner {
		if err := up.Lchown(n.name, n.uid, n.gid); err != nil {
			return err
		}
	}
	f, err := up.Open(".")
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.UtimesNanoAt(int(f.Fd()), n.name, times(n.mtime), unix.AT_SYMLINK_NOFOLLOW)
}

func (d *disk) link(n, to *node) error { return d.top.Link(to.path(), n.path()) }

func (d *disk) remove(n *node) error {
	if err := d.settle(); err != nil {
		return err
	}
	d.closeDirs() // some of them may lie below n
	up, err := d.dirOf(n.parent)
	if err != nil {
		return err
	}
	return up.RemoveAll(n.name)
}

func (d *disk) file(n *node, e *entry, a *archive) error {
	if err := d.fault(); err != nil {
		return err
	}
	up, err := d.dirOf(n.parent)
	if err != nil {
		return err
	}
	if e.size > smallFile {
		return d.create(up, n, func(f *os.File) error { return d.stream(f, n, e, a) })
	}
	data := *fileBuffers.Get().(*[]byte)
	if int64(cap(data)) < e.size {
		data = make([]byte, e.size, max(e.size, 16<<10))
	}
	data = data[:e.size]
	if _, err := io.ReadFull(a, data); err != nil {
		return err
	}
	d.pending.Add(1)
	d.jobs <- job{n, e, up, data}
	return nil
}

// stream writes a large file while it comes.
func (d *disk) stream(f *os.File, n *node, e *entry, a *archive) error {
	h := digest.NewWriter()
	buf := make([]byte, 256<<10)
	var to io.Writer = f
	w := &sparseWriter{f: f}
	if e.sparse {
		to = w
	}
	for {
		k, err := a.Read(buf)
		h.Write(buf[:k])
		if _, err := to.Write(buf[:k]); err != nil {
			return n.fault(err)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	n.content.digest = h.Digest()
	if e.sparse {
		return n.fault(w.finish())
	}
	return nil
}

// create makes a new file, lets fill write it, and describes it.
func (d *disk) create(up *os.Root, n *node, fill func(*os.File) error) error {
	f, err := up.OpenFile(n.name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return n.fault(err)
	}
	defer f.Close()
	if err := fill(f); err != nil {
		return err
	}
	if err := d.describe(f, n); err != nil {
		return n.fault(err)
	}
	return n.fault(f.Close())
}

// fault says which path a system call failed for.
func (n *node) fault(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("cannot write %q: %w", n.path(), err)
}

// describe sets owner, mode and time, in this order: chown(2) clears setuid
// and capabilities, and writing has changed the time.
func (d *disk) describe(f *os.File, n *node) error {
	if d.o.Owner {
		if err := f.Chown(n.uid, n.gid); err != nil {
			return err
		}
	}
	fd := int(f.Fd())
	if err := unix.Fchmod(fd, n.mode); err != nil {
		return err
	}
	if n.capability != "" {
		if err := unix.Fsetxattr(fd, "security.capability", []byte(n.capability), 0); err != nil {
			return fmt.Errorf("cannot set security.capability: %w", err)
		}
	}
	if n.mtime.IsZero() {
		return nil
	}
	ts := times(n.mtime)
	// utimensat(2) with no path is futimens(3); x/sys has no call for it.
	if _, _, e := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&ts[0])), 0, 0, 0); e != 0 {
		return e
	}
	return nil
}

// times leaves the access time alone. The kernel clamps what the file system
// cannot hold (utimensat(2), since Linux 5.4).
func times(mtime time.Time) []unix.Timespec {
	return []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: mtime.Unix(), Nsec: int64(mtime.Nanosecond())}}
}

// finish waits for the files and then describes every directory, children
// first: a directory may forbid to look into it.
func (d *disk) finish(top *node) error {
	if err := d.settle(); err != nil {
		return err
	}
	return d.finishDir(top)
}

func (d *disk) finishDir(n *node) error {
	for _, c := range n.children {
		if c.kind == dir {
			if err := d.finishDir(c); err != nil {
				return err
			}
		}
	}
	r, err := d.dirOf(n)
	if err != nil {
		return err
	}
	f, err := r.Open(".")
	if err != nil {
		return err
	}
	defer f.Close()
	if n.parent == nil {
		return f.Chmod(0o755)
	}
	return n.fault(d.describe(f, n))
}

// sparseWriter leaves holes where it is given zeros.
type sparseWriter struct {
	f   *os.File
	off int64
}

var zeroBlock [holeBlock]byte

func (w *sparseWriter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		b := p[:min(len(p), holeBlock-int(w.off%holeBlock))]
		if !bytes.Equal(b, zeroBlock[:len(b)]) {
			if _, err := w.f.WriteAt(b, w.off); err != nil {
				return n - len(p), err
			}
		}
		w.off += int64(len(b))
		p = p[len(b):]
	}
	return n, nil
}

// finish gives the file its length, which may end in a hole.
func (w *sparseWriter) finish() error { return w.f.Truncate(w.off) }
