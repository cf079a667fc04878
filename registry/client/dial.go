package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/crypto/ssh"

	"deploytools/registry/sshio"
	"deploytools/registry/wire"
)

// The algorithms that are offered, the fastest first: the client's order
// decides (RFC 4253 section 7.1), and aes128-gcm is 1.7 times as fast as
// chacha20-poly1305. Nothing with SHA-1 is among them.
var algorithms = ssh.Config{
	KeyExchanges: []string{
		ssh.KeyExchangeMLKEM768X25519, ssh.KeyExchangeCurve25519,
		ssh.KeyExchangeDH16SHA512, ssh.KeyExchangeDH14SHA256,
	},
	Ciphers: []string{
		ssh.CipherAES128GCM, ssh.CipherAES256GCM, ssh.CipherChaCha20Poly1305,
		ssh.CipherAES128CTR, ssh.CipherAES192CTR, ssh.CipherAES256CTR,
	},
	MACs: []string{
		ssh.HMACSHA256ETM, ssh.HMACSHA512ETM, ssh.HMACSHA256, ssh.HMACSHA512,
	},
}

// dial connects. It connects more than once only to see another host key of
// the registry, after the first was not the known one.
func (c *Client) dial(ctx context.Context) (*conn, error) {
	known, err := c.knownKeys()
	if err != nil {
		return nil, err
	}
	// A person may have to type here, so it happens before any deadline runs.
	keys, err := c.keys()
	if err != nil {
		return nil, err
	}
	defer keys.close()
	for {
		cn, err := c.connect(ctx, known, keys)
		if err == nil {
			c.o.Log.Debug("connected", "remote", c.o.Addr)
			return cn, nil
		}
		if !known.another() {
			return nil, err
		}
	}
}

// connect makes one TCP connection and shakes hands over it.
func (c *Client) connect(ctx context.Context, known *knownKeys, keys *keys) (*conn, error) {
	dialing, cancel := context.WithTimeoutCause(ctx, c.o.Timeouts.Dial, fmt.Errorf("%w within %v", errSilent, c.o.Timeouts.Dial))
	defer cancel()
	tcp, err := c.o.Dial(dialing, "tcp", c.o.Addr)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil && dialing.Err() != nil:
		return nil, c.unreachable(context.Cause(dialing))
	case err != nil:
		return nil, c.unreachable(cause(err))
	}
	n := &countedConn{Conn: sshio.NewAheadConn(tcp)}
	// ClientConfig.Timeout covers the TCP connection alone.
	n.SetDeadline(time.Now().Add(c.o.Timeouts.Handshake))
	keys.setDeadline(time.Now().Add(c.o.Timeouts.Handshake))
	stop := context.AfterFunc(ctx, func() { n.Close() })
	h := handshake{c: c, known: known, keys: keys}
	conn, channels, requests, err := ssh.NewClientConn(sshio.Join(n), c.o.Addr, h.config())
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		n.Close()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, h.explain(err)
	}
	n.SetDeadline(time.Time{})
	cn := newConn(n, ssh.NewClient(conn, channels, requests), c.o.Timeouts)
	cn.took(time.Since(h.met) / authAnswers)
	return cn, nil
}

// authAnswers is how many answers are waited for, at least, from the host key on:
// for the service, for no method, for a key, and for its signature.
const authAnswers = 4

// handshake is one try to be known to the registry, and how far it came.
type handshake struct {
	c       *Client
	known   *knownKeys
	keys    *keys
	wrong   bool // the host key is not the known one
	trusted bool // it is
	met     time.Time
}

func (h *handshake) config() *ssh.ClientConfig {
	return &ssh.ClientConfig{
		Config:            algorithms,
		User:              h.c.o.User,
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(h.keys.signers...)},
		HostKeyAlgorithms: h.known.algorithms(),
		HostKeyCallback: func(host string, remote net.Addr, key ssh.PublicKey) error {
			err := h.known.check(host, remote, key)
			h.wrong, h.trusted, h.met = err != nil, err == nil, time.Now()
			return err
		},
		ClientVersion: "SSH-2.0-deploytools",
	}
}

// explain says which part of the handshake went wrong.
func (h *handshake) explain(err error) error {
	// After a wrong key, a registry without another kind of key in common ends
	// the negotiation.
	if _, none := errors.AsType[*ssh.AlgorithmNegotiationError](err); h.wrong || none {
		if e := h.known.verdict(); e != nil {
			return e
		}
	}
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		return h.c.unreachable(fmt.Errorf("%w within %v", errSilent, h.c.o.Timeouts.Handshake))
	}
	if !h.trusted || isIO(err) {
		return h.c.unreachable(cause(err))
	}
	return &Error{
		Text: fmt.Sprintf("registry %s refuses the keys of user %q: tried %s", h.c.o.Addr, h.c.o.User, h.keys),
		Hint: h.keys.refusedHint(),
		Kind: wire.ErrUntrusted,
	}
}

// isIO reports whether the transport ended, rather than the peer saying no.
func isIO(err error) bool {
	_, network := errors.AsType[net.Error](err)
	return network || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.ErrClosedPipe)
}

// cause leaves out what the caller says better: the addresses of a net.OpError
// and the layers of the library.
func cause(err error) error {
	if e, ok := errors.AsType[*net.OpError](err); ok {
		return e.Err
	}
	if errors.Is(err, io.EOF) {
		return errors.New("it closed the connection")
	}
	return err
}
