package atomic

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

const holdEnv = "ATOMIC_TEST_HOLD"

// TestMain is also the program that holds a lock until it is killed, and those
// of programs.
func TestMain(m *testing.M) {
	if program := programs[os.Getenv(programEnv)]; program != nil {
		if err := program(os.Getenv("ATOMIC_TEST_DIR")); err != nil {
			println(err.Error())
			os.Exit(1)
		}
		return
	}
	path := os.Getenv(holdEnv)
	if path == "" {
		os.Exit(m.Run())
	}
	if _, err := Acquire(path); err != nil {
		println(err.Error())
		os.Exit(1)
	}
	println("held")
	bufio.NewReader(os.Stdin).ReadString('\n')
}

func TestSecondTakerLearnsWhoHoldsTheLock(t *testing.T) {
	path := t.TempDir() + "/lock"
	self, err := os.Executable()
	must(err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), holdEnv+"="+path)
	stdin, err := cmd.StdinPipe()
	must(err)
	defer stdin.Close()
	stderr, err := cmd.StderrPipe()
	must(err)
	must(cmd.Start())
	if line, err := bufio.NewReader(stderr).ReadString('\n'); line != "held\n" {
		t.Fatalf("the holder says %q, %v", line, err)
	}
	_, err = Acquire(path)
	locked, ok := errors.AsType[*LockedError](err)
	if !ok || locked.PID != cmd.Process.Pid || locked.Path != path || !errors.Is(err, ErrLocked) {
		t.Errorf("Acquire = %v, want a LockedError of process %d", err, cmd.Process.Pid)
	}
	if want := path + ": lock is held by process " + strconv.Itoa(cmd.Process.Pid); err.Error() != want {
		t.Errorf("the error reads %q, want %q", err, want)
	}

	must(cmd.Process.Kill())
	cmd.Wait()
	must(os.WriteFile(path, []byte("12345678901\n"), 0o600)) // as long as a former holder may have left
	l, err := Acquire(path)
	if err != nil {
		t.Fatalf("Acquire after the holder was killed = %v", err)
	}
	if b, _ := os.ReadFile(path); string(b) != strconv.Itoa(os.Getpid())+"\n" {
		t.Errorf("the lock file holds %q", b)
	}
	must(l.Release())
}

func TestReleaseGivesTheLockBackAndKeepsTheFile(t *testing.T) {
	path := t.TempDir() + "/lock"
	l, err := Acquire(path)
	must(err)
	// As a child between fork and exec has it: closing alone releases nothing.
	dup, err := unix.Dup(int(l.f.Fd()))
	must(err)
	defer unix.Close(dup)
	for range 2 {
		if err := l.Release(); err != nil {
			t.Errorf("Release = %v", err)
		}
	}
	if b, err := os.ReadFile(path); err != nil || len(b) > 0 {
		t.Errorf("after Release the lock file holds %q, %v", b, err)
	}
	l, err = Acquire(path)
	if err != nil {
		t.Fatalf("Acquire after Release = %v", err)
	}
	must(l.Release())
}

func TestLockIsNotInherited(t *testing.T) {
	l, err := Acquire(t.TempDir() + "/lock")
	must(err)
	defer l.Release()
	if flags, err := unix.FcntlInt(l.f.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("descriptor flags %#x, %v, want FD_CLOEXEC", flags, err)
	}
}

func TestHolderThatCannotBeReadIsNobody(t *testing.T) {
	for _, content := range []string{"", "x\n", "12", "-5\n", "\n", strings.Repeat("1", 100)} {
		path := t.TempDir() + "/lock"
		l, err := Acquire(path)
		must(err)
		must(os.WriteFile(path, []byte(content), 0o600))
		_, err = Acquire(path)
		locked, ok := errors.AsType[*LockedError](err)
		if !ok || locked.PID != 0 || !strings.HasSuffix(err.Error(), "by another process") {
			t.Errorf("lock file with %q: %v", content, err)
		}
		must(l.Release())
	}
}

func TestLockFileIsNotALink(t *testing.T) {
	dir := t.TempDir()
	must(os.WriteFile(dir+"/precious", []byte("x"), 0o600))
	must(os.Symlink("precious", dir+"/lock"))
	if _, err := Acquire(dir + "/lock"); !errors.Is(err, unix.ELOOP) {
		t.Errorf("Acquire of a link = %v", err)
	}
	if b, _ := os.ReadFile(dir + "/precious"); string(b) != "x" {
		t.Errorf("the file holds %q", b)
	}
}

func TestWaitEndsWithTheLockOrTheContext(t *testing.T) {
	path := t.TempDir() + "/lock"
	synctest.Test(t, func(t *testing.T) {
		held, err := Acquire(path)
		must(err)
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errors.New("asked to stop"))
		defer cancel()
		if _, err := Wait(ctx, path); !errors.Is(err, ErrLocked) || !errors.Is(err, context.Cause(ctx)) {
			t.Errorf("Wait = %v, want ErrLocked and the cause of the context", err)
		}
		if _, err := Wait(ctx, path); !errors.Is(err, context.Cause(ctx)) {
			t.Errorf("Wait with a context that is done = %v", err)
		}
		started := time.Now()
		time.AfterFunc(time.Minute, func() { must(held.Release()) })
		l, err := Wait(t.Context(), path)
		if err != nil {
			t.Fatalf("Wait = %v", err)
		}
		if took := time.Since(started); took < time.Minute || took > time.Minute+waitInterval {
			t.Errorf("Wait took %v for a lock that is free after a minute", took)
		}
		must(l.Release())
	})
}
