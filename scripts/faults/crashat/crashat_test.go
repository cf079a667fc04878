package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// asCrashat names the variable that makes this test the program.
const asCrashat = "TEST_AS_CRASHAT"

func TestMain(m *testing.M) {
	if os.Getenv(asCrashat) != "" {
		main()
	}
	os.Exit(m.Run())
}

// script makes six points, the fourth of them in a child of its own session.
const script = `echo a >a; mkdir d; setsid -w mv a d/b; ln -s b c; cat d/b >/dev/null; echo x >/dev/null; rm c`

func crashat(t *testing.T, dir string, args ...string) (status int, stderr string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], append([]string{"-match", dir}, args...)...)
	cmd.Env = append(os.Environ(), asCrashat+"=1")
	cmd.Dir = dir
	var said strings.Builder
	cmd.Stderr = &said
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode(), said.String()
	}
	if err != nil {
		t.Fatal(err)
	}
	return 0, said.String()
}

func TestPointsAreListed(t *testing.T) {
	dir, log := t.TempDir(), filepath.Join(t.TempDir(), "log")
	if status, said := crashat(t, dir, "-log", log, "--", "sh", "-c", script+"; exit 7"); status != 7 {
		t.Errorf("exit status %d, want the program's: %s", status, said)
	}
	b, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(strings.ReplaceAll(line, dir+"/", ""))
		got = append(got, strings.Join(f, " "))
	}
	want := []string{"1 openat a", "2 write a", "3 mkdir d", "4 renameat2 a d/b", "5 symlinkat c", "6 unlinkat c"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("points %q, want %q", got, want)
	}
}

func TestKillComesBeforeThePoint(t *testing.T) {
	for n, left := range map[string]string{"1": "", "3": "a", "4": "a d", "5": "d d/b", "6": "c d d/b"} {
		dir := t.TempDir()
		status, said := crashat(t, dir, "-n", n, "--", "sh", "-c", script)
		var got []string
		err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
			if path != dir {
				got = append(got, strings.TrimPrefix(path, dir+"/"))
			}
			return err
		})
		if strings.Join(got, " ") != left || status != 137 || err != nil {
			t.Errorf("killed at point %s: exit status %d, left %q, want 137, %q: %v: %s", n, status, got, left, err, said)
		}
	}
}

// The fourth point is mv's: the shell goes on without it.
func TestOneIsKilledAlone(t *testing.T) {
	dir := t.TempDir()
	status, said := crashat(t, dir, "-n", "4", "-one", "--", "sh", "-c", "echo a >a; mkdir d; mv a d/b; ln -s b c; rm c")
	if left, err := filepath.Glob(dir + "/*"); len(left) != 2 || filepath.Base(left[0]) != "a" || status != 0 || err != nil {
		t.Errorf("exit status %d, left %q, %v, want 0, a and d: %s", status, left, err, said)
	}
}

func TestCallsFail(t *testing.T) {
	for _, test := range []struct {
		args []string
		said int // how often
	}{
		{[]string{"-n", "1", "-err", "ENOSPC"}, 1},
		{[]string{"-n", "1", "-err", "ENOSPC", "-sticky"}, 3},
		{[]string{"-n", "1", "-err", "ENOSPC", "-sticky", "-calls", "mkdir"}, 2},
		{[]string{"-n", "9", "-err", "ENOSPC", "-sticky"}, 0},
	} {
		_, said := crashat(t, t.TempDir(), append(test.args, "--", "sh", "-c", "mkdir a; mkdir b; : >c")...)
		if got := strings.Count(said, "No space left"); got != test.said {
			t.Errorf("%v: %d calls failed, want %d: %s", test.args, got, test.said, said)
		}
	}
}

func TestWhatFailsForeverEnds(t *testing.T) {
	began := time.Now()
	status, said := crashat(t, t.TempDir(), "-n", "1", "-err", "EIO", "-sticky", "-end", "100ms", "--", "sh", "-c", "until mkdir a; do sleep 0.01; done")
	if took := time.Since(began); status != 137 || took < 100*time.Millisecond || !strings.Contains(said, "Input/output error") {
		t.Errorf("exit status %d after %v, want 137 after 100ms and more: %s", status, took, said)
	}
}

func TestWrongUse(t *testing.T) {
	dir := t.TempDir()
	for _, args := range [][]string{{"-err", "EWHAT", "--", "true"}, {"-calls", "read", "--", "true"}, {}, {"-match", dir + "/none", "--", "true"}} {
		if status, said := crashat(t, dir, args...); status != 2 || said == "" {
			t.Errorf("%q: exit status %d, %q, want 2 and why", args, status, said)
		}
	}
	if status, said := crashat(t, dir, "--", "no-such-program"); status == 0 || !strings.Contains(said, "no-such-program") {
		t.Errorf("a missing program: exit status %d, %q", status, said)
	}
}
