package cmd_test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/time/rate"
)

// A line leads to a registry, and is as bad as its fields say. They are set
// before it is used.
type line struct {
	oneWay time.Duration // everything takes so much longer, in both directions
	rate   int           // bytes a second towards the client; 0: as they come
	each   int64         // a connection ends after so many bytes towards the client; 0: never
	reset  bool          // it ends by RST, and what was under way is lost

	hole  atomic.Bool  // nothing passes, and nobody is told
	came  atomic.Int64 // bytes that the client was sent
	conns atomic.Int64
}

// to opens the line to addr and returns its own address. It ends with the test.
func (l *line) to(tb testing.TB, addr string) string {
	tb.Helper()
	own, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { own.Close() })
	go func() {
		for {
			near, err := own.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", addr)
			if err != nil {
				near.Close()
				continue
			}
			l.conns.Add(1)
			go l.carry(far, near, nil)
			left := l.each
			go l.carry(near, far, &left)
		}
	}()
	return own.Addr().String()
}

// carry copies one direction. left is what may come until the connection ends.
func (l *line) carry(to, from net.Conn, left *int64) {
	type piece struct {
		due  time.Time
		data []byte
	}
	under := make(chan piece, 1<<16)
	go func() {
		defer close(under)
		limit, burst := rate.NewLimiter(rate.Inf, 0), 64<<10
		if l.rate > 0 && left != nil {
			burst = min(burst, max(l.rate/10, 1))
			limit = rate.NewLimiter(rate.Limit(l.rate), burst)
		}
		for {
			buf := make([]byte, burst)
			n, err := from.Read(buf)
			if n > 0 {
				limit.WaitN(context.Background(), n)
				under <- piece{time.Now().Add(l.oneWay), buf[:n]}
			}
			if err != nil {
				return
			}
		}
	}()
	cut := false
	for p := range under {
		time.Sleep(time.Until(p.due))
		if l.hole.Load() {
			continue
		}
		if left != nil && l.each > 0 {
			cut = int64(len(p.data)) >= *left
			p.data = p.data[:min(int64(len(p.data)), *left)]
			*left -= int64(len(p.data))
		}
		n, err := to.Write(p.data)
		if left != nil {
			l.came.Add(int64(n))
		}
		if err != nil || cut {
			break
		}
	}
	switch tcp := to.(*net.TCPConn); {
	case cut && l.reset:
		tcp.SetLinger(0)
		tcp.Close()
		from.Close()
	case cut:
		// To close what the client still writes to would be a reset.
		tcp.CloseWrite()
		from.Close()
	default:
		tcp.CloseWrite()
	}
	for range under { // until the other end has closed
	}
	from.Close()
}
