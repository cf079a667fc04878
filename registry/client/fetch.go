package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	syncatomic "sync/atomic"
	"time"

	"github.com/pkg/sftp"

	"deploytools/layers/digest"
	"deploytools/registry/wire"
)

// A channel moves at most its window of 2 MiB each round trip, whatever the
// line could do. So enough requests are in flight to fill it, and a big blob
// comes over several channels where the round trip is long; where it is short
// they only cost.
const (
	inFlight     = 24 // requests of packetBytes on each channel
	channels     = 4
	stripeBytes  = 8 << 20 // a blob of less comes over one channel
	stripeFromRT = 2 * time.Millisecond
)

// Fetch writes the blob d to w from offset on, in order. What it wrote before
// an error stays good, so that the caller may go on behind it; the whole has to
// be compared with d. The error is what w returned, wire.ErrNotFound when the
// registry has no such blob, wire.ErrUnreachable when the connection broke or
// no byte came for Timeouts.Stall, or says what is wrong with the blob. A
// transfer that moves is never cut.
func (c *Client) Fetch(ctx context.Context, d digest.Digest, offset int64, w io.Writer) error {
	if offset < 0 {
		return fmt.Errorf("cannot fetch %s from offset %d", d, offset)
	}
	return c.call(ctx, 0, func(ctx context.Context, cn *conn) error {
		f := &fetch{c: c, cn: cn, d: d, next: offset, end: offset, w: w}
		f.waiting.Store(true)
		stop := cn.watchStall(c.o.Timeouts.Stall, f.progress)
		defer stop()
		defer f.close()
		if err := f.open(ctx); err != nil {
			return err
		}
		return f.run(ctx)
	})
}

// fetch is one call of Fetch.
type fetch struct {
	c  *Client
	cn *conn
	d  digest.Digest
	w  io.Writer

	size  int64 // of the blob, as the registry says
	next  int64 // where the next request begins
	end   int64 // of what was written
	queue []*chunk
	free  [][]byte
	files []*sftp.File

	broken  bool            // the connection is, so nothing can be given back
	waiting syncatomic.Bool // for the registry, rather than for w

	mu       sync.Mutex // guards sessions against the watch
	sessions []*sftpSession
}

// chunk is one part of the blob that was asked for.
type chunk struct {
	offset int64
	buf    []byte
	n      int
	err    error
	done   chan struct{}
}

// progress is what the stall watch looks at.
func (f *fetch) progress() (int64, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var n int64
	for _, s := range f.sessions {
		n += s.moved.Load()
	}
	return n, f.waiting.Load()
}

func (f *fetch) what() string { return "fetch " + f.d.String() }

// open opens the blob on one channel, or on several if that is worth it.
func (f *fetch) open(ctx context.Context) error {
	if err := f.add(ctx); err != nil {
		return err
	}
	info, err := f.files[0].Stat()
	if err != nil {
		return f.fail(ctx, err)
	}
	f.size = info.Size()
	if f.size < f.next {
		return fmt.Errorf("cannot %s: it has %d bytes, fewer than the %d that are there", f.what(), f.size, f.next)
	}
	if f.size-f.next < stripeBytes || f.cn.roundTrip() < stripeFromRT {
		return nil
	}
	for len(f.files) < channels {
		if err := f.add(ctx); err != nil {
			// A registry may allow fewer channels, but a dead one allows none.
			if errors.Is(err, wire.ErrUnreachable) || ctx.Err() != nil {
				return err
			}
			break
		}
	}
	return nil
}

// add opens the blob on one more channel.
func (f *fetch) add(ctx context.Context) error {
	s, err := f.cn.sftp.get()
	if err != nil {
		return f.c.refused(ctx, f.cn, f.what(), err)
	}
	f.mu.Lock()
	f.sessions = append(f.sessions, s)
	f.mu.Unlock()
	file, err := s.Open(wire.FileName(f.d))
	if err != nil {
		return f.fail(ctx, err)
	}
	f.files = append(f.files, file)
	return nil
}

// fail returns the error for a request that ended with err.
func (f *fetch) fail(ctx context.Context, err error) error {
	err, ok := answered(f.what(), err)
	if !ok {
		f.broken = true
		return f.c.broken(ctx, f.cn, err)
	}
	return err
}

// close gives the sessions back when nothing is asked of them any more.
func (f *fetch) close() {
	for _, c := range f.queue {
		<-c.done
	}
	if f.broken || !f.cn.alive() {
		return
	}
	for _, file := range f.files {
		file.Close()
	}
	for _, s := range f.sessions {
		f.cn.sftp.put(s)
	}
}

// run asks for the rest of the blob and writes it. The request that begins at
// or behind the end proves that the registry told the right size.
func (f *fetch) run(ctx context.Context) error {
	for {
		for len(f.queue) < inFlight*len(f.files) && f.next <= f.size {
			f.ask()
		}
		if len(f.queue) == 0 {
			return fmt.Errorf("cannot %s: it has more than the %d bytes that the registry told", f.what(), f.size)
		}
		c := f.queue[0]
		<-c.done
		f.queue = f.queue[1:]
		if c.n > 0 {
			f.waiting.Store(false)
			_, err := f.w.Write(c.buf[:c.n])
			f.waiting.Store(true)
			if err != nil {
				return err
			}
			f.end += int64(c.n)
		}
		switch {
		case c.err == io.EOF && f.end == f.size:
			return nil
		case c.err == io.EOF:
			return fmt.Errorf("cannot %s: it has %d bytes and not the %d that the registry told", f.what(), f.end, f.size)
		case c.err != nil:
			return f.fail(ctx, c.err)
		}
		f.free = append(f.free, c.buf)
	}
}

// ask sends the next request, over one channel after the other.
func (f *fetch) ask() {
	c := &chunk{offset: f.next, done: make(chan struct{})}
	if n := len(f.free); n > 0 {
		c.buf, f.free = f.free[n-1], f.free[:n-1]
	} else {
		c.buf = make([]byte, packetBytes)
	}
	file := f.files[int(f.next/packetBytes)%len(f.files)]
	f.next += packetBytes
	f.queue = append(f.queue, c)
	go func() {
		defer close(c.done)
		// ReadAt asks again where a registry answers with less than it could.
		c.n, c.err = file.ReadAt(c.buf, c.offset)
	}()
}
