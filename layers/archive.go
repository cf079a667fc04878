package layers

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"deploytools/layers/digest"
)

// kind is the type of an archive's entry.
type kind byte

const (
	file     kind = 'f'
	dir      kind = 'd'
	symlink  kind = 'l'
	hardLink kind = 'h'
)

var kindNames = map[kind]string{file: "a file", dir: "a directory", symlink: "a symlink", hardLink: "a hard link"}

// entry is one entry that holds the rules which concern it alone.
type entry struct {
	number     int
	path       []string // components; none: the top directory
	kind       kind
	mode       uint32
	uid, gid   int
	size       int64 // of a file, sparse ones at full size
	mtime      time.Time
	target     string   // of a symlink
	linkTo     []string // components, of a hard link
	sparse     bool
	capability string        // value of security.capability, binary
	digest     digest.Digest // of a file, where an index told it and an earlier root may have it
}

// name returns the last component of the path, which e must have.
func (e *entry) name() string { return e.path[len(e.path)-1] }

// fault says which path a system call failed for.
func (e *entry) fault(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("cannot write %q: %w", strings.Join(e.path, "/"), err)
}

// archive reads one layer: every rule of docs/layer-format.md that can be seen
// without the rest of the tree.
type archive struct {
	ctx   context.Context // of the one call that reads it
	layer string
	o     Options
	src   *source
	zip   *gunzip
	scan  *scanner
	tar   *tar.Reader

	number   int
	name     string // of the current entry, for messages
	unpacked int64
	room     room
	xattrs   string // the first entry with attributes that are not applied
}

func openArchive(ctx context.Context, layer string, r io.Reader, o Options) *archive {
	o.Limits = o.Limits.withDefaults()
	a := &archive{ctx: ctx, layer: layer, o: o, src: &source{ctx: ctx, r: r}, room: room{ask: o.Room}}
	if o.Digests == AllDigests {
		a.src.hash = digest.NewWriter()
	}
	a.zip = newGunzip(a.src, o.Limits.Ratio)
	a.scan = &scanner{r: a.zip, limits: o.Limits}
	a.tar = tar.NewReader(a.scan)
	return a
}

// close ends what reads the archive; what was read has a digest then.
func (a *archive) close() { a.zip.Close() }

// refuse makes a Refusal of the current entry.
func (a *archive) refuse(format string, args ...any) error {
	return &Refusal{Layer: a.layer, Entry: a.number, Name: a.name, Rule: fmt.Sprintf(format, args...)}
}

// fault turns an error of reading into what it means: an error of the source
// as it is, else a Refusal.
func (a *archive) fault(err error) error {
	if e, ok := errors.AsType[*sourceError](err); ok {
		return fmt.Errorf("cannot read layer %s: %w", a.layer, e.err)
	}
	if err := a.stopped(); err != nil {
		return err
	}
	if errors.Is(err, io.ErrNoProgress) {
		return fmt.Errorf("cannot read layer %s: %w", a.layer, err)
	}
	if a.scan.err != nil {
		err = a.scan.err
	}
	if errors.Is(err, errNotGzip) {
		return &Refusal{Layer: a.layer, Rule: err.Error(), Hint: "make one with deployctl pack or tar czf"}
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return a.refuse("the archive ends too early")
	}
	return a.refuse("%s", strings.TrimPrefix(err.Error(), "archive/"))
}

// stopped returns why the call should end.
func (a *archive) stopped() error {
	if a.ctx.Err() == nil {
		return nil
	}
	return fmt.Errorf("cannot read layer %s: %w", a.layer, context.Cause(a.ctx))
}

// next returns the next entry, or io.EOF when the archive was read to its end
// and is whole.
func (a *archive) next() (*entry, error) {
	if err := a.stopped(); err != nil {
		return nil, err
	}
	a.scan.entry = raw{} // a fault before the next header has no name
	h, err := a.tar.Next()
	for err == nil && a.scan.err == nil && h.Typeflag == tar.TypeXGlobalHeader {
		h, err = a.tar.Next()
	}
	if err == io.EOF && a.scan.err == nil {
		return nil, a.end()
	}
	a.number++
	a.name = a.scan.entry.name
	if err != nil || a.scan.err != nil {
		if a.scan.next.headers > 0 {
			a.name = "" // the fault is in a header that comes before the name
		}
		return nil, a.fault(err)
	}
	return a.check(h)
}

// end reads on to the end of the gzip stream, behind the end of tar's.
func (a *archive) end() error {
	a.name = ""
	_, err := io.Copy(io.Discard, a.scan)
	if err == nil {
		err = a.scan.end()
	}
	if err == nil && a.number == 0 {
		err = errors.New("holds no entries")
	}
	if err != nil {
		a.number = 0
		return a.fault(err)
	}
	return io.EOF
}

// check holds h to the rules and to what the blocks say.
func (a *archive) check(h *tar.Header) (*entry, error) {
	e := &entry{number: a.number, mode: uint32(h.Mode) & 0o7777, uid: h.Uid, gid: h.Gid, mtime: h.ModTime, sparse: a.scan.entry.sparse}
	raw := a.scan.entry
	if h.Name != raw.name || h.Linkname != raw.link {
		return nil, a.refuse("two readers of tar would see different names")
	}
	var ok bool
	if e.kind, ok = entryKind(h, raw.typ); !ok {
		return nil, a.refuse("type %q is not a file, directory or link", raw.typ)
	}
	if e.kind != file && raw.size != 0 {
		return nil, a.refuse("%s with data", kindNames[e.kind])
	}
	if e.kind == file && !e.sparse && h.Size != raw.size {
		return nil, a.refuse("two readers of tar would see different sizes")
	}
	if h.Uid < 0 || h.Gid < 0 || h.Uid >= math.MaxUint32 || h.Gid >= math.MaxUint32 {
		return nil, a.refuse("owner %d:%d is out of range", h.Uid, h.Gid)
	}
	var err error
	if e.path, err = splitName(h.Name, e.kind); err != nil {
		return nil, a.refuse("%v", err)
	}
	if err := a.content(h, e); err != nil {
		return nil, err
	}
	return e, a.attributes(h, e)
}

// content holds what e stands for to the rules of its kind.
func (a *archive) content(h *tar.Header, e *entry) (err error) {
	switch e.kind {
	case file:
		e.size = h.Size
		if h.Size < 0 || h.Size > a.o.Limits.Unpacked-a.unpacked {
			return a.refuse("unpacks to more than %d bytes (limit Unpacked)", a.o.Limits.Unpacked)
		}
		a.unpacked += h.Size
		if e.mode&0o6000 != 0 && !a.o.Privileged {
			return a.refuse("setuid or setgid file")
		}
	case symlink:
		e.target = h.Linkname
		switch {
		case e.target == "":
			return a.refuse("target of the symlink is empty")
		case len(e.target) > maxPath:
			return a.refuse("target of the symlink is longer than %d bytes", maxPath)
		}
	case hardLink:
		if e.linkTo, err = splitName(h.Linkname, file); err != nil {
			return a.refuse("target %s of the hard link: %v", quote(h.Linkname), err)
		}
	}
	return nil
}

// entryKind maps the type flag; raw is the flag before archive/tar looked at
// the name.
func entryKind(h *tar.Header, raw byte) (kind, bool) {
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		return file, true
	case tar.TypeDir:
		return dir, raw == tar.TypeDir || raw == 0
	case tar.TypeSymlink:
		return symlink, true
	case tar.TypeLink:
		return hardLink, true
	}
	return 0, false
}

// Read reads the content of the current entry. Errors are as those of next.
func (a *archive) Read(p []byte) (int, error) {
	if err := a.stopped(); err != nil {
		return 0, err
	}
	n, err := a.tar.Read(p)
	if err != nil && err != io.EOF || a.scan.err != nil {
		return n, a.fault(err)
	}
	return n, err
}
