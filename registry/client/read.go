package client

import (
	"context"
	"fmt"
	"io"
	syncatomic "sync/atomic"

	"github.com/pkg/sftp"

	"deploytools/layers/digest"
	"deploytools/registry/wire"
)

// Of a registry of the original kind a blob is read over SFTP. It answers with
// readBytes at most; enough requests are in flight to fill the window of the
// channel. No more is asked for at a time, since a part of an answer is lost with
// the connection.
const (
	readBytes  = 32 << 10
	readsAhead = 64
)

// read is Fetch over SFTP.
func (c *Client) read(ctx context.Context, cn *conn, d digest.Digest, offset int64, w io.Writer) error {
	what := "fetch " + d.String()
	s, err := cn.sftp.get()
	if err != nil {
		return c.refused(ctx, cn, what, err)
	}
	r := &reading{c: c, cn: cn, what: what, next: offset, end: offset, w: w}
	r.waiting.Store(true)
	stop := cn.watchStall(c.o.Timeouts.Stall, func() (int64, bool) { return s.moved.Load(), r.waiting.Load() })
	defer stop()
	defer func() {
		r.settle()
		if cn.alive() {
			cn.sftp.put(s)
		}
	}()
	if r.file, err = s.Open(wire.FileName(d)); err != nil {
		return r.fail(ctx, err)
	}
	info, err := r.file.Stat()
	if err != nil {
		return r.fail(ctx, err)
	}
	if r.size = info.Size(); r.size < offset {
		return fmt.Errorf("cannot %s: it has %d bytes, fewer than the %d that are there", what, r.size, offset)
	}
	return r.run(ctx)
}

// reading is one call of read.
type reading struct {
	c    *Client
	cn   *conn
	what string
	file *sftp.File
	w    io.Writer

	size  int64 // of the blob, as the registry says
	next  int64 // where the next request begins
	end   int64 // of what was written
	queue []*chunk
	free  [][]byte

	waiting syncatomic.Bool // for the registry, rather than for w
}

// chunk is one part of the blob that was asked for.
type chunk struct {
	offset int64
	buf    []byte
	n      int
	err    error
	done   chan struct{}
}

// fail returns the error for a request that ended with err.
func (r *reading) fail(ctx context.Context, err error) error {
	err, ok := answered(r.what, err)
	if !ok {
		return r.c.broken(ctx, r.cn, err)
	}
	return err
}

// settle returns when nothing is asked of the session any more.
func (r *reading) settle() {
	for _, c := range r.queue {
		<-c.done
	}
	if r.file != nil && r.cn.alive() {
		r.file.Close()
	}
}

// run asks for the rest of the blob and writes it. The request that begins at
// or behind the end proves that the registry told the right size.
func (r *reading) run(ctx context.Context) error {
	for {
		for len(r.queue) < readsAhead && r.next <= r.size {
			r.ask()
		}
		if len(r.queue) == 0 {
			return fmt.Errorf("cannot %s: it has more than the %d bytes that the registry told", r.what, r.size)
		}
		c := r.queue[0]
		<-c.done
		r.queue = r.queue[1:]
		if c.n > 0 {
			r.waiting.Store(false)
			_, err := r.w.Write(c.buf[:c.n])
			r.waiting.Store(true)
			if err != nil {
				return err
			}
			r.end += int64(c.n)
		}
		switch {
		case c.err == io.EOF && r.end == r.size:
			return nil
		case c.err == io.EOF:
			return fmt.Errorf("cannot %s: it has %d bytes and not the %d that the registry told", r.what, r.end, r.size)
		case c.err != nil:
			return r.fail(ctx, c.err)
		}
		r.free = append(r.free, c.buf)
	}
}

// ask sends the next request.
func (r *reading) ask() {
	c := &chunk{offset: r.next, done: make(chan struct{})}
	if n := len(r.free); n > 0 {
		c.buf, r.free = r.free[n-1], r.free[:n-1]
	} else {
		c.buf = make([]byte, readBytes)
	}
	r.next += readBytes
	r.queue = append(r.queue, c)
	go func() {
		defer close(c.done)
		// ReadAt asks again where a registry answers with less than it could.
		c.n, c.err = r.file.ReadAt(c.buf, c.offset)
	}()
}
