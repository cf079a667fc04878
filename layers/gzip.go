package layers

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"hash/crc32"
	"io"
	"runtime"
	"sync"

	"github.com/klauspost/compress/flate"
)

// gzipWriter writes sized members (see gunzip.go), compressed in parallel. Its
// output depends on nothing but its input and the level.
type gzipWriter struct {
	level   int
	buf     []byte
	members chan chan []byte // in order
	written chan struct{}    // closed when the goroutine that writes has ended

	mu  sync.Mutex
	err error // of the underlying writer

	pool sync.Pool
}

func newGzipWriter(w io.Writer, level int) *gzipWriter {
	z := &gzipWriter{level: cmp.Or(level, 6), members: make(chan chan []byte, runtime.GOMAXPROCS(0)), written: make(chan struct{})}
	go func() {
		defer close(z.written)
		for c := range z.members {
			member := <-c
			if z.fault() == nil {
				_, err := w.Write(member)
				z.mu.Lock()
				z.err = err
				z.mu.Unlock()
			}
		}
	}()
	return z
}

func (z *gzipWriter) fault() error {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.err
}

// Write takes p. An error of the underlying writer comes from a later Write or
// from Close.
func (z *gzipWriter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		if z.buf == nil {
			z.buf = make([]byte, 0, memberBytes)
		}
		k := min(len(p), memberBytes-len(z.buf))
		z.buf = append(z.buf, p[:k]...)
		p = p[k:]
		if len(z.buf) == memberBytes {
			z.flush()
		}
	}
	return n, z.fault()
}

// flush hands the buffer to a goroutine.
func (z *gzipWriter) flush() {
	c, data := make(chan []byte, 1), z.buf
	z.buf = nil
	z.members <- c // bounds the goroutines
	go func() { c <- z.deflate(data) }()
}

// Close writes what is left and returns the first error of writing.
func (z *gzipWriter) Close() error {
	if len(z.buf) > 0 {
		z.flush()
	}
	close(z.members)
	<-z.written
	return z.fault()
}

// deflate makes one member of data.
func (z *gzipWriter) deflate(data []byte) []byte {
	out := bytes.NewBuffer(make([]byte, 0, len(data)/2))
	out.Write(memberHeader)
	out.Write(make([]byte, 4))
	f, ok := z.pool.Get().(*flate.Writer)
	if !ok {
		// The level was checked by whoever offers it; a bytes.Buffer never fails.
		f, _ = flate.NewWriter(out, z.level)
	}
	f.Reset(out)
	f.Write(data)
	f.Close()
	z.pool.Put(f)
	b := out.Bytes()
	b = binary.LittleEndian.AppendUint64(b, memberTrailer(crc32.ChecksumIEEE(data), int64(len(data))))
	binary.LittleEndian.PutUint32(b[len(memberHeader):], uint32(len(b)))
	return b
}
