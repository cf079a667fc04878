package agent

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"deploytools/layers"
	"deploytools/layers/digest"
	"deploytools/registry/wire"
)

// fits is an error that wraps ENOSPC if the file system surely lacks room for
// what is left to fetch of the configuration's layers, for what they unpack to, and for
// the reserve: a disk that is full to the last byte hurts what serves. It goes by what the
// registry told, and by half a block more a file; what it did not tell, and what
// the live root shares, is not counted. That something else takes the room meanwhile is found while unpacking.
func (a *Agent) fits(c *wire.Configuration) error {
	on, err := diskOf(a.o.Dir)
	if err != nil {
		return err
	}
	var bytes, entries int64
	shared := a.reuse().Shares(a.path("roots"), a.stack(c), a.o.Layers)
	for _, l := range c.Layers {
		bytes += a.toFetch(l)
		if !shared[l.Hash] {
			bytes += l.Unpacked + l.Entries*on.block/2
			entries += l.Entries
		}
	}
	bytes += layers.ScratchBytes(entries) + reserveSize - a.reserved()
	note := a.unshared(c, shared)
	needs := fmt.Sprintf("no room in %s: revision %d of %s needs ", a.o.Dir, c.Revision, c.Name)
	switch {
	case bytes > on.free:
		return &noRoom{needs + Size(bytes) + note, Size(on.free)}
	case on.inodes >= 0 && entries > on.inodes:
		return &noRoom{fmt.Sprintf("%s%d inodes%s", needs, entries, note), strconv.FormatInt(on.inodes, 10)}
	case a.filled.still(c, on):
		return &noRoom{needs + "more than the " + Size(a.filled.had.free) + " with which it filled the disk", Size(on.free)}
	}
	a.had = on
	return nil
}

// filled is an unpacking that needed more room than fits had thought, as many small
// files do. To try again as long as there is no more of it would fill the disk, on which
// others live, each time.
type filled struct {
	configuration digest.Digest
	had           disk      // before
	until         time.Time // it is tried again then: the file system may not tell all
}

// again is how long filled holds.
const again = time.Hour

// still reports whether there is no more room for the configuration than it had then.
func (f *filled) still(c *wire.Configuration, on disk) bool {
	more := func(now, then int64) bool { return now > then+then/16 }
	return f.configuration == c.Digest && time.Now().Before(f.until) && !more(on.free, f.had.free) && !more(on.inodes, f.had.inodes)
}

// fullNow is the error of an unpacking that has filled the disk.
type fullNow struct{ error }

func (e *fullNow) Unwrap() error { return e.error }

// filledBy is err, as a fullNow where the disk is as full as that says.
func (a *Agent) filledBy(err error) error {
	if on, e := diskOf(a.o.Dir); full(err) && e == nil && (on.free < reserveSize/2 || on.cramped()) {
		return &fullNow{err}
	}
	return err
}

// noRoom says what does not fit. What is free is another amount each time, while
// nothing new is to be told.
type noRoom struct{ needs, free string }

func (e *noRoom) Error() string {
	return fmt.Sprintf("%s, %s are free: %v", e.needs, e.free, unix.ENOSPC)
}

func (e *noRoom) Unwrap() error { return unix.ENOSPC }

// unshared says that layers are counted which the live root has, too; "": none.
func (a *Agent) unshared(c *wire.Configuration, shared map[digest.Digest]bool) string {
	live := a.rec.Live
	if live == nil {
		return ""
	}
	again := slices.ContainsFunc(c.Layers, func(l wire.Layer) bool {
		return !shared[l.Hash] && slices.ContainsFunc(live.Configuration.Layers, func(x wire.Layer) bool { return x.Hash == l.Hash })
	})
	if !again {
		return ""
	}
	return " (with layers that are live already: their files are written again)"
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
