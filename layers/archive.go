package layers

import (
	"archive/tar"
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
	capability string // value of security.capability, binary
}

func (e *entry) name() string { return strings.Join(e.path, "/") }

// archive reads one layer: every rule of docs/layer-format.md that can be seen
// without the rest of the tree.
type archive struct {
	layer string
	o     Options
	src   *source
	zip   *gunzip
	scan  *scanner
	tar   *tar.Reader

	number   int
	name     string // of the current entry, for messages
	out      int64  // bytes out of gzip
	unpacked int64
	xattrs   string // the first entry with attributes that are not applied
}

func openArchive(layer string, r io.Reader, o Options) *archive {
	o.Limits = o.Limits.withDefaults()
	a := &archive{layer: layer, o: o, src: &source{r: r, hash: digest.NewWriter()}}
	a.zip = newGunzip(a.src)
	a.scan = &scanner{r: ratioReader{a}, limits: o.Limits}
	a.tar = tar.NewReader(a.scan)
	return a
}

func (a *archive) close() { a.zip.Close() }

// ratioReader counts what comes out of gzip.
type ratioReader struct{ a *archive }

func (r ratioReader) Read(p []byte) (int, error) {
	n, err := r.a.zip.Read(p)
	r.a.out += int64(n)
	if r.a.out > ratioFree && r.a.out/r.a.o.Limits.Ratio > r.a.src.count.Load() {
		return n, fmt.Errorf("unpacks to more than %d times its size (limit Ratio)", r.a.o.Limits.Ratio)
	}
	return n, err
}

// refuse makes a Refusal of the current entry.
func (a *archive) refuse(format string, args ...any) error {
	return &Refusal{a.layer, a.number, a.name, fmt.Sprintf(format, args...)}
}

// fault turns an error of reading into what it means: an error of the source
// as it is, else a Refusal.
func (a *archive) fault(err error) error {
	if e, ok := errors.AsType[*sourceError](err); ok {
		return fmt.Errorf("cannot read layer %s: %w", a.layer, e.err)
	}
	if a.scan.err != nil {
		err = a.scan.err
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return a.refuse("the archive ends too early")
	}
	return a.refuse("%s", strings.TrimPrefix(err.Error(), "archive/"))
}

// next returns the next entry, or io.EOF when the archive was read to its end
// and is whole.
func (a *archive) next() (*entry, error) {
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
	if a.number > a.o.Limits.Entries {
		return nil, a.refuse("more than %d entries (limit Entries)", a.o.Limits.Entries)
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
	if len(e.path) == 0 && e.kind != dir {
		return nil, a.refuse("name is empty")
	}
	switch e.kind {
	case file:
		e.size = h.Size
		a.unpacked += h.Size
		if h.Size < 0 || a.unpacked < 0 || a.unpacked > a.o.Limits.Unpacked {
			return nil, a.refuse("unpacks to more than %d bytes (limit Unpacked)", a.o.Limits.Unpacked)
		}
		if e.mode&0o6000 != 0 && !a.o.Privileged {
			return nil, a.refuse("setuid or setgid file")
		}
	case symlink:
		e.target = h.Linkname
		if e.target == "" || len(e.target) > maxPath || strings.Contains(e.target, "\x00") {
			return nil, a.refuse("target of the symlink is empty, too long or holds a NUL")
		}
	case hardLink:
		if e.linkTo, err = splitName(h.Linkname, file); err != nil || len(e.linkTo) == 0 {
			return nil, a.refuse("target %q of the hard link: %v", h.Linkname, orEmpty(err))
		}
	}
	return e, a.attributes(h, e)
}

func orEmpty(err error) error {
	if err == nil {
		return errors.New("name is empty")
	}
	return err
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

// attributes looks at the extended attributes, in the two spellings that pax
// headers have for them.
func (a *archive) attributes(h *tar.Header, e *entry) error {
	for k, v := range h.PAXRecords {
		name, ok := strings.CutPrefix(k, "SCHILY.xattr.")
		if !ok {
			if name, ok = strings.CutPrefix(k, "LIBARCHIVE.xattr."); !ok && !strings.HasPrefix(k, "SCHILY.acl.") {
				continue
			}
			v = ""
		}
		switch {
		case name == "security.capability" && (!a.o.Privileged || e.kind != file):
			return a.refuse("file capability (security.capability)")
		case name == "security.capability" && v != "":
			e.capability = v
		case name != "security.capability" && a.xattrs == "":
			a.xattrs = fmt.Sprintf("layer %s: extended attributes and ACLs are not applied (entry %d %q is the first that has some)", a.layer, e.number, a.name)
		}
	}
	return nil
}

// splitName returns the components of an archive's name: what is checked here
// is what is written. The top directory, "./", has none.
func splitName(s string, k kind) ([]string, error) {
	if strings.HasPrefix(s, "/") {
		return nil, errors.New("name is absolute")
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 0x7f {
			return nil, errors.New("name holds a control character")
		}
	}
	top := s == "." || s == "./"
	for strings.HasPrefix(s, "./") {
		s = s[2:]
	}
	if k == dir {
		s = strings.TrimSuffix(s, "/")
	}
	if k == dir && (top || s == "" || s == ".") {
		if !top {
			return nil, errors.New("name is empty")
		}
		return nil, nil
	}
	if len(s) > maxPath {
		return nil, fmt.Errorf("name is longer than %d bytes", maxPath)
	}
	path := strings.Split(s, "/")
	if len(path) > maxDepth {
		return nil, fmt.Errorf("name is deeper than %d directories", maxDepth)
	}
	for _, c := range path {
		switch {
		case c == "":
			return nil, errors.New("name is empty, doubles a slash or ends in one")
		case c == ".":
			return nil, errors.New(`name has the component "."`)
		case c == "..":
			return nil, errors.New(`name has the component ".."`)
		case len(c) > maxComponent:
			return nil, fmt.Errorf("name has a component longer than %d bytes", maxComponent)
		}
	}
	return path, nil
}

// Read reads the content of the current entry. Errors are as those of next.
func (a *archive) Read(p []byte) (int, error) {
	n, err := a.tar.Read(p)
	if err != nil && err != io.EOF || a.scan.err != nil {
		return n, a.fault(err)
	}
	return n, err
}
