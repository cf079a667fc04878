package agent

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"deploytools/registry/wire"
)

// fits is an error that wraps ENOSPC if the file system surely lacks room for
// what is left to fetch of the configuration's layers, and for what they unpack
// to: a disk that is full to the last byte hurts what serves. It goes by what the
// registry told, and by half a block more a file; what it did not tell is not
// counted. That something else takes the room meanwhile is found while unpacking.
func (a *Agent) fits(c *wire.Configuration) error {
	on, err := diskOf(a.o.Dir)
	if err != nil {
		return err
	}
	var bytes, entries int64
	for _, l := range c.Layers {
		bytes += l.Unpacked + l.Entries*on.block/2 + a.toFetch(l)
		entries += l.Entries
	}
	switch {
	case bytes > on.free:
		return fmt.Errorf("no room in %s: revision %d of %s needs %s, %s are free: %w", a.o.Dir, c.Revision, c.Name, Size(bytes), Size(on.free), unix.ENOSPC)
	case on.inodes >= 0 && entries > on.inodes:
		return fmt.Errorf("no room in %s: revision %d of %s needs %d inodes, %d are free: %w", a.o.Dir, c.Revision, c.Name, entries, on.inodes, unix.ENOSPC)
	}
	return nil
}

// toFetch returns the bytes of the layer that are not in the cache.
func (a *Agent) toFetch(l wire.Layer) int64 {
	for _, name := range []string{l.Hash.String(), "." + l.Hash.String() + ".partial"} {
		if info, err := os.Lstat(a.path("cache", name)); err == nil {
			return max(0, l.Size-info.Size())
		}
	}
	return l.Size
}
