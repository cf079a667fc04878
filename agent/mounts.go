package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mountPoints returns where something is mounted, as this process sees it, from
// /proc/self/mountinfo: proc_pid_mountinfo(5).
func mountPoints() (points []string, err error) {
	b, err := os.ReadFile(procfs + "/self/mountinfo")
	for line := range strings.Lines(string(b)) {
		if fields := strings.Fields(line); len(fields) > 4 {
			points = append(points, unescape(fields[4]))
		}
	}
	if err == nil && len(points) == 0 {
		err = errors.New(procfs + "/self/mountinfo: has no mount point")
	}
	return points, err
}

// unescape undoes the octal numbers with which the kernel writes blanks and backslashes.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// realPath returns an absolute path without links in the directories before its last
// name, or path itself where it cannot be told.
func realPath(path string) string {
	dir, name := filepath.Split(path)
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		if abs, err := filepath.Abs(real); err == nil {
			return filepath.Join(abs, name)
		}
	}
	return path
}

// notMounted fails if the open directory is the root of a mount. Before Linux 5.8 the
// kernel does not tell.
func notMounted(f *os.File) error {
	var is unix.Statx_t
	if err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, 0, &is); err != nil {
		return fmt.Errorf("cannot look at %s: %w", f.Name(), err)
	}
	if is.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 {
		return fmt.Errorf("%s: %w", f.Name(), ErrMounted)
	}
	return nil
}
