package cmd_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// A daemon is a program of ours that runs beside the test.
type daemon struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // how, once done
}

// startDaemon starts a program that adds what it says to the file log.
func startDaemon(dir string, env []string, log, program string, args ...string) (*daemon, error) {
	out, err := os.OpenFile(log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	d := &daemon{cmd: exec.Command(program, args...), done: make(chan struct{})}
	d.cmd.Dir, d.cmd.Env, d.cmd.Stdout, d.cmd.Stderr = dir, env, out, out
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { // ends with the program
		d.err = d.cmd.Wait()
		close(d.done)
	}()
	return d, nil
}

func (d *daemon) ended() bool {
	select {
	case <-d.done:
		return true
	default:
		return false
	}
}

// wait returns how the daemon ended by itself.
func (d *daemon) wait() error {
	select {
	case <-d.done:
		return d.err
	case <-time.After(patience):
		d.kill()
		return fmt.Errorf("it did not end within %v", patience)
	}
}

// stop asks it to end, which is to succeed.
func (d *daemon) stop() error {
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return d.wait()
}

// kill ends it as a power cut would.
func (d *daemon) kill() {
	d.cmd.Process.Kill()
	<-d.done
}

// killed reports whether a program ended by SIGKILL.
func killed(err error) bool {
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return false
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}

// patience is for machines that do much else. No test waits that long unless it
// fails.
const patience = time.Minute

// poll waits until cond says true.
func poll(cond func() (bool, error)) error {
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if ok, err := cond(); ok || err != nil {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("not within %v", patience)
		}
	}
}
