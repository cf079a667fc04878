package agent

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Room is an amount of disk space: bytes, or a part of the file system.
type Room struct {
	Bytes   int64
	Percent int // of the file system, 0 to 99
}

var errRoom = errors.New("should be bytes, such as 500M or 10GiB, or a part of the disk, such as 10%")

// units are binary, however they are written: nobody counts a disk's last percents.
var units = map[string]int64{"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40,
	"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}

// ParseRoom reads an amount such as 1000000, 500M, 10GiB or 10%. The empty text is none.
func ParseRoom(text string) (Room, error) {
	if text == "" {
		return Room{}, nil
	}
	if number, ok := strings.CutSuffix(text, "%"); ok {
		n, err := strconv.ParseUint(number, 10, 8)
		if err != nil || n > 99 {
			return Room{}, errRoom
		}
		return Room{Percent: int(n)}, nil
	}
	digits := strings.TrimRight(text, "KMGTiB")
	unit, ok := units[text[len(digits):]]
	n, err := strconv.ParseUint(digits, 10, 62)
	if !ok || err != nil || int64(n) > (1<<62)/unit {
		return Room{}, errRoom
	}
	return Room{Bytes: int64(n) * unit}, nil
}

// of returns the bytes of r on a file system of so many.
func (r Room) of(total int64) int64 { return r.Bytes + total/100*int64(r.Percent) }

// Size writes a number of bytes for people.
func Size(n int64) string {
	if n < 1<<10 {
		return fmt.Sprintf("%d B", n)
	}
	f, i := float64(n)/(1<<10), 0
	for f >= 1000 && i < 3 {
		f, i = f/(1<<10), i+1
	}
	return fmt.Sprintf("%.1f %ciB", f, "KMGT"[i])
}

// disk is the file system below a directory.
type disk struct {
	total, free, block int64 // bytes, free to whoever is not root
	inodes             int64 // free; -1: they are not counted
}

// cramped reports whether there is hardly room for the record and the evidence of
// a deployment.
func (d disk) cramped() bool { return d.free < 2*reservePart || 0 <= d.inodes && d.inodes < 16 }

func diskOf(path string) (disk, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return disk{}, fmt.Errorf("cannot tell the free space at %s: %w", path, err)
	}
	d := disk{total: int64(st.Blocks) * st.Bsize, free: int64(st.Bavail) * st.Bsize, block: st.Bsize, inodes: int64(st.Ffree)}
	if st.Files == 0 {
		d.inodes = -1
	}
	return d, nil
}
