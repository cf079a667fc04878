package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"deploytools/cmd/internal/cli"
)

// Less than that is too little to work in, or soon will be.
const (
	leastBytes = 64 << 20
	goodInodes = 10000
)

// unfit are file systems on which nothing should lie that is to stay.
var unfit = map[int64]string{
	unix.TMPFS_MAGIC: "tmpfs: it is empty after a boot", unix.RAMFS_MAGIC: "ramfs: it is empty after a boot",
	unix.NFS_SUPER_MAGIC: "NFS: it may go away, and locks and syncs are the server's", unix.OVERLAYFS_SUPER_MAGIC: "overlayfs: perhaps of a container, whose end is its end",
	0xff534d42: "CIFS: it has neither links nor modes", 0xfe534d42: "SMB2: it has neither links nor modes", unix.MSDOS_SUPER_MAGIC: "FAT: it has neither links nor modes",
}

// Disk looks at the file system of a program's directory, or of the nearest one that
// is there already, at its room, and whether it does what the program needs. Room
// says how to make room, good how many bytes are enough.
func (d *Diagnosis) Disk(about, path, room string, good int64) {
	dir := d.nearest(about, path)
	if dir == "" {
		return
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		d.Fail(about, "", "%s: %v", dir, err)
		return
	}
	if why, bad := unfit[int64(st.Type)]; bad {
		d.Warn(about, "choose a -dir on a disk of this host: ext4, xfs or btrfs", "%s is on %s", dir, why)
	}
	if st.Flags&unix.ST_RDONLY != 0 {
		d.Fail(about, "mount it writable: a disk with faults is often made read-only by the kernel", "%s is read-only", dir)
	}
	free := int64(st.Bavail) * st.Bsize
	switch {
	case free < leastBytes:
		d.Fail(about, "make room; "+room, "%s: %d MiB free", dir, free>>20)
	case free < good:
		d.Warn(about, "make room; "+room, "%s: %d MiB free", dir, free>>20)
	case st.Files > 0 && st.Ffree < goodInodes:
		d.Warn(about, "make room; "+room, "%s: only %d more files can be made", dir, st.Ffree)
	default:
		d.OK(about, "%s: %d MiB free", dir, free>>20)
	}
	d.abilities(about, dir)
}

// nearest returns a directory that can be tried: this one, or the nearest that is
// there already; "": it has said why there is none.
func (d *Diagnosis) nearest(about, path string) string {
	dir, err := filepath.Abs(path)
	if err != nil {
		d.Fail(about, "", "%v", err)
		return ""
	}
	for {
		info, err := os.Stat(dir)
		if err == nil && !info.IsDir() {
			d.Fail(about, cli.DirHint, "%s is no directory", dir)
			return ""
		}
		if err == nil {
			return dir
		}
		if !errors.Is(err, fs.ErrNotExist) || dir == "/" {
			d.Fail(about, cli.DirHint, "%v", err)
			return ""
		}
		dir = filepath.Dir(dir)
	}
}

// abilities tries what the programs do with files.
func (d *Diagnosis) abilities(about, dir string) {
	work, err := os.MkdirTemp(dir, ".doctor-")
	if err != nil {
		hint := cli.HintOf(cli.Unwritable(err))
		if hint == "" {
			hint = cli.DirHint
		}
		d.Fail(about, hint, "%v", err)
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
			d.Fail(about, "choose a -dir on ext4, xfs or btrfs", "%s: cannot %s: %v", dir, try.what, err)
			return
		}
	}
	shares := "files cannot be cloned"
	if reflinks(at("file"), at("clone")) {
		shares = "files can be cloned"
	}
	d.OK(about, "%s: links, renames and syncs work; %s", dir, shares)
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
