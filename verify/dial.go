package verify

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"
)

// failure is an error that knows its kind.
type failure struct {
	kind Kind
	err  error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// lost is the finding for err, which ended a look: of the kind that err knows
// or else of kind, unless time was over or the caller wanted no more.
func lost(ctx context.Context, kind Kind, err error) Finding {
	if f, ok := errors.AsType[*failure](err); ok {
		kind = f.kind
	}
	if n, ok := errors.AsType[net.Error](err); ok && n.Timeout() {
		kind = Timeout
	}
	switch ctx.Err() {
	case nil:
	case context.Canceled:
		kind = Cancelled
	default:
		kind = Timeout
	}
	return Finding{Kind: kind, Detail: err.Error()}
}

// connect opens a connection whose every wait ends with ctx. The caller closes
// it.
func connect(ctx context.Context, addr string) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, &failure{Dial, err}
	}
	return &bounded{c, context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })}, nil
}

// bounded is a connection that a context interrupts.
type bounded struct {
	net.Conn
	stop func() bool
}

// Close lets go of the context too.
func (b *bounded) Close() error {
	b.stop()
	return b.Conn.Close()
}

// handshake speaks TLS over conn, which it closes on an error.
func handshake(ctx context.Context, conn net.Conn, config *tls.Config) (*tls.Conn, error) {
	c := tls.Client(conn, config)
	if err := c.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, &failure{Handshake, fmt.Errorf("TLS handshake with %s: %w", conn.RemoteAddr(), err)}
	}
	return c, nil
}
