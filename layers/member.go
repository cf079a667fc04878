package layers

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"

	"deploytools/layers/inflate"
)

// memberReader reads the members of a gzip stream (RFC 1952) one after the other.
type memberReader struct {
	in     *bufio.Reader
	d      *inflate.Decoder
	inside bool   // a member
	begun  bool   // one has
	sum    uint32 // of the member so far
	size   int64
}

// decode decodes into buf from index at on, behind the history, until buf is
// full; with an error it may be less. At the end of the stream that is io.EOF.
func (m *memberReader) decode(buf []byte, at int) (int, error) {
	for at < len(buf) {
		if !m.inside {
			if err := m.begin(); err != nil {
				return at, err
			}
		}
		n, err := m.d.Decode(buf, at)
		m.sum = crc32.Update(m.sum, crc32.IEEETable, buf[at:n])
		m.size += int64(n - at)
		at = n
		if err == io.EOF {
			err = m.end()
		}
		if err != nil {
			return at, err
		}
	}
	return at, nil
}

// end compares what follows the data of a member.
func (m *memberReader) end() error {
	var trailer [8]byte
	if err := readFull(m.in, trailer[:]); err != nil {
		return err
	}
	if binary.LittleEndian.Uint64(trailer[:]) != memberTrailer(m.sum, m.size) {
		return errChecksum
	}
	m.inside = false
	return nil
}

// Flags of a member's header.
const (
	flagChecksum = 1 << (iota + 1)
	flagExtra
	flagName
	flagComment
)

// maxMemberText is how long a name or comment may be, as in compress/gzip.
const maxMemberText = 511

// begin reads the header of the next member; io.EOF says that there is none.
func (m *memberReader) begin() error {
	if _, err := m.in.Peek(1); err == io.EOF && m.begun {
		return io.EOF
	}
	var fixed [10]byte
	if err := readFull(m.in, fixed[:]); err != nil {
		return err
	}
	flags := fixed[3]
	if !bytes.HasPrefix(fixed[:], memberHeader[:3]) {
		return errNotGzip
	}
	header := fixed[:]
	if flags&flagExtra != 0 {
		var size [2]byte
		if err := readFull(m.in, size[:]); err != nil {
			return err
		}
		extra := make([]byte, binary.LittleEndian.Uint16(size[:]))
		if err := readFull(m.in, extra); err != nil {
			return err
		}
		header = append(append(header, size[:]...), extra...)
	}
	for _, flag := range []byte{flagName, flagComment} {
		if flags&flag == 0 {
			continue
		}
		start := len(header)
		for end := false; !end; {
			b, err := m.in.ReadByte()
			switch {
			case err == io.EOF:
				return io.ErrUnexpectedEOF
			case err != nil:
				return err
			case len(header)-start > maxMemberText:
				return errNotGzip
			}
			header, end = append(header, b), b == 0
		}
	}
	if flags&flagChecksum != 0 {
		var sum [2]byte
		if err := readFull(m.in, sum[:]); err != nil {
			return err
		}
		if binary.LittleEndian.Uint16(sum[:]) != uint16(crc32.ChecksumIEEE(header)) {
			return errNotGzip
		}
	}
	m.begun, m.inside, m.sum, m.size = true, true, 0, 0
	m.d.Reset(m.in)
	return nil
}

// readFull is io.ReadFull where an end is always too early.
func readFull(r io.Reader, p []byte) error {
	_, err := io.ReadFull(r, p)
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
