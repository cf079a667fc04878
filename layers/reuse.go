package layers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"deploytools/layers/digest"

	"golang.org/x/sys/unix"
)

// Reuse names a root that Unpack filled earlier. The new one takes the files
// that both have from there, without writing them again: by a clone (FICLONE of
// ioctl_ficlonerange(2)) where the file system can, and by a hard link where the
// layer allows it. A layer that gives all its files so is not even read. What
// else is needed comes from its archive.
//
// A file is taken only if it has the bytes, the mode and the owner that it is to
// have. It is read and hashed, whatever its times say, unless somebody has done so
// before: see Proven. Files with setuid, setgid, the sticky bit or capabilities are
// never taken.
type Reuse struct {
	Dir   string // of the earlier root; empty: there is none, but a later one wants Info.Index
	Index []byte // its Info.Index, joined; what is damaged of it is not used
	// Proven is a time of the file system's. All files of the earlier root were read
	// after it, and had the bytes that Manifest says, and no attributes or ACLs.
	// Those whose inode has not changed since it, which have the time of the layer's
	// entry, and whose directories are the same, are not read again. Zero: all are.
	Proven   time.Time
	Manifest func() (io.ReadCloser, error) // the text of the earlier root's; for Proven only
}

// Shares returns the layers whose files a root in the directory dir, which is
// there, would share with the earlier one, as far as nobody has modified these: they
// take no room. o is as for Unpack, but for its Reuse.
func (r *Reuse) Shares(dir string, all []Layer, o Options) map[digest.Digest]bool {
	shared := map[digest.Digest]bool{}
	fd, err := openDir(unix.AT_FDCWD, dir, 0)
	if err != nil || r.Dir == "" {
		return shared
	}
	defer unix.Close(fd)
	g := &again{o: o, clones: canClone(fd)}
	g.o.Reuse = r
	known, _ := readIndex(r.Index)
	for _, l := range all {
		if g.usable(l) && known[indexKey(l.Digest, o)] != nil {
			shared[l.Digest] = true
		}
	}
	return shared
}

// reuser is the writer of a layer that has an index. Files come from the old
// root, in the disk's goroutines. Those that cannot are missed: settle reads them
// from the archive, which is opened for the first of them and read forward only.
type reuser struct {
	*disk
	old    *earlier
	clones bool

	ctx  context.Context // of the one call of Unpack
	l    Layer
	body *opened // the archive; nil: not needed so far

	mu     sync.Mutex
	missed []job
}

// newReuser returns nil where the old root cannot be opened: then nothing is
// taken from it.
func newReuser(d *disk, from *Reuse, clones bool) *reuser {
	fd, err := openDir(unix.AT_FDCWD, from.Dir, unix.O_NOFOLLOW)
	if err != nil {
		return nil
	}
	return &reuser{disk: d, old: newEarlier(fd, from), clones: clones}
}

// room closes the earlier root's directories if there are many. See disk.room.
func (r *reuser) room() {
	if len(r.old.dirs) >= r.maxDirs {
		r.flush()
		r.pending.Wait()
		r.old.closeDirs()
	}
	r.disk.room()
}

// canClone reports whether files in the open directory can be clones.
func canClone(dir int) bool {
	var fds [2]int
	for i := range fds {
		fd, err := unix.Openat(dir, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return false
		}
		defer unix.Close(fd)
		fds[i] = fd
	}
	return unix.IoctlFileClone(fds[0], fds[1]) == nil
}

// replay is tree.unpack for a layer whose index is known.
func (t *tree) replay(ctx context.Context, l Layer, x *indexed, r *reuser, info *Info) (err error) {
	r.ctx, r.l, r.body = ctx, l, nil
	t.w = r
	defer func() {
		t.w = r.disk
		if r.body != nil {
			r.body.shut()
		}
	}()
	o := r.o
	o.Limits = o.Limits.withDefaults()
	head := &archive{ctx: ctx, layer: l.Name, o: o}
	t.begin(head)
	for e, err := range x.entries() {
		if err == nil {
			head.number, head.name = e.number, strings.Join(e.path, "/")
			info.Unpacked += e.size
			err = head.stopped()
		}
		if err == nil {
			err = t.add(e)
		}
		if err != nil {
			return err
		}
	}
	info.Entries += int64(head.number)
	if err := r.settle(); err != nil || r.body == nil {
		return err
	}
	for err == nil {
		_, err = r.body.next()
	}
	if err == io.EOF {
		err = nil
	}
	return r.body.proved(l, err, info)
}

func (r *reuser) file(n *node, to *digest.Digest, e *entry, _ *archive) error {
	if err := r.fault(); err != nil {
		return err
	}
	j := job{n: n, e: e, digest: to, take: r.take}
	if e.digest.IsZero() {
		r.miss(j)
		return nil
	}
	r.room()
	var err error
	if j.dir, err = r.dirOf(n.parent); err != nil {
		return err
	}
	j.from = r.old.dir(r.t, n.parent)
	if len(r.batch.jobs) == batchFiles {
		r.flush()
	}
	r.batch.jobs = append(r.batch.jobs, j)
	if e.size > batchBytes { // the next large one is for the other writer
		r.flush()
	}
	return nil
}

func (r *reuser) miss(j job) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.missed = append(r.missed, j)
}

func (r *reuser) remove(n *node) error {
	if err := r.settle(); err != nil {
		return err
	}
	return r.disk.remove(n)
}

// settle has no file left to write, before anything names one that is to come.
func (r *reuser) settle() error {
	if err := r.disk.settle(); err != nil {
		return err
	}
	slices.SortFunc(r.missed, func(x, y job) int { return cmp.Compare(x.e.number, y.e.number) })
	for _, j := range r.missed {
		if err := r.read(j); err != nil {
			return err
		}
	}
	clear(r.missed)
	r.missed = r.missed[:0]
	return r.disk.settle()
}

// read takes a file from the archive.
func (r *reuser) read(j job) (err error) {
	if r.body == nil {
		if r.body, err = openLayer(r.ctx, r.l, r.o); err != nil {
			return err
		}
	}
	a := r.body
	for {
		e, err := a.next()
		if err == nil && e.number < j.e.number {
			continue
		}
		if err == nil && e.kind == file && slices.Equal(e.path, j.e.path) && e.size == j.e.size && e.mode == j.e.mode {
			return r.disk.file(j.n, j.digest, e, a.archive)
		}
		other := err == nil || err == io.EOF
		if other {
			err = a.refuse("is not what the index says")
		}
		if err = a.proved(r.l, err, &Info{}); other && errors.Is(err, ErrRefused) {
			return fmt.Errorf("internal error: layer %s has the index of another", r.l.Name)
		}
		return err
	}
}

// take makes a file of the old root one of the new.
func (r *reuser) take(j job) error {
	took, err := r.taken(j)
	if took {
		*j.digest = j.e.digest
	} else if err == nil {
		r.miss(j)
	}
	return err
}

func (r *reuser) taken(j job) (bool, error) {
	if j.from.fd < 0 {
		return false, nil
	}
	known := j.from.same && r.old.had(j.e)
	var before unix.Stat_t
	if known && r.l.Link && unix.Fstatat(j.from.fd, j.e.name(), &before, unix.AT_SYMLINK_NOFOLLOW) == nil && r.fit(&before, j.e) && r.old.untouched(&before, j.e) {
		if took, err := r.linked(j, -1, &before); took || err != nil {
			return took, err
		}
	}
	// Nothing that has taken the file's place makes openat2 wait or go elsewhere.
	fd, err := unix.Openat2(j.from.fd, j.e.name(), &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC,
		Resolve: inside,
	})
	if err != nil {
		return false, nil
	}
	defer unix.Close(fd)
	if unix.Fstat(fd, &before) != nil || !r.fit(&before, j.e) {
		return false, nil
	}
	if !(known && r.old.untouched(&before, j.e)) && hashOf(fd, j.e.size) != j.e.digest {
		return false, nil
	}
	if r.l.Link {
		if took, err := r.linked(j, fd, &before); took || err != nil {
			return took, err
		}
	}
	return r.cloned(j, fd, &before)
}

// fit reports whether a file has what its inode should say.
func (r *reuser) fit(st *unix.Stat_t, e *entry) bool {
	uid, gid := r.uid, r.gid
	if r.o.Owner {
		uid, gid = e.uid, e.gid
	}
	return st.Mode == unix.S_IFREG|e.mode && st.Size == e.size && int(st.Uid) == uid && int(st.Gid) == gid
}

var errChanged = errors.New("cannot be cloned, or was written to meanwhile")

// cloned makes a clone of the file, unless somebody has written to it since it
// was looked at.
func (r *reuser) cloned(j job, fd int, before *unix.Stat_t) (bool, error) {
	if !r.clones {
		return false, nil
	}
	err := r.create(j.dir, j.e, func(to descriptor) error {
		var after unix.Stat_t
		if unix.IoctlFileClone(int(to), fd) != nil || unix.Fstat(fd, &after) != nil || after.Ctim != before.Ctim {
			return errChanged
		}
		return nil
	})
	if errors.Is(err, errChanged) {
		return false, j.e.fault(unix.Unlinkat(j.dir, j.e.name(), 0))
	}
	return err == nil, err
}

// linked makes the file one of both roots. It has to have the time, and no
// attributes or ACLs, because nothing can be set that the old root does not see. fd is
// -1 where it is known to have none.
func (r *reuser) linked(j job, fd int, before *unix.Stat_t) (bool, error) {
	if !j.e.hasTime(before) || fd >= 0 && HasAttributes(fd) {
		return false, nil
	}
	var after unix.Stat_t
	var err error
	// What is open can be linked by root, and since Linux 6.10 by whoever opened it.
	if fd >= 0 && unix.Linkat(fd, "", j.dir, j.e.name(), unix.AT_EMPTY_PATH) == nil {
		err = unix.Fstat(fd, &after)
	} else if unix.Linkat(j.from.fd, j.e.name(), j.dir, j.e.name(), 0) == nil {
		err = unix.Fstatat(j.dir, j.e.name(), &after, unix.AT_SYMLINK_NOFOLLOW)
	} else {
		return false, nil
	}
	if err == nil && after.Ino == before.Ino && after.Dev == before.Dev && after.Mtim == before.Mtim && r.fit(&after, j.e) {
		return true, nil
	}
	return false, j.e.fault(unix.Unlinkat(j.dir, j.e.name(), 0)) // another file has taken its place
}

// HasAttributes reports whether an open file has extended attributes, as ACLs are,
// but for the label that the kernel gives; also where that cannot be told.
func HasAttributes(fd int) bool {
	var names [256]byte
	n, err := unix.Flistxattr(fd, names[:])
	if err == unix.EOPNOTSUPP {
		return false
	}
	return err != nil || n > 0 && string(names[:n]) != "security.selinux\x00"
}

var hashBuffers = sync.Pool{New: func() any { return new([256 << 10]byte) }}

// hashOf returns the digest of the first size bytes of a file; zero: it has fewer, or
// cannot be read.
func hashOf(fd int, size int64) digest.Digest {
	buf := hashBuffers.Get().(*[256 << 10]byte)
	defer hashBuffers.Put(buf)
	h := digest.NewWriter()
	for size > 0 {
		var n int
		err := retry(func() (err error) { n, err = unix.Read(fd, buf[:min(size, int64(len(buf)))]); return err })
		if err != nil || n == 0 {
			return digest.Digest{}
		}
		h.Write(buf[:n])
		size -= int64(n)
	}
	return h.Digest()
}
