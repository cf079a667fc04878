package sshd

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
)

// What a client may send before it has authenticated, in bytes. Nobody needs
// more than a few thousand, with certificates and many keys.
const maxStranger = 256 << 10

// maxEager is what a client may send behind its key exchange, in bytes, while
// nobody has looked at it: the end of the exchange and the request for
// authentication, which take about 100, and less than the smallest packets that
// fill the library's queue (see backlog).
const maxEager = 400

var errTooMuch = errors.New("too much was sent before authentication")

// gate is a net.Conn that lets in no more than one needs to authenticate.
type gate struct {
	net.Conn
	passed   atomic.Bool   // authenticated
	accepted chan struct{} // closed when authentication begins
	accept   func()
	closed   chan struct{}
	close    func()

	mu    sync.Mutex // guards the following
	total int        // bytes received
	eager int        // of them since the key exchange; counted if exchanged
	// The server has sent all that its side of the key exchange has.
	exchanged bool
}

func newGate(nc net.Conn) *gate {
	g := &gate{Conn: nc, accepted: make(chan struct{}), closed: make(chan struct{})}
	g.accept = sync.OnceFunc(func() { close(g.accepted) })
	g.close = sync.OnceFunc(func() { close(g.closed) })
	return g
}

// Close closes the connection and ends a Read that waits.
func (g *gate) Close() error {
	g.close()
	return g.Conn.Close()
}

// Write looks for the packet that ends the key exchange (RFC 4253 section 7.3),
// the last one in clear, which has the length of the smallest.
func (g *gate) Write(p []byte) (int, error) {
	const newKeys, smallest = 21, 16
	if !g.passed.Load() && len(p) == smallest && p[5] == newKeys {
		g.mu.Lock()
		g.exchanged = true
		g.mu.Unlock()
	}
	return g.Conn.Write(p)
}

func (g *gate) Read(p []byte) (int, error) {
	if g.passed.Load() {
		return g.Conn.Read(p)
	}
	room, err := g.room()
	if err != nil {
		return 0, err
	}
	n, err := g.Conn.Read(p[:min(len(p), room)])
	g.mu.Lock()
	defer g.mu.Unlock()
	g.total += n
	if g.exchanged {
		g.eager += n
	}
	return n, err
}

// room returns how much may come in now. It waits while the client is too eager.
func (g *gate) room() (int, error) {
	g.mu.Lock()
	total, eager, exchanged := g.total, g.eager, g.exchanged
	g.mu.Unlock()
	switch {
	case total >= maxStranger && !g.passed.Load():
		return 0, errTooMuch
	case !exchanged:
		return maxStranger - total, nil
	}
	if eager < maxEager {
		return maxEager - eager, nil
	}
	select {
	case <-g.accepted:
		return max(1, maxStranger-total), nil
	case <-g.closed:
		return 0, net.ErrClosed
	}
}
