package cmd_test

import (
	"fmt"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// A fault is what happens to the program at a point: a system call of its own or
// of a child that changes its files. See scripts/faults/crashat.
type fault struct {
	name  string
	args  []string // of crashat; none: a kill
	fs    string   // of its directory, to be mounted; "": memory
	power int      // how the power is cut there; 0: not
	every int      // of the points that a usual run tries one in so many
}

// faults are all kinds. The power is cut with the journal written and the data
// not (1), and with nothing written (2). Where the matrix has share times as many
// cases as that of the registry, a usual run tries as many fewer points of each.
func faults(share int) []fault {
	all := []fault{{name: "kill", every: 16 * share}}
	for _, fs := range []string{"ext4", "xfs"} {
		for _, flag := range []int{1, 2} {
			all = append(all, fault{name: fmt.Sprintf("power %s %d", fs, flag), args: []string{"-power", strconv.Itoa(flag)}, fs: fs, power: flag, every: 128 * share})
		}
	}
	for _, errno := range []string{"ENOSPC", "EIO", "EDQUOT", "EROFS", "EMFILE"} {
		all = append(all,
			fault{name: errno + " once", args: []string{"-err", errno}, every: 128 * share},
			fault{name: errno + " from then on", args: []string{"-err", errno, "-sticky"}, every: 128 * share})
	}
	return all
}

// fails reports whether calls fail and the program is to live on.
func (f fault) fails() bool { return len(f.args) > 0 && f.power == 0 }

// everyPoint returns what a variable says: the matrix tries one point in so many, 1
// is all. It is 0 without the variable. But for all, each commit has a sample of its
// own.
func everyPoint() int {
	step, _ := strconv.Atoi(os.Getenv("DEPLOY_TEST_EVERY_POINT")) // no number: none
	return max(step, 0)
}

// sample yields the points that this run tries, of so many.
func (f fault) sample(t *testing.T, points int) iter.Seq[int] {
	t.Helper()
	step := everyPoint()
	if step == 0 {
		if step = f.every; underRace {
			step *= 4
		}
	}
	first := 1 + commit()%min(step, points)
	t.Logf("%d points of %d", 1+(points-first)/step, points)
	return func(yield func(int) bool) {
		for n := first; n <= points && yield(n); n += step {
		}
	}
}

// commit returns a number that is another one for each commit.
func commit() int {
	out, err := exec.Command("git", "rev-parse", "HEAD").Output()
	if err != nil || len(out) < 7 {
		return 0 // not a checkout
	}
	n, _ := strconv.ParseUint(string(out[:7]), 16, 32)
	return int(n)
}

// crashat returns the program, built once.
var crashat = sync.OnceValues(func() (string, error) {
	path := filepath.Join(binDir, "crashat")
	if out, err := exec.Command("go", "build", "-o", path, "deploytools/scripts/faults/crashat").CombinedOutput(); err != nil {
		return "", fmt.Errorf("cannot build crashat: %w: %s", err, out)
	}
	return path, nil
})

// makeImage makes a file system in a file and returns the file.
func makeImage(t *testing.T, image, fs string) string {
	t.Helper()
	do(t, "truncate", "-s", "320M", image) // the least that mkfs.xfs takes
	do(t, "mkfs."+fs, "-q", image)
	return image
}

func mount(t *testing.T, image, dir string) {
	t.Helper()
	do(t, "mount", "-o", "loop", image, dir)
}

// unmount takes it away at the end of a test, also where a process that is about to
// end still holds it.
func unmount(dir string) { exec.Command("umount", "--lazy", dir).Run() }

// remount gives the power back. The file system is gone when its loop device is:
// while a process holds it in a mount namespace of its own, as one of another
// test may, a mount would only be one more of the same that has lost its power.
func remount(t *testing.T, image, dir string) {
	t.Helper()
	if err := poll(func() (bool, error) { return exec.Command("umount", dir).Run() == nil, nil }); err != nil {
		do(t, "umount", dir) // says why
	}
	err := poll(func() (bool, error) {
		out, err := exec.Command("losetup", "--associated", image).Output()
		return len(out) == 0, err
	})
	if err != nil {
		t.Fatalf("the loop device of %s is still there: %v", image, err)
	}
	mount(t, image, dir)
}

// cutPower cuts the power of the file system of a directory: see faults.
func cutPower(t *testing.T, dir string, flag int) {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const fsShutdown = 0x8004587d // FS_IOC_SHUTDOWN of linux/fs.h
	if err := unix.IoctlSetPointerInt(int(f.Fd()), fsShutdown, flag); err != nil {
		t.Fatal(err)
	}
}

// do runs a command that has to succeed.
func do(t *testing.T, command ...string) {
	t.Helper()
	if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%q: %v: %s", command, err, out)
	}
}
