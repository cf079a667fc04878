package sftpfs

import (
	"bytes"
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

func (b *dropBox) isPublished(p string) bool {
	return p == configsDir || p == filesDir || strings.HasPrefix(p, configsDir+"/") || strings.HasPrefix(p, filesDir+"/")
}

// uploads returns the complete uploads of the caller's key by path; of several
// under one path the newest.
func (b *dropBox) uploads() (map[string]registry.UploadState, error) {
	all, err := b.r.Uploads(b.ctx)
	out := make(map[string]registry.UploadState, len(all))
	for _, u := range all {
		if u.Complete && u.Fingerprint == b.caller.Fingerprint {
			out[u.Path] = u
		}
	}
	return out, err
}

// upload returns the complete upload at p.
func (b *dropBox) upload(p string) (registry.UploadState, error) {
	all, err := b.uploads()
	if err != nil {
		return registry.UploadState{}, err
	}
	u, ok := all[p]
	if !ok {
		return u, fs.ErrNotExist
	}
	return u, nil
}

func (b *dropBox) writing(p string) *uploading {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.open[p]
}

// sum returns the line of sha256sum about the upload that p, a name with
// sumSuffix, stands beside.
func (b *dropBox) sum(p string) ([]byte, registry.UploadState, error) {
	of, ok := strings.CutSuffix(p, sumSuffix)
	if !ok {
		return nil, registry.UploadState{}, fs.ErrNotExist
	}
	u, err := b.upload(of)
	return fmt.Appendf(nil, "%s  %s\n", u.Digest, path.Base(of)), u, err
}

func (b *dropBox) read(p string) (opened, error) {
	if p == "/" || b.isPublished(p) {
		return b.published.read(p)
	}
	u, err := b.upload(p)
	if err == nil {
		return b.r.OpenUpload(b.ctx, u.ID)
	}
	if line, _, missing := b.sum(p); missing == nil {
		return document{bytes.NewReader(line)}, nil
	}
	return nil, err
}

// write begins an upload. One that is complete is never changed: what is
// written under its name is another one.
func (b *dropBox) write(p string, flags sftp.FileOpenFlags) (sftp.WriterAtReaderAt, error) {
	in, err := b.receive(p, flags)
	if err != nil {
		b.complain(p, err)
		return nil, err
	}
	return in, nil
}

func (b *dropBox) receive(p string, flags sftp.FileOpenFlags) (*uploading, error) {
	if p == "/" {
		return nil, refused("is a directory")
	}
	if b.isPublished(p) {
		return nil, denied("%s is read-only; upload under another name", p)
	}
	if b.caller.Role < registry.Publisher {
		return nil, denied("a %s cannot upload", b.caller.Role)
	}
	all, err := b.uploads()
	if err != nil {
		return nil, err
	}
	_, exists := all[p]
	switch {
	case b.writing(p) != nil:
		return nil, refused("is being written")
	case b.below(p, all) != nil:
		return nil, refused("is a directory")
	case !exists && !flags.Creat:
		return nil, fs.ErrNotExist
	case exists && flags.Excl:
		return nil, refused("exists already")
	case exists && (flags.Append || !flags.Creat):
		return nil, refused("a complete upload cannot be continued")
	}
	return b.begin(p)
}

func (b *dropBox) begin(p string) (*uploading, error) {
	in, err := b.r.Receive(b.ctx, b.caller, p)
	if err != nil {
		return nil, err
	}
	u := &uploading{Incoming: in, box: b, path: p}
	b.mu.Lock()
	b.open[p] = u
	b.mu.Unlock()
	return u, nil
}

// complain tells the user why an upload did not work: OpenSSH's clients show
// no more of an error than its number.
func (b *dropBox) complain(p string, err error) {
	b.reporter.notices.printf("error: %s: %v", path.Base(p), reporter{}.status(err))
}

// remove forgets all uploads that have been stored under the path.
func (b *dropBox) remove(p string) error {
	if p == "/" || b.isPublished(p) {
		return fs.ErrPermission
	}
	found := false
	if u := b.writing(p); u != nil {
		found = true
		u.end()
		if err := u.Abort(b.ctx); err != nil {
			return err
		}
	}
	all, err := b.r.Uploads(b.ctx)
	if err != nil {
		return err
	}
	for _, u := range all {
		if u.Path != p || !u.Complete || u.Fingerprint != b.caller.Fingerprint {
			continue
		}
		found = true
		if err := b.r.RemoveUpload(b.ctx, u.ID); err != nil && !isNotFound(err) {
			return err
		}
	}
	if !found {
		return fs.ErrNotExist
	}
	return nil
}

func (b *dropBox) resize(p string, size int64) error {
	if err := b.attributes(p); err != nil {
		return err
	}
	if u := b.writing(p); u != nil {
		return u.Truncate(size)
	}
	if u, err := b.upload(p); err != nil {
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

func (b *dropBox) stat(p string) (fs.FileInfo, error) {
	if p == "/" || b.isPublished(p) {
		return b.published.stat(p)
	}
	if u := b.writing(p); u != nil {
		return u.entry(), nil
	}
	all, err := b.uploads()
	if err != nil {
		return nil, err
	}
	if u, ok := all[p]; ok {
		return uploadEntry(u), nil
	}
	if b.below(p, all) != nil {
		return directory(path.Base(p), 0o700), nil
	}
	line, u, err := b.sum(p)
	if err != nil {
		return nil, err
	}
	return entry{path.Base(p), 0o600, int64(len(line)), u.Written}, nil
}

func uploadEntry(u registry.UploadState) entry {
	return entry{path.Base(u.Path), 0o600, u.Size, u.Written}
}

func (b *dropBox) list(p string) ([]fs.FileInfo, error) {
	if b.isPublished(p) {
		return b.published.list(p)
	}
	all, err := b.uploads()
	if err != nil {
		return nil, err
	}
	entries := b.below(p, all)
	if p == "/" {
		return append(top(), entries...), nil
	}
	if entries == nil {
		if _, err := b.stat(p); err != nil {
			return nil, err
		}
		return nil, refused("is not a directory")
	}
	return entries, nil
}

// below returns what the directory p holds: nil when nothing makes it one.
// Names of uploads may have slashes, and so imply directories.
func (b *dropBox) below(p string, all map[string]registry.UploadState) []fs.FileInfo {
	children := map[string]fs.FileInfo{}
	add := func(at string, e entry) {
		rest, ok := under(at, strings.TrimSuffix(p, "/"))
		if !ok {
			return
		}
		if dir, _, nested := strings.Cut(rest, "/"); nested {
			children[dir] = directory(dir, 0o700)
		} else if _, ok := children[rest]; !ok {
			children[rest] = e
		}
	}
	b.mu.Lock()
	for at, u := range b.open {
		add(at, u.entry())
	}
	b.mu.Unlock()
	for at, u := range all {
		add(at, uploadEntry(u))
	}
	var out []fs.FileInfo
	for _, e := range children {
		out = append(out, e)
	}
	return out
}
