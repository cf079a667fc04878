package sshd

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// meter is a net.Conn that knows when its peer was last heard of and how much
// went through, and that gives up when the peer's machine takes nothing for the
// time stall.
type meter struct {
	net.Conn
	stall          time.Duration
	heard          instant
	gaveUp         atomic.Bool  // and has closed the connection
	received, sent atomic.Int64 // bytes
	count          *counters    // of all connections; nil: nobody counts
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.Conn.Read(p)
	if n > 0 {
		m.heard.now()
		m.received.Add(int64(n))
		if m.count != nil {
			m.count.received.Add(int64(n))
		}
	}
	return n, err
}

// Write has a new deadline for each part that was taken. After one that was not
// there is nothing to go on with: a part of a packet may be gone.
func (m *meter) Write(p []byte) (n int, err error) {
	for {
		m.Conn.SetWriteDeadline(time.Now().Add(m.stall))
		k, err := m.Conn.Write(p[n:])
		n += k
		m.sent.Add(int64(k))
		if m.count != nil {
			m.count.sent.Add(int64(k))
		}
		late := errors.Is(err, os.ErrDeadlineExceeded)
		if late && k == 0 {
			m.gaveUp.Store(true)
			m.Conn.Close()
		}
		if !late || k == 0 {
			return n, err
		}
	}
}

// instant is a time that many goroutines set.
type instant struct{ nanos atomic.Int64 }

func (i *instant) now()               { i.nanos.Store(time.Now().UnixNano()) }
func (i *instant) ago() time.Duration { return time.Since(time.Unix(0, i.nanos.Load())) }

// outlet is one stream of a channel to the client. It cuts the connection when
// the client takes nothing for the time stall, which the window of a channel
// allows it although its machine answers. Safe for concurrent use.
type outlet struct {
	c *conn
	w io.Writer

	mu    sync.Mutex
	timer *time.Timer
}

// piece is what is written at a time: a slow client may need the whole time
// stall for each.
const piece = 32 << 10

var errStalled = errors.New("client does not take what is sent to it")

func newOutlet(c *conn, w io.Writer) *outlet {
	t := time.AfterFunc(time.Hour, func() { c.cut(errStalled) })
	t.Stop()
	return &outlet{c: c, w: w, timer: t}
}

func (o *outlet) Write(p []byte) (n int, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(p) > 0 && err == nil {
		var k int
		o.timer.Reset(o.c.s.o.Stall)
		k, err = o.w.Write(p[:min(len(p), piece)])
		o.timer.Stop()
		o.c.active.now()
		n, p = n+k, p[k:]
	}
	return n, err
}

// inlet is the stream of a channel from the client, for a command: while one
// waits for input, nothing runs.
type inlet struct {
	c *conn
	r io.Reader
}

func (i *inlet) Read(p []byte) (int, error) {
	i.c.running.Add(-1)
	defer i.c.running.Add(1)
	n, err := i.r.Read(p)
	i.c.active.now()
	return n, err
}

// packets counts the packets of SFTP in a stream: a length of four bytes, and
// that many bytes.
type packets struct {
	header [4]byte
	have   int   // bytes of the header
	left   int64 // bytes of the packet behind its header
	begun  bool  // the packet's first byte was seen
	kind   byte  // which tells its type; the last packet's between packets
}

// see returns how many packets p completes.
func (f *packets) see(p []byte) (complete int) {
	for len(p) > 0 {
		if f.left == 0 {
			n := copy(f.header[f.have:], p)
			f.have, p = f.have+n, p[n:]
			if f.have < len(f.header) {
				return complete
			}
			f.have, f.left, f.begun = 0, int64(binary.BigEndian.Uint32(f.header[:])), false
		}
		if !f.begun && len(p) > 0 {
			f.begun, f.kind = true, p[0]
		}
		n := min(f.left, int64(len(p)))
		f.left, p = f.left-n, p[n:]
		if f.left == 0 {
			complete++
		}
	}
	return complete
}
