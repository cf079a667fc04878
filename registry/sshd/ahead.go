package sshd

import (
	"net"
	"sync"
)

// ahead is a net.Conn that reads more than it is asked for while much comes in:
// the transport above asks for each packet in two small parts. It has a buffer
// only for that time, so that a connection at rest costs none. Read belongs to
// one goroutine.
type ahead struct {
	net.Conn
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
		n, err := a.Conn.Read(p)
		a.busy = n >= busyBytes
		a.release()
		return n, err
	}
	if len(a.rest) == 0 {
		if a.buf == nil {
			a.buf = aheadBuffers.Get().(*[aheadBytes]byte)
		}
		n, err := a.Conn.Read(a.buf[:])
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
