package cli

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"golang.org/x/term"
)

// IO is all that a program sees of its surroundings.
type IO struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Env returns an environment variable, or nothing when it is not set.
	Env func(name string) string
	// Environ returns all variables, as NAME=VALUE. It may be nil: then a
	// variable without a value is as one that is not set.
	Environ func() []string
}

// OS returns the streams and the environment of this process.
func OS() *IO {
	return &IO{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Env: os.Getenv, Environ: os.Environ}
}

// lookup returns an environment variable, and whether it is set.
func (o *IO) lookup(name string) (value string, set bool) {
	value = o.Env(name)
	return value, value != "" || o.Environ != nil && slices.Contains(o.Environ(), name+"=")
}

// Exit runs main with the arguments, streams and signals of this process and
// ends the process with the status that main returns.
func Exit(main func(context.Context, []string, *IO) int) {
	ctx, stop := SignalContext(context.Background())
	status := main(ctx, os.Args[1:], OS())
	stop()
	os.Exit(status)
}

// Unmade adds what to do to an error about the file of -o, where that is for want of
// its directory, or of the right to write there.
func Unmade(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return WithHint(err, "make its directory, or name a file elsewhere: -o FILE")
	}
	return err
}

// SignalContext returns a context that INT and TERM cancel. Only the first of
// them is caught: the second ends the process. stop gives the signals back.
func SignalContext(ctx context.Context) (_ context.Context, stop context.CancelFunc) {
	ctx, stop = signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// IsTerminal reports whether v, a stream of an IO, is a terminal that can move
// its cursor.
func (o *IO) IsTerminal(v any) bool {
	f, ok := v.(*os.File)
	return ok && o.Env("TERM") != "dumb" && term.IsTerminal(int(f.Fd()))
}
