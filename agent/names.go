package agent

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"iter"
	"math"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// names are those of one directory, which may have a million. They lie one behind
// the other, as far as they fit into a part of them.
type names struct {
	parts [][]byte
	at    []place
}

// place is where a name begins. It ends with a NUL.
type place struct{ part, from uint16 }

var errNames = errors.New("more than 4 GiB of names")

// add takes a name, with end behind it.
func (n *names) add(name, end string) error {
	last := len(n.parts) - 1
	if last < 0 || len(n.parts[last])+len(name)+len(end) >= cap(n.parts[last]) {
		if last++; last > math.MaxUint16 {
			return errNames
		}
		n.parts = append(n.parts, make([]byte, 0, 1<<min(10+last, 16))) // most directories are small
	}
	part := n.parts[last]
	n.at = append(n.at, place{uint16(last), uint16(len(part))})
	n.parts[last] = append(append(append(part, name...), end...), 0)
	return nil
}

func (n *names) bytes(at place) []byte {
	b := n.parts[at.part][at.from:]
	return b[:bytes.IndexByte(b, 0)]
}

func (n *names) name(i int) string { return string(n.bytes(n.at[i])) }

// readNames returns the sorted names of a directory's entries, those of directories
// also with a slash.
func readNames(root *os.Root) (*names, error) {
	f, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all names
	buf := make([]byte, 32<<10)
	for {
		n, err := unix.ReadDirent(int(f.Fd()), buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, &fs.PathError{Op: "getdents64", Path: f.Name(), Err: err}
		}
		if n == 0 {
			break
		}
		for name, is := range dirents(buf[:n]) {
			err := all.add(name, "")
			if err == nil && (is == unix.DT_DIR || is == unix.DT_UNKNOWN && isDir(root, name)) {
				err = all.add(name, "/")
			}
			if err != nil {
				return nil, err
			}
		}
	}
	slices.SortFunc(all.at, func(a, b place) int { return bytes.Compare(all.bytes(a), all.bytes(b)) })
	return &all, nil
}

// dirents yields what getdents64(2) has returned, names and types. os.File.ReadDir
// would look at each entry of a directory of an os.Root besides.
func dirents(buf []byte) iter.Seq2[string, byte] {
	const length, kind, name = 16, 18, 19 // where they are in linux_dirent64
	return func(yield func(string, byte) bool) {
		for len(buf) > name {
			one := buf[:binary.NativeEndian.Uint16(buf[length:])]
			buf = buf[len(one):]
			text, _, _ := bytes.Cut(one[name:], []byte{0})
			if s := string(text); s != "." && s != ".." && !yield(s, one[kind]) {
				return
			}
		}
	}
}

func isDir(root *os.Root, name string) bool {
	info, err := root.Lstat(name)
	return err == nil && info.IsDir()
}
