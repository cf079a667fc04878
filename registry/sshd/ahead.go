package sshd

import (
	"io"
	"net"
	"sync"
)

// aheadConn is a net.Conn that reads ahead: the transport above asks for each
// packet in two small parts.
type aheadConn struct {
	net.Conn
	in ahead
}

func newAheadConn(nc net.Conn) *aheadConn { return &aheadConn{nc, ahead{r: nc}} }

func (a *aheadConn) Read(p []byte) (int, error) { return a.in.Read(p) }

// ahead reads more than it is asked for while much comes in. It has a buffer
// only for that time, so that what is at rest costs none. Read belongs to one
// goroutine.
type ahead struct {
	r    io.Reader
	busy bool              // the last read was a large one
	buf  *[aheadBytes]byte // nil: none
	rest []byte            // of buf
}

const (
	aheadBytes = 64 << 10
	busyBytes  = 4 << 10 // what the transport asks for at least, when it has read all
)

var aheadBuffers = sync.Pool{New: func() any { return new([aheadBytes]byte) }}

func (a *ahead) Read(p []byte) (int, error) {
	if len(a.rest) == 0 && (!a.busy || len(p) >= aheadBytes) {
		n, err := a.r.Read(p)
		a.busy = n >= busyBytes
		a.release()
		return n, err
	}
	if len(a.rest) == 0 {
		if a.buf == nil {
			a.buf = aheadBuffers.Get().(*[aheadBytes]byte)
		}
		n, err := a.r.Read(a.buf[:])
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
func (a *ahead) release() {
	if a.buf != nil && len(a.rest) == 0 {
		aheadBuffers.Put(a.buf)
		a.buf = nil
	}
}
