package sftpfs

import (
	"fmt"
	"io/fs"
	"path"
	"strings"
	"sync"

	"github.com/pkg/sftp"

	"deploytools/registry"
)

// dropBox is the tree of operators.
type dropBox struct {
	published
	caller   registry.Caller
	reporter reporter

	mu   sync.Mutex            // guards the following
	open map[string]*uploading // by path: what this session is writing
}

// sumSuffix is that of the virtual file with the digest of an upload.
const sumSuffix = ".sha256"

// isPublished says that p belongs to the part of the tree that nobody writes.
func (b *dropBox) isPublished(p string) bool {
	for _, dir := range []string{configsDir, filesDir, hashDir} {
		if p == dir || strings.HasPrefix(p, dir+"/") {
			return true
		}
	}
	return false
}

func (b *dropBox) writing(p string) *uploading {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.open[p]
}

// uploaded returns the complete upload at p.
func (b *dropBox) uploaded(p string) (registry.UploadState, error) {
	box, err := b.r.DropBox(b.ctx, b.caller)
	if err != nil {
		return registry.UploadState{}, err
	}
	u, ok := box.Files[p]
	switch {
	case !ok && box.IsDir(p):
		return u, refused("is a directory")
	case !ok:
		return u, fs.ErrNotExist
	case !u.Complete:
		return u, refused("is not complete")
	}
	return u, nil
}

// sum returns the line of sha256sum about the upload that p, a name with
// sumSuffix, stands beside.
func (b *dropBox) sum(p string) ([]byte, registry.UploadState, error) {
	of, ok := strings.CutSuffix(p, sumSuffix)
	if !ok {
		return nil, registry.UploadState{}, fs.ErrNotExist
	}
	u, err := b.uploaded(of)
	return fmt.Appendf(nil, "%s  %s\n", u.Digest, path.Base(of)), u, err
}

func (b *dropBox) read(p string) (opened, error) {
	if _, ok := under(p, hashDir); ok {
		return b.readHash(p)
	}
	if p == "/" || b.isPublished(p) {
		return b.published.read(p)
	}
	u, err := b.uploaded(p)
	if err == nil {
		return b.r.OpenUpload(b.ctx, u.ID)
	}
	if line, _, missing := b.sum(p); missing == nil {
		return newDocument(line), nil
	}
	return nil, err
}

// write begins an upload, or goes on with one.
func (b *dropBox) write(p string, flags sftp.FileOpenFlags) (sftp.WriterAtReaderAt, error) {
	in, err := b.receive(p, flags)
	if err != nil {
		b.complain(p, err)
		return nil, err
	}
	return in, nil
}

// mayChange says why the caller cannot change what is at p.
func (b *dropBox) mayChange(p string) error {
	switch {
	case b.isPublished(p):
		return denied("%s is read-only; upload under another name", p)
	case b.caller.Role < registry.Publisher:
		return denied("a %s cannot upload", b.caller.Role)
	}
	return nil
}

// complain tells the user why an upload did not work: OpenSSH's clients show
// no more of an error than its number.
func (b *dropBox) complain(p string, err error) {
	b.reporter.notices.printf("error: %s: %v", path.Base(p), reporter{}.status(err))
}

// remove forgets what this session is writing at the path, and else all uploads
// that have been stored under it. A client that gives up removes what it has
// begun: what another one with the same key has uploaded meanwhile stays.
func (b *dropBox) remove(p string) error {
	if p == "/" || b.isPublished(p) {
		return fs.ErrPermission
	}
	if u := b.writing(p); u != nil {
		u.end()
		return u.Abort(b.ctx)
	}
	return b.r.RemoveFile(b.ctx, b.caller, p)
}

func (b *dropBox) mkdir(p string) error {
	if err := b.mayChange(p); err != nil {
		return err
	}
	return b.r.MakeDir(b.ctx, b.caller, p)
}

func (b *dropBox) rmdir(p string) error {
	if p == "/" || b.isPublished(p) {
		return fs.ErrPermission
	}
	return b.r.RemoveDir(b.ctx, b.caller, p)
}

func (b *dropBox) rename(from, to string, replace bool) error {
	if from == "/" || b.isPublished(from) {
		return fs.ErrPermission
	}
	if err := b.mayChange(to); err != nil {
		return err
	}
	return b.r.Move(b.ctx, b.caller, from, to, replace)
}

func (b *dropBox) resize(p string, size int64) error {
	if err := b.attributes(p); err != nil {
		return err
	}
	if u := b.writing(p); u != nil {
		return u.Truncate(size)
	}
	if u, err := b.uploaded(p); err != nil {
		return err
	} else if u.Size != size {
		return denied("a complete upload cannot be changed")
	}
	return nil
}

func (b *dropBox) attributes(p string) error {
	if b.isPublished(p) {
		return fs.ErrPermission
	}
	_, err := b.stat(p)
	return err
}

// blockBytes is the unit in which clients are told about space.
const blockBytes = 4096

// space tells what the caller's uploads may still take, which is what the disk
// has at most.
func (b *dropBox) space() (*sftp.StatVFS, error) {
	room, err := b.r.Room(b.ctx, b.caller)
	if err != nil {
		return nil, err
	}
	free, entries := uint64(room.Free)/blockBytes, uint64(max(0, room.MaxEntries-room.Entries))
	return &sftp.StatVFS{
		Bsize: blockBytes, Frsize: blockBytes, Namemax: maxPath,
		Blocks: free + (uint64(room.Used)+blockBytes-1)/blockBytes, Bfree: free, Bavail: free,
		Files: uint64(room.MaxEntries), Ffree: entries, Favail: entries,
	}, nil
}
