package atomic

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// node is what lies at a path, links not followed. The zero value is nothing.
type node struct {
	exists  bool
	kind    uint16 // the type bits of its mode
	inode   uint64
	links   uint32
	size    int64
	written int64 // when, in nanoseconds
	touched int64 // when anything but its content was, too
	mode    octal
	uid     int
	gid     int
	flags   uint64 // STATX_ATTR_...
}

// node looks at a path. It is an error not to be able to tell; absence is none.
func (d disk) node(path string) (n node, err error) {
	err = d.do("statx", path, func() error {
		var st unix.Statx_t
		if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS, &st); err != nil {
			return &fs.PathError{Op: "statx", Path: path, Err: err}
		}
		n = node{exists: true, kind: st.Mode & unix.S_IFMT, inode: st.Ino, links: st.Nlink, size: int64(st.Size), written: nanoseconds(st.Mtime), touched: nanoseconds(st.Ctime),
			mode: octal(st.Mode & 0o7777), uid: int(st.Uid), gid: int(st.Gid), flags: st.Attributes}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return node{}, nil
	}
	return n, err
}

func nanoseconds(t unix.StatxTimestamp) int64 { return t.Sec*1e9 + int64(t.Nsec) }

// replaceable says why a rename could not put another file in place of n.
func (n node) replaceable() error {
	switch {
	case !n.exists:
		return nil
	case n.kind == unix.S_IFDIR:
		return occupied(fs.ModeDir)
	case n.kind == unix.S_IFLNK:
		return occupied(fs.ModeSymlink)
	case n.kind != unix.S_IFREG:
		return occupied(fs.ModeDevice)
	case n.flags&unix.STATX_ATTR_MOUNT_ROOT != 0:
		return fmt.Errorf("%w by a mount: a file that is mounted itself cannot be replaced, only its directory can be", ErrOccupied)
	case n.flags&unix.STATX_ATTR_IMMUTABLE != 0:
		return fmt.Errorf("%w by an immutable file (see chattr(1))", ErrOccupied)
	case n.flags&unix.STATX_ATTR_APPEND != 0:
		return fmt.Errorf("%w by an append-only file (see chattr(1))", ErrOccupied)
	}
	return nil
}

// digest reads the regular file path and returns the digest of its bytes.
func (d disk) digest(ctx context.Context, path string) (string, error) {
	var f *os.File
	err := d.do("open", path, func() (err error) {
		f, err = os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		return err
	})
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := stream(ctx, h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// stream copies until the end or until ctx is done, a piece at a time.
func stream(ctx context.Context, to io.Writer, from io.Reader) (n int64, err error) {
	piece := make([]byte, 128<<10)
	for {
		if ctx.Err() != nil {
			return n, context.Cause(ctx)
		}
		read, err := from.Read(piece)
		if read > 0 {
			written, err := to.Write(piece[:read])
			n += int64(written)
			if err != nil {
				return n, err
			}
		}
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// exchange swaps the files of two names of one directory in one step. Where the
// file system cannot do that (NFS, FUSE), it takes three, with the name a+"~" in
// between: b is never missing, and mendExchange ends what a crash left.
func (d disk) exchange(a, b string) error {
	err := d.do("exchange", b, func() error {
		return os.NewSyscallError("renameat2", unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE))
	})
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) {
		return err
	}
	third := a + "~"
	if err := d.do("link", third, func() error { return os.Link(b, third) }); err != nil {
		return err
	}
	if err := d.rename(a, b); err != nil {
		d.remove(third)
		return err
	}
	return d.rename(third, a)
}

// mendExchange ends an exchange in steps that was cut short: if a has moved to
// its new name, the other one is given the name a; if not, it has not begun.
func (d disk) mendExchange(a string) error {
	third, err := d.node(a + "~")
	if err != nil || !third.exists {
		return err
	}
	left, err := d.node(a)
	switch {
	case err != nil:
		return err
	case left.exists:
		return d.remove(a + "~")
	}
	return d.rename(a+"~", a)
}
