package layers

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"syscall"
	"time"
)

// PackOptions say how Pack makes an archive. The zero value makes the same
// bytes from equal trees, whoever packs them, whenever and wherever.
type PackOptions struct {
	Options
	// Time is the modification time of every entry, cut to seconds; zero:
	// 1970-01-01.
	Time time.Time
	// KeepTimes writes each file's own time instead.
	KeepTimes bool
	// Level is the effort of compression, 1 to 9; zero: 6.
	Level int
}

// Pack writes the directory dir to w as a layer, and returns what Check says
// of it: an archive that Pack made is accepted, or Pack fails. What w has got
// by then is no archive.
//
// Entries are sorted by name in each directory, belong to 0:0, and keep their
// permissions but for writing by group and others, which depends on the umask
// of whoever made the tree. Hard links within the tree stay links. A file that
// is no file, directory or symlink is an error, as is one that changes its
// length meanwhile.
func Pack(ctx context.Context, w io.Writer, dir string, o PackOptions) (*Info, error) {
	if o.Level < 0 || o.Level > 9 {
		return nil, fmt.Errorf("level %d is not between 1 and 9", o.Level)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	r, feed := io.Pipe()
	type result struct {
		info *Info
		err  error
	}
	checked := make(chan result, 1)
	go func() {
		info, err := Check(ctx, dir, r, o.Options)
		r.CloseWithError(errors.Join(err, errStopped))
		checked <- result{info, err}
	}()
	z := newGzipWriter(io.MultiWriter(w, feed), o.Level)
	p := &packer{ctx: ctx, root: root, o: o, tar: tar.NewWriter(z), links: map[inode]string{}}
	err = p.dir("")
	if err == nil {
		err = p.tar.Close()
	}
	if e := z.Close(); err == nil {
		err = e
	}
	feed.CloseWithError(err) // nil: the end
	got := <-checked
	if errors.Is(got.err, ErrRefused) || err == nil {
		return got.info, got.err
	}
	return nil, err
}

type inode struct{ dev, ino uint64 }

type packer struct {
	ctx   context.Context
	root  *os.Root
	o     PackOptions
	tar   *tar.Writer
	links map[inode]string // the first name of each file with several
}

// dir writes what lies in the directory path, "" or with a slash at its end.
func (p *packer) dir(path string) error {
	d, err := p.root.Open(path + ".")
	if err != nil {
		return err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		if err := context.Cause(p.ctx); err != nil {
			return err
		}
		name = path + name
		info, err := p.root.Lstat(name)
		if err != nil {
			return err
		}
		if err := p.entry(name, info); err != nil {
			return fmt.Errorf("cannot pack %q: %w", name, err)
		}
		if info.IsDir() {
			if err := p.dir(name + "/"); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *packer) entry(path string, info fs.FileInfo) error {
	h := &tar.Header{Name: path, Mode: int64(info.Mode().Perm() &^ 0o022), ModTime: p.o.Time.Truncate(time.Second)}
	if p.o.KeepTimes {
		h.ModTime = info.ModTime().Truncate(time.Second)
	} else if p.o.Time.IsZero() {
		h.ModTime = time.Unix(0, 0)
	}
	switch mode := info.Mode(); {
	case mode.IsDir():
		h.Typeflag, h.Name = tar.TypeDir, path+"/"
		h.Mode |= special(mode & (fs.ModeSetgid | fs.ModeSticky))
	case mode.Type() == fs.ModeSymlink:
		target, err := p.root.Readlink(path)
		if err != nil {
			return err
		}
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, target, 0o777
	case mode.IsRegular():
		h.Typeflag, h.Size = tar.TypeReg, info.Size()
		h.Mode |= special(mode & (fs.ModeSetuid | fs.ModeSetgid))
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Nlink > 1 {
			id := inode{uint64(st.Dev), st.Ino}
			if first, ok := p.links[id]; ok {
				h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
				break
			}
			p.links[id] = path
		}
	default:
		return fmt.Errorf("is %s, not a file, directory or symlink", odd(mode))
	}
	if err := p.tar.WriteHeader(h); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeReg {
		return p.content(path, info)
	}
	return nil
}

// content writes the bytes of the file that info describes.
func (p *packer) content(path string, info fs.FileInfo) error {
	// What has become a FIFO meanwhile must not hold the program up.
	f, err := p.root.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if now, err := f.Stat(); err != nil || !os.SameFile(now, info) || now.Size() != info.Size() {
		return errors.Join(errors.New("changed while it was packed"), err)
	}
	n, err := io.Copy(p.tar, f)
	if errors.Is(err, tar.ErrWriteTooLong) || err == nil && n != info.Size() {
		return errors.New("changed while it was packed")
	}
	return err
}

// odd names a type that layers do not have.
func odd(m fs.FileMode) string {
	switch {
	case m&fs.ModeNamedPipe != 0:
		return "a FIFO"
	case m&fs.ModeSocket != 0:
		return "a socket"
	}
	return "a device"
}

// special returns tar's bits for setuid, setgid and sticky.
func special(m fs.FileMode) (bits int64) {
	for _, b := range []struct {
		mode fs.FileMode
		bit  int64
	}{{fs.ModeSetuid, 0o4000}, {fs.ModeSetgid, 0o2000}, {fs.ModeSticky, 0o1000}} {
		if m&b.mode != 0 {
			bits |= b.bit
		}
	}
	return bits
}
