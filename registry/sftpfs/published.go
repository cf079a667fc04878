package sftpfs

import (
	"bytes"
	"context"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/pkg/sftp"

	"deploytools/layers/digest"
	"deploytools/registry"
)

const (
	configsDir = "/configs"
	filesDir   = "/files"
)

// published is the part of the tree that agents read: the caller's
// configurations and their layers.
type published struct {
	ctx    context.Context
	r      *registry.Registry
	reader registry.Caller
}

// entry is what stat tells about a file or directory.
type entry struct {
	name string
	mode fs.FileMode
	size int64
	time time.Time
}

func (e entry) Name() string       { return e.name }
func (e entry) Size() int64        { return e.size }
func (e entry) Mode() fs.FileMode  { return e.mode }
func (e entry) ModTime() time.Time { return e.time }
func (e entry) IsDir() bool        { return e.mode.IsDir() }
func (e entry) Sys() any           { return nil }

// directory has the same time for ever: whoever mirrors the tree sees a change
// only where there is one.
func directory(name string, perm fs.FileMode) entry {
	return entry{name: name, mode: fs.ModeDir | perm, time: time.Unix(0, 0)}
}

// top is what the root holds.
func top() []fs.FileInfo {
	return []fs.FileInfo{directory(path.Base(configsDir), 0o750), directory(path.Base(filesDir), 0o700)}
}

// document returns the newest revision of the configuration at p.
func (t published) document(p string) ([]byte, entry, error) {
	file, _ := under(p, configsDir)
	name, ok := strings.CutSuffix(file, ".json")
	if !ok || name == "" || strings.Contains(name, "/") {
		return nil, entry{}, fs.ErrNotExist
	}
	if err := t.reader.CheckScope(name); err != nil {
		return nil, entry{}, err
	}
	rev, err := t.r.Configuration(t.ctx, name)
	if err != nil {
		return nil, entry{}, err
	}
	return encode(rev)
}

func encode(rev *registry.Revision) ([]byte, entry, error) {
	b, err := rev.Encode()
	return b, entry{rev.Name + ".json", 0o644, int64(len(b)), rev.Mtime}, err
}

// layer opens the layer at p; the caller closes it.
func (t published) layer(p string) (registry.Blob, error) {
	name, _ := under(p, filesDir)
	d, err := digest.Parse(name)
	if err != nil {
		return nil, fs.ErrNotExist
	}
	blob, _, err := t.r.OpenLayer(t.ctx, t.reader.Configs, d)
	return blob, err
}

// layerInfo is what stat tells about the layer at p. It opens nothing: whoever
// then reads a damaged one is told why it is not served.
func (t published) layerInfo(p string) (fs.FileInfo, error) {
	name, _ := under(p, filesDir)
	d, err := digest.Parse(name)
	if err != nil {
		return nil, fs.ErrNotExist
	}
	info, err := t.r.Layer(t.ctx, t.reader.Configs, d)
	return layerEntry(info), err
}

func layerEntry(l registry.StoredLayer) entry { return entry{l.Digest.String(), 0o600, l.Size, l.Time} }

type document struct{ *bytes.Reader }

func newDocument(b []byte) document { return document{bytes.NewReader(b)} }

func (document) Close() error { return nil }

func (t published) read(p string) (opened, error) {
	if _, ok := under(p, filesDir); ok {
		blob, err := t.layer(p)
		if err != nil {
			return nil, err
		}
		return blob, nil
	}
	if t.isDir(p) {
		return nil, refused("is a directory")
	}
	b, _, err := t.document(p)
	if err != nil {
		return nil, err
	}
	return newDocument(b), nil
}

func (published) isDir(p string) bool { return p == "/" || p == configsDir || p == filesDir }

func (t published) stat(p string) (fs.FileInfo, error) {
	switch {
	case p == "/":
		return directory("/", 0o755), nil
	case p == configsDir:
		return top()[0], nil
	case p == filesDir:
		return top()[1], nil
	}
	if _, ok := under(p, filesDir); ok {
		return t.layerInfo(p)
	}
	_, info, err := t.document(p)
	return info, err
}

func (t published) list(p string) ([]fs.FileInfo, error) {
	switch p {
	case "/":
		return top(), nil
	case configsDir:
		revisions, err := t.r.Configurations(t.ctx)
		out := make([]fs.FileInfo, 0, len(revisions))
		for i := range revisions {
			if !t.reader.Configs.Holds(revisions[i].Name) {
				continue
			}
			_, info, failed := encode(&revisions[i])
			if failed != nil {
				return nil, failed
			}
			out = append(out, info)
		}
		return out, err
	case filesDir:
		layers, err := t.r.Layers(t.ctx, t.reader.Configs)
		out := make([]fs.FileInfo, 0, len(layers))
		for _, l := range layers {
			out = append(out, layerEntry(l))
		}
		return out, err
	}
	if _, err := t.stat(p); err != nil {
		return nil, err
	}
	return nil, refused("is not a directory")
}

// readOnly is the tree of agents: every change is denied, whatever it is about.
type readOnly struct{ published }

func (readOnly) write(string, sftp.FileOpenFlags) (sftp.WriterAtReaderAt, error) {
	return nil, fs.ErrPermission
}
func (readOnly) remove(string) error              { return fs.ErrPermission }
func (readOnly) mkdir(string) error               { return fs.ErrPermission }
func (readOnly) rmdir(string) error               { return fs.ErrPermission }
func (readOnly) rename(_, _ string, _ bool) error { return fs.ErrPermission }
func (readOnly) resize(string, int64) error       { return fs.ErrPermission }
func (readOnly) attributes(string) error          { return fs.ErrPermission }
func (readOnly) space() (*sftp.StatVFS, error)    { return nil, sftp.ErrSSHFxOpUnsupported }
