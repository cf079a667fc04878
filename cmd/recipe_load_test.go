package cmd_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// textSize is the size of what a request of the load gets: more than the buffers
// of a connection, so that one who reads slowly has the server wait.
const textSize = 1 << 20

// A load asks a server again and again, each client at its own pace.
type load struct {
	p                     *place
	stop                  context.CancelFunc
	clients               sync.WaitGroup
	asked, dropped, again atomic.Int64 // requests; again: sent twice, as a kept connection had been closed

	mu     sync.Mutex
	failed []string // the first ways in which requests failed
}

// startLoad starts the clients. A recipe that knows how to ask has three of them;
// others have one for new connections, one for a kept one, and one that reads
// slowly.
func (p *place) startLoad() *load {
	l := &load{p: p}
	ctx, stop := context.WithCancel(context.Background())
	l.stop = stop
	if p.ask != nil {
		for range 3 {
			l.start(ctx, func() error { return p.ask(p) })
		}
		return l
	}
	insecure := &tls.Config{InsecureSkipVerify: true, ServerName: "site.test"}
	fresh := &http.Transport{TLSClientConfig: insecure, DisableKeepAlives: true}
	kept := &http.Transport{TLSClientConfig: insecure}
	l.start(ctx, func() error { return l.get(fresh, "/small.html", 0) })
	l.start(ctx, func() error { return l.get(kept, "/small.html", 0) })
	l.start(ctx, func() error { return l.get(fresh, "/index.html", 10*time.Millisecond) })
	return l
}

// start starts a client, which ends with the context.
func (l *load) start(ctx context.Context, ask func() error) {
	l.clients.Go(func() {
		pace := time.NewTicker(5 * time.Millisecond)
		defer pace.Stop()
		for ctx.Err() == nil {
			l.asked.Add(1)
			if err := ask(); err != nil {
				l.drop(err)
			}
			<-pace.C
		}
	})
}

// end returns when no client asks any more.
func (l *load) end() {
	l.stop()
	l.clients.Wait()
}

func (l *load) drop(err error) {
	l.dropped.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.failed) < 10 {
		l.failed = append(l.failed, err.Error())
	}
}

func (l *load) failures() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.failed, "\n")
}

// get asks once and reads all, with a pause after every 64 KiB. What HTTP lets a
// client send again, as the server has closed a kept connection before it saw
// the request (RFC 9112 section 9.3.1), is counted, but was not dropped.
func (l *load) get(rt http.RoundTripper, path string, pause time.Duration) error {
	var conns int64
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { conns++ }})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+l.p.addr+path, nil)
	if err != nil {
		return err
	}
	req.Host = "site.test"
	resp, err := rt.RoundTrip(req)
	l.again.Add(max(conns-1, 0))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	size, err := readSlowly(resp.Body, pause)
	if err == nil && (size == 0 || size < resp.ContentLength || path == "/index.html" && size < textSize) {
		err = fmt.Errorf("%d bytes of %d came: %w", size, resp.ContentLength, io.ErrUnexpectedEOF)
	}
	return err
}

// readSlowly reads to the end and returns how much it was.
func readSlowly(r io.Reader, pause time.Duration) (size int64, err error) {
	for {
		n, err := io.CopyN(io.Discard, r, 64<<10)
		size += n
		if err == io.EOF {
			return size, nil
		}
		if err != nil {
			return size, err
		}
		if pause > 0 {
			<-time.After(pause)
		}
	}
}
