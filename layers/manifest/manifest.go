// Package manifest says what a tree holds: one Entry for each file, directory
// and symbolic link, with mode, owner, size and digest. The registry keeps one
// for each layer, the agent one beside each root.
//
// The text form is one line an entry, sorted by path in byte order:
//
//	deploy-manifest 1
//	d 0755 0 0 0 - etc
//	f 0644 0 33 5 2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824 etc/motd
//	l 0777 0 0 0 ../run/lock var/lock
//
// that is type, permissions in octal, user, group, size in bytes, then the
// digest of a file or the target of a link, then the path. Paths and targets
// keep their bytes; space, percent, control characters and everything that is
// not ASCII are written as %XX.
//
// The package is pure. A Manifest is plain data: safe for concurrent reading.
package manifest

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"
	"strings"

	"deploytools/layers/digest"
)

// Header is the first line; its number is the version of the format.
const Header = "deploy-manifest 1"

// ErrInvalid says that a text is no manifest that this version can read.
var ErrInvalid = errors.New("not a valid manifest")

// Type is the kind of an entry.
type Type byte

// The kinds of entries. A hard link is a file like the others.
const (
	File    Type = 'f'
	Dir     Type = 'd'
	Symlink Type = 'l'
)

// Entry is one name in a tree.
type Entry struct {
	Path   string // relative, slash-separated, clean; any bytes but NUL
	Type   Type
	Mode   uint32 // permission bits, setuid, setgid and sticky: at most 07777
	UID    int
	GID    int
	Size   int64         // bytes; files only
	Digest digest.Digest // files only
	Target string        // symbolic links only; any bytes but NUL
}

// Manifest is a tree's entries sorted by path, each path once. The tree's own
// top directory is not among them.
type Manifest []Entry

// Sort puts the entries in the order that the text form has.
func (m Manifest) Sort() {
	slices.SortFunc(m, func(a, b Entry) int { return cmp.Compare(a.Path, b.Path) })
}

// Encode writes the text form of entries that are sorted by path; nil: of none. The
// first error among them ends it.
func Encode(w io.Writer, entries iter.Seq2[Entry, error]) error {
	if entries == nil {
		entries = Manifest{}.All()
	}
	b := bufio.NewWriter(w)
	fmt.Fprintln(b, Header)
	for e, err := range entries {
		if err != nil {
			return err
		}
		b.Write(appendLine(b.AvailableBuffer(), e))
	}
	return b.Flush()
}

func appendLine(b []byte, e Entry) []byte {
	b = fmt.Appendf(b, "%c %04o %d %d %d ", e.Type, e.Mode, e.UID, e.GID, e.Size)
	switch e.Type {
	case File:
		b = hex.AppendEncode(b, e.Digest[:])
	case Symlink:
		b = appendEscaped(b, e.Target)
	default:
		b = append(b, '-')
	}
	return append(appendEscaped(append(b, ' '), e.Path), '\n')
}

// Encode writes the text form. The entries must be sorted.
func (m Manifest) Encode(w io.Writer) error { return Encode(w, m.All()) }

// Digest returns the digest of the text form.
func (m Manifest) Digest() digest.Digest {
	w := digest.NewWriter()
	m.Encode(w) // neither w nor a Manifest can fail
	return w.Digest()
}

// maxLine holds a path and a link's target of 4095 bytes each, all escaped.
const maxLine = 32 << 10

// Read yields the entries of the text form as it reads them. Whatever Encode
// cannot have written ends the loop with ErrInvalid, named with its line.
func Read(r io.Reader) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		s := bufio.NewScanner(r)
		s.Buffer(make([]byte, 4096), maxLine)
		if !s.Scan() || s.Text() != Header {
			yield(Entry{}, cmp.Or(s.Err(), fmt.Errorf("line 1 is not %q: %w", Header, ErrInvalid)))
			return
		}
		last := ""
		for line := 2; s.Scan(); line++ {
			e, err := parse(s.Text())
			if err == nil && e.Path <= last {
				err = errors.New("not sorted by path")
			}
			if err != nil {
				yield(Entry{}, fmt.Errorf("line %d: %w: %w", line, err, ErrInvalid))
				return
			}
			if last = e.Path; !yield(e, nil) {
				return
			}
		}
		if err := s.Err(); err != nil {
			yield(Entry{}, fmt.Errorf("%w: %w", err, ErrInvalid))
		}
	}
}

// Decode is Read of all entries.
func Decode(r io.Reader) (Manifest, error) { return Collect(Read(r)) }

// Collect returns the entries, or the first error among them.
func Collect(entries iter.Seq2[Entry, error]) (Manifest, error) {
	var m Manifest
	for e, err := range entries {
		if err != nil {
			return nil, err
		}
		m = append(m, e)
	}
	return m, nil
}

func parse(line string) (Entry, error) {
	f := strings.Split(line, " ")
	if len(f) != 7 || len(f[0]) != 1 {
		return Entry{}, errors.New("not seven fields")
	}
	e := Entry{Type: Type(f[0][0])}
	mode, err1 := strconv.ParseUint(f[1], 8, 12)
	uid, err2 := strconv.ParseUint(f[2], 10, 32)
	gid, err3 := strconv.ParseUint(f[3], 10, 32)
	size, err4 := strconv.ParseUint(f[4], 10, 63)
	path, err5 := Unescape(f[6])
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		return Entry{}, err
	}
	e.Mode, e.UID, e.GID, e.Size, e.Path = uint32(mode), int(uid), int(gid), int64(size), path
	var err error
	switch e.Type {
	case File:
		e.Digest, err = digest.Parse(f[5])
	case Symlink:
		e.Target, err = Unescape(f[5])
	case Dir:
		if f[5] != "-" {
			err = errors.New("a directory has no content")
		}
	default:
		err = fmt.Errorf("unknown type %q", f[0])
	}
	if err == nil && e.Type != File && e.Size != 0 {
		err = errors.New("only files have a size")
	}
	if err == nil && e.Path == "" {
		err = errors.New("no path")
	}
	return e, err
}

// Escape writes space, percent, control characters and all bytes outside ASCII
// as %XX, so that any name is one safe word. The empty text becomes "%".
func Escape(s string) string { return string(appendEscaped(nil, s)) }

func appendEscaped(b []byte, s string) []byte {
	if s == "" {
		return append(b, '%')
	}
	if plain(s) {
		return append(b, s...)
	}
	for i := range len(s) {
		if one := s[i : i+1]; plain(one) {
			b = append(b, one...)
		} else {
			b = fmt.Appendf(b, "%%%02X", s[i])
		}
	}
	return b
}

// plain reports whether s is as Escape writes it, without an escape.
func plain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '%' {
			return false
		}
	}
	return true
}

// Unescape reads what Escape wrote, and nothing else.
func Unescape(s string) (string, error) {
	if s == "%" {
		return "", nil
	}
	if s != "" && plain(s) {
		return s, nil
	}
	var b bytes.Buffer
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b.WriteByte(s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", fmt.Errorf("%q ends inside an escape", s)
		}
		v, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
		if err != nil {
			return "", fmt.Errorf("%q has a bad escape", s)
		}
		b.WriteByte(byte(v))
		i += 2
	}
	if r := b.String(); Escape(r) == s {
		return r, nil
	}
	return "", fmt.Errorf("%q is not as it would be escaped", s)
}
