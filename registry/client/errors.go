package client

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/pkg/sftp"

	"deploytools/registry/wire"
)

// Error is what is wrong between us and the registry: it wraps
// wire.ErrUnreachable or wire.ErrUntrusted, and the cause.
type Error struct {
	Text string // one line, which names the registry
	Hint string // what to do next; "" when trying again is all
	Kind error  // of package wire
	Err  error  // the cause, or nil
}

// Error returns the text and the cause, one line. The cause may quote the peer.
func (e *Error) Error() string {
	if e.Err == nil {
		return e.Text
	}
	return e.Text + ": " + shorten(e.Err.Error())
}

// Unwrap returns the kind and the cause.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Err}
}

// maxCause is how much of a cause's text is shown, in bytes: a peer can send
// 256 KiB in one message.
const maxCause = 300

func shorten(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	if len(s) > maxCause {
		s = s[:maxCause] + "..."
	}
	return s
}

// Why a connection was given up by us.
var (
	errSilent  = errors.New("no answer")
	errStalled = errors.New("no byte moved")
	errClosed  = errors.New("client is closed")

	errNoConnection = errors.New("there is no connection")
)

func (c *Client) unreachable(err error) error {
	return &Error{Text: "cannot reach registry " + c.o.Addr, Kind: wire.ErrUnreachable, Err: err}
}

func (c *Client) lost(err error) error {
	return &Error{Text: "connection to registry " + c.o.Addr + " was lost", Kind: wire.ErrUnreachable, Err: err}
}

func stalledFor(d time.Duration) error { return fmt.Errorf("%w for %v", errStalled, d) }

// answered turns the error of an SFTP request for what into ours, and reports
// whether it is the registry's answer. Everything else is the connection's end.
func answered(what string, err error) (error, bool) {
	if s, ok := errors.AsType[*sftp.StatusError](err); ok {
		text := strings.TrimPrefix(shorten(s.Error()), "sftp: ")
		return fmt.Errorf("cannot %s: registry says %s", what, text), true
	}
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("cannot %s: registry has nothing there: %w", what, wire.ErrNotFound), true
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("cannot %s: %w", what, wire.ErrDenied), true
	case err == io.EOF:
		return fmt.Errorf("cannot %s: %w", what, io.ErrUnexpectedEOF), true
	}
	return err, false
}
