package main

import (
	"golang.org/x/sys/unix"
)

// A call is a system call that can change files.
type call struct {
	name  string
	files []operand
	// changes tells by its arguments whether it changes anything; nil: always.
	changes func(args [6]uint64) bool
}

// An operand is an argument that names a file: a path, relative to the directory
// of an open one unless dir is cwd, or an open file alone, where path is none.
type operand struct{ dir, path int }

const (
	cwd  = -1
	none = -1
)

// at is a path relative to an open directory.
func at(dir int) operand { return operand{dir, dir + 1} }

var (
	byPath = []operand{{cwd, 0}}
	byFile = []operand{{0, none}}
)

// ficlone is FICLONE of linux/fs.h.
const ficlone = 0x40049409

// calls are the points, by number.
var calls = map[int32]call{
	unix.SYS_OPEN:            {"open", byPath, func(a [6]uint64) bool { return writes(a[1]) }},
	unix.SYS_OPENAT:          {"openat", []operand{at(0)}, func(a [6]uint64) bool { return writes(a[2]) }},
	unix.SYS_OPENAT2:         {"openat2", []operand{at(0)}, nil},
	unix.SYS_CREAT:           {"creat", byPath, nil},
	unix.SYS_WRITE:           {"write", byFile, nil},
	unix.SYS_PWRITE64:        {"pwrite64", byFile, nil},
	unix.SYS_WRITEV:          {"writev", byFile, nil},
	unix.SYS_PWRITEV:         {"pwritev", byFile, nil},
	unix.SYS_PWRITEV2:        {"pwritev2", byFile, nil},
	unix.SYS_SENDFILE:        {"sendfile", byFile, nil},
	unix.SYS_COPY_FILE_RANGE: {"copy_file_range", []operand{{2, none}}, nil},
	unix.SYS_SPLICE:          {"splice", []operand{{2, none}}, nil},
	unix.SYS_IOCTL:           {"ioctl", byFile, func(a [6]uint64) bool { return a[1] == ficlone }},
	unix.SYS_FSYNC:           {"fsync", byFile, nil},
	unix.SYS_FDATASYNC:       {"fdatasync", byFile, nil},
	unix.SYS_SYNCFS:          {"syncfs", byFile, nil},
	unix.SYS_SYNC_FILE_RANGE: {"sync_file_range", byFile, nil},
	unix.SYS_TRUNCATE:        {"truncate", byPath, nil},
	unix.SYS_FTRUNCATE:       {"ftruncate", byFile, nil},
	unix.SYS_FALLOCATE:       {"fallocate", byFile, nil},
	unix.SYS_RENAME:          {"rename", []operand{{cwd, 0}, {cwd, 1}}, nil},
	unix.SYS_RENAMEAT:        {"renameat", []operand{at(0), at(2)}, nil},
	unix.SYS_RENAMEAT2:       {"renameat2", []operand{at(0), at(2)}, nil},
	unix.SYS_LINK:            {"link", []operand{{cwd, 1}}, nil},
	unix.SYS_LINKAT:          {"linkat", []operand{at(2)}, nil},
	unix.SYS_SYMLINK:         {"symlink", []operand{{cwd, 1}}, nil},
	unix.SYS_SYMLINKAT:       {"symlinkat", []operand{at(1)}, nil},
	unix.SYS_UNLINK:          {"unlink", byPath, nil},
	unix.SYS_UNLINKAT:        {"unlinkat", []operand{at(0)}, nil},
	unix.SYS_RMDIR:           {"rmdir", byPath, nil},
	unix.SYS_MKDIR:           {"mkdir", byPath, nil},
	unix.SYS_MKDIRAT:         {"mkdirat", []operand{at(0)}, nil},
	unix.SYS_MKNODAT:         {"mknodat", []operand{at(0)}, nil},
	unix.SYS_CHMOD:           {"chmod", byPath, nil},
	unix.SYS_FCHMOD:          {"fchmod", byFile, nil},
	unix.SYS_FCHMODAT:        {"fchmodat", []operand{at(0)}, nil},
	unix.SYS_FCHMODAT2:       {"fchmodat2", []operand{at(0)}, nil},
	unix.SYS_CHOWN:           {"chown", byPath, nil},
	unix.SYS_LCHOWN:          {"lchown", byPath, nil},
	unix.SYS_FCHOWN:          {"fchown", byFile, nil},
	unix.SYS_FCHOWNAT:        {"fchownat", []operand{at(0)}, nil},
	unix.SYS_UTIMENSAT:       {"utimensat", []operand{at(0)}, nil},
	unix.SYS_SETXATTR:        {"setxattr", byPath, nil},
	unix.SYS_LSETXATTR:       {"lsetxattr", byPath, nil},
	unix.SYS_FSETXATTR:       {"fsetxattr", byFile, nil},
}

// writes reports whether a file that is opened with these flags can change.
func writes(flags uint64) bool {
	return flags&(unix.O_WRONLY|unix.O_RDWR|unix.O_CREAT|unix.O_TRUNC) != 0
}
