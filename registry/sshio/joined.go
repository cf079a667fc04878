package sshio

import (
	"net"
	"sync"
	"time"
)

// Joined is a net.Conn that writes a packet in one piece. Of one that is longer than
// its buffer the library writes that buffer first, full, and then the rest: so what is
// as long as that buffer is held back for what follows. Write is safe for concurrent
// use; an error may be that of what was written before.
type Joined struct {
	net.Conn

	mu   sync.Mutex  // guards the following, and the order of writes
	held *joint      // nil: nothing
	late *time.Timer // writes what is held when nothing follows; nil: nothing was held yet
	err  error       // why something that was held is not written
}

// joint holds one packet, the longest that either side sends.
type joint struct {
	n     int
	bytes [headBytes + 33<<10]byte
}

const (
	// headBytes is the size of the library's buffer. One of another size is joined
	// to nothing, and nothing else changes.
	headBytes = 4 << 10
	// headWait is long against the time between two writes of one packet, and short
	// for who waits for a packet of exactly that size.
	headWait = time.Millisecond
)

var joints = sync.Pool{New: func() any { return new(joint) }}

// Join returns nc, written in whole packets. A Close loses what is held: no session
// ends with a packet of that size.
func Join(nc net.Conn) *Joined { return &Joined{Conn: nc} }

// Write writes p behind what is held, or holds it.
func (j *Joined) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err != nil {
		return 0, j.err
	}
	if j.held == nil {
		if len(p) == headBytes {
			j.hold(p)
			return len(p), nil
		}
		return j.Conn.Write(p)
	}
	if j.held.n+len(p) <= len(j.held.bytes) {
		j.held.n += copy(j.held.bytes[j.held.n:], p)
		return len(p), j.flush()
	}
	if err := j.flush(); err != nil {
		return 0, err
	}
	return j.Conn.Write(p)
}

func (j *Joined) hold(p []byte) {
	j.held = joints.Get().(*joint)
	j.held.n = copy(j.held.bytes[:], p)
	if j.late == nil {
		j.late = time.AfterFunc(headWait, j.nothingFollowed)
	} else {
		j.late.Reset(headWait)
	}
}

func (j *Joined) nothingFollowed() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.held != nil {
		j.flush()
	}
}

// flush writes what is held.
func (j *Joined) flush() error {
	j.late.Stop() // it may run already: then it finds nothing, or what is held next
	_, j.err = j.Conn.Write(j.held.bytes[:j.held.n])
	joints.Put(j.held)
	j.held = nil
	return j.err
}
