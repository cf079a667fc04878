package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"deploytools/layers/digest"
	"deploytools/layers/manifest"
)

// Kind is in what way a path differs from the manifest.
type Kind string

// The kinds of differences.
const (
	Modified Kind = "modified" // content, mode, type, target or owner
	Missing  Kind = "missing"
	Extra    Kind = "extra" // what lies below an extra directory is not listed
)

// Difference is one path of a tree that is not as its manifest says.
type Difference struct {
	Kind   Kind   `json:"kind"`
	Path   string `json:"path"` // escaped as in a manifest, so one safe word
	Detail string `json:"detail,omitzero"`
}

// String is one line.
func (d Difference) String() string {
	if d.Detail == "" {
		return string(d.Kind) + " " + d.Path
	}
	return string(d.Kind) + " " + d.Path + ": " + d.Detail
}

// How says how trees are compared. The zero value reads every byte.
type How struct {
	Owner bool // compare user and group as well
	// Since makes the comparison quick: files whose inode has not changed since
	// then, and whose size is right, are not read, unless a directory above them may
	// have been exchanged for another. The time is one of the file system's own, no clock's. So nobody's
	// writing can hide, but for one that happened while the clock was set back; a
	// disk that loses bits can.
	Since time.Time
	// Gentle makes the comparison rest three times as long as it reads, for what
	// nobody waits for.
	Gentle bool

	proof *proof // of a comparison of all bytes; nil: none is wanted
	twin  *twin  // of a quick one; nil: there is none
}

// Compare yields in what the tree below dir differs from the manifest text m, by
// path in byte order. It follows no link, and holds no more in memory than the
// names of one directory for each level of the tree. What cannot be read for a
// reason of the disk is modified. The last pair has an error if m is no manifest
// (manifest.ErrInvalid), dir no directory, or ctx done.
func Compare(ctx context.Context, dir string, m io.Reader, how How) iter.Seq2[Difference, error] {
	return func(yield func(Difference, error) bool) {
		c := &comparison{ctx: ctx, how: how, yield: yield, buf: make([]byte, 256<<10)}
		next, stop := iter.Pull2(manifest.Read(m))
		defer stop()
		c.pull = next
		if err := c.all(dir); err != nil && !errors.Is(err, errEnough) {
			yield(Difference{}, err)
		}
	}
}

// errEnough ends a comparison whose caller wants no more.
var errEnough = errors.New("enough")

// comparison merges two sequences that are sorted alike: the manifest's entries
// and the paths of the tree.
type comparison struct {
	ctx   context.Context
	how   How
	yield func(Difference, error) bool
	pull  func() (manifest.Entry, error, bool)
	next  *manifest.Entry // not yet come to in the tree; nil: none is left
	buf   []byte
	tired time.Duration // what is left to rest
}

// gentleRest is the shortest rest of a gentle comparison: a sleep has its price.
const gentleRest = 20 * time.Millisecond

func (c *comparison) all(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	at := level{Root: root, twin: c.how.twin.top(), changed: true}
	if err := c.advance(); err != nil {
		return err
	}
	if err := c.dir(at, ""); err != nil {
		return err
	}
	for c.next != nil {
		if err := c.missing(); err != nil {
			return err
		}
	}
	return nil
}

// level is an open directory of the tree.
type level struct {
	*os.Root
	twin *os.Root // the twin's of the same path; nil: there is none
	// Its inode has changed since How.Since. The top's always has.
	changed bool
	// It, or one above, may be another directory than then: what lies in it can be
	// as old as what it was exchanged for. Who exchanges a directory changes it and
	// the one that it lies in; who leaves a file in it changes it alone.
	exchanged bool
}

func (c *comparison) advance() error {
	e, err, ok := c.pull()
	c.next = nil
	if ok && err == nil {
		c.next = &e
	}
	return err
}

func (c *comparison) tell(kind Kind, p, detail string) error {
	if !c.yield(Difference{kind, manifest.Escape(p), detail}, nil) {
		return errEnough
	}
	return nil
}

// missing tells that the tree lacks the next entry.
func (c *comparison) missing() error {
	if err := c.tell(Missing, c.next.Path, ""); err != nil {
		return err
	}
	return c.advance()
}

// dir compares what lies in the open directory, whose path ends with a slash. A
// directory's name is sorted twice: as itself, and with a slash where its content
// comes, since "a-b" lies between "a" and "a/x".
func (c *comparison) dir(at level, prefix string) error {
	all, err := readNames(at.Root)
	if err != nil {
		return err
	}
	known := map[string]bool{} // directories that the manifest has, too
	for i := range all.at {
		if err := context.Cause(c.ctx); err != nil {
			return err
		}
		name := all.name(i)
		if name, content := strings.CutSuffix(name, "/"); content {
			if !known[name] {
				continue
			}
			delete(known, name)
			if err := c.below(at, name, prefix); err != nil {
				return err
			}
			continue
		}
		both, err := c.path(at, name, prefix+name)
		if err != nil {
			return err
		}
		if both {
			known[name] = true
		}
	}
	return nil
}

// below goes into a directory. One that cannot be read is modified, and
// everything in it missing.
func (c *comparison) below(at level, name, prefix string) error {
	root, err := at.OpenRoot(name)
	if err != nil {
		return c.tell(Modified, prefix+name, "cannot be read: "+reason(err))
	}
	defer root.Close()
	sub := level{Root: root, changed: c.changed(root)}
	sub.exchanged = at.exchanged || at.changed && sub.changed
	if at.twin != nil {
		if sub.twin, err = at.twin.OpenRoot(name); err == nil {
			defer sub.twin.Close()
		}
	}
	if err := c.dir(sub, prefix+name+"/"); err != nil {
		if disk, ok := errors.AsType[*fs.PathError](err); ok {
			return c.tell(Modified, prefix+name, "cannot be read: "+reason(disk))
		}
		return err
	}
	return nil
}

// changed reports whether a directory has other names in it than at How.Since, or
// another name itself.
func (c *comparison) changed(dir *os.Root) bool {
	if c.how.Since.IsZero() {
		return false
	}
	info, err := dir.Stat(".")
	return err != nil || !time.Unix(info.Sys().(*syscall.Stat_t).Ctim.Unix()).Before(c.how.Since)
}

// path compares one path, and reports whether it is a directory in both.
func (c *comparison) path(at level, name, p string) (dir bool, err error) {
	for c.next != nil && c.next.Path < p {
		if err := c.missing(); err != nil {
			return false, err
		}
	}
	info, err := at.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) { // gone since its directory was read
		return false, nil
	}
	if c.next == nil || c.next.Path != p {
		return false, c.tell(Extra, p, "")
	}
	e := *c.next
	if err == nil {
		dir = info.IsDir() && e.Type == manifest.Dir
	}
	detail := ""
	if err != nil {
		detail = "cannot be read: " + reason(err)
	} else if detail, err = c.differs(at, name, info, e); err != nil {
		return false, err
	}
	if detail != "" {
		if err := c.tell(Modified, p, detail); err != nil {
			return false, err
		}
	}
	return dir, c.advance()
}

// differs says how the path differs from its entry; "": not. The error is of
// ctx.
func (c *comparison) differs(at level, name string, info fs.FileInfo, e manifest.Entry) (string, error) {
	st := info.Sys().(*syscall.Stat_t)
	if is := typeOf(st.Mode); is != typeNames[e.Type] {
		return fmt.Sprintf("is a %s, want a %s", is, typeNames[e.Type]), nil
	}
	var all []string
	switch e.Type {
	case manifest.Symlink:
		if target, err := at.Readlink(name); err != nil || target != e.Target {
			all = append(all, fmt.Sprintf("target %s, want %s", manifest.Escape(target), manifest.Escape(e.Target)))
		}
	case manifest.File:
		content, err := c.content(at, name, st, e)
		if err != nil {
			return "", err
		}
		if content != "" {
			all = append(all, content)
		}
	}
	if mode := st.Mode & 0o7777; e.Type != manifest.Symlink && mode != e.Mode {
		all = append(all, fmt.Sprintf("mode %04o, want %04o", mode, e.Mode))
	}
	if c.how.Owner && (int(st.Uid) != e.UID || int(st.Gid) != e.GID) {
		all = append(all, fmt.Sprintf("owner %d:%d, want %d:%d", st.Uid, st.Gid, e.UID, e.GID))
	}
	return strings.Join(all, ", "), nil
}

// content compares a file's bytes.
func (c *comparison) content(at level, name string, st *syscall.Stat_t, e manifest.Entry) (string, error) {
	if st.Size != e.Size {
		return fmt.Sprintf("size %d, want %d", st.Size, e.Size), nil
	}
	// Equal is not before: the file system's clock ticks slowly.
	since := time.Unix(st.Ctim.Unix())
	if !at.exchanged && (since.Before(c.how.Since) || c.how.twin.vouches(at.twin, name, st, e, c.how.Since)) {
		return "", nil
	}
	// Nothing that has taken the file's place by now makes Open wait.
	f, err := at.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return "cannot be read: " + reason(err), nil
	}
	defer f.Close()
	if c.how.proof != nil {
		c.how.proof.file(f)
	}
	w := digest.NewWriter()
	for {
		began := time.Now()
		n, err := f.Read(c.buf)
		w.Write(c.buf[:n])
		if err == io.EOF {
			break
		}
		if c.how.Gentle {
			c.tired += 3 * time.Since(began)
		}
		if c.tired >= gentleRest {
			sleep(c.ctx, c.tired)
			c.tired = 0
		}
		if err != nil {
			return "cannot be read: " + reason(err), nil
		}
		if err := context.Cause(c.ctx); err != nil {
			return "", err
		}
	}
	if w.Digest() != e.Digest {
		return "content", nil
	}
	return "", nil
}

var typeNames = map[manifest.Type]string{manifest.File: "file", manifest.Dir: "directory", manifest.Symlink: "symlink"}

func typeOf(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return "file"
	case unix.S_IFDIR:
		return "directory"
	case unix.S_IFLNK:
		return "symlink"
	}
	return "device, fifo or socket"
}

// reason is the cause of a path's error, which the difference names already.
func reason(err error) string {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err
	}
	return line(err)
}
