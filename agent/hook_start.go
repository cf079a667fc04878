package agent

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// startProgram starts the program in a process group of its own, with
// /dev/null as standard input and our standard output, the regular file
// LABEL.output, for its output: whoever keeps that open, holds nobody up.
func startProgram(c *hookCall, attempt int) (*os.Process, error) {
	path := c.Path
	if !strings.Contains(path, "/") {
		found, err := exec.LookPath(path)
		if err != nil {
			return nil, err
		}
		path = found
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	return os.StartProcess(path, []string{c.Path}, &os.ProcAttr{
		Env:   c.environment(attempt),
		Files: []*os.File{null, os.Stdout, os.Stdout},
		Sys:   c.User.attributes(),
	})
}

// awaitExit returns when the process has ended, and does not reap it: until
// somebody does, no other process and no other group can get its id.
func awaitExit(pid int) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// startFailure says in words why execve(2) refused the program. Where the
// machine and not the program is at fault, it returns the error.
func startFailure(path string, err error) (string, error) {
	for _, machine := range []error{unix.EAGAIN, unix.ENOMEM, unix.EMFILE, unix.ENFILE, unix.EIO} {
		if errors.Is(err, machine) {
			return "", err
		}
	}
	var bare *exec.Error
	if errors.As(err, &bare) {
		return bare.Err.Error(), nil // of a name without a slash
	}
	info, statErr := os.Stat(path)
	interpreter := interpreterOf(path)
	switch {
	case errors.Is(statErr, fs.ErrNotExist):
		return "no such file", nil
	case statErr != nil:
	case info.IsDir():
		return "it is a directory", nil
	case info.Mode()&0o111 == 0:
		return fmt.Sprintf("not executable (mode %04o): chmod +x", info.Mode().Perm()), nil
	case errors.Is(err, unix.ENOEXEC):
		return "exec format error: neither a program for this machine nor a script that begins with #!", nil
	case strings.HasSuffix(interpreter, "\r"):
		return fmt.Sprintf("its interpreter %q does not exist: the script has CRLF line ends", interpreter), nil
	case errors.Is(err, fs.ErrNotExist) && interpreter != "":
		return fmt.Sprintf("its interpreter %q does not exist", interpreter), nil
	case errors.Is(err, fs.ErrNotExist):
		return "the loader or interpreter that it names does not exist", nil
	case errors.Is(err, fs.ErrPermission) && interpreter != "":
		return fmt.Sprintf("permission denied: it or its interpreter %q may not be executed here", interpreter), nil
	case errors.Is(err, fs.ErrPermission):
		return "permission denied: it may not be executed here", nil
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno.Error(), nil
	}
	return err.Error(), nil
}

// startable returns nil if the program is there and, as far as can be seen
// without starting it, can be executed; else what run would say of it. A path
// with a slash is relative to the agent's own working directory, which is that
// of its programs.
func (h *hookRunner) startable(path string) error {
	full, err := path, error(nil)
	if !strings.Contains(path, "/") {
		full, err = exec.LookPath(path)
	}
	interpreter := interpreterOf(full)
	if err == nil {
		err = h.user.ask(func() error {
			if err := executable(full); err != nil || interpreter == "" {
				return err
			}
			return executable(interpreter)
		})
	}
	if err == nil {
		return nil
	}
	text, err := startFailure(full, err)
	if err != nil {
		return fmt.Errorf("%q: %w", path, err)
	}
	return hookResult{Path: path, Failure: h.user.blame(text)}.Err()
}

// executable asks for what execve(2) will ask for, as the effective user.
func executable(path string) error {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return unix.EACCES
	}
	return unix.Faccessat(unix.AT_FDCWD, path, unix.X_OK, unix.AT_EACCESS)
}

// interpreterOf returns what a script names after #!, or "".
func interpreterOf(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	b := make([]byte, 256) // as much as execve(2) looks at
	n, _ := f.Read(b)
	line, ok := bytes.CutPrefix(b[:n], []byte("#!"))
	if !ok {
		return ""
	}
	line, _, _ = bytes.Cut(line, []byte("\n"))
	name, _, _ := strings.Cut(strings.Trim(string(line), " \t"), " ")
	return name
}
