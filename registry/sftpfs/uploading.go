package sftpfs

import (
	"context"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"deploytools/registry"
)

// uploading is an upload that this session writes.
type uploading struct {
	*registry.Incoming
	box  *dropBox
	path string

	complained sync.Once
	lost       atomic.Bool // the connection is gone
}

func (u *uploading) entry() entry { return entry{path.Base(u.path), 0o600, u.Size(), u.Started()} }

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
	n, err := u.Incoming.WriteAt(p, off)
	if err != nil {
		err = u.failed(err)
	}
	return n, err
}

// Close makes the upload a complete one, and tells the user its digest, and
// that the archive is refused if that is known soon.
func (u *uploading) Close() error {
	defer u.end()
	if u.lost.Load() {
		return nil
	}
	state, err := u.Finish(u.box.ctx)
	if err != nil {
		return u.failed(err)
	}
	u.box.reporter.notices.printf("stored %s %d bytes %s", state.Digest, state.Size, path.Base(u.path))
	u.tellRefusal()
	return nil
}

// verdictWait is how long the end of an upload may wait for the verdict. The
// archive is checked while it arrives, so that it is there at once but for large
// ones; those are told of by addver and `uploads`.
const verdictWait = time.Second

// tellRefusal is for those who do not look at the version that they make next.
func (u *uploading) tellRefusal() {
	ctx, cancel := context.WithTimeout(u.box.ctx, verdictWait)
	defer cancel()
	state, err := u.box.r.Verdict(ctx, u.ID(), nil)
	if err == nil && state.Verdict == registry.Refused { // without a verdict there is nothing to say yet
		u.box.reporter.notices.printf("refused %s: %s", path.Base(u.path), state.Reason)
	}
}

// TransferError forgets the upload: the connection broke before its end. The
// server calls Close next.
func (u *uploading) TransferError(error) {
	u.lost.Store(true)
	if err := u.Abort(u.box.ctx); err != nil {
		u.box.reporter.status(err)
	}
}
