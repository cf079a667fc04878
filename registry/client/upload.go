package client

import (
	"context"
	"fmt"
	"io"
	"os"
	syncatomic "sync/atomic"

	"github.com/pkg/sftp"
)

// Upload stores what r has to its end under name in the caller's inbox. From
// then on its digest names it: the registry hashes what it gets. What is sent is
// also written to progress, unless that is nil, in another goroutine than the
// caller's.
//
// Nothing is stored unless the error is nil. An error of r is returned as it
// is. wire.ErrDenied says that the key may not upload.
func (c *Client) Upload(ctx context.Context, name string, r io.Reader, progress io.Writer) error {
	return c.upload(ctx, name, r, progress, func(s *sftpSession) (*sftp.File, error) { return s.Create(name) })
}

// GoOn is Upload for content that the name stands for and no other: when the
// registry has a part of it, from an upload of the same key that was cut off,
// only the rest is sent. r is at its beginning and has size bytes.
func (c *Client) GoOn(ctx context.Context, name string, r io.ReadSeeker, size int64, progress io.Writer) error {
	return c.upload(ctx, name, r, progress, func(s *sftpSession) (*sftp.File, error) {
		info, err := s.Stat(name)
		if err != nil || info.Size() == 0 || info.Size() >= size {
			return s.Create(name)
		}
		// The registry refuses to append to what it is receiving.
		f, err := s.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND)
		if err != nil {
			return s.Create(name)
		}
		at, err := f.Seek(info.Size(), io.SeekStart)
		if err == nil {
			_, err = r.Seek(at, io.SeekStart)
		}
		if err != nil {
			f.Close()
		}
		return f, err
	})
}

// upload sends r to the file that open has opened.
func (c *Client) upload(ctx context.Context, name string, r io.Reader, progress io.Writer, open func(*sftpSession) (*sftp.File, error)) error {
	what := fmt.Sprintf("upload %q", name)
	source := &uploadReader{r: r, progress: progress}
	return c.call(ctx, 0, func(ctx context.Context, cn *conn) error {
		s, err := cn.sftp.get()
		if err != nil {
			return c.refused(ctx, cn, what, err)
		}
		stop := cn.watchStall(c.o.Timeouts.Stall, func() (int64, bool) { return s.moved.Load(), !source.reading.Load() })
		defer stop()
		f, err := open(s)
		if err != nil {
			return c.failed(ctx, cn, s, what, err)
		}
		_, err = f.ReadFromWithConcurrency(source, inFlight)
		// The registry finishes what it got when the file is closed, which
		// takes as long as its disk needs.
		stop()
		if source.err != nil {
			s.Remove(name) // while it is open, it is ours alone
			f.Close()
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
