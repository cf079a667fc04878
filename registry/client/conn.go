package client

import (
	"io"
	"net"
	"sync"
	syncatomic "sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"
)

// conn is one connection. It is dead once kill was called or the peer left.
type conn struct {
	net  *countedConn
	ssh  *ssh.Client
	done chan struct{} // closed when the connection has ended
	sftp sftpPool

	noLanes  syncatomic.Bool   // the registry refused a lane of a fetch: it knows none
	fetches  syncatomic.Uint64 // so far
	fetching syncatomic.Int64  // now
	best     syncatomic.Int64  // time of an answer; 0: none noted

	mu     sync.Mutex
	silent map[string]bool // names about which the registry refused a poll; several: about more than one
	cause  error           // why it was killed
}

// countedConn counts what is received: the sign of life of the peer.
type countedConn struct {
	net.Conn
	received syncatomic.Int64
}

func (c *countedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.received.Add(int64(n))
	return n, err
}

// newConn takes over a connection that stands. Its goroutines end with it.
func newConn(n *countedConn, s *ssh.Client, t Timeouts) *conn {
	cn := &conn{net: n, ssh: s, done: make(chan struct{}), silent: map[string]bool{}}
	cn.sftp.open = cn.openSFTP
	cn.sftp.idle = t.Idle
	go func() {
		err := s.Wait()
		cn.kill(err)
		close(cn.done)
	}()
	go cn.keepalive(t.Keepalive)
	return cn
}

// kill ends the connection and everything that waits for it, without asking the
// peer. Only the first cause counts; it is returned.
func (cn *conn) kill(cause error) error {
	cn.mu.Lock()
	defer cn.mu.Unlock()
	if cn.cause == nil {
		cn.cause = cause
		cn.sftp.drop() // they end with the connection
	}
	cn.net.Close()
	return cn.cause
}

func (cn *conn) alive() bool {
	cn.mu.Lock()
	defer cn.mu.Unlock()
	return cn.cause == nil
}

// several is no name.
const several = ""

// refuses reports whether the registry has refused such a poll: it is of the
// original kind, which knows no revisions, or our key may not see what was asked
// about. That is not asked again on this connection.
func (cn *conn) refuses(topic string) bool {
	cn.mu.Lock()
	defer cn.mu.Unlock()
	return cn.silent[topic]
}

func (cn *conn) refused(topic string) {
	cn.mu.Lock()
	defer cn.mu.Unlock()
	cn.silent[topic] = true
}

// keepaliveType is a request that no peer knows and every peer refuses: an
// answer.
const keepaliveType = "keepalive@openssh.com"

// misses is how many keepalives may stay without any sign of life.
const misses = 3

// keepalive asks a silent peer for a sign of life each interval, and ends the
// connection when there is none. A peer that sends anything is alive: a slow
// transfer that holds the reply back is not cut.
func (cn *conn) keepalive(interval time.Duration) {
	asked := make(chan struct{}, 1) // one question at a time
	stop := cn.watch(interval, misses+1, func() (int64, bool) {
		return cn.net.received.Load(), true
	}, func() {
		select {
		case asked <- struct{}{}:
			go func() {
				cn.answers()
				<-asked
			}()
		default:
		}
	})
	<-cn.done
	stop()
}

// session opens a channel for a session.
func (cn *conn) session() (*ssh.Session, error) { return opened(cn, cn.ssh.NewSession) }

// opened returns what open does, or an error at the end of the connection. An
// opening that crosses the end would wait for its answer for ever: the library
// wakes only the channels that it knew of at the end (golang/go#26643).
func opened[T any](cn *conn, open func() (T, error)) (v T, err error) {
	type answer struct {
		v   T
		err error
	}
	answers := make(chan answer, 1)
	go func() {
		v, err := open()
		answers <- answer{v, err}
	}()
	select {
	case a := <-answers:
		return a.v, a.err
	case <-cn.done:
	}
	// The answer may have come before the end, and data behind it.
	late := time.NewTimer(answerGrace)
	defer late.Stop()
	select {
	case a := <-answers:
		return a.v, a.err
	case <-late.C:
		return v, io.EOF
	}
}

// answerGrace is far more than an answer needs from the connection to who waits.
const answerGrace = 100 * time.Millisecond

// watchStall ends the connection when moved stays the same for the limit.
func (cn *conn) watchStall(limit time.Duration, moved func() (int64, bool)) (stop func()) {
	return cn.watch(limit/4, 4, moved, nil)
}

// answers reports whether the peer is still there, by asking it.
func (cn *conn) answers() bool {
	_, _, err := cn.ssh.SendRequest(keepaliveType, true, nil)
	return err == nil
}

// took notes how long one question and its answer took.
func (cn *conn) took(d time.Duration) {
	for best := cn.best.Load(); best == 0 || int64(d) < best; best = cn.best.Load() {
		if cn.best.CompareAndSwap(best, int64(d)) {
			return
		}
	}
}

// roundTrip returns how long the peer takes to answer: the best of what was
// noted, since a busy host is no long line.
func (cn *conn) roundTrip() time.Duration { return time.Duration(cn.best.Load()) }

// watch ends the connection when moved has returned the same number for count
// intervals in a row; while its second result is false nothing is expected to
// move. each, if not nil, is called at every interval without a move. The
// caller calls stop.
func (cn *conn) watch(interval time.Duration, count int, moved func() (int64, bool), each func()) (stop func()) {
	done := make(chan struct{})
	go func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		last, _ := moved()
		for still := 0; still < count; {
			select {
			case <-done:
				return
			case <-cn.done:
				return
			case <-tick.C:
			}
			n, expected := moved()
			if n != last || !expected {
				last, still = n, 0
				continue
			}
			if still++; each != nil {
				each()
			}
		}
		cn.kill(stalledFor(interval * time.Duration(count)))
	}()
	return sync.OnceFunc(func() { close(done) })
}
