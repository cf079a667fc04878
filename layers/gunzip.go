package layers

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"runtime"
	"slices"
	"sync"

	"deploytools/layers/digest"
	"deploytools/layers/inflate"
)

// A gzip file may consist of several members (RFC 1952 section 2.2). Pack
// writes members of memberBytes each, whose extra field (section 2.3.1.1) is
// the subfield "DT" with the member's length in the archive: a reader that
// knows it inflates members in parallel, any other just reads on.
const (
	memberBytes     = 1 << 20         // unpacked bytes of a sized member, at most
	memberHeaderLen = 10 + 2 + 4 + 4  // fixed part, XLEN, subfield header, length
	memberMax       = memberBytes * 2 // archive bytes of a sized member, at most
)

// memberHeader is the header of a sized member but for its length: magic,
// deflate, FEXTRA, no time, no flags, unknown system, XLEN 8, "DT", 4.
var memberHeader = []byte{0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255, 8, 0, 'D', 'T', 4, 0}

// sourceError is an error of the reader that an archive came from, as opposed
// to an error in the archive.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return e.err.Error() }
func (e *sourceError) Unwrap() error { return e.err }

// source hashes and counts the archive's bytes on their way in, until ctx ends.
// Whoever reads has hash and count.
type source struct {
	ctx   context.Context
	r     io.Reader
	hash  *digest.Writer // nil: not wanted
	count int64
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if s.hash != nil {
		s.hash.Write(p[:n])
	}
	s.count += int64(n)
	if err != io.EOF && s.ctx.Err() != nil {
		err = context.Cause(s.ctx) // closing the source may be how it was stopped
	}
	if err != nil && err != io.EOF {
		err = &sourceError{err}
	}
	return n, err
}

// errStopped ends the goroutines of a gunzip whose reader has gone.
var errStopped = errors.New("stopped")

var errChecksum = errors.New("gzip: invalid checksum")

// errNotGzip says what stands at the start, or where a member ends.
var errNotGzip = errors.New("is not gzip, or has something else behind it")

// gunzip unpacks a gzip stream on goroutines of its own, ahead of its reader by
// a bounded number of pieces. It reads the stream to its end, so that every
// checksum is compared and nothing can follow the last member.
type gunzip struct {
	pieces chan chan piece // in the order of the stream
	stop   chan struct{}
	once   sync.Once // closes stop
	wg     sync.WaitGroup

	ratio int64  // Limits.Ratio
	out   int64  // unpacked bytes of the pieces so far
	data  []byte // rest of the current piece
	buf   *buffer
	err   error // after data
}

// piece is a part of the unpacked stream.
type piece struct {
	buf  *buffer // that data lies in; nil if there is none
	data []byte
	in   int64 // where it ends in the archive
	err  error // after data; io.EOF at the stream's end
}

// buffer is what a piece is decoded into: a whole member of known size, or behind
// the Window before it a part of one.
type buffer [memberBytes]byte

// Buffers, members as they come, and decoders are reused by all streams.
var (
	buffers  = sync.Pool{New: func() any { return new(buffer) }}
	members  = sync.Pool{New: func() any { return new([]byte) }}
	decoders = sync.Pool{New: func() any { return new(inflate.Decoder) }}
)

// newMember returns a buffer of size bytes for a sized member.
func newMember(size int) *[]byte {
	b := members.Get().(*[]byte)
	*b = slices.Grow((*b)[:0], size)[:size]
	return b
}

// parallel is how many members are inflated at the same time: more would need
// more memory, and no disk keeps up with so many.
func parallel() int { return min(runtime.GOMAXPROCS(0), 8) }

func newGunzip(src *source, ratio int64) *gunzip {
	z := &gunzip{pieces: make(chan chan piece, parallel()+1), stop: make(chan struct{}), ratio: ratio}
	z.wg.Go(func() {
		defer close(z.pieces)
		z.run(&compressed{bufio.NewReaderSize(src, 256<<10), src})
	})
	return z
}

// Read returns the unpacked bytes. Errors are a *sourceError or say what is
// wrong with the archive.
func (z *gunzip) Read(p []byte) (int, error) {
	for len(z.data) == 0 {
		if z.err != nil {
			return 0, z.err
		}
		z.release()
		next, ok := <-z.pieces
		if !ok {
			z.err = errStopped
			continue
		}
		got := <-next
		z.data, z.buf, z.err = got.data, got.buf, got.err
		z.out += int64(len(got.data))
		if len(got.data) > 0 && z.out > ratioFree && z.out/z.ratio > got.in {
			z.data, z.err = nil, fmt.Errorf("unpacks to more than %d times its size (limit Ratio)", z.ratio)
		}
	}
	n := copy(p, z.data)
	z.data = z.data[n:]
	return n, nil
}

func (z *gunzip) release() {
	if z.buf != nil {
		buffers.Put(z.buf)
		z.buf = nil
	}
}

// Close ends the goroutines and waits for them: at most until the source's
// current Read returns. Closing again does nothing.
func (z *gunzip) Close() {
	z.once.Do(func() { close(z.stop) })
	for next := range z.pieces {
		<-next
	}
	z.wg.Wait()
}

// emit queues a place for the next piece; false: the reader has gone.
func (z *gunzip) emit() (chan piece, bool) {
	c := make(chan piece, 1)
	select {
	case <-z.stop:
		return nil, false
	case z.pieces <- c:
		return c, true
	}
}

// compressed is the archive as it is read ahead.
type compressed struct {
	*bufio.Reader
	src *source
}

// pos returns how many bytes of the archive were taken, which does not depend
// on how they arrived.
func (c *compressed) pos() int64 { return c.src.count - int64(c.Buffered()) }

func (z *gunzip) run(in *compressed) {
	slots := make(chan struct{}, parallel())
	for first := true; ; first = false {
		head, err := in.Peek(memberHeaderLen)
		if err == io.EOF && len(head) == 0 && !first {
			z.fail(io.EOF)
			return
		}
		if !bytes.HasPrefix(head, memberHeader[:min(2, len(head))]) {
			z.fail(errNotGzip)
			return
		}
		if !bytes.HasPrefix(head, memberHeader) || len(head) < memberHeaderLen {
			z.generic(in)
			return
		}
		size := binary.LittleEndian.Uint32(head[len(memberHeader):])
		if size < memberHeaderLen+8 || size > memberMax {
			z.fail(fmt.Errorf("gzip member gives its size as %d bytes", size))
			return
		}
		member := newMember(int(size))
		if _, err := io.ReadFull(in, *member); err != nil {
			z.fail(err)
			return
		}
		at := in.pos()
		c, ok := z.emit()
		if !ok {
			return
		}
		slots <- struct{}{}
		z.wg.Go(func() {
			p := inflateMember(*member)
			members.Put(member)
			p.in = at
			c <- p
			<-slots
		})
	}
}

func (z *gunzip) fail(err error) {
	if c, ok := z.emit(); ok {
		c <- piece{err: err}
	}
}

// pieceBytes is how much of a stream without sized members is decoded at a time:
// little enough that it is still in the cache when it is read.
const pieceBytes = 256 << 10

// generic reads members of any kind one after the other.
func (z *gunzip) generic(in *compressed) {
	m := memberReader{in: in.Reader, d: decoders.Get().(*inflate.Decoder)}
	defer decoders.Put(m.d)
	var history []byte
	for {
		buf := buffers.Get().(*buffer)
		start := copy(buf[:], history)
		n, err := m.decode(buf[:start+pieceBytes], start)
		// Taken before the piece goes: whoever reads it gives the buffer back.
		history = append(history[:0], buf[max(0, n-inflate.Window):n]...)
		c, ok := z.emit()
		if !ok {
			return
		}
		c <- piece{buf, buf[start:n], in.pos(), err}
		if err != nil {
			return
		}
	}
}

// inflateMember unpacks one sized member and holds it to what it says of itself.
func inflateMember(member []byte) piece {
	body, trailer := member[memberHeaderLen:len(member)-8], member[len(member)-8:]
	d, buf := decoders.Get().(*inflate.Decoder), buffers.Get().(*buffer)
	n, read, err := d.Whole(buf[:], body)
	decoders.Put(d)
	switch {
	case err == io.ErrShortBuffer:
		err = fmt.Errorf("gzip member of known size unpacks to more than %d bytes", memberBytes)
	case err == io.ErrUnexpectedEOF:
		err = errors.New("gzip member goes on after its size")
	case err == nil && read < len(body):
		err = fmt.Errorf("gzip member ends %d bytes before its size", len(body)-read)
	case err == nil && binary.LittleEndian.Uint64(trailer) != memberTrailer(crc32.ChecksumIEEE(buf[:n]), int64(n)):
		err = errChecksum
	}
	if err != nil {
		n = 0
	}
	return piece{buf: buf, data: buf[:n], err: err}
}

// memberTrailer returns what follows a member: its checksum and its length,
// modulo 2^32 (RFC 1952 section 2.3.1).
func memberTrailer(sum uint32, size int64) uint64 { return uint64(uint32(size))<<32 | uint64(sum) }
