package sshd

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/pkg/sftp"
)

// quota counts what is open, up to a limit.
type quota struct {
	limit int64
	n     atomic.Int64
}

func (q *quota) take() bool {
	if q.n.Add(1) > q.limit {
		q.n.Add(-1)
		return false
	}
	return true
}

func (q *quota) giveBack() { q.n.Add(-1) }

// counted puts limits on the files that handlers hold open: each is a file
// descriptor of the process, and pkg/sftp has no limit.
type counted struct {
	sftp.Handlers
	quotas []*quota
}

// limitFiles returns the handlers with the quotas before them.
func limitFiles(h sftp.Handlers, quotas ...*quota) sftp.Handlers {
	c := counted{h, quotas}
	h.FileGet, h.FilePut = c, c
	return h
}

func (c counted) take() (giveBack func(), err error) {
	for i, q := range c.quotas {
		if !q.take() {
			for _, taken := range c.quotas[:i] {
				taken.giveBack()
			}
			return nil, fmt.Errorf("%d files are open already: %w", q.limit, sftp.ErrSSHFxFailure)
		}
	}
	return sync.OnceFunc(func() {
		for _, q := range c.quotas {
			q.giveBack()
		}
	}), nil
}

// Fileread opens a file for reading.
func (c counted) Fileread(r *sftp.Request) (io.ReaderAt, error) {
	return open(c, r, c.FileGet.Fileread, func(f *countedFile, file io.ReaderAt) { f.ReaderAt = file })
}

// Filewrite opens a file for writing.
func (c counted) Filewrite(r *sftp.Request) (io.WriterAt, error) {
	return open(c, r, c.FilePut.Filewrite, func(f *countedFile, file io.WriterAt) { f.WriterAt = file })
}

// OpenFile opens a file for both.
func (c counted) OpenFile(r *sftp.Request) (sftp.WriterAtReaderAt, error) {
	opener, ok := c.FilePut.(sftp.OpenFileWriter)
	if !ok {
		return nil, sftp.ErrSSHFxOpUnsupported
	}
	return open(c, r, opener.OpenFile, func(f *countedFile, file sftp.WriterAtReaderAt) { f.ReaderAt, f.WriterAt = file, file })
}

func open[F any](c counted, r *sftp.Request, by func(*sftp.Request) (F, error), use func(*countedFile, F)) (*countedFile, error) {
	giveBack, err := c.take()
	if err != nil {
		return nil, err
	}
	file, err := by(r)
	if err != nil {
		giveBack()
		return nil, err
	}
	f := &countedFile{under: file, giveBack: giveBack}
	use(f, file)
	return f, nil
}

// countedFile is an open file that counts until it is closed.
type countedFile struct {
	io.ReaderAt
	io.WriterAt
	under    any
	giveBack func()
}

// Close closes the file.
func (f *countedFile) Close() error {
	defer f.giveBack()
	if c, ok := f.under.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// TransferError tells the file that the connection is gone. Close follows.
func (f *countedFile) TransferError(err error) {
	if t, ok := f.under.(sftp.TransferError); ok {
		t.TransferError(err)
	}
}
