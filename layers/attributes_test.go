package layers

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// needRoot skips what only root can do.
func needRoot(t testing.TB) {
	t.Helper()
	needsRoot(t)
}

func stat(t testing.TB, path string) *syscall.Stat_t {
	t.Helper()
	info, err := os.Lstat(path)
	must(t, err)
	return info.Sys().(*syscall.Stat_t)
}

// modes holds every kind of entry with modes that a umask or an order of calls
// could get wrong.
func modes() []byte {
	return tarball(
		folder("ro/", mode(0o555)), reg("ro/f", "x", mode(0o400)), folder("ro/in/", mode(0o500)), sym("ro/in/s", "t"),
		folder("none/", mode(0)), reg("none/f", "x", mode(0)),
		folder("all/", mode(0o777)), reg("all/f", "x", mode(0o777)),
		folder("setgid/", mode(0o2775)), reg("setgid/f", "x", mode(0o664)), folder("sticky/", mode(0o1777)),
		reg("implied/deep/f", "x", mode(0o666)), hard("implied/h", "implied/deep/f"))
}

var modesWant = map[string]fs.FileMode{
	"ro": fs.ModeDir | 0o555, "ro/f": 0o400, "ro/in": fs.ModeDir | 0o500, "ro/in/s": fs.ModeSymlink | 0o777,
	"none": fs.ModeDir, "none/f": 0, "all": fs.ModeDir | 0o777, "all/f": 0o777,
	"setgid": fs.ModeDir | fs.ModeSetgid | 0o775, "setgid/f": 0o664, "sticky": fs.ModeDir | fs.ModeSticky | 0o777,
	"implied": fs.ModeDir | 0o755, "implied/deep": fs.ModeDir | 0o755, "implied/deep/f": 0o666, "implied/h": 0o666,
	".": fs.ModeDir | 0o755,
}

func TestModesAreTheArchives(t *testing.T) {
	for _, umask := range []int{0, 0o022, 0o077, 0o177} {
		t.Run(fmt.Sprintf("umask %03o", umask), func(t *testing.T) {
			w := newWorld(t)
			defer unix.Umask(unix.Umask(umask)) // tests of this package run one at a time
			w.accepted(t, Options{}, modes())
			for name, want := range modesWant {
				info, err := os.Lstat(filepath.Join(w.root, name))
				if err != nil || info.Mode() != want {
					t.Errorf("%s: %v, %v, want %v", name, info.Mode(), err, want)
				}
			}
		})
	}
}

// A default ACL takes the place of the umask, and is handed down.
func TestModesAreTheArchivesUnderADefaultACL(t *testing.T) {
	w := newWorld(t)
	acl := []byte{2, 0, 0, 0} // its version, then for owner, group and others: tag, permissions, no id
	for _, e := range [][2]byte{{0x01, 7}, {0x04, 4}, {0x20, 0}} {
		acl = append(acl, e[0], 0, e[1], 0, 0xff, 0xff, 0xff, 0xff)
	}
	must(t, unix.Setxattr(w.root, "system.posix_acl_default", acl, 0))
	defer unix.Umask(unix.Umask(0))
	w.accepted(t, Options{}, modes())
	for name, want := range modesWant {
		if info, err := os.Lstat(filepath.Join(w.root, name)); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v, want %v", name, info.Mode(), err, want)
		}
	}
}

// The same without root's right to pass by every mode.
func TestModesAreTheArchivesForAUser(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	archive := filepath.Join(w.dir, "archive")
	must(t, os.WriteFile(archive, modes(), 0o644))
	for _, dir := range []string{w.root, w.dir, filepath.Dir(w.dir)} {
		must(t, os.Chown(dir, 65534, 65534))
	}
	self, err := os.Executable()
	must(t, err)
	program := filepath.Join(w.dir, "program")
	b, err := os.ReadFile(self)
	must(t, err)
	must(t, os.WriteFile(program, b, 0o755))
	cmd := exec.Command(program)
	cmd.Env = []string{"LAYERS_TEST_UNPACK=" + archive, "LAYERS_TEST_INTO=" + w.root}
	cmd.Dir = w.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for name, want := range modesWant {
		info, err := os.Lstat(filepath.Join(w.root, name))
		if err != nil || info.Mode() != want || info.Sys().(*syscall.Stat_t).Uid != 65534 {
			t.Errorf("%s: %v, %v, want %v", name, info.Mode(), err, want)
		}
	}
}

// TestMain lets a test call itself as a user without rights.
func TestMain(m *testing.M) {
	archive := os.Getenv("LAYERS_TEST_UNPACK")
	if archive == "" {
		os.Exit(m.Run())
	}
	open := func() (readCloser, error) { return os.Open(archive) }
	if _, err := Unpack(noContext, os.Getenv("LAYERS_TEST_INTO"), []Layer{{Name: "a", Open: open}}, Options{}); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func TestTimesAreTheArchives(t *testing.T) {
	w := newWorld(t)
	w.accepted(t, Options{}, tarball(
		folder("d/", mtime("00000000144")), // 100
		reg("d/f", "x", mtime("00000000310")), sym("d/s", "f", mtime("00000000454")),
		folder("d/e/", mtime("00000000620")), reg("d/e/f", "x"), reg("d/big", strings.Repeat("x", batchBytes+1), mtime("00000000764")),
		pax("mtime=1700000000.123456789"), reg("d/pax", "x"), pax("mtime=-1.5"), reg("d/before", "x")))
	for name, want := range map[string]time.Time{
		"d": time.Unix(100, 0), "d/f": time.Unix(200, 0), "d/s": time.Unix(300, 0), "d/e": time.Unix(400, 0), "d/big": time.Unix(500, 0),
		"d/pax": time.Unix(1700000000, 123456789), "d/before": time.Unix(-2, 500000000),
	} {
		info, err := os.Lstat(filepath.Join(w.root, name))
		if err != nil || !info.ModTime().Equal(want) {
			t.Errorf("%s: %v, %v, want %v", name, info.ModTime(), err, want)
		}
	}
}

func TestTimesThatTheFileSystemCannotHoldAreClamped(t *testing.T) {
	w := newWorld(t)
	w.accepted(t, Options{}, tarball(
		reg("late", "x", gnu, base256(136, 1<<62)), pax("mtime=-9223372036854775808"), reg("early", "x"), pax("mtime=9223372036854775807"), sym("s", "x")))
	var st [2]*syscall.Stat_t
	for i, name := range []string{"late", "early"} {
		st[i] = stat(t, filepath.Join(w.root, name))
	}
	if st[0].Mtim.Sec < 1<<31-1 || st[1].Mtim.Sec > -1<<31 {
		t.Errorf("late %d, early %d, want the ends of what the file system holds", st[0].Mtim.Sec, st[1].Mtim.Sec)
	}
}

func TestOwner(t *testing.T) {
	needRoot(t)
	archive := tarball(folder("d/", owner(11, 12)), reg("d/f", "x", owner(13, 14)), sym("d/s", "f", owner(15, 16)),
		reg("d/root", "x"), reg("implied/f", "x", owner(17, 18)), pax("uid=3000000", "gid=4000000000"), reg("d/big", "x"), hard("d/h", "d/f"))
	theirs := map[string][2]uint32{"d": {11, 12}, "d/f": {13, 14}, "d/s": {15, 16}, "d/root": {0, 0}, "implied": {0, 0}, "implied/f": {17, 18}, "d/big": {3000000, 4000000000}, "d/h": {13, 14}}
	for name, o := range map[string]Options{"as the archive says": {Owner: true}, "as the process": {}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			must(t, os.Chown(w.root, 0, 99))
			must(t, os.Chmod(w.root, fs.ModeSetgid|0o755)) // would hand its group on
			info := w.accepted(t, o, archive)
			for _, e := range listed(t, info) {
				want := [2]uint32{}
				if o.Owner {
					want = theirs[e.Path]
				}
				st := stat(t, filepath.Join(w.root, e.Path))
				if got := [2]uint32{st.Uid, st.Gid}; got != want || [2]uint32{uint32(e.UID), uint32(e.GID)} != want {
					t.Errorf("%s: owner %v, in the manifest %d:%d, want %v", e.Path, got, e.UID, e.GID, want)
				}
			}
		})
	}
}

func TestPrivilegesAreSetWhereAllowed(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	info := w.accepted(t, Options{Privileged: true, Owner: true}, tarball(
		reg("setuid", "x", mode(0o4755), owner(7, 7)), reg("setgid", "x", mode(0o2755)),
		pax("SCHILY.xattr.security.capability="+netRaw, "LIBARCHIVE.xattr.security.capability=AQAAAgAgAAAAAAAAAAAAAAAAAAA="), reg("cap", "x", owner(7, 7)),
		pax("LIBARCHIVE.xattr.security.capability=AQAAAgAgAAAAAAAAAAAAAAAAAAA"), reg("cap2", "x")))
	for name, want := range map[string]fs.FileMode{"setuid": fs.ModeSetuid | 0o755, "setgid": fs.ModeSetgid | 0o755} {
		if st, err := os.Stat(filepath.Join(w.root, name)); err != nil || st.Mode() != want {
			t.Errorf("%s: %v, %v, want %v", name, st.Mode(), err, want)
		}
	}
	for _, name := range []string{"cap", "cap2"} {
		buf := make([]byte, 64)
		n, err := unix.Getxattr(filepath.Join(w.root, name), capability, buf)
		if err != nil || string(buf[:n]) != netRaw {
			t.Errorf("%s: capability %q, %v, want %q", name, buf[:max(n, 0)], err, netRaw)
		}
	}
	if info.Warnings != nil {
		t.Errorf("warnings %q", info.Warnings)
	}
	newWorld(t).refused(t, Options{Privileged: true}, `layer web:1: entry 1 "a": two values of security.capability`,
		tarball(pax("SCHILY.xattr.security.capability="+strings.Replace(netRaw, "\x20", "\x21", 1), "LIBARCHIVE.xattr.security.capability=AQAAAgAgAAAAAAAAAAAAAAAAAAA"), reg("a", "x")))
	newWorld(t).refused(t, Options{Privileged: true}, `layer web:1: entry 1 "a": security.capability is malformed`,
		tarball(pax("SCHILY.xattr.security.capability=x"), reg("a", "x")))
	newWorld(t).refused(t, Options{Privileged: true}, `layer web:1: entry 1 "d/": file capability (security.capability)`,
		tarball(pax("SCHILY.xattr.security.capability=x"), folder("d/")))
}

func TestOtherAttributesAreToldOnce(t *testing.T) {
	for _, record := range []string{"SCHILY.xattr.user.a=b", "LIBARCHIVE.xattr.user.a=YQ", "SCHILY.acl.access=user::rwx", "RHT.security.selinux=x"} {
		w := newWorld(t)
		info := w.accepted(t, Options{}, tarball(reg("a", "x"), pax(record), reg("b", "x"), pax(record), reg("c", "x")))
		want := `layer web:1: extended attributes and ACLs are not applied (entry 2 "b" is the first that has some)`
		if len(info.Warnings) != 1 || info.Warnings[0] != want {
			t.Errorf("%s: warnings %q, want %q", record, info.Warnings, want)
		}
	}
}

// needsRoot skips the test for whoever is not root. CI is, and fails.
func needsRoot(t testing.TB) {
	t.Helper()
	switch {
	case os.Geteuid() == 0:
	case os.Getenv("CI") != "":
		t.Fatal("CI should run this as root")
	default:
		t.Skip("needs root")
	}
}
