package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"deploytools/atomic"
)

// User is whom the host's programs run as: what passwd(5) and group(5) say.
type User struct {
	Name, Home, Shell string
	UID, GID          uint32
	Groups            []uint32 // GID, and the groups that name the user
}

// LookupUser finds USER or USER:GROUP, by names or numbers that /etc/passwd and
// /etc/group know.
func LookupUser(text string) (*User, error) {
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return nil, err
	}
	groups, err := os.ReadFile("/etc/group")
	if err != nil {
		return nil, err
	}
	return lookupUser(text, string(passwd), string(groups))
}

func lookupUser(text, passwd, groups string) (*User, error) {
	name, group, withGroup := strings.Cut(text, ":")
	f, uid := entry(passwd, 7, name)
	if f == nil {
		return nil, fmt.Errorf("user %q: not in /etc/passwd", name)
	}
	gid, err := strconv.ParseUint(f[3], 10, 32)
	if err != nil {
		return nil, fmt.Errorf("user %q: its group in /etc/passwd is %q", name, f[3])
	}
	u := &User{Name: f[0], Home: f[5], Shell: f[6], UID: uid, GID: uint32(gid)}
	if withGroup {
		g, id := entry(groups, 4, group)
		if g == nil {
			return nil, fmt.Errorf("group %q: not in /etc/group", group)
		}
		u.GID = id
	}
	if u.Shell == "" {
		u.Shell = "/bin/sh" // passwd(5)
	}
	u.Groups = []uint32{u.GID}
	for g, id := range entries(groups, 4) {
		if slices.Contains(strings.Split(g[3], ","), u.Name) && !slices.Contains(u.Groups, id) {
			u.Groups = append(u.Groups, id)
		}
	}
	return u, nil
}

// entry finds a line by its first field, and otherwise by its number.
func entry(file string, fields int, want string) ([]string, uint32) {
	for f, id := range entries(file, fields) {
		if f[0] == want {
			return f, id
		}
	}
	number, err := strconv.ParseUint(want, 10, 32)
	for f, id := range entries(file, fields) {
		if err == nil && id == uint32(number) {
			return f, id
		}
	}
	return nil, 0
}

// entries yields the lines that have that many fields, the third a number.
// Others, such as those of a network's directory, are none of ours.
func entries(file string, fields int) func(yield func([]string, uint32) bool) {
	return func(yield func([]string, uint32) bool) {
		for line := range strings.SplitSeq(file, "\n") {
			f := strings.Split(line, ":")
			if len(f) != fields || f[0] == "" {
				continue
			}
			id, err := strconv.ParseUint(f[2], 10, 32)
			if err == nil && id != 1<<32-1 && !yield(f, uint32(id)) { // -1 means "as it is" to the kernel
				return
			}
		}
	}
}

// variables are those of the environment that say who one is.
func (u *User) variables() []string {
	return []string{"HOME=" + u.Home, "USER=" + u.Name, "LOGNAME=" + u.Name, "SHELL=" + u.Shell}
}

// attributes are those of a process that runs as u. With the change of the ids
// the kernel takes every capability; nil changes nothing.
func (u *User) attributes() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true}
	if u != nil {
		attr.Credential = &syscall.Credential{Uid: u.UID, Gid: u.GID, Groups: u.Groups}
	}
	return attr
}

// ask calls fn with the rights of u to files; nil has ours. Only one thread
// changes its effective ids: fn starts no goroutine.
func (u *User) ask(fn func() error) error {
	if u == nil {
		return fn()
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // given back below only as it was
		mine, err := unix.Getgroups()
		if err != nil {
			done <- err
			return
		}
		before := make([]uint32, len(mine))
		for i, g := range mine {
			before[i] = uint32(g)
		}
		err = effective(u.Groups, u.GID, u.UID)
		if err == nil {
			err = fn()
		}
		// The user first: only root may set groups.
		restored := errors.Join(setEffectiveUser(0), setEffectiveGroups(before, uint32(os.Getgid())))
		done <- errors.Join(err, restored)
		if restored == nil {
			runtime.UnlockOSThread()
		}
	}()
	return <-done
}

func effective(groups []uint32, gid, uid uint32) error {
	if err := setEffectiveGroups(groups, gid); err != nil {
		return err
	}
	return setEffectiveUser(uid)
}

// The calls of package syscall would change every thread.

func setEffectiveUser(uid uint32) error {
	const keep = ^uintptr(0)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, keep, uintptr(uid), keep); errno != 0 {
		return fmt.Errorf("cannot act as user %d: %w", uid, errno)
	}
	return nil
}

func setEffectiveGroups(groups []uint32, gid uint32) error {
	const keep = ^uintptr(0)
	first := unsafe.Pointer(unsafe.SliceData(groups))
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(first), 0); errno != 0 {
		return fmt.Errorf("cannot act with groups %d: %w", groups, errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, keep, uintptr(gid), keep); errno != 0 {
		return fmt.Errorf("cannot act as group %d: %w", gid, errno)
	}
	return nil
}

// reader is u for who lays out what the check script looks at; nil stays nil.
func (u *User) reader() *atomic.Reader {
	if u == nil {
		return nil
	}
	return &atomic.Reader{GID: int(u.GID), As: u.ask}
}

// readable returns nil if the programs can read the directory; else what is in
// their way, by its path.
func (h *hookRunner) readable(dir string) error {
	return h.user.ask(func() error {
		for at := range parents(dir) {
			need := uint32(unix.X_OK)
			if at == dir {
				need |= unix.R_OK
			}
			if err := unix.Faccessat(unix.AT_FDCWD, at, need, unix.AT_EACCESS); err != nil {
				return fmt.Errorf("user %s cannot read %s: %s: %w", h.user, dir, at, err)
			}
		}
		return nil
	})
}

// blame says whose rights a failure is about.
func (u *User) blame(failure string) string {
	if u == nil || failure == "" {
		return failure
	}
	return failure + " (as user " + u.String() + ")"
}

// String is for messages.
func (u *User) String() string {
	if u == nil {
		return strconv.Itoa(os.Geteuid())
	}
	return strconv.Quote(u.Name)
}

// parents yields the directories on the way to an absolute path, and it.
func parents(path string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		if path != "/" {
			for p := range parents(filepath.Dir(path)) {
				if !yield(p) {
					return
				}
			}
		}
		yield(path)
	}
}
