package layers

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"
	"testing"
)

// The functions below make archives block by block, so that they can say what
// no writer of archives would.

// edit changes a header block before its checksum is made.
type edit func(b []byte)

// field puts s into the bytes from to to of a header.
func field(from, to int, s string) edit {
	return func(b []byte) {
		clear(b[from:to])
		copy(b[from:to], s)
	}
}

func mode(m int) edit { return field(100, 108, fmt.Sprintf("%07o", m)) }
func owner(u, g int) edit {
	return func(b []byte) { field(108, 116, fmt.Sprintf("%07o", u))(b); field(116, 124, fmt.Sprintf("%07o", g))(b) }
}
func size(n int64) edit   { return field(124, 136, fmt.Sprintf("%011o", n)) }
func mtime(s string) edit { return field(136, 148, s) }
func link(to string) edit { return field(157, 257, to) }
func v7(b []byte)         { clear(b[257:]) }
func gnu(b []byte)        { copy(b[257:265], "ustar  \x00") }
func base256(at int, n uint64) edit {
	return func(b []byte) {
		clear(b[at : at+12])
		b[at] = 0x80
		binary.BigEndian.PutUint64(b[at+4:], n)
	}
}

// sum makes the checksum of a header block.
func sum(b []byte) []byte {
	copy(b[148:156], "        ")
	n := 0
	for _, c := range b {
		n += int(c)
	}
	copy(b[148:156], fmt.Sprintf("%06o\x00 ", n))
	return b
}

// head makes a header block of a ustar archive, with the time 1700000000.
func head(typ byte, name string, edits ...edit) []byte {
	b := make([]byte, 512)
	copy(b, name)
	b[156] = typ
	copy(b[257:], "ustar\x0000")
	for _, e := range append([]edit{mode(0o644), owner(0, 0), size(0), mtime("14524575400")}, edits...) {
		e(b)
	}
	return sum(b)
}

// data pads s to whole blocks.
func data(s string) []byte {
	return append([]byte(s), make([]byte, -len(s)&511)...)
}

// reg is a regular file with content.
func reg(name, content string, edits ...edit) []byte {
	return append(head('0', name, append([]edit{size(int64(len(content)))}, edits...)...), data(content)...)
}

func folder(name string, edits ...edit) []byte {
	return head('5', name, append([]edit{mode(0o755)}, edits...)...)
}

func sym(name, target string, edits ...edit) []byte {
	return head('2', name, append([]edit{link(target)}, edits...)...)
}

func hard(name, target string, edits ...edit) []byte {
	return head('1', name, append([]edit{link(target)}, edits...)...)
}

// ext is an extension header of type typ.
func ext(typ byte, content string) []byte {
	return append(head(typ, "ext", size(int64(len(content)))), data(content)...)
}

// pax is an extension header with the records, each "key=value".
func pax(records ...string) []byte { return ext('x', paxText(records...)) }

func paxText(records ...string) string {
	var b strings.Builder
	for _, r := range records {
		n := len(r) + 3
		for len(fmt.Sprintf("%d %s\n", n, r)) != n {
			n++
		}
		fmt.Fprintf(&b, "%d %s\n", n, r)
	}
	return b.String()
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// tarball is a whole archive: the parts, two end blocks, gzip.
func tarball(parts ...[]byte) []byte { return gz(join(join(parts...), make([]byte, 1024))) }

// gz is one plain gzip member.
func gz(b []byte) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	z.Write(b)
	z.Close()
	return out.Bytes()
}

// stored is gz without the effort.
func stored(b []byte) []byte {
	var out bytes.Buffer
	z, _ := gzip.NewWriterLevel(&out, gzip.NoCompression) // a level that exists
	z.Write(b)
	z.Close()
	return out.Bytes()
}

// member is one sized member, by the library's own writer.
func member(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := newGzipWriter(&out, 0)
	if _, err := z.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// sized makes a sized member of deflated data that says it is claimed bytes
// long.
func sized(deflated, content []byte, claimed int) []byte {
	b := append([]byte{}, memberHeader...)
	b = binary.LittleEndian.AppendUint32(b, uint32(claimed))
	b = append(b, deflated...)
	b = binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(content))
	return binary.LittleEndian.AppendUint32(b, uint32(len(content)))
}

// deflated is what gz makes, without header and trailer.
func deflated(content []byte) []byte {
	b := gz(content)
	return b[10 : len(b)-8]
}

// changed is b with the byte at i (from the end, where negative) inverted.
func changed(b []byte, i int) []byte {
	b = bytes.Clone(b)
	if i < 0 {
		i += len(b)
	}
	b[i] ^= 0xff
	return b
}
