package atomic

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// unixMode returns mode as chmod(2) takes it.
func unixMode(mode fs.FileMode) octal {
	m := octal(mode.Perm())
	for _, bit := range []struct {
		go_  fs.FileMode
		unix octal
	}{{fs.ModeSetuid, unix.S_ISUID}, {fs.ModeSetgid, unix.S_ISGID}, {fs.ModeSticky, unix.S_ISVTX}} {
		if mode&bit.go_ != 0 {
			m |= bit.unix
		}
	}
	return m
}

// fileMode is unixMode's inverse.
func (o octal) fileMode() fs.FileMode {
	m := fs.FileMode(o) & fs.ModePerm
	if o&unix.S_ISUID != 0 {
		m |= fs.ModeSetuid
	}
	if o&unix.S_ISGID != 0 {
		m |= fs.ModeSetgid
	}
	if o&unix.S_ISVTX != 0 {
		m |= fs.ModeSticky
	}
	return m
}

// strict reports whether a file must get its owner.
func (p OwnerPolicy) strict() bool {
	return p == StrictOwners || p == StrictIfRoot && os.Geteuid() == 0
}

// resolve says which mode, owner and group a file gets: what m sets, else what
// the file has that is there, else the defaults, each for itself. Who may not
// give files away gets a warning under a lenient policy, and the file stays his.
func (m Metadata) resolve(old node, defaults Metadata, policy OwnerPolicy) (c content, warnings []string, err error) {
	c = content{Mode: 0o644, UID: os.Geteuid(), GID: os.Getegid()}
	switch {
	case m.Mode != 0:
		c.Mode = unixMode(m.Mode)
	case old.exists:
		c.Mode = old.mode
	case defaults.Mode != 0:
		c.Mode = unixMode(defaults.Mode)
	}
	if c.UID, err = resolveID(m.Owner, old.exists, old.uid, defaults.Owner, c.UID, userID); err != nil {
		return c, nil, fmt.Errorf("owner: %w", err)
	}
	if c.GID, err = resolveID(m.Group, old.exists, old.gid, defaults.Group, c.GID, groupID); err != nil {
		return c, nil, fmt.Errorf("group: %w", err)
	}
	if policy.strict() || os.Geteuid() == 0 {
		return c, nil, nil
	}
	if c.UID != os.Geteuid() {
		warnings = append(warnings, fmt.Sprintf("owner would be %d, but only root can give files away", c.UID))
		c.UID = os.Geteuid()
		c.Mode &^= unix.S_ISUID // it would give other rights away
	}
	if groups, err := os.Getgroups(); err == nil && c.GID != os.Getegid() && !slices.Contains(groups, c.GID) {
		warnings = append(warnings, fmt.Sprintf("group would be %d, which this process is not in", c.GID))
		c.GID = os.Getegid()
		c.Mode &^= unix.S_ISGID
	}
	return c, warnings, nil
}

func resolveID(want []string, exists bool, existing int, defaults []string, own int, look func(string) (int, error)) (int, error) {
	switch {
	case len(want) > 0:
		return firstID(want, look)
	case exists:
		return existing, nil
	case len(defaults) > 0:
		return firstID(defaults, look)
	}
	return own, nil
}

// firstID returns the number of the first candidate that exists.
func firstID(candidates []string, look func(string) (int, error)) (int, error) {
	for _, name := range candidates {
		if n, err := strconv.ParseUint(name, 10, 31); err == nil {
			return int(n), nil
		}
		n, err := look(name)
		if err == nil {
			return n, nil
		}
		if !unknownName(err) {
			return 0, err
		}
	}
	return 0, fmt.Errorf("%q: no such name on this host", strings.Join(candidates, ", "))
}

func unknownName(err error) bool {
	_, noUser := errors.AsType[user.UnknownUserError](err)
	_, noGroup := errors.AsType[user.UnknownGroupError](err)
	return noUser || noGroup
}

func userID(name string) (int, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(u.Uid)
}

func groupID(name string) (int, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(g.Gid)
}

// equip gives the staged file f its owner, then what else the old file had, then
// its mode: chown(2) takes setuid and setgid away, and access lists change the
// mode. What an access list or a label of the old file says is worth a warning
// when it cannot be kept, and no more.
func (d disk) equip(f *os.File, c *content, old string, strict bool) (warnings []string, err error) {
	err = d.do("chown", f.Name(), func() error { return f.Chown(c.UID, c.GID) })
	if err != nil {
		if strict || !errors.Is(err, unix.EPERM) {
			return nil, err
		}
		warnings = append(warnings, fmt.Sprintf("cannot give it to %d:%d: %v", c.UID, c.GID, err))
		c.Mode &^= unix.S_ISUID | unix.S_ISGID
	}
	if old != "" {
		warnings = append(warnings, d.copyAttributes(f, old)...)
	}
	return warnings, d.chmod(f, c.Mode.fileMode())
}

// bound lists attributes that speak of the old bytes and would be wrong for others.
var bound = []string{"security.ima", "security.evm"}

// copyAttributes gives f the extended attributes of old: access lists, the
// security label, capabilities, and what users have put there.
func (d disk) copyAttributes(f *os.File, old string) (warnings []string) {
	names, err := listAttributes(old)
	if err != nil && !errors.Is(err, unix.ENOTSUP) {
		return []string{fmt.Sprintf("cannot read its extended attributes: %v", err)}
	}
	for _, name := range names {
		if slices.Contains(bound, name) {
			continue
		}
		value, err := attribute(old, name)
		if err == nil {
			err = d.do("setxattr", f.Name(), func() error { return unix.Fsetxattr(int(f.Fd()), name, value, 0) })
		}
		if err != nil {
			warnings = append(warnings, fmt.Sprintf("cannot keep its attribute %s: %v", name, err))
		}
	}
	return warnings
}

func listAttributes(path string) ([]string, error) {
	b, err := grow(func(b []byte) (int, error) { return unix.Llistxattr(path, b) })
	if err != nil {
		return nil, err
	}
	return strings.FieldsFunc(string(b), func(r rune) bool { return r == 0 }), nil
}

func attribute(path, name string) ([]byte, error) {
	return grow(func(b []byte) (int, error) { return unix.Lgetxattr(path, name, b) })
}

// grow calls read with a buffer that is large enough.
func grow(read func([]byte) (int, error)) ([]byte, error) {
	for size := 256; ; size *= 4 {
		b := make([]byte, size)
		n, err := read(b)
		if !errors.Is(err, unix.ERANGE) || size > 1<<20 {
			return b[:max(n, 0)], err
		}
	}
}
