package cmd_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"deploytools/agent"
	"deploytools/cmd/internal/cli"
)

// dieAt names the variable that says when an agent kills itself. It is read
// here and nowhere else: the programs themselves know nothing of it.
//
//	STATE        when the agent has entered the state: the record is durable,
//	             the step has not begun
//	STATE.writes when the step of the state, or the record of the next one,
//	             first writes a file in the agent's directory
const dieAt = "DEPLOY_TEST_DIE_AT"

type mainFunc = func(context.Context, []string, *cli.IO) int

// mortal returns the agent's main, ending by SIGKILL where dieAt wants it.
func mortal(main mainFunc) mainFunc {
	return func(ctx context.Context, args []string, o *cli.IO) int {
		state, writes := strings.CutSuffix(os.Getenv(dieAt), ".writes")
		if state != "" && (len(args) == 0 || args[0] != agent.SuperviseCommand) {
			o.Stderr = &lastWords{o.Stderr, []byte(" state=" + state + " from_state="), writes}
		}
		return main(ctx, args, o)
	}
}

// lastWords is a log that ends the process when it says what it waits for.
type lastWords struct {
	io.Writer
	want   []byte
	writes bool
}

func (l *lastWords) Write(p []byte) (int, error) {
	n, err := l.Writer.Write(p)
	switch {
	case !bytes.Contains(p, l.want):
	case l.writes:
		dieOnWrite(os.Getenv("DEPLOY_AGENT_DIR"))
	default:
		die()
	}
	return n, err
}

func die() {
	syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// dieOnWrite returns when the directory is watched. The first write of a file in
// it kills the process.
func dieOnWrite(dir string) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		panic(err)
	}
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_MODIFY); err != nil {
		panic(err)
	}
	go func() { // ends with the process
		for {
			if _, err := unix.Read(fd, make([]byte, 4096)); err == nil {
				die()
			} else if err != unix.EINTR {
				panic(err)
			}
		}
	}()
}
