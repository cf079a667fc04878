package layers

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// archive/tar hides where readers of tar differ: it drops data that belongs to
// a directory or link, merges headers, and stops at the end blocks. A scanner
// watches the raw blocks on their way to it, refuses what two readers could
// take for different things, and says what name and size it saw, so that both
// can be compared. Field offsets are those of pax(1), "ustar Interchange
// Format", and of the GNU tar manual, "Basic Tar Format".
type scanner struct {
	r      io.Reader
	limits Limits
	err    error // sticky: the rule that is broken

	block [512]byte
	have  int   // bytes of block
	skip  int64 // bytes of data and padding before the next header

	ext     []byte // data of an extension header, while it arrives
	extLeft int64
	extType byte

	next  raw  // the entry whose extension headers have been read
	entry raw  // the last entry whose header has been read
	zeros int  // end blocks seen
	more  bool // the next block goes on with an old GNU sparse map
}

// raw is what the blocks say of an entry.
type raw struct {
	typ            byte
	name           string // as in the archive
	link           string
	size           int64 // bytes of data that follow the header
	sparse         bool
	pax            map[string]string
	long, longLink bool // a GNU long name, a GNU long link name was given
	headers        int
	bytes          int64
}

func (s *scanner) Read(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	n, err := s.r.Read(p)
	if s.err = s.feed(p[:n]); s.err != nil {
		return n, s.err
	}
	return n, err
}

// feed takes the next bytes of the stream.
func (s *scanner) feed(p []byte) error {
	for len(p) > 0 {
		if s.zeros >= 2 {
			if len(bytes.TrimLeft(p, "\x00")) > 0 {
				return errors.New("data follows the end of the archive")
			}
			return nil
		}
		if s.skip > 0 {
			n := min(s.skip, int64(len(p)))
			if m := min(n, s.extLeft); m > 0 {
				s.ext = append(s.ext, p[:m]...)
				s.extLeft -= m
			}
			s.skip -= n
			p = p[n:]
			if s.extLeft == 0 && s.extType != 0 {
				if err := s.extension(); err != nil {
					return err
				}
			}
			continue
		}
		n := copy(s.block[s.have:], p)
		s.have += n
		p = p[n:]
		if s.have == len(s.block) {
			s.have = 0
			if err := s.header(); err != nil {
				return err
			}
		}
	}
	return nil
}

// header takes one whole block that is not data.
func (s *scanner) header() error {
	b := s.block[:]
	if s.more {
		s.more = b[504] != 0
		if !s.more {
			s.skip = padded(s.entry.size)
		}
		return nil
	}
	if bytes.Count(b, []byte{0}) == len(b) {
		if s.zeros == 0 && s.next.headers > 0 {
			return errors.New("extension header without an entry")
		}
		s.zeros++
		return nil
	}
	if s.zeros > 0 {
		return errors.New("a single zero block stands between entries")
	}
	switch m := string(b[257:265]); m {
	case "ustar\x0000", "ustar  \x00", "\x00\x00\x00\x00\x00\x00\x00\x00":
	default:
		return fmt.Errorf("unknown kind of tar header (%q)", m)
	}
	size, err := number(b[124:136])
	if err != nil {
		return fmt.Errorf("size field: %w", err)
	}
	switch typ := b[156]; typ {
	case 'x', 'g', 'L', 'K':
		return s.startExtension(typ, size)
	default:
		return s.startEntry(typ, size)
	}
}

func (s *scanner) startExtension(typ byte, size int64) error {
	n := &s.next
	n.headers++
	n.bytes += size
	switch {
	case n.headers > s.limits.Headers:
		return fmt.Errorf("more than %d extension headers in a row (limit Headers)", s.limits.Headers)
	case n.bytes > s.limits.HeaderBytes:
		return fmt.Errorf("extension headers of more than %d bytes (limit HeaderBytes)", s.limits.HeaderBytes)
	case size == 0 && typ != 'g':
		return errors.New("empty extension header")
	case n.pax != nil, typ != 'L' && typ != 'K' && (n.long || n.longLink), typ == 'L' && n.long, typ == 'K' && n.longLink:
		return errors.New("two extension headers speak of the same entry")
	}
	s.ext, s.extLeft, s.extType, s.skip = s.ext[:0], size, typ, padded(size)
	if size == 0 {
		return s.extension()
	}
	return nil
}

// extension takes the data of an extension header.
func (s *scanner) extension() error {
	typ := s.extType
	s.extType = 0
	text := strings.TrimRight(string(s.ext), "\x00")
	if typ == 'L' || typ == 'K' {
		if strings.Contains(text, "\x00") {
			return errors.New("long name holds a NUL")
		}
		if typ == 'L' {
			s.next.name, s.next.long = text, true
		} else {
			s.next.link, s.next.longLink = text, true
		}
		return nil
	}
	pax, err := paxRecords(string(s.ext))
	if err != nil {
		return err
	}
	if typ == 'x' {
		s.next.pax = pax
		return nil
	}
	for k := range pax {
		// A reader may or may not apply a global header; a comment is all that
		// cannot matter (git archive writes one).
		if k != "comment" {
			return fmt.Errorf("global extension header sets %s", quote(k))
		}
	}
	return nil
}

func (s *scanner) startEntry(typ byte, size int64) error {
	e, b := s.next, s.block[:]
	e.typ, e.size = typ, size
	if !e.long {
		e.name = cString(b[0:100])
		if prefix := cString(b[345:500]); prefix != "" && string(b[257:265]) == "ustar\x0000" {
			e.name = prefix + "/" + e.name
		}
	}
	if !e.longLink {
		e.link = cString(b[157:257])
	}
	e.name = cmp.Or(e.pax["GNU.sparse.name"], e.pax["path"], e.name)
	e.link = cmp.Or(e.pax["linkpath"], e.link)
	paxSparse, err := sparseForm(e.pax)
	if err == nil {
		e.size, err = e.paxSize()
	}
	e.sparse = typ == 'S' || paxSparse
	s.next, s.entry = raw{}, e
	switch {
	case err != nil:
		return err
	case typ == 'S' && paxSparse:
		return errors.New("two sparse maps")
	case typ == 'S' && b[482] != 0:
		s.more = true
	default:
		s.skip = padded(e.size)
	}
	return nil
}

// end says what is wrong where the stream ends.
func (s *scanner) end() error {
	switch {
	case s.err != nil:
		return s.err
	case s.skip > 0 || s.have > 0 && s.zeros < 2 || s.more:
		return io.ErrUnexpectedEOF
	case s.next.headers > 0:
		return errors.New("extension header without an entry")
	}
	return nil
}

// padded rounds up to whole blocks. A size that overflows is over every limit
// before it matters.
func padded(size int64) int64 {
	if size > 1<<62 {
		return 1 << 62
	}
	return (size + 511) &^ 511
}

func cString(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	return string(b)
}

// number reads a numeric field: octal digits ended by spaces or NULs, or base
// 256 with the top bit set. Negative and overflowing numbers are errors.
func number(b []byte) (int64, error) {
	if b[0]&0x80 != 0 {
		n := uint64(b[0] & 0x7f)
		for _, c := range b[1:] {
			if n >= 1<<55 {
				return 0, errors.New("number is out of range")
			}
			n = n<<8 | uint64(c)
		}
		return int64(n), nil
	}
	s := strings.TrimLeft(strings.TrimRight(string(b), " \x00"), " ")
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(s, 8, 63)
	if err != nil {
		return 0, fmt.Errorf("%q is not an octal number", s)
	}
	return int64(n), nil
}
