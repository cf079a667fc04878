package cmd_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"deploytools/agent"
	"deploytools/cmd/internal/cli"
)

// dieAt names the variable that says when a daemon kills itself. It is read
// here and nowhere else: the programs themselves know nothing of it.
//
//	STATE        when the agent has entered the state: the record is durable,
//	             the step has not begun
//	STATE.writes when the step of the state, or the record of the next one,
//	             first writes a file in the agent's directory
//	N DIR...     when the Nth thing happens to files in these directories
const dieAt = "DEPLOY_TEST_DIE_AT"

type mainFunc = func(context.Context, []string, *cli.IO) int

// mortal returns main, ending by SIGKILL where dieAt wants it.
func mortal(main mainFunc) mainFunc {
	return func(ctx context.Context, args []string, o *cli.IO) int {
		words := strings.Fields(os.Getenv(dieAt))
		if len(words) == 0 || len(args) > 0 && args[0] == agent.SuperviseCommand {
			return main(ctx, args, o)
		}
		if n, err := strconv.Atoi(words[0]); err == nil {
			dieOnEvent(n, unix.IN_CREATE|unix.IN_MODIFY|unix.IN_MOVED_TO|unix.IN_DELETE, words[1:]...)
		} else {
			state, writes := strings.CutSuffix(words[0], ".writes")
			o.Stderr = &lastWords{o.Stderr, []byte("state entered\" state=" + state + " "), writes}
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
		dieOnEvent(1, unix.IN_MODIFY, os.Getenv("DEPLOY_AGENT_DIR"))
	default:
		die()
	}
	return n, err
}

func die() {
	syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// dieOnEvent returns when the directories are watched. The nth event in them
// kills the process.
func dieOnEvent(n int, mask uint32, dirs ...string) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		panic(err)
	}
	for _, dir := range dirs {
		if _, err := unix.InotifyAddWatch(fd, dir, mask); err != nil {
			panic(err)
		}
	}
	go func() { // ends with the process
		buf := make([]byte, 64<<10)
		for {
			got, err := unix.Read(fd, buf)
			if err == unix.EINTR {
				continue
			}
			if err != nil {
				panic(err)
			}
			for at := 0; at < got; n-- {
				if n == 1 {
					die()
				}
				event := (*unix.InotifyEvent)(unsafe.Pointer(&buf[at]))
				at += unix.SizeofInotifyEvent + int(event.Len)
			}
		}
	}()
}
