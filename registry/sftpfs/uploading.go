package sftpfs

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pkg/sftp"

	"deploytools/registry"
)

// uploading is an upload that this session writes.
type uploading struct {
	*registry.Incoming
	box  *dropBox
	path string

	// before is what was complete at the path and cannot be continued. It is
	// what the path shows until something is written.
	before  *registry.UploadState
	touched atomic.Bool

	complained sync.Once
	lost       atomic.Bool // the connection is gone
}

// receive opens p for writing. A client that does not cut the file (scp, and
// whoever resumes: reput, lftp, WinSCP, FileZilla, curl) may mean to write all of
// it or to go on. What was cut off goes on in place, which serves both; what is
// complete and not refused is never changed, and a new upload takes its path
// once it is complete itself.
func (b *dropBox) receive(p string, flags sftp.FileOpenFlags) (*uploading, error) {
	if p == "/" {
		return nil, refused("is a directory")
	}
	if err := b.mayChange(p); err != nil {
		return nil, err
	}
	box, err := b.r.DropBox(b.ctx, b.caller)
	if err != nil {
		return nil, err
	}
	u, exists := box.Files[p]
	switch {
	case b.writing(p) != nil:
		return nil, refused("is being written")
	case box.IsDir(p):
		return nil, refused("is a directory")
	case !exists && !flags.Creat:
		return nil, fs.ErrNotExist
	case exists && flags.Excl:
		return nil, refused("exists already")
	case !exists:
		if err := box.Fits(p); err != nil {
			return nil, err
		}
		return b.begin(p, nil)
	case flags.Trunc:
		if !u.Complete && !u.Receiving {
			if err := b.r.RemoveUpload(b.ctx, u.ID); err != nil && !isNotFound(err) {
				return nil, err
			}
		}
		return b.begin(p, nil)
	}
	return b.goOn(p, u, flags)
}

// goOn opens what is there already.
func (b *dropBox) goOn(p string, u registry.UploadState, flags sftp.FileOpenFlags) (*uploading, error) {
	if u.Complete && u.Verdict == registry.Unchecked {
		u = b.verdict(u)
	}
	if u.Complete && u.Verdict != registry.Refused {
		if flags.Append {
			return nil, refused("a complete upload cannot be continued")
		}
		return b.begin(p, &u)
	}
	in, err := b.r.Resume(b.ctx, b.caller, u.ID)
	writes := errors.Is(err, registry.ErrConflict) && !flags.Append // another session does, and we begin another one
	if flags.Creat && (writes || isNotFound(err)) {
		return b.begin(p, nil)
	}
	if err != nil {
		return nil, err
	}
	return b.adopt(p, &uploading{Incoming: in}), nil
}

func (b *dropBox) begin(p string, before *registry.UploadState) (*uploading, error) {
	in, err := b.r.Receive(b.ctx, b.caller, p)
	if err != nil {
		return nil, err
	}
	return b.adopt(p, &uploading{Incoming: in, before: before}), nil
}

func (b *dropBox) adopt(p string, u *uploading) *uploading {
	u.box, u.path = b, p
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open[p] = u
	return u
}

// verdictWait is how long the end of an upload may wait for the verdict. The
// archive is checked while it arrives, so that it is there at once but for large
// ones; those are told of by addver and `uploads`.
const verdictWait = time.Second

// verdict returns u with its verdict, if that is known soon.
func (b *dropBox) verdict(u registry.UploadState) registry.UploadState {
	ctx, cancel := context.WithTimeout(b.ctx, verdictWait)
	defer cancel()
	if judged, err := b.r.Verdict(ctx, u.ID, nil); err == nil {
		return judged
	}
	return u
}

func (u *uploading) entry() entry {
	if u.before != nil && !u.touched.Load() {
		return uploadEntry(*u.before)
	}
	return entry{path.Base(u.path), 0o600, u.Size(), u.Started()}
}

// end takes the upload out of the session's tree.
func (u *uploading) end() {
	u.box.mu.Lock()
	defer u.box.mu.Unlock()
	if u.box.open[u.path] == u {
		delete(u.box.open, u.path)
	}
}

// failed tells the user and the report of the first failure of the upload.
// Clients have many writes in flight, and all that follow fail alike.
func (u *uploading) failed(err error) error {
	first := false
	u.complained.Do(func() {
		u.box.complain(u.path, err)
		first = true
	})
	if !first {
		return reporter{}.status(err)
	}
	return err
}

// WriteAt is Incoming's, with the reason of a failure for the user.
func (u *uploading) WriteAt(p []byte, off int64) (int, error) {
	u.touched.Store(true)
	n, err := u.Incoming.WriteAt(p, off)
	if err != nil {
		err = u.failed(err)
	}
	return n, err
}

// Truncate is Incoming's. The size that is there already changes nothing.
func (u *uploading) Truncate(size int64) error {
	if u.before != nil && !u.touched.Load() {
		if size == u.before.Size {
			return nil
		}
		u.touched.Store(true)
	}
	return u.Incoming.Truncate(size)
}

// Close makes the upload a complete one, and tells the user its digest, and
// that the archive is refused if that is known soon.
func (u *uploading) Close() error {
	defer u.end()
	if u.lost.Load() {
		return nil
	}
	if u.before != nil && !u.touched.Load() {
		return u.Abort(u.box.ctx)
	}
	state, err := u.Finish(u.box.ctx)
	if err != nil {
		return u.failed(err)
	}
	u.box.reporter.notices.printf("stored %s %d bytes %s", state.Digest, state.Size, path.Base(u.path))
	// This is for those who do not look at the version that they make next.
	if state = u.box.verdict(state); state.Verdict == registry.Refused {
		u.box.reporter.notices.printf("refused %s: %s", path.Base(u.path), state.Reason)
	}
	return nil
}

// TransferError keeps what has come: the connection broke before the end. The
// server calls Close next.
func (u *uploading) TransferError(error) {
	u.lost.Store(true)
	if err := u.Suspend(u.box.ctx); err != nil {
		u.box.reporter.status(err)
	}
}
