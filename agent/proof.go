package agent

import (
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"deploytools/layers"
)

// proof is for a comparison that reads every byte: what it was right about need not be
// read again while its inode does not change.
type proof struct {
	at   time.Time // the file system's: what changes from then on has this change time or a later one
	void bool      // a file has what its inode does not tell of
}

// proofMargin is by how much a clock may be set back that nobody notices.
const proofMargin = 2 * time.Second

// onTheirInodes are the file systems that give an inode a new time also when a mapped
// file is written to, as statfs(2) numbers them.
var onTheirInodes = []int64{unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC}

// newProof begins one of files on the file system of dir; nil: there can be none.
func newProof(dir string) *proof {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	var is unix.Statfs_t
	var now unix.Stat_t
	if unix.Fstatfs(fd, &is) != nil || !slices.Contains(onTheirInodes, is.Type) || unix.Fstat(fd, &now) != nil {
		return nil
	}
	return &proof{at: time.Unix(now.Ctim.Unix()).Add(-proofMargin)}
}

// file is called with each file before it is read. Where one is mapped, and pages of
// it wait to be written back, more can be written to these without another time; once
// they are written back it cannot.
func (p *proof) file(f *os.File) {
	const all = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	fd := int(f.Fd())
	if unix.SyncFileRange(fd, 0, 0, all) != nil || layers.HasAttributes(fd) {
		p.void = true
	}
}

// proven is what the last whole comparison of a live root has proven.
type proven struct {
	root      string    // its Dir
	at        time.Time // see Condition.proven
	began     time.Time // the comparison
	clock     time.Time // what the clock showed then
	collected int64     // roots, before it: removing one changes the inodes of what it shared
}

// of returns since when what is unchanged of the root was read; zero: nothing is
// known that is not older than age.
func (p *proven) of(root string, age time.Duration) time.Time {
	passed := time.Since(p.began)
	setBack := now().Sub(p.clock) < passed-proofMargin
	if p.root != root || passed > age || setBack {
		return time.Time{}
	}
	return p.at
}
