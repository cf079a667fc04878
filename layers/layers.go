package layers

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"iter"
	"strconv"

	"deploytools/layers/digest"
	"deploytools/layers/manifest"
)

// ErrRefused says that an archive breaks a rule for layers.
var ErrRefused = errors.New("not an acceptable layer")

// Refusal names the layer, the entry and the rule that it breaks. It wraps
// ErrRefused.
type Refusal struct {
	Layer string // as the caller named it
	Entry int    // counts from 1; 0: the archive as a whole
	Name  string // of the entry, as the archive has it
	Rule  string
	Hint  string // what to do about it; may be empty
}

// Error is one line of some kilobytes at most without control characters,
// whatever the archive holds.
func (r *Refusal) Error() string {
	if r.Entry == 0 {
		return fmt.Sprintf("layer %s: %s", r.Layer, r.Rule)
	}
	if r.Name == "" {
		return fmt.Sprintf("layer %s: entry %d: %s", r.Layer, r.Entry, r.Rule)
	}
	return fmt.Sprintf("layer %s: entry %d %s: %s", r.Layer, r.Entry, quote(r.Name), r.Rule)
}

// maxQuoted is how many bytes a message shows of what an archive says: before a
// rule looks at a name, it can be a megabyte long.
const maxQuoted = 1000

// quote is %q for what an archive says.
func quote(s string) string {
	if len(s) > maxQuoted {
		s = s[:maxQuoted] + "..."
	}
	return strconv.Quote(s)
}

// Unwrap returns ErrRefused.
func (r *Refusal) Unwrap() error { return ErrRefused }

// Limits bound what one layer may ask for. A zero field takes the default in
// its comment; there is no way to say "no limit".
type Limits struct {
	Unpacked    int64 // bytes of all files, sparse ones at full size: 8 GiB
	Ratio       int64 // unpacked bytes to archive bytes, after the first 64 MiB: 200
	Entries     int   // files, links and directories, those without an entry too: 1,000,000
	Names       int64 // bytes of all paths and symlink targets: 256 MiB
	Links       int   // hard links to one file: 1,000
	Headers     int   // extension headers in a row: 16
	HeaderBytes int64 // sum of an entry's extension headers: 1 MiB
}

// DefaultLimits returns the limits that hold where none are given.
func DefaultLimits() Limits { return Limits{}.withDefaults() }

func (l Limits) withDefaults() Limits {
	return Limits{
		Unpacked:    cmp.Or(l.Unpacked, 8<<30),
		Ratio:       cmp.Or(l.Ratio, 200),
		Entries:     cmp.Or(l.Entries, 1_000_000),
		Names:       cmp.Or(l.Names, 256<<20),
		Links:       cmp.Or(l.Links, 1_000),
		Headers:     cmp.Or(l.Headers, 16),
		HeaderBytes: cmp.Or(l.HeaderBytes, 1<<20),
	}
}

// Limits of names, which file systems set: NAME_MAX and PATH_MAX of limits.h,
// and a depth that recursion over a tree can afford.
const (
	maxComponent = 255
	maxPath      = 4095
	maxDepth     = 128
	ratioFree    = 64 << 20 // Limits.Ratio holds after this many bytes
)

// Options say what Check and Unpack allow. The zero value is the safe one.
type Options struct {
	Limits Limits
	// Privileged accepts setuid and setgid files and file capabilities, and
	// sets them on disk.
	Privileged bool
	// Owner gives files the owner and group that the archive names, by number.
	// Without it they belong to the process. Needs root.
	Owner bool
	// Digests says what Check hashes. The verdict does not depend on it.
	Digests Digests
	// Room is for Check: it is asked for bytes more of memory before they are
	// taken, may wait, and ends Check with its error. Nil: there is enough.
	Room func(bytes int64) error
	// Reuse is for Unpack: nil: every file comes from its archive.
	Reuse *Reuse
}

// Digests is what Check computes besides its verdict.
type Digests int

// A digest that is not wanted is zero in Info.
const (
	AllDigests  Digests = iota // of the archive and of the files in it
	FileDigests                // of the files: for whoever knows the archive's
	NoDigests
)

// Layer is one archive to unpack.
type Layer struct {
	Name   string        // for messages, such as component:version
	Digest digest.Digest // of the archive; zero: not compared
	// Open returns the archive from its start. Unpack closes it, also during a
	// Read when the context ends.
	Open func() (io.ReadCloser, error)
	// Link allows its files to be hard links to those of Options.Reuse: nobody
	// writes to them, in either root.
	Link bool
}

// Info is what reading archives found out.
type Info struct {
	Digest   digest.Digest // of the archive (Check, Pack) or zero (Unpack)
	Size     int64         // bytes of the archives that were read
	Unpacked int64         // bytes of all files, sparse ones at full size
	Entries  int64         // of the archives
	Warnings []string      // what was accepted but is not applied, of archives that were read
	// Index is, one behind the other, for the next Unpack's Options.Reuse, of whose
	// Index it may have parts. nil: there would be no use for it.
	Index [][]byte
	// Manifest yields the entries of the resulting tree, by path, as often as it is
	// wanted until Close, one at a time. It keeps the tree: in memory, and then its errors are nil,
	// or as Unpack says. nil: refused.
	Manifest iter.Seq2[manifest.Entry, error]

	scratch *scratch
}

// Close gives back what Unpack has on disk for Manifest, which ends with it. The
// collector would do it, too, at some time. Of all else there is nothing to close.
func (i *Info) Close() { i.scratch.close() }
