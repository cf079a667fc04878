package ctlcmd

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/term"

	"deploytools/cmd/internal/cli"
)

// askPassphrase asks on the terminal, and never reads standard input.
func askPassphrase(ctx context.Context, file string) ([]byte, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, errors.New("there is no terminal to ask for its passphrase")
	}
	defer tty.Close()
	fd := int(tty.Fd())
	state, err := term.GetState(fd)
	if err != nil {
		return nil, err
	}
	// The first interrupt only ends ctx. Without this the second would leave
	// the terminal without echo.
	stop := context.AfterFunc(ctx, func() {
		term.Restore(fd, state)
		tty.Close()
	})
	defer stop()
	fmt.Fprintf(tty, "passphrase of %s: ", cli.Clean(file))
	passphrase, err := term.ReadPassword(fd)
	fmt.Fprintln(tty)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return passphrase, err
}
