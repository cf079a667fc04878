package client

import (
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/crypto/ssh"

	"deploytools/registry/wire"
)

// Exec runs one line of the registry's console, quoted by the caller, and
// returns the exit status of the command. A nil stdin is empty; stdin is read
// ahead, also by a command that does not want it. An error says that the
// command may or may not have been run, unless it wraps wire.ErrDenied: then
// the key may not run commands.
func (c *Client) Exec(ctx context.Context, line string, stdin io.Reader, stdout, stderr io.Writer) (wire.Status, error) {
	status := wire.OK
	err := c.call(ctx, 0, func(ctx context.Context, cn *conn) error {
		s, err := cn.session()
		if err != nil {
			return c.refused(ctx, cn, "run a command", err)
		}
		defer s.Close()
		s.Stdout, s.Stderr = stdout, stderr
		in, _ := s.StdinPipe() // fails only when it is called twice
		if err := s.Start(line); err != nil {
			return c.refused(ctx, cn, "run a command", err)
		}
		// Not by s.Stdin: a command that ends before it has read all is no error.
		go func() {
			if stdin != nil {
				io.Copy(in, stdin)
			}
			in.Close()
		}()
		status, err = exitStatus(s.Wait())
		if _, lost := errors.AsType[*ssh.ExitMissingError](err); lost || err != nil && !cn.answers() {
			return c.broken(ctx, cn, err)
		}
		return err
	})
	return status, err
}

// exitStatus returns the status that the registry sent, of those that an exit
// status can be.
func exitStatus(err error) (wire.Status, error) {
	e, ok := errors.AsType[*ssh.ExitError](err)
	switch {
	case err == nil:
		return wire.OK, nil
	case !ok:
		return wire.Failed, err
	case e.Signal() != "":
		return wire.Failed, fmt.Errorf("registry ended the command: signal %s", shorten(e.Signal()))
	case e.ExitStatus() < 0 || e.ExitStatus() > 255:
		return wire.Failed, nil
	}
	return wire.Status(e.ExitStatus()), nil
}

// refused returns the error for a channel or a request for what that ended with
// err: the registry says no, or the connection broke.
func (c *Client) refused(ctx context.Context, cn *conn, what string, err error) error {
	if _, ok := errors.AsType[*ssh.OpenChannelError](err); ok || err != nil && !isIO(err) && cn.answers() {
		return fmt.Errorf("cannot %s: registry %s refuses it to this key: %w", what, c.o.Addr, wire.ErrDenied)
	}
	return c.broken(ctx, cn, err)
}
