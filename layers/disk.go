package layers

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"maps"
	"os"
	"strconv"
	"sync"
	"time"

	"deploytools/layers/digest"

	"golang.org/x/sys/unix"
)

const (
	writers    = 2       // goroutines that write small files
	openDirs   = 4096    // directories kept open at most, and once the depth of a tree more
	batchFiles = 32      // small files that go to a writer at a time
	batchBytes = 1 << 18 // and their bytes; a larger file is written while it is read
	queued     = 2       // batches that wait besides those being written
)

// disk writes a tree below an open directory. Why nothing gets out of it: each
// directory is opened from its parent with O_NOFOLLOW, one component at a time,
// and every other call takes such a descriptor and one component, which is
// never "..", and creates exclusively or names the link itself. So no path that
// an archive chose is ever resolved, and a mistake in the rules of tree cannot
// do more than fail. os.Root would do the same checks again for every file, for
// a third more of the time that unpacking takes.
//
// Two goroutines write the small files, in batches: files that follow each other
// are mostly of one directory, which two writers at a time would only contend
// for. Whoever needs to know that they are done calls settle. Nothing is synced:
// see the package comment.
type disk struct {
	o        Options
	uid, gid int
	masked   uint32 // bits of a mode that a new file may not get from open(2)
	t        *tree
	dirs     map[ref]int // descriptors of open directories, the top's among them
	maxDirs  int

	batch   *batch // not yet with a writer
	batches chan *batch
	pending sync.WaitGroup // batches
	workers sync.WaitGroup

	mu  sync.Mutex
	err error // the first of the writers
}

// job is a small file to write into the directory dir, or one of any size to
// take from elsewhere. A writer does not look at the tree, which grows meanwhile.
type job struct {
	n      *node
	e      *entry
	digest *digest.Digest // to be told
	dir    int
	from   oldDir // for take
	data   []byte
	take   func(job) error // nil: data is written
}

// batch is files that one writer writes, with their bytes.
type batch struct {
	jobs []job
	data [batchBytes]byte
	used int // of data
}

var batches = sync.Pool{New: func() any { return new(batch) }}

// newDisk writes a new tree into the directory dir. The caller calls close.
func newDisk(dir string, o Options) (*disk, error) {
	fd, err := openDir(unix.AT_FDCWD, dir, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open %s: %w", dir, err)
	}
	// A setgid directory would hand its group on.
	if err := unix.Fchmod(fd, 0o700); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("cannot change the mode of %s: %w", dir, err)
	}
	t := newTree(newScratch(fd))
	d := &disk{
		o: o, masked: maskedBits(fd), uid: os.Geteuid(), gid: os.Getegid(), t: t, dirs: map[ref]int{top: fd}, maxDirs: maxDirs(),
		batches: make(chan *batch, queued), batch: batches.Get().(*batch),
	}
	t.w = d
	for range writers {
		d.workers.Go(func() {
			for b := range d.batches {
				d.failed(t.scratch.guard(func() error { return d.write(b) }))
				b.recycle()
				d.pending.Done()
			}
		})
	}
	return d, nil
}

// maskedBits returns the bits of a mode that open(2) may leave out in dir: those
// of the umask, which proc_pid_status(5) tells, and all of them where a default
// ACL takes its place (acl(5)). Those above the permissions never come from it:
// writing clears them.
func maskedBits(dir int) uint32 {
	status, _ := os.ReadFile("/proc/self/status")
	_, rest, _ := bytes.Cut(status, []byte("\nUmask:\t"))
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	umask, err := strconv.ParseUint(string(line), 8, 12)
	if _, e := unix.Fgetxattr(dir, "system.posix_acl_default", nil); err != nil || e != unix.ENODATA && e != unix.EOPNOTSUPP {
		return 0o7777
	}
	return 0o7000 | uint32(umask)
}

// maxDirs leaves half of the descriptors that the process may have to others: an
// earlier root may have as many directories open.
func maxDirs() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 64
	}
	return int(min(limit.Cur/4, openDirs))
}

// close ends the goroutines and closes every directory.
func (d *disk) close() {
	close(d.batches)
	d.workers.Wait()
	d.batch.recycle()
	for _, fd := range d.dirs {
		unix.Close(fd)
	}
}

// write writes the files of b, unless one has failed before.
func (d *disk) write(b *batch) error {
	for _, j := range b.jobs {
		if d.fault() != nil {
			return nil
		}
		do := j.take
		if do == nil {
			do = d.small
		}
		if err := do(j); err != nil {
			return err
		}
	}
	return nil
}

// failed remembers the first error of the writers.
func (d *disk) failed(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = cmp.Or(d.err, err)
}

func (d *disk) fault() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

func (d *disk) settle() error {
	d.flush()
	d.pending.Wait()
	return d.fault()
}

// flush hands the batch to a writer.
func (d *disk) flush() {
	if len(d.batch.jobs) == 0 {
		return
	}
	d.pending.Add(1)
	d.batches <- d.batch
	d.batch = batches.Get().(*batch)
}

// recycle empties b for the next who needs one.
func (b *batch) recycle() {
	clear(b.jobs) // they hold entries
	b.jobs, b.used = b.jobs[:0], 0
	batches.Put(b)
}

// openDir opens a directory; flags are added.
func openDir(at int, name string, flags int) (fd int, err error) {
	err = retry(func() (err error) {
		fd, err = unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|flags, 0)
		return err
	})
	return fd, err
}

// retry repeats a call that a signal interrupted: some file systems let that
// happen, whatever sigaction(2) says.
func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

// room closes directories if there are many. It begins each change, so that
// what dirOf returns stays open until the next.
func (d *disk) room() {
	if len(d.dirs) < d.maxDirs {
		return
	}
	d.flush()
	d.pending.Wait() // the writers use them
	maps.DeleteFunc(d.dirs, func(at ref, fd int) bool {
		if at == top {
			return false
		}
		unix.Close(fd)
		return true
	})
}

// dirOf returns the open directory at.
func (d *disk) dirOf(at ref) (int, error) {
	if fd, ok := d.dirs[at]; ok {
		return fd, nil
	}
	n := d.t.nodes.at(d.t.dirs.at(at).node)
	up, err := d.dirOf(n.parent)
	if err != nil {
		return 0, err
	}
	fd, err := openDir(up, d.t.name(n), unix.O_NOFOLLOW)
	if err != nil {
		return 0, d.t.fault(n, err)
	}
	d.dirs[at] = fd
	return fd, nil
}

// in calls do, which is one system call, with the directory that holds n.
func (d *disk) in(n *node, do func(dir int) error) error {
	d.room()
	dir, err := d.dirOf(n.parent)
	if err != nil {
		return err
	}
	return d.t.fault(n, retry(func() error { return do(dir) }))
}

// fault says which path a system call failed for.
func (t *tree) fault(n *node, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("cannot write %q: %w", t.path(n), err)
}

func (d *disk) mkdir(n *node) error {
	return d.in(n, func(dir int) error { return unix.Mkdirat(dir, d.t.name(n), 0o700) }) // its own mode comes last: finish
}

func (d *disk) symlink(n *node, e *entry) error {
	err := d.in(n, func(dir int) error { return unix.Symlinkat(e.target, dir, e.name()) })
	if err == nil && d.o.Owner {
		err = d.in(n, func(dir int) error {
			return unix.Fchownat(dir, e.name(), e.uid, e.gid, unix.AT_SYMLINK_NOFOLLOW)
		})
	}
	if err != nil {
		return err
	}
	return d.in(n, func(dir int) error {
		return unix.UtimesNanoAt(dir, e.name(), times(e.mtime), unix.AT_SYMLINK_NOFOLLOW)
	})
}

func (d *disk) link(n, to *node) error {
	return d.in(n, func(dir int) error {
		from, err := d.dirOf(to.parent)
		if err != nil {
			return err
		}
		return unix.Linkat(from, d.t.name(to), dir, d.t.name(n), 0) // 0: a symlink itself
	})
}

// remove deletes n with what is below it, which is what the tree says: nothing
// else was ever made.
func (d *disk) remove(n *node) error {
	if err := d.settle(); err != nil {
		return err
	}
	flags := 0
	if n.kind == dir {
		for i := range d.t.children(n.what) {
			if err := d.remove(d.t.nodes.at(i)); err != nil {
				return err
			}
		}
		flags = unix.AT_REMOVEDIR
		if fd, ok := d.dirs[n.what]; ok {
			unix.Close(fd)
			delete(d.dirs, n.what)
		}
	}
	return d.in(n, func(dir int) error { return unix.Unlinkat(dir, d.t.name(n), flags) })
}

func (d *disk) file(n *node, to *digest.Digest, e *entry, a *archive) error {
	if err := d.fault(); err != nil {
		return err
	}
	if e.size > batchBytes {
		return d.large(n, to, e, a)
	}
	d.room()
	dir, err := d.dirOf(n.parent)
	if err != nil {
		return err
	}
	if len(d.batch.jobs) == batchFiles || d.batch.used+int(e.size) > batchBytes {
		d.flush()
	}
	b := d.batch
	data := b.data[b.used : b.used+int(e.size)]
	if _, err := io.ReadFull(a, data); err != nil {
		return err
	}
	b.used += len(data)
	b.jobs = append(b.jobs, job{n: n, e: e, digest: to, dir: dir, data: data})
	return nil
}

// finish describes every directory below at, and at itself, children first: a
// directory may forbid to look into it. The files have settled.
func (d *disk) finish(at ref) error {
	for i := range d.t.children(at) {
		if n := d.t.nodes.at(i); n.kind == dir {
			if err := d.finish(n.what); err != nil {
				return err
			}
		}
	}
	d.room()
	fd, err := d.dirOf(at)
	if err != nil {
		return err
	}
	if at == top {
		return unix.Fchmod(fd, 0o755)
	}
	is := d.t.dirs.at(at)
	e := &entry{kind: dir, mode: uint32(is.mode), uid: int(is.uid), gid: int(is.gid), mtime: is.mtime.time()}
	return d.t.fault(d.t.nodes.at(is.node), d.describe(fd, e))
}

// times leaves the access time alone. The kernel clamps what the file system
// cannot hold (utimensat(2), since Linux 5.4).
func times(mtime time.Time) []unix.Timespec {
	return []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: mtime.Unix(), Nsec: int64(mtime.Nanosecond())}}
}
