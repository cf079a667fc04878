package agent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

const (
	notifyMark    = "DEPLOY_PHASE=notify"
	notifyOutput  = 64 << 10        // for the log; more is read and thrown away
	notifyGrace   = 5 * time.Second // between TERM and KILL
	notifyStop    = time.Second     // the same, when the agent ends
	notifyDrained = time.Second     // for the last of the output, where somebody keeps it open
)

// script runs the script once, without arguments, in a process group of its own.
// At the deadline, and when ctx is done, the group is ended.
func (n *notifier) script(ctx context.Context, env []string) error {
	cmd := exec.Command(n.a.o.Hook.NotifyScript)
	cmd.Dir, cmd.Env = n.a.workDir, env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, in, err := os.Pipe()
	if err != nil {
		return err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = in, in
	err = cmd.Start()
	in.Close()
	if err != nil {
		if text, _ := startFailure(cmd.Path, err); text != "" {
			return errors.New(text)
		}
		return err
	}
	read := make(chan struct{})
	go func() { n.logOutput(out); close(read) }() // ends with the output, or with its deadline
	failure := endInTime(ctx, cmd.Process.Pid)
	err = cmd.Wait()
	out.SetReadDeadline(time.Now().Add(notifyDrained))
	<-read
	if failure != nil {
		return failure
	}
	return err
}

// endInTime returns when the leader of the group has ended, nil if it did so
// by itself. It does not reap it.
func endInTime(ctx context.Context, group int) error {
	exited := make(chan struct{})
	go func() { awaitExit(group); close(exited) }()
	deadline := time.NewTimer(notifyTimeout)
	defer deadline.Stop()
	select {
	case <-exited:
		return nil
	case <-ctx.Done():
		endGroup(group, notifyStop)
		return context.Cause(ctx)
	case <-deadline.C:
	}
	endGroup(group, notifyGrace)
	return fmt.Errorf("not done after %v", notifyTimeout)
}

// logOutput gives the output to the log, line by line.
func (n *notifier) logOutput(out io.Reader) {
	lines := bufio.NewScanner(io.LimitReader(out, notifyOutput))
	lines.Buffer(make([]byte, 0, 4096), notifyOutput+1)
	for lines.Scan() {
		n.a.log().Info("notify output", "output", lines.Text())
	}
	io.Copy(io.Discard, out) // its writer is not to get SIGPIPE
}

// endOrphan ends a script that outlived an agent that was killed: at most one
// runs at a time, and it is called anew.
func (n *notifier) endOrphan() {
	ours := "DEPLOY_CURRENT=" + n.a.path("current")
	for p := range processes() {
		if p.pid == p.group && !p.dead && p.has(notifyMark) && p.has(ours) {
			endGroup(p.pid, notifyStop)
		}
	}
}
