package sshd

import (
	"bytes"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// pipe returns the two ends of a connection in memory, on which time can be
// faked. Each direction holds up to capacity bytes, as the buffers of TCP do.
func pipe(capacity int, client, server net.Addr) (c, s *pipeEnd) {
	up, down := newStream(capacity), newStream(capacity)
	return &pipeEnd{down, up, client, server}, &pipeEnd{up, down, server, client}
}

type pipeEnd struct {
	in, out       *stream
	local, remote net.Addr
}

func (p *pipeEnd) Read(b []byte) (int, error)         { return p.in.read(b) }
func (p *pipeEnd) Write(b []byte) (int, error)        { return p.out.write(b) }
func (p *pipeEnd) Close() error                       { p.in.close(); p.out.close(); return nil }
func (p *pipeEnd) LocalAddr() net.Addr                { return p.local }
func (p *pipeEnd) RemoteAddr() net.Addr               { return p.remote }
func (p *pipeEnd) SetDeadline(time.Time) error        { panic("not needed") }
func (p *pipeEnd) SetReadDeadline(time.Time) error    { panic("not needed") }
func (p *pipeEnd) SetWriteDeadline(t time.Time) error { p.out.expire(t); return nil }

// stream is one direction.
type stream struct {
	mu       sync.Mutex
	changed  *sync.Cond
	held     bytes.Buffer
	capacity int
	stopped  bool // the reader has stopped reading
	closed   bool
	deadline time.Time
	timer    *time.Timer
}

func newStream(capacity int) *stream {
	s := &stream{capacity: capacity}
	s.changed = sync.NewCond(&s.mu)
	return s
}

func (s *stream) read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.closed && (s.stopped || s.held.Len() == 0) {
		s.changed.Wait()
	}
	if s.held.Len() == 0 || s.stopped {
		return 0, io.EOF
	}
	s.changed.Broadcast()
	return s.held.Read(p)
}

func (s *stream) write(p []byte) (n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(p) > 0 {
		room := s.capacity - s.held.Len()
		switch {
		case s.closed:
			return n, net.ErrClosed
		case room > 0:
			k := min(room, len(p))
			s.held.Write(p[:k])
			n, p = n+k, p[k:]
			s.changed.Broadcast()
		case !s.deadline.IsZero() && !time.Now().Before(s.deadline):
			return n, os.ErrDeadlineExceeded
		default:
			s.changed.Wait()
		}
	}
	return n, nil
}

func (s *stream) expire(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deadline = t
	if s.timer != nil {
		s.timer.Stop()
	}
	s.timer = time.AfterFunc(time.Until(t), s.changed.Broadcast)
}

func (s *stream) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.timer != nil {
		s.timer.Stop()
	}
	s.changed.Broadcast()
}

// stop makes the reader take nothing any more, or go on.
func (s *stream) stop(stopped bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = stopped
	s.changed.Broadcast()
}

// addr is an address in a test.
type addr string

func (a addr) Network() string { return "test" }
func (a addr) String() string  { return string(a) }

// pipes is a listener of connections in memory.
type pipes struct {
	conns  chan net.Conn
	errs   chan error // what Accept returns instead
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes {
	return &pipes{conns: make(chan net.Conn), errs: make(chan error), closed: make(chan struct{})}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case err := <-p.errs:
		return nil, err
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return addr("pipes") }

// connect returns the client's end of a new connection from an address.
func (p *pipes) connect(from string) *pipeEnd {
	c, s := pipe(64<<10, addr(from), addr("192.0.2.1:22"))
	p.conns <- s
	return c
}
