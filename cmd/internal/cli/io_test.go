package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

// waiter is a command that waits for the end of its context, and then for ever
// if it is stubborn.
type waiter struct{ stubborn bool }

func (w *waiter) Flags(fs *pflag.FlagSet) { fs.BoolVar(&w.stubborn, "stubborn", false, "go on") }

func (w *waiter) Run(ctx context.Context, o *IO, _ []string) error {
	fmt.Fprintln(o.Stdout, "waiting")
	<-ctx.Done()
	if w.stubborn {
		fmt.Fprintln(o.Stdout, "waiting on")
		io.ReadAll(o.Stdin) // has no end: the second signal has to end it
	}
	return ctx.Err()
}

// started runs the command wait in a process of its own, and returns when it
// waits.
func started(t *testing.T, words ...string) (*exec.Cmd, *bufio.Reader, *strings.Builder) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, append([]string{"wait"}, words...)...)
	cmd.Env = append(os.Environ(), "CLI_TEST_RUN_TOOL=1")
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(out)
	if line, err := r.ReadString('\n'); line != "waiting\n" {
		t.Fatalf("the command said %q, %v", line, err)
	}
	return cmd, r, &errs
}

func TestSignalEndsACommandAndIsTold(t *testing.T) {
	for _, signal := range []os.Signal{syscall.SIGINT, syscall.SIGTERM} {
		cmd, _, errs := started(t)
		if err := cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		if status := cmd.ProcessState.ExitCode(); status != 1 || errs.String() != "error: interrupted\n" {
			t.Errorf("%v: status %d, %q", signal, status, errs.String())
		}
	}
}

func TestSecondSignalEndsAStubbornCommand(t *testing.T) {
	cmd, out, _ := started(t, "-stubborn")
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if line, err := out.ReadString('\n'); line != "waiting on\n" {
		t.Fatalf("the command said %q, %v", line, err)
	}
	ended := make(chan struct{})
	go func() {
		cmd.Wait()
		close(ended)
	}()
	// It gives the signals back at its own pace: press again until it ends.
	for {
		cmd.Process.Signal(syscall.SIGINT)
		select {
		case <-ended:
			if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); ws.Signal() != syscall.SIGINT {
				t.Errorf("it ended by itself: %v", cmd.ProcessState)
			}
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}
