package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"deploytools/atomic"
	"deploytools/layers"
	"deploytools/layers/digest"
	"deploytools/registry/wire"
)

// Layers lie in cache/DIGEST. They have that digest when they get the name, and
// may have lost it since: whoever reads one compares.

func (a *Agent) layerFile(d digest.Digest) string { return a.path("cache", d.String()) }

// cached reports whether the layer is there, as far as can be seen at once.
func (a *Agent) cached(l wire.Layer) bool {
	info, err := os.Lstat(a.layerFile(l.Hash))
	return err == nil && info.Mode().IsRegular() && (l.Size == 0 || info.Size() == l.Size)
}

// uncached returns the layers that are not there.
func (a *Agent) uncached(c *wire.Configuration) []wire.Layer {
	return slices.DeleteFunc(slices.Clone(c.Layers), a.cached)
}

// fill brings the configuration's missing layers into the cache.
func (a *Agent) fill(ctx context.Context, c *wire.Configuration) error {
	missing := a.uncached(c)
	a.arrival.expect(missing)
	defer a.arrival.over()
	for _, l := range missing {
		if a.cached(l) { // it is there twice
			continue
		}
		if err := a.download(ctx, l); err != nil {
			return fmt.Errorf("cannot fetch layer %s:%s: %w", l.Name, l.Version, err)
		}
	}
	return nil
}

// download fetches one layer. What has come stays in .DIGEST.partial, and the
// next try goes on from there; the digest over all of it decides in the end.
func (a *Agent) download(ctx context.Context, l wire.Layer) error {
	if err := atomic.MkdirAll(a.path("cache"), 0o755); err != nil { // a cache may be deleted at any time
		return err
	}
	partial := a.path("cache", "."+l.Hash.String()+".partial")
	f, err := os.OpenFile(partial, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	seen := digest.NewWriter()
	if _, err := io.Copy(seen, f); err != nil {
		return err
	}
	resumed := seen.Len() > 0
	if seen.Digest() != l.Hash && l.Size > 0 && seen.Len() >= l.Size {
		return a.downloadAnew(ctx, l, partial)
	}
	readers := a.ahead.layer(l.Hash)
	if err := readers.begin(partial, seen.Len()); err != nil {
		return err
	}
	if seen.Digest() != l.Hash { // else only the rename is missing
		started := now()
		offset := seen.Len()
		a.arrival.begin(l, offset)
		w := io.MultiWriter(f, seen, readers, arrivalWriter{a})
		if err := a.transfer(ctx, l.Hash, offset, &limited{w, room(l, offset)}); err != nil {
			if errors.Is(err, errTooLong) {
				return errors.Join(err, a.forget(partial))
			}
			return err
		}
		a.log().Info("layer fetched", "layer", l.Name+":"+l.Version, "digest", l.Hash,
			"bytes", seen.Len()-offset, "duration_ms", now().Sub(started).Milliseconds())
	}
	if got := seen.Digest(); got != l.Hash {
		if resumed {
			return a.downloadAnew(ctx, l, partial)
		}
		return errors.Join(fmt.Errorf("have %s, want %s: %w", got, l.Hash, digest.ErrMismatch), a.forget(partial))
	}
	readers.end()
	if err := f.Sync(); err != nil {
		return err
	}
	return atomic.Rename(partial, a.layerFile(l.Hash))
}

// downloadAnew fetches a layer from its start, since what was there of it was not
// of it: after a power loss a file can have its length and not its bytes.
func (a *Agent) downloadAnew(ctx context.Context, l wire.Layer, partial string) error {
	a.log().Warn("part of a layer damaged", "layer", l.Name+":"+l.Version, "digest", l.Hash)
	if err := a.forget(partial); err != nil {
		return err
	}
	return a.download(ctx, l)
}

// forget removes what has come of a layer, and what was made of it.
func (a *Agent) forget(partial string) error {
	a.dropAhead()
	return os.Remove(partial)
}

// maxLayer is the largest archive of a layer whose size was not told.
const maxLayer = 64 << 30

func room(l wire.Layer, offset int64) int64 {
	if l.Size == 0 {
		return maxLayer - offset
	}
	return l.Size - offset
}

var errTooLong = errors.New("longer than the registry said")

// limited refuses more than n bytes: a registry that lies does not fill the disk.
type limited struct {
	w io.Writer
	n int64
}

func (l *limited) Write(b []byte) (int, error) {
	if int64(len(b)) > l.n {
		return 0, errTooLong
	}
	l.n -= int64(len(b))
	return l.w.Write(b)
}

// stack returns the configuration's layers as Unpack wants them.
func (a *Agent) stack(c *wire.Configuration) []layers.Layer {
	var all []layers.Layer
	for _, l := range c.Layers {
		all = append(all, layers.Layer{Name: l.Name + ":" + l.Version, Digest: l.Hash, Link: slices.Contains(a.o.Link, l.Name),
			Open: func() (io.ReadCloser, error) { return a.openLayer(l.Hash) }})
	}
	return all
}

func (a *Agent) openLayer(d digest.Digest) (io.ReadCloser, error) {
	f, err := os.Open(a.layerFile(d))
	if err != nil {
		return nil, err
	}
	return beating{f, &a.pulse}, nil
}

// purge removes the configuration's cached layers that have lost their digest,
// so that they are fetched again.
func (a *Agent) purge(c *wire.Configuration) error {
	var all []error
	for _, l := range c.Layers {
		err := proved(a.layerFile(l.Hash), l.Hash)
		if errors.Is(err, digest.ErrMismatch) {
			a.log().Warn("cached layer damaged", "layer", l.Name+":"+l.Version, "digest", l.Hash)
			err = atomic.Remove(a.layerFile(l.Hash))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			all = append(all, err)
		}
	}
	return errors.Join(all...)
}

func proved(path string, d digest.Digest) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(io.Discard, digest.NewReader(f, d))
	return err
}
