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
	at    time.Time     // the file system's: what changes from then on has this change time or a later one
	skew  time.Duration // see skew, then
	mount uint64        // where the files are
	void  bool          // a file has what its inode does not tell of, or the clock was set back
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
	mount, err := mountOf(fd)
	if err != nil || unix.Fstatfs(fd, &is) != nil || !slices.Contains(onTheirInodes, is.Type) || unix.Fstat(fd, &now) != nil {
		return nil
	}
	return &proof{at: time.Unix(now.Ctim.Unix()).Add(-proofMargin), skew: skew(), mount: mount}
}

// skew is by how much the clock is ahead of the time since the boot, which nobody sets
// and which goes on while the machine sleeps.
func skew() time.Duration {
	var clock, boot unix.Timespec
	unix.ClockGettime(unix.CLOCK_REALTIME, &clock) // neither can fail: clock_gettime(2)
	unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot)
	return time.Duration(clock.Nano() - boot.Nano())
}

// mountOf returns the number of the mount that a file was opened in.
func mountOf(fd int) (uint64, error) {
	var is unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &is)
	if err == nil && is.Mask&unix.STATX_MNT_ID == 0 { // before Linux 5.8
		err = unix.EOPNOTSUPP
	}
	return is.Mnt_id, err
}

// file is called with each file before it is read. Where one is mapped, and pages of
// it wait to be written back, more can be written to these without another time; once
// they are written back it cannot. What is mounted over a file is not what will be
// there without it.
func (p *proof) file(f *os.File) {
	const all = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	fd := int(f.Fd())
	mount, err := mountOf(fd)
	if err != nil || mount != p.mount || unix.SyncFileRange(fd, 0, 0, all) != nil || layers.HasAttributes(fd) {
		p.void = true
	}
}

// watch has to be called now and then: a clock that was set back makes the proof void.
// nil has none.
func (p *proof) watch() {
	if p != nil && skew() < p.skew-proofMargin {
		p.void = true
	}
}

// proven is what the last whole comparison of a live root has proven.
type proven struct {
	root      string    // its Dir
	proof     *proof    // nil: nothing
	began     time.Time // the comparison
	collected int64     // roots, before it: removing one changes the inodes of what it shared
	linked    bool      // and so has a root that was filled from it since
}

// of returns since when what is unchanged of the root was read; zero: nothing is
// known that is not older than age.
func (p *proven) of(root string, age time.Duration) time.Time {
	p.proof.watch()
	if p.root != root || p.proof == nil || p.proof.void || time.Since(p.began) > age {
		return time.Time{}
	}
	return p.proof.at
}
