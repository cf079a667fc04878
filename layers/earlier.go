package layers

import (
	"hash/maphash"
	"io"
	"strings"
	"time"

	"deploytools/layers/digest"
	"deploytools/layers/manifest"

	"golang.org/x/sys/unix"
)

// earlier is the root that a reuser takes files from, and what is known of it. Its
// directories are opened one component at a time, and stay open while they are of use.
type earlier struct {
	root   oldDir
	dirs   map[ref]oldDir // by the new tree's directories, but for the top
	proven time.Time      // Reuse.Proven
	seed   maphash.Seed   // new each time: nobody can look for two pairs with the same hash

	read  chan struct{}       // closed when the manifest was read
	pairs map[uint64]struct{} // hashes of its files with their content; nil: nothing is known
}

// oldDir is a directory of the earlier root.
type oldDir struct {
	fd int // -1: it is not there
	// Its inode has not changed since Reuse.Proven: it has no other names.
	unchanged bool
	// It, and all above, are the directories that they were then. Who exchanges one
	// changes it and the one that it lies in; of the top that cannot be told.
	same bool
}

// maxPairs bounds the memory that the files of a manifest take: about 20 bytes each.
const maxPairs = 200_000

// inside is how a name of the earlier root is looked up: nobody can have put
// anything there that leads elsewhere.
const inside = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV

// newEarlier owns fd, until close.
func newEarlier(fd int, from *Reuse) *earlier {
	e := &earlier{dirs: map[ref]oldDir{}, proven: from.Proven, seed: maphash.MakeSeed(), read: make(chan struct{})}
	e.root = oldDir{fd: fd, unchanged: e.unchangedDir(fd)}
	e.root.same = e.root.unchanged
	go func() { // ends with close at the latest
		defer close(e.read)
		if e.root.unchanged {
			e.pairs = e.know(from.Manifest)
		}
	}()
	return e
}

// know reads the manifest; nil: there is none that can be read, or it is too long.
func (e *earlier) know(open func() (io.ReadCloser, error)) map[uint64]struct{} {
	text, err := open()
	if err != nil {
		return nil
	}
	defer text.Close()
	pairs := map[uint64]struct{}{}
	for is, err := range manifest.Read(text) {
		if err != nil || len(pairs) == maxPairs {
			return nil
		}
		if is.Type == manifest.File {
			pairs[maphash.Comparable(e.seed, pair{is.Path, is.Digest})] = struct{}{}
		}
	}
	return pairs
}

// pair is a file and its content. What a layer holds may have been hidden in the
// earlier root by another layer's file.
type pair struct {
	path   string
	digest digest.Digest
}

// had reports whether the earlier root had the file of the entry, with its content.
func (e *earlier) had(f *entry) bool {
	<-e.read
	_, had := e.pairs[maphash.Comparable(e.seed, pair{strings.Join(f.path, "/"), f.digest})]
	return had
}

// unchanged reports whether an inode is as it was at the time proven. Equal is not
// before: the file system's clock ticks slowly.
func (e *earlier) unchanged(st *unix.Stat_t) bool {
	return time.Unix(st.Ctim.Unix()).Before(e.proven)
}

// untouched reports whether nobody has written to a file since it was read. A write
// that had begun before has changed the inode then, and given it its time.
func (e *earlier) untouched(st *unix.Stat_t, f *entry) bool { return e.unchanged(st) && f.hasTime(st) }

// hasTime reports whether the file has the entry's time.
func (e *entry) hasTime(st *unix.Stat_t) bool { return time.Unix(st.Mtim.Unix()).Equal(e.mtime) }

func (e *earlier) unchangedDir(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && e.unchanged(&st)
}

// dir returns the earlier root's directory of the same path as at of the tree.
func (e *earlier) dir(t *tree, at ref) oldDir {
	if at == top {
		return e.root
	}
	d, ok := e.dirs[at]
	if ok {
		return d
	}
	d = oldDir{fd: -1}
	n := t.nodes.at(t.dirs.at(at).node)
	if up := e.dir(t, n.parent); up.fd >= 0 {
		fd, err := unix.Openat2(up.fd, t.name(n), &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: inside})
		if err == nil {
			d = oldDir{fd: fd, unchanged: e.unchangedDir(fd)}
			d.same = up.same && (up.unchanged || d.unchanged)
		}
	}
	e.dirs[at] = d
	return d
}

// closeDirs closes all directories but the top.
func (e *earlier) closeDirs() {
	for _, d := range e.dirs {
		if d.fd >= 0 {
			unix.Close(d.fd)
		}
	}
	clear(e.dirs)
}

func (e *earlier) close() {
	<-e.read
	e.closeDirs()
	unix.Close(e.root.fd)
}
