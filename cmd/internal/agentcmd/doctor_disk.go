package agentcmd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"deploytools/agent"
	"deploytools/cmd/internal/cli"
)

// Less than that is too little to work in, or soon will be.
const (
	leastBytes = 64 << 20
	goodBytes  = 1 << 30
	goodInodes = 10000
)

// unfit are file systems on which roots should not lie.
var unfit = map[int64]string{
	unix.TMPFS_MAGIC: "tmpfs: it is empty after a boot", unix.RAMFS_MAGIC: "ramfs: it is empty after a boot",
	unix.NFS_SUPER_MAGIC: "NFS: it may go away, and locks and syncs are the server's", unix.OVERLAYFS_SUPER_MAGIC: "overlayfs: perhaps of a container, whose end is its end",
	0xff534d42: "CIFS: it has neither links nor modes", 0xfe534d42: "SMB2: it has neither links nor modes", unix.MSDOS_SUPER_MAGIC: "FAT: it has neither links nor modes",
}

// disk looks at the file system of the agent's directory, or of the nearest one that
// is there already, and at its room.
func (d *diagnosis) disk(o agent.Options, dir string) {
	name := o.Name
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		d.fail(name, "", "%s: %v", dir, err)
		return
	}
	if why, bad := unfit[int64(st.Type)]; bad {
		d.warn(name, "choose a -dir on a disk of this host: ext4, xfs or btrfs", "%s is on %s", dir, why)
	}
	if st.Flags&unix.ST_RDONLY != 0 {
		d.fail(name, "mount it writable: a disk with faults is often made read-only by the kernel", "%s is read-only", dir)
	}
	free := int64(st.Bavail) * st.Bsize
	room := "make room; " + call("gc -explain", o.Dir) + " shows what the agent keeps"
	switch {
	case free < leastBytes:
		d.fail(name, room, "%s: %d MiB free", dir, free>>20)
	case free < goodBytes:
		d.warn(name, room, "%s: %d MiB free", dir, free>>20)
	case st.Files > 0 && st.Ffree < goodInodes:
		d.warn(name, room, "%s: only %d more files can be made", dir, st.Ffree)
	default:
		d.ok(name, "%s: %d MiB free", dir, free>>20)
	}
}

// abilities tries what the agent does with files.
func (d *diagnosis) abilities(name, dir string) {
	work, err := os.MkdirTemp(dir, ".doctor-")
	if err != nil {
		d.fail(name, cli.DirHint, "%v", err)
		return
	}
	defer os.RemoveAll(work)
	at := func(name string) string { return filepath.Join(work, name) }
	for _, try := range []struct {
		what string
		do   func() error
	}{
		{"write a file", func() error { return os.WriteFile(at("file"), make([]byte, 4096), 0o600) }},
		{"sync the file system", func() error { return syncfs(work) }},
		{"make a link", func() error { return os.Symlink("x", at("current")) }},
		{"move a link over another", func() error { return errors.Join(os.Symlink("y", at("new")), os.Rename(at("new"), at("current"))) }},
		{"make a hard link", func() error { return os.Link(at("file"), at("hard")) }},
		{"keep a mode", func() error { return keepsMode(at("file")) }},
	} {
		if err := try.do(); err != nil {
			d.fail(name, "choose a -dir on ext4, xfs or btrfs", "%s: cannot %s: %v", dir, try.what, err)
			return
		}
	}
	shares := "it copies what two roots have in common"
	if reflinks(at("file"), at("clone")) {
		shares = "two roots can share what they have in common"
	}
	d.ok(name, "%s: links, renames and syncs work; %s", dir, shares)
}

func syncfs(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}

func keepsMode(path string) error {
	if err := os.Chmod(path, 0o751); err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err == nil && info.Mode().Perm() != 0o751 {
		err = fmt.Errorf("it has %04o instead of 0751", info.Mode().Perm())
	}
	return err
}

func reflinks(from, to string) bool {
	src, err := os.Open(from)
	if err != nil {
		return false
	}
	defer src.Close()
	dst, err := os.Create(to)
	if err != nil {
		return false
	}
	defer dst.Close()
	return unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())) == nil
}
