package client

import (
	"context"
	"fmt"
	"io"
	syncatomic "sync/atomic"
)

// Upload stores what r has to its end under name in the caller's inbox. From
// then on its digest names it: the registry hashes what it gets. What is sent is
// also written to progress, unless that is nil, in another goroutine than the
// caller's.
//
// Nothing is stored unless the error is nil. An error of r is returned as it
// is. wire.ErrDenied says that the key may not upload.
func (c *Client) Upload(ctx context.Context, name string, r io.Reader, progress io.Writer) error {
	what := fmt.Sprintf("upload %q", name)
	source := &uploadReader{r: r, progress: progress}
	return c.call(ctx, 0, func(ctx context.Context, cn *conn) error {
		s, err := cn.sftp.get()
		if err != nil {
			return c.refused(ctx, cn, what, err)
		}
		stop := cn.watchStall(c.o.Timeouts.Stall, func() (int64, bool) { return s.moved.Load(), !source.reading.Load() })
		defer stop()
		f, err := s.Create(name)
		if err != nil {
			return c.failed(ctx, cn, s, what, err)
		}
		_, err = f.ReadFromWithConcurrency(source, inFlight)
		// The registry finishes what it got when the file is closed, which
		// takes as long as its disk needs.
		stop()
		if source.err != nil {
			f.Close()
			s.Remove(name)
			cn.sftp.put(s)
			return source.err
		}
		if err == nil {
			err = f.Close()
		} else {
			f.Close()
		}
		if err != nil {
			return c.failed(ctx, cn, s, what, err)
		}
		cn.sftp.put(s)
		return nil
	})
}

// uploadReader counts what is read from r, and keeps its error.
type uploadReader struct {
	r        io.Reader
	progress io.Writer
	err      error           // of r, other than io.EOF
	reading  syncatomic.Bool // waiting for r, not for the registry
}

func (u *uploadReader) Read(p []byte) (int, error) {
	u.reading.Store(true)
	n, err := u.r.Read(p)
	u.reading.Store(false)
	if u.progress != nil {
		u.progress.Write(p[:n])
	}
	if err != nil && err != io.EOF {
		u.err = err
	}
	return n, err
}
