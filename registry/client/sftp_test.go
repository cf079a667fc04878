package client

import (
	"bytes"
	"encoding/binary"
	"io"
	syncatomic "sync/atomic"
	"testing"
)

// recorder keeps what is written to it, and how.
type recorder struct {
	bytes.Buffer
	writes []int
}

func (r *recorder) Write(p []byte) (int, error) {
	r.writes = append(r.writes, len(p))
	return r.Buffer.Write(p)
}

func (*recorder) Close() error { return nil }

// The library writes a request in two parts. Each is sent as few packets of SSH
// as hold it, at once and unchanged.
func TestRequestIsSentWhole(t *testing.T) {
	for _, test := range []struct {
		name            string
		header, payload int
		want            int // packets
	}{
		{"request without payload", 9, 0, 1},
		{"small write", 26, 1, 1},
		{"the most that one packet holds", 26, sshBytes - 26, 1},
		{"one byte more", 26, sshBytes - 25, 2},
		{"write of an upload", 26, uploadBytes, 8},
		{"long header", 3 * sshBytes, 10, 4},
	} {
		t.Run(test.name, func(t *testing.T) {
			var r recorder
			var moved syncatomic.Int64
			w := &countedWriter{WriteCloser: &r, n: &moved}
			for range 2 { // the second finds nothing left of the first
				request := blobOf(test.header + test.payload)
				binary.BigEndian.PutUint32(request, uint32(len(request)-4))
				r = recorder{}
				for _, part := range [][]byte{request[:test.header], request[test.header:]} {
					if n, err := w.Write(part); n != len(part) || err != nil {
						t.Fatalf("Write(%d bytes) = %d, %v", len(part), n, err)
					}
				}
				if !bytes.Equal(r.Bytes(), request) {
					t.Errorf("sent %d bytes that are not the %d of the request", r.Len(), len(request))
				}
				if len(r.writes) != test.want {
					t.Errorf("sent as %v, want %d packets", r.writes, test.want)
				}
			}
			if want := int64(2 * (test.header + test.payload)); moved.Load() != want {
				t.Errorf("counted %d bytes, want %d", moved.Load(), want)
			}
		})
	}
}

// What is too short to be a request is not kept back.
func TestShortWriteIsSentAtOnce(t *testing.T) {
	var r recorder
	w := &countedWriter{WriteCloser: &r, n: new(syncatomic.Int64)}
	if io.WriteString(w, "abc"); r.String() != "abc" {
		t.Errorf("sent %q, want all of it", r.String())
	}
}

func blobOf(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 7 >> 3)
	}
	return b
}
