package client

import (
	"encoding/binary"
	"io"
	"slices"
	"sync"
	syncatomic "sync/atomic"
	"time"

	"github.com/pkg/sftp"
)

// uploadBytes is how much one SFTP request sends: every server of note takes
// packets of 256 KiB, and with whole pages it does not write a page twice.
// inFlight requests fill the window of a channel.
const (
	uploadBytes = 252 << 10
	inFlight    = 24
)

// sftpSession is one SFTP session on a channel of its own.
type sftpSession struct {
	*sftp.Client
	channel io.Closer
	moved   syncatomic.Int64 // bytes in both directions
}

// countedReader and countedWriter count what a session moves.
type countedReader struct {
	io.Reader
	n *syncatomic.Int64
}

func (c countedReader) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n.Add(int64(n))
	return n, err
}

type countedWriter struct {
	io.WriteCloser
	n    *syncatomic.Int64
	head []byte // of a packet of SFTP of which more is to come
}

// Write joins what the library writes in two parts, the header of a request and
// what it carries: the header alone would be a packet of SSH.
func (c *countedWriter) Write(p []byte) (int, error) {
	if !c.completes(p) {
		c.head = append(c.head, p...)
		return len(p), nil
	}
	n := min(len(p), max(sshBytes-len(c.head), 0))
	err := c.send(append(c.head, p[:n]...))
	if err == nil {
		err = c.send(p[n:])
	}
	c.head = c.head[:0]
	return len(p), err
}

// completes reports whether a packet ends with p. It begins with its length in
// four bytes; what is shorter is not waited behind.
func (c *countedWriter) completes(p []byte) bool {
	start := c.head
	if len(start) == 0 {
		start = p
	}
	return len(start) < 4 || int64(len(c.head)+len(p)-4) >= int64(binary.BigEndian.Uint32(start))
}

// sshBytes is how much one packet of SSH carries. The most is 32 KiB, but with
// its header that is more than Go allocates cheaply for each at the other end.
const sshBytes = 32<<10 - 64

func (c *countedWriter) send(p []byte) error {
	for piece := range slices.Chunk(p, sshBytes) {
		n, err := c.WriteCloser.Write(piece)
		c.n.Add(int64(n))
		if err != nil {
			return err
		}
	}
	return nil
}

// openSFTP opens a session. Its goroutines end when the channel does.
func (cn *conn) openSFTP() (*sftpSession, error) {
	s, err := cn.session()
	if err != nil {
		return nil, err
	}
	w, _ := s.StdinPipe() // these three fail only when they are called twice
	r, _ := s.StdoutPipe()
	e, _ := s.StderrPipe()
	if err := s.RequestSubsystem("sftp"); err != nil {
		s.Close()
		return nil, err
	}
	go io.Copy(io.Discard, e) // else it would fill the window of the channel
	session := &sftpSession{channel: s}
	session.Client, err = sftp.NewClientPipe(countedReader{r, &session.moved}, &countedWriter{WriteCloser: w, n: &session.moved},
		sftp.MaxPacketUnchecked(uploadBytes), sftp.UseConcurrentWrites(true))
	if err != nil {
		s.Close()
		return nil, err
	}
	return session, nil
}

// sftpPool keeps the sessions that nobody uses until they were idle for a
// while: a session costs the registry twice as much as the connection.
type sftpPool struct {
	open func() (*sftpSession, error)
	idle time.Duration

	mu    sync.Mutex // guards what follows
	free  []*sftpSession
	timer *time.Timer // runs while there are free sessions
}

// get returns a session, which the caller puts back unless the connection broke.
func (p *sftpPool) get() (*sftpSession, error) {
	p.mu.Lock()
	if n := len(p.free); n > 0 {
		s := p.free[n-1]
		p.free = p.free[:n-1]
		p.mu.Unlock()
		return s, nil
	}
	p.mu.Unlock()
	return p.open()
}

func (p *sftpPool) put(s *sftpSession) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = append(p.free, s)
	if p.timer == nil {
		p.timer = time.AfterFunc(p.idle, p.expire)
		return
	}
	p.timer.Reset(p.idle)
}

// expire closes the free sessions.
func (p *sftpPool) expire() {
	for _, s := range p.drop() {
		s.channel.Close()
	}
}

// drop forgets the free sessions and returns them.
func (p *sftpPool) drop() []*sftpSession {
	p.mu.Lock()
	defer p.mu.Unlock()
	free := p.free
	p.free = nil
	if p.timer != nil {
		p.timer.Stop()
	}
	return free
}
