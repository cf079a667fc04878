package sftpfs

import (
	"io/fs"
	"path"
	"strings"
	"time"

	"deploytools/registry"
)

func (b *dropBox) stat(p string) (fs.FileInfo, error) {
	if p == hashDir || strings.HasPrefix(p, hashDir+"/") {
		return b.statHash(p)
	}
	if p == "/" || b.isPublished(p) {
		return b.published.stat(p)
	}
	if u := b.writing(p); u != nil {
		return u.entry(), nil
	}
	box, err := b.r.DropBox(b.ctx, b.caller)
	if err != nil {
		return nil, err
	}
	if u, ok := box.Files[p]; ok {
		return uploadEntry(u), nil
	}
	if made, ok := box.Dirs[p]; ok {
		return ownDirectory(p, made), nil
	}
	if box.IsDir(p) || b.below(p, box) != nil {
		return directory(path.Base(p), 0o700), nil
	}
	line, u, err := b.sum(p)
	if err != nil {
		return nil, fs.ErrNotExist
	}
	return entry{path.Base(p), 0o600, int64(len(line)), u.Written}, nil
}

// uploadEntry shows an upload, of which only a part may be there.
func uploadEntry(u registry.UploadState) entry {
	e := entry{path.Base(u.Path), 0o600, u.Size, u.Written}
	if !u.Complete {
		e.time = u.Started
	}
	return e
}

func ownDirectory(p string, made time.Time) entry {
	e := directory(path.Base(p), 0o700)
	e.time = made
	return e
}

func (b *dropBox) list(p string) ([]fs.FileInfo, error) {
	if p == hashDir {
		return b.listHash()
	}
	if b.isPublished(p) {
		return b.published.list(p)
	}
	box, err := b.r.DropBox(b.ctx, b.caller)
	if err != nil {
		return nil, err
	}
	entries := b.below(p, box)
	if p == "/" {
		return append(append(top(), hashDirEntry), entries...), nil
	}
	if entries == nil && !box.IsDir(p) {
		if _, err := b.stat(p); err != nil {
			return nil, err
		}
		return nil, refused("is not a directory")
	}
	return entries, nil
}

// below returns what the directory p holds: nil when nothing makes it one.
// Names of uploads may have slashes, and so imply directories.
func (b *dropBox) below(p string, box registry.DropBox) []fs.FileInfo {
	children := map[string]fs.FileInfo{}
	add := func(at string, e entry) {
		rest, ok := under(at, strings.TrimSuffix(p, "/"))
		if !ok {
			return
		}
		dir, _, nested := strings.Cut(rest, "/")
		if _, ok := children[dir]; ok {
			return
		}
		if nested {
			e = directory(dir, 0o700)
		}
		children[dir] = e
	}
	for at, made := range box.Dirs {
		add(at, ownDirectory(at, made))
	}
	b.mu.Lock()
	for at, u := range b.open {
		add(at, u.entry())
	}
	b.mu.Unlock()
	for at, u := range box.Files {
		add(at, uploadEntry(u))
	}
	var out []fs.FileInfo
	for _, e := range children {
		out = append(out, e)
	}
	return out
}
