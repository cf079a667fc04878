package layers

import (
	"bytes"
	"fmt"
	"io"
	"unsafe"

	"deploytools/layers/digest"

	"golang.org/x/sys/unix"
)

// holeBlock is how long a block of zeros in a sparse file is left as a hole.
const holeBlock = 4096

// descriptor is an open file, without what os.File adds for files that block.
type descriptor int

func (fd descriptor) Write(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var k int
		err = retry(func() (err error) { k, err = unix.Write(int(fd), p[n:]); return err })
		n += max(k, 0)
	}
	return n, err
}

// create makes the file e in the directory at, which must not have the name,
// lets fill write it, and describes it. Nobody else can get at it before that:
// the directories above are 0700 until they are finished.
func (d *disk) create(at int, e *entry, fill func(descriptor) error) error {
	var fd int
	err := retry(func() (err error) {
		fd, err = unix.Openat(at, e.name(), unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, e.mode&0o777)
		return err
	})
	if err != nil {
		return e.fault(err)
	}
	err = fill(descriptor(fd))
	if err == nil {
		err = e.fault(d.describe(fd, e))
	}
	// close(2) may tell that the bytes did not reach a remote disk. It is not
	// repeated after EINTR: the descriptor is gone.
	if fault := unix.Close(fd); err == nil && fault != unix.EINTR {
		err = e.fault(fault)
	}
	return err
}

// small writes a file that is in memory.
func (d *disk) small(j job) error {
	*j.digest = digest.Of(j.data)
	return d.create(j.dir, j.e, func(fd descriptor) error {
		w := newFileWriter(fd, j.e.sparse)
		_, err := w.Write(j.data)
		if err == nil {
			err = w.finish()
		}
		return j.e.fault(err)
	})
}

// large writes a file while it comes.
func (d *disk) large(n *node, to *digest.Digest, e *entry, a *archive) error {
	d.room()
	dir, err := d.dirOf(n.parent)
	if err != nil {
		return err
	}
	h := digest.NewWriter()
	err = d.create(dir, e, func(fd descriptor) error {
		w := newFileWriter(fd, e.sparse)
		buf := make([]byte, 256<<10)
		for {
			k, err := a.Read(buf)
			h.Write(buf[:k])
			if _, err := w.Write(buf[:k]); err != nil {
				return e.fault(err)
			}
			if err == io.EOF {
				break
			}
			if err != nil {
				return err
			}
		}
		return e.fault(w.finish())
	})
	*to = h.Digest()
	return err
}

// describe sets owner, mode and time, in this order: chown(2) clears setuid
// and capabilities, and writing has changed the time.
func (d *disk) describe(fd int, e *entry) error {
	if d.o.Owner && (e.uid != d.uid || e.gid != d.gid) {
		if err := unix.Fchown(fd, e.uid, e.gid); err != nil {
			return err
		}
	}
	if e.kind == dir || e.mode&d.masked != 0 { // else it was made with its mode
		if err := unix.Fchmod(fd, e.mode); err != nil {
			return err
		}
	}
	if e.capability != "" {
		if err := unix.Fsetxattr(fd, capability, []byte(e.capability), 0); err != nil {
			return fmt.Errorf("%s: %w", capability, err)
		}
	}
	if e.mtime.IsZero() {
		return nil
	}
	ts := times(e.mtime)
	// utimensat(2) with no path is futimens(3); x/sys has no call for it.
	if _, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&ts[0])), 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// fileWriter writes a file from its start; if it is sparse, it leaves holes
// where it is given zeros.
type fileWriter struct {
	fd     descriptor
	sparse bool
	off    int64 // of a sparse file
}

func newFileWriter(fd descriptor, sparse bool) *fileWriter {
	return &fileWriter{fd: fd, sparse: sparse}
}

var zeroBlock [holeBlock]byte

func (w *fileWriter) Write(p []byte) (int, error) {
	if !w.sparse {
		return w.fd.Write(p)
	}
	n := len(p)
	for len(p) > 0 {
		b := p[:min(len(p), holeBlock-int(w.off%holeBlock))]
		if !bytes.Equal(b, zeroBlock[:len(b)]) {
			if _, err := unix.Seek(int(w.fd), w.off, io.SeekStart); err != nil {
				return n - len(p), err
			}
			if _, err := w.fd.Write(b); err != nil {
				return n - len(p), err
			}
		}
		w.off += int64(len(b))
		p = p[len(b):]
	}
	return n, nil
}

// finish gives a sparse file its length: it may end in a hole.
func (w *fileWriter) finish() error {
	if !w.sparse {
		return nil
	}
	return retry(func() error { return unix.Ftruncate(int(w.fd), w.off) })
}
