package sshio

import (
	"io"
	"net"
	"sync"
)

// AheadConn is a net.Conn that reads ahead while much comes in. Read belongs to one
// goroutine.
type AheadConn struct {
	net.Conn
	in Ahead
}

// NewAheadConn returns nc, read ahead.
func NewAheadConn(nc net.Conn) *AheadConn { return &AheadConn{nc, Ahead{R: nc}} }

// Read reads what was read ahead, or from the connection.
func (a *AheadConn) Read(p []byte) (int, error) { return a.in.Read(p) }

// Ahead reads more of R than it is asked for while much comes in. It has a buffer
// only for that time, so that what is at rest costs none. Read belongs to one
// goroutine.
type Ahead struct {
	R io.Reader

	busy bool              // the last read was a large one
	buf  *[aheadBytes]byte // nil: none
	rest []byte            // of buf
}

const (
	aheadBytes = 64 << 10
	busyBytes  = 4 << 10 // what the library asks for at least, when it has read all
)

var aheadBuffers = sync.Pool{New: func() any { return new([aheadBytes]byte) }}

// Read returns what was read ahead, or else reads once. An error of R comes behind
// all bytes that came before it.
func (a *Ahead) Read(p []byte) (int, error) {
	if len(a.rest) == 0 && (!a.busy || len(p) >= aheadBytes) {
		n, err := a.R.Read(p)
		a.busy = n >= busyBytes
		a.release()
		return n, err
	}
	if len(a.rest) == 0 {
		if a.buf == nil {
			a.buf = aheadBuffers.Get().(*[aheadBytes]byte)
		}
		n, err := a.R.Read(a.buf[:])
		a.busy = n >= busyBytes
		if n == 0 {
			a.release()
			return 0, err
		}
		a.rest = a.buf[:n] // an error comes again with the next read
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	if !a.busy {
		a.release()
	}
	return n, nil
}

// release gives an empty buffer back.
func (a *Ahead) release() {
	if a.buf != nil && len(a.rest) == 0 {
		aheadBuffers.Put(a.buf)
		a.buf = nil
	}
}
