package layers

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// scratchAfter is how many bytes of tables are in memory before there is a file.
var scratchAfter = 4 << 20

const (
	scratchPiece = 4 << 20   // bytes by which the file grows
	scratchSpare = 256 << 20 // bytes that it leaves free: files need them more
	restAfter    = 4 << 20   // bytes that may be resident
	lookAfter    = 32        // steps between two looks at how many are
)

// scratch is where a tree's tables lie: the first bytes in memory, all others in
// a file without a name, which is mapped. So what is known of a million files need
// not be resident, and a process that is killed leaves nothing behind. Where there
// cannot be such a file, memory has to do: a nil scratch has no file.
//
// Nothing is ever expected of the file after a crash, so it is never synced.
type scratch struct {
	dir    int // open, where the file is to be; -1: nowhere
	memory int // bytes in memory so far
	file   *mapped
	free   []byte // of the last piece
	steps  int
}

// mapped is what has to be given back.
type mapped struct {
	fd     int
	statm  int   // /proc/self/statm; -1: cannot be read
	before int64 // resident before the first piece, with all that the process maps: it only makes tables rest more often
	err    error // sticky: something was lost, or is closed

	mu     sync.Mutex // guards pieces against the writers' guards
	pieces [][]byte
}

// ScratchBytes returns what Unpack needs on disk besides, until Info.Close, for so
// many entries with names of usual length.
func ScratchBytes(entries int64) int64 { return max(0, entries*150-int64(scratchAfter)) }

// newScratch returns a scratch whose file lies in the open directory dir, which is
// needed as long as the tree grows.
func newScratch(dir int) *scratch {
	s := &scratch{dir: dir, file: &mapped{fd: -1, statm: -1}}
	runtime.AddCleanup(s, (*mapped).close, s.file) // whoever forgets close
	return s
}

// get returns n bytes of zeros in the file, at an address that suits every record;
// nil: they are to come from memory.
func (s *scratch) get(n int) []byte {
	if s == nil || s.dir < 0 {
		return nil
	}
	if s.memory+n <= scratchAfter {
		s.memory += n
		return nil
	}
	if len(s.free) < n {
		piece, err := s.file.grow(s.dir)
		if err != nil {
			s.dir = -1
			return nil
		}
		s.free = piece
	}
	b := s.free[:n:n]
	s.free = s.free[n:]
	return b
}

// grow maps another piece. Its blocks are there before it is written to: a full disk
// is an error here, and would be a signal later.
func (m *mapped) grow(dir int) (piece []byte, err error) {
	if m.fd < 0 {
		err := retry(func() (err error) {
			m.fd, err = unix.Openat(dir, ".", unix.O_TMPFILE|unix.O_EXCL|unix.O_RDWR|unix.O_CLOEXEC, 0o600) // O_EXCL: nobody gives it a name
			return err
		})
		if err != nil {
			m.fd = -1
			return nil, err
		}
		if m.statm, err = unix.Open("/proc/self/statm", unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
			m.before, _ = m.resident()
		}
	}
	var on unix.Statfs_t
	if err := unix.Fstatfs(m.fd, &on); err != nil {
		return nil, err
	}
	if int64(on.Bavail)*int64(on.Bsize) < scratchSpare+scratchPiece {
		return nil, unix.ENOSPC
	}
	at := int64(len(m.pieces)) * scratchPiece
	if err := retry(func() error { return unix.Fallocate(m.fd, 0, at, scratchPiece) }); err != nil {
		return nil, err
	}
	piece, err = unix.Mmap(m.fd, at, scratchPiece, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pieces = append(m.pieces, piece)
	return piece, nil
}

// rest makes everything in the file no longer resident. The kernel keeps what it
// has room for, and brings it back when it is wanted.
func (m *mapped) rest() {
	for _, p := range m.pieces {
		unix.Madvise(p, unix.MADV_DONTNEED)
	}
}

// step is called wherever much of the tables is gone through.
func (s *scratch) step() {
	if s == nil || len(s.file.pieces) == 0 {
		return
	}
	if s.steps++; s.steps%lookAfter != 0 {
		return
	}
	now, err := s.file.resident()
	if err != nil || now > s.file.before+restAfter {
		s.file.rest()
	}
}

// resident returns how many bytes of files are resident in this process: "shared"
// of proc_pid_statm(5).
func (m *mapped) resident() (int64, error) {
	var b [128]byte
	n, err := unix.Pread(m.statm, b[:], 0)
	if err != nil {
		return 0, err
	}
	f := bytes.Fields(b[:n])
	if len(f) < 3 {
		return 0, io.ErrUnexpectedEOF
	}
	pages, err := strconv.ParseInt(string(f[2]), 10, 64)
	return pages * int64(os.Getpagesize()), err
}

// guard calls do. A page of the file that cannot be read makes do end there, with
// an error, and leaves what it holds to its defers.
func (s *scratch) guard(do func() error) (err error) {
	if s == nil {
		return do()
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		switch p := recover().(type) {
		case nil:
		case interface{ Addr() uintptr }:
			if !s.file.has(p.Addr()) {
				panic(p)
			}
			err = fmt.Errorf("scratch file cannot be used: %w", unix.EIO)
		default:
			panic(p)
		}
	}()
	return do()
}

func (m *mapped) has(addr uintptr) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.ContainsFunc(m.pieces, func(p []byte) bool { return addr-uintptr(unsafe.Pointer(&p[0])) < scratchPiece })
}

// lost is the error of what the kernel could not write to the file, if there was
// any: it may have forgotten that since, and what was found in the tables means
// nothing. Nothing is written for the answer.
func (s *scratch) lost() error {
	if s == nil {
		return nil
	}
	m := s.file
	if m.err == nil && m.fd >= 0 {
		if err := unix.SyncFileRange(m.fd, 0, 0, unix.SYNC_FILE_RANGE_WAIT_BEFORE); err != nil {
			m.err = fmt.Errorf("scratch file was not written: %w", err) // which is told once only
		}
	}
	return m.err
}

var errClosed = errors.New("internal error: manifest after Close")

func (m *mapped) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.pieces {
		unix.Munmap(p)
	}
	m.pieces, m.err = nil, errClosed
	for _, fd := range []*int{&m.fd, &m.statm} {
		if *fd >= 0 {
			unix.Close(*fd)
			*fd = -1
		}
	}
}

// close gives the file back. No table of it is used any more.
func (s *scratch) close() {
	if s != nil {
		s.file.close()
		s.dir = -1
	}
}
