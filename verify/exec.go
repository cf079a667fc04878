package verify

import (
	"context"
	"fmt"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"deploytools/verify/spec"
)

const (
	maxOutputBytes = 4096        // the end of the output; programs say last why they fail
	killGrace      = time.Second // for the kernel to end what was killed
)

// lookExec runs the program without a shell, in NEWROOT, with no input, the
// environment of Vars and in a process group of its own. When the program has
// ended, or its time is over, the whole group is killed: a check leaves nothing
// behind but what left its group on purpose.
func lookExec(ctx context.Context, c spec.Check, v Vars) Finding {
	var out tail
	cmd := exec.Command(c.Args[0], c.Args[1:]...)
	cmd.Dir, cmd.Env = v.NewRoot, v.environ()
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = killGrace
	if err := cmd.Start(); err != nil {
		return Finding{Kind: Start, Detail: err.Error()}
	}
	pid := cmd.Process.Pid
	ended := make(chan struct{})
	go func() { // ends with the program
		defer close(ended)
		awaitExit(pid)
	}()
	var over error
	select {
	case <-ended:
	case <-ctx.Done():
		over = ctx.Err()
	}
	// Until Wait the group cannot be another one of the same number.
	unix.Kill(-pid, unix.SIGKILL)
	select {
	case <-ended:
	case <-time.After(killGrace):
		go func() {
			<-ended
			cmd.Wait()
		}()
		return Finding{Kind: Timeout, Detail: fmt.Sprintf("%s hangs in the kernel and cannot be killed", c.Args[0])}
	}
	cmd.Wait() // its error is in ProcessState, or about output that came after the end
	if over != nil {
		return lost(ctx, Timeout, fmt.Errorf("%s ran until it was killed: %w%s", c.Args[0], over, &out))
	}
	f := Finding{Want: "exit status 0", Got: cmd.ProcessState.String()}
	if !cmd.ProcessState.Success() {
		f.Kind, f.Detail = Exit, fmt.Sprintf("%s: %s%s", c.Args[0], f.Got, &out)
	}
	return f
}

// awaitExit returns when pid has ended, and leaves it for Wait.
func awaitExit(pid int) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			return
		}
	}
}

// tail keeps the last maxOutputBytes that were written to it.
type tail struct {
	b   []byte
	cut bool
}

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if more := len(t.b) - maxOutputBytes; more > 0 {
		t.b, t.cut = append(t.b[:0], t.b[more:]...), true
	}
	return len(p), nil
}

// String is the end of a message: what the program wrote.
func (t *tail) String() string {
	switch {
	case len(t.b) == 0:
		return ""
	case t.cut:
		return fmt.Sprintf("; the last %d bytes of its output:\n%s", len(t.b), t.b)
	}
	return "; its output:\n" + string(t.b)
}
