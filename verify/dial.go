package verify

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
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
func connect(ctx context.Context, p *place) (net.Conn, error) {
	if err := refuseCredentials(p.addr); err != nil {
		return nil, err
	}
	d := net.Dialer{Timeout: p.patience}
	c, err := d.DialContext(ctx, p.network, p.addr)
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
		return nil, &failure{handshakeKind(err), fmt.Errorf("TLS handshake with %s: %w", conn.RemoteAddr(), err)}
	}
	return c, nil
}

// handshakeKind tells apart why a handshake failed. Alerts of the other side
// have a type of their own in crypto/tls only for QUIC: here there is their text.
func handshakeKind(err error) Kind {
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return Hostname
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return Chain
	}
	if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		if e.Reason == x509.Expired && e.Cert != nil && time.Now().Before(e.Cert.NotBefore) {
			return NotYetValid
		} else if e.Reason == x509.Expired {
			return Expired
		}
		return Chain
	}
	for text, kind := range map[string]Kind{
		"protocol version not supported": Version, "unsupported protocol version": Version,
		"no application protocol": ALPN, "unadvertised ALPN protocol": ALPN,
	} {
		if strings.Contains(err.Error(), text) {
			return kind
		}
	}
	return Handshake
}
