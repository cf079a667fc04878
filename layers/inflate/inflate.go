package inflate

import (
	"bufio"
	"errors"
	"fmt"
	"io"
)

// Window is how far back a match can reach (RFC 1951 section 2).
const Window = 32 << 10

// CorruptError says that a stream is no DEFLATE stream. Its value is how many
// bytes of the stream had been read.
type CorruptError int64

func (e CorruptError) Error() string {
	return fmt.Sprintf("corrupt deflate stream at byte %d", int64(e))
}

// errFull says that there is no room for what comes next.
var errFull = errors.New("full")

// Decoder decodes one stream after the other. It is not safe for concurrent use.
type Decoder struct {
	src  *bufio.Reader // nil: in is all there is
	in   []byte        // input at hand
	pos  int           // bytes of in that are in the bit buffer or used up
	bits uint64        // bit buffer, next bit lowest; above n bits as they follow, or 0
	n    uint          // how many of them were taken from in
	read int64         // bytes of the stream before in
	out  int64         // bytes decoded in earlier calls

	part  func(d *Decoder, buf []byte, at int) (int, error) // of the stream, that comes next
	final bool                                              // this block is the last
	left  int                                               // bytes of the stored block or the match that are still to come
	back  int                                               // distance of the match
	err   error                                             // of an earlier call
	lit   *litTable
	dist  *distTable

	ownLit  litTable
	ownDist distTable
	pre     [1 << preBits]entry
	lengths [litSymbols + distSymbols]uint8
}

// Reset starts with the stream that begins where r is. Decode reads from r.
func (d *Decoder) Reset(r *bufio.Reader) {
	d.src, d.in, d.pos = r, nil, 0
	d.bits, d.n, d.read, d.out, d.final, d.err = 0, 0, 0, 0, false, nil
	d.part = (*Decoder).header
}

// Decode decodes into buf from index at on, and returns the index behind what
// it decoded. It returns when the next byte does not fit, at the end of the
// stream with io.EOF, or with another error. The bytes before at are the
// history: the last Window bytes that this stream decoded to, or all of them if
// they are fewer. What else stands before them does not matter.
//
// After each call the reader is where the decoder is: at io.EOF, behind the last
// byte of the stream. It is not read for more than the stream needs. A stream
// that goes on where the reader ends is io.ErrUnexpectedEOF, one that is wrong a
// CorruptError, and other errors are the reader's. Each further call returns the
// same error.
func (d *Decoder) Decode(buf []byte, at int) (int, error) {
	d.in, _ = d.src.Peek(d.src.Buffered())
	n, err := d.decode(buf, at)
	d.sync()
	d.out += int64(n - at)
	return n, err
}

// Whole decodes the stream at the start of in into buf. It returns how many
// bytes of each it took. Errors are those of Decode, and io.ErrShortBuffer when
// the next byte does not fit.
func (d *Decoder) Whole(buf, in []byte) (written, read int, err error) {
	d.Reset(nil)
	d.in = in
	written, err = d.decode(buf, 0)
	switch err {
	case nil:
		err = io.ErrShortBuffer
	case io.EOF:
		err = nil
	}
	d.unread()
	read, d.in = d.pos, nil
	return written, read, err
}

// decode runs the parts of the stream until the first error. Each part says in
// d.part what comes after it.
func (d *Decoder) decode(buf []byte, at int) (int, error) {
	base := int(max(0, int64(at)-d.out)) // what stands before it is not of this stream
	buf, at = buf[base:], at-base
	for d.err == nil {
		at, d.err = d.part(d, buf, at)
	}
	err := d.err
	if err == errFull {
		err, d.err = nil, nil
	}
	return base + at, err
}
