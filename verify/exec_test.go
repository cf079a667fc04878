package verify

import (
	"bufio"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"deploytools/verify/spec"
)

func sh(command string, args ...string) spec.Check {
	return spec.Check{Type: spec.Exec, Args: append([]string{"sh", "-c", command}, args...)}
}

func TestExecSaysHowItEnded(t *testing.T) {
	for name, row := range map[string]struct {
		c      spec.Check
		kind   Kind
		detail string
	}{
		"ok":            {sh("exit 0"), "", ""},
		"fails":         {sh("echo out; echo err >&2; exit 3"), Exit, "exit status 3; its output:\nout\nerr"},
		"by a signal":   {sh("kill -TERM $$"), Exit, "signal: terminated"},
		"no shell":      {spec.Check{Type: spec.Exec, Args: []string{"test", "$HOME;x", "=", "$HOME;x"}}, "", ""},
		"control":       {sh(`printf '\033[2J'; exit 1`), Exit, `\x1b[2J`},
		"no such":       {spec.Check{Type: spec.Exec, Args: []string{"/nowhere/program"}}, Start, "no such file"},
		"not in PATH":   {spec.Check{Type: spec.Exec, Args: []string{"no-such-program-anywhere"}}, Start, "not found"},
		"input is null": {sh("read x; test $? -ne 0"), "", ""},
	} {
		if f := lookAt(t, row.c, Vars{NewRoot: t.TempDir()}); f.Kind != row.kind || !strings.Contains(f.Detail, row.detail) {
			t.Errorf("%s: %+v, want kind %q with %q", name, f, row.kind, row.detail)
		}
	}
}

func TestExecKnowsTheDeploymentAndNothingElse(t *testing.T) {
	t.Setenv("SECRET", "of the agent")
	root := t.TempDir()
	v := Vars{NewRoot: root, NewID: "n1", OldID: "o1", Name: "conf", Revision: "7"}
	c := sh(`test "$NEWROOT,$NEWID,$OLDID,$DEPLOY_NAME,$DEPLOY_REVISION,$SECRET" = "$1" && test "$(pwd -P)" = "$(cd "$NEWROOT" && pwd -P)"`,
		"sh", root+",n1,o1,conf,7,")
	if f := lookAt(t, c, v); !f.OK {
		t.Errorf("%+v", f)
	}
	program := tree(t, "bin/selftest", []byte("#!/bin/sh\nexit 0\n"))
	if err := os.Chmod(filepath.Join(program, "bin/selftest"), 0o700); err != nil {
		t.Fatal(err)
	}
	if f := lookAt(t, spec.Check{Type: spec.Exec, Args: []string{"bin/selftest"}}, Vars{NewRoot: program}); !f.OK {
		t.Errorf("program of the tree: %+v", f)
	}
}

// V-14: output was kept without bound.
func TestV14OutputIsCapped(t *testing.T) {
	f := lookAt(t, sh("yes | head -c 300000; echo; echo the reason; exit 1"), Vars{})
	if f.Kind != Exit || len(f.Detail) > maxOutputBytes+200 || !strings.HasSuffix(f.Detail, "y\n\nthe reason\n") {
		t.Errorf("Detail has %d bytes and ends in %q", len(f.Detail), f.Detail[max(0, len(f.Detail)-40):])
	}
}

// V-14: a program had no timeout, and its children survived its end.
func TestV14TheWholeGroupIsKilled(t *testing.T) {
	for name, row := range map[string]struct {
		then string // what the program does when its child runs
		kind Kind
	}{
		"cancelled":      {"wait", Cancelled},
		"ends well":      {"exit 0", ""},
		"ends badly":     {"exit 1", Exit},
		"ignores a TERM": {"trap '' TERM; wait", Cancelled},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			up, down := fifo(t, root, "up"), fifo(t, root, "down")
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			done := make(chan Finding, 1)
			go func() {
				c := sh("sleep 1000 & echo $! >up; read x <down; " + row.then)
				done <- lookWith(t, ctx, c, Vars{NewRoot: root})
			}()
			line, err := bufio.NewReader(up).ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			child, err := strconv.Atoi(strings.TrimSpace(line))
			if err != nil {
				t.Fatal(err)
			}
			fd, err := unix.PidfdOpen(child, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			down.WriteString("go\n")
			if row.kind == Cancelled {
				cancel()
			}
			if f := <-done; f.Kind != row.kind || f.Duration > 5*time.Second {
				t.Errorf("%+v, want kind %q", f, row.kind)
			}
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 5000)
			if n != 1 || err != nil {
				unix.Kill(child, unix.SIGKILL)
				t.Errorf("the child lives on (poll = %d, %v)", n, err)
			}
		})
	}
}

func TestExecEndsWithItsTimeout(t *testing.T) {
	c := sh("echo begun; exec sleep 1000")
	c.Timeout = 100 * time.Millisecond
	if f := lookAt(t, c, Vars{}); f.Kind != Timeout || f.Duration > 5*time.Second {
		t.Errorf("%+v", f)
	}
}

// A child that leaves the group keeps the output open; nobody waits for it.
func TestExecDoesNotWaitForADaemon(t *testing.T) {
	root := t.TempDir()
	up := fifo(t, root, "up")
	c := sh(`setsid sh -c 'echo $$ >up; exec sleep 1000' & read x <up; echo $x >up; exit 0`)
	f := lookAt(t, c, Vars{NewRoot: root})
	line, _ := bufio.NewReader(up).ReadString('\n')
	daemon, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Kill(daemon, unix.SIGKILL)
	if !f.OK || f.Duration > 5*time.Second {
		t.Errorf("%+v", f)
	}
}

// fifo makes a named pipe in root and opens both of its ends.
func fifo(t *testing.T, root, name string) *os.File {
	t.Helper()
	path := filepath.Join(root, name)
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}
