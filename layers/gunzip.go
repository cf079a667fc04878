package layers

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"runtime"
	"sync"
	"sync/atomic"

	"deploytools/layers/digest"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
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

// source hashes and counts the archive's bytes on their way in. count may be
// read by others meanwhile.
type source struct {
	r     io.Reader
	hash  *digest.Writer
	count atomic.Int64
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.hash.Write(p[:n])
	s.count.Add(int64(n))
	if err != nil && err != io.EOF {
		err = &sourceError{err}
	}
	return n, err
}

// errStopped ends the goroutines of a gunzip whose reader has gone.
var errStopped = errors.New("stopped")

// gunzip unpacks a gzip stream on goroutines of its own, ahead of its reader by
// a bounded number of pieces. It reads the stream to its end, so that every
// checksum is compared and nothing can follow the last member.
type gunzip struct {
	pieces chan chan piece // in the order of the stream
	stop   chan struct{}
	once   sync.Once // closes stop
	wg     sync.WaitGroup

	data []byte // rest of the current piece
	buf  []byte // its buffer, to be used again
	err  error  // after data
}

type piece struct {
	data []byte
	err  error // after data; io.EOF at the stream's end
}

// pieceBuffers are reused by all streams; each holds memberBytes and one more
// byte, by which a member that is too long is seen.
var pieceBuffers = sync.Pool{New: func() any { b := make([]byte, memberBytes+1); return &b }}

func newGunzip(src io.Reader) *gunzip {
	z := &gunzip{pieces: make(chan chan piece, runtime.GOMAXPROCS(0)+1), stop: make(chan struct{})}
	z.wg.Go(func() {
		defer close(z.pieces)
		z.run(bufio.NewReaderSize(src, 256<<10))
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
		z.data, z.buf, z.err = got.data, got.data, got.err
	}
	n := copy(p, z.data)
	z.data = z.data[n:]
	return n, nil
}

func (z *gunzip) release() {
	if cap(z.buf) > 0 {
		b := z.buf[:cap(z.buf)]
		pieceBuffers.Put(&b)
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

func (z *gunzip) run(in *bufio.Reader) {
	slots := make(chan struct{}, runtime.GOMAXPROCS(0))
	for first := true; ; first = false {
		head, err := in.Peek(memberHeaderLen)
		if err == io.EOF && len(head) == 0 && !first {
			z.fail(io.EOF)
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
		member := make([]byte, size)
		if _, err := io.ReadFull(in, member); err != nil {
			z.fail(err)
			return
		}
		c, ok := z.emit()
		if !ok {
			return
		}
		slots <- struct{}{}
		z.wg.Go(func() {
			c <- inflate(member)
			<-slots
		})
	}
}

func (z *gunzip) fail(err error) {
	if c, ok := z.emit(); ok {
		c <- piece{err: err}
	}
}

// generic reads members of any kind one after the other.
func (z *gunzip) generic(in *bufio.Reader) {
	r, err := gzip.NewReader(in)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF // an empty file is no archive
	}
	if err != nil {
		z.fail(err)
		return
	}
	for {
		buf := *pieceBuffers.Get().(*[]byte)
		n, err := io.ReadFull(r, buf[:memberBytes])
		if err == io.ErrUnexpectedEOF {
			// Either the stream ended inside this piece, or it was cut.
			_, err = r.Read(nil)
			if err == nil {
				err = io.ErrUnexpectedEOF
			}
		}
		c, ok := z.emit()
		if !ok {
			return
		}
		c <- piece{buf[:n], err}
		if err != nil {
			return
		}
	}
}

var inflaters = sync.Pool{New: func() any { return flate.NewReader(bytes.NewReader(nil)) }}

// inflate unpacks one sized member and holds it to what it says of itself.
func inflate(member []byte) piece {
	body, trailer := member[memberHeaderLen:len(member)-8], member[len(member)-8:]
	in := bytes.NewReader(body)
	r := inflaters.Get().(io.ReadCloser)
	defer inflaters.Put(r)
	r.(flate.Resetter).Reset(in, nil)
	buf := *pieceBuffers.Get().(*[]byte)
	n, err := io.ReadFull(r, buf)
	switch {
	case err == nil:
		return piece{err: fmt.Errorf("gzip member of known size unpacks to more than %d bytes", memberBytes)}
	case err != io.EOF && err != io.ErrUnexpectedEOF:
		return piece{err: err}
	case in.Len() > 0:
		return piece{err: fmt.Errorf("gzip member ends %d bytes before its size", in.Len())}
	}
	if _, err := r.Read(buf[n:]); err != io.EOF {
		return piece{err: io.ErrUnexpectedEOF}
	}
	if binary.LittleEndian.Uint32(trailer) != crc32.ChecksumIEEE(buf[:n]) || binary.LittleEndian.Uint32(trailer[4:]) != uint32(n) {
		return piece{err: gzip.ErrChecksum}
	}
	return piece{data: buf[:n]}
}
