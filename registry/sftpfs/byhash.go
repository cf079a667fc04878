package sftpfs

import (
	"io/fs"
	"path"
	"time"

	"deploytools/layers/digest"
	"deploytools/registry"
)

// hashDir shows, by digest, what addver would take: the caller's complete
// uploads, whatever their names are, and the layers.
const hashDir = "/by-hash"

var hashDirEntry = directory(path.Base(hashDir), 0o700)

// hashed returns the caller's complete uploads by their digest.
func (b *dropBox) hashed() (map[digest.Digest]registry.UploadState, error) {
	all, err := b.r.Uploads(b.ctx)
	out := map[digest.Digest]registry.UploadState{}
	for _, u := range all {
		if u.Complete && u.Fingerprint == b.caller.Fingerprint {
			out[u.Digest] = u
		}
	}
	return out, err
}

// ownHash returns the caller's upload that p names by its digest, if there is
// one, and where else to look for it.
func (b *dropBox) ownHash(p string) (u registry.UploadState, own bool, layer string, err error) {
	name, _ := under(p, hashDir)
	d, err := digest.Parse(name)
	if err != nil {
		return u, false, "", fs.ErrNotExist
	}
	all, err := b.hashed()
	u, own = all[d]
	return u, own, filesDir + "/" + name, err
}

func (b *dropBox) readHash(p string) (opened, error) {
	u, own, layer, err := b.ownHash(p)
	switch {
	case err != nil:
		return nil, err
	case own:
		return b.r.OpenUpload(b.ctx, u.ID)
	}
	return b.published.read(layer)
}

func (b *dropBox) statHash(p string) (fs.FileInfo, error) {
	if p == hashDir {
		return hashDirEntry, nil
	}
	u, own, layer, err := b.ownHash(p)
	switch {
	case err != nil:
		return nil, err
	case own:
		return hashEntry(u.Digest, u.Size, u.Written), nil
	}
	return b.published.stat(layer)
}

func hashEntry(d digest.Digest, size int64, t time.Time) entry {
	return entry{d.String(), 0o600, size, t}
}

func (b *dropBox) listHash() ([]fs.FileInfo, error) {
	all, err := b.hashed()
	if err != nil {
		return nil, err
	}
	layers, err := b.r.Layers(b.ctx, b.reader.Configs)
	if err != nil {
		return nil, err
	}
	var out []fs.FileInfo
	for _, l := range layers {
		if _, own := all[l.Digest]; !own {
			out = append(out, layerEntry(l))
		}
	}
	for d, u := range all {
		out = append(out, hashEntry(d, u.Size, u.Written))
	}
	return out, nil
}
