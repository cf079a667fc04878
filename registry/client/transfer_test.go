package client_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	mathrand "math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"golang.org/x/crypto/ssh"

	"deploytools/layers/digest"
	"deploytools/registry/client"
	"deploytools/registry/wire"
)

// blob returns n bytes of which no part is like another.
func blob(n int) []byte {
	b := make([]byte, n)
	mathrand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

func TestFetch(t *testing.T) {
	s := newServer(t)
	c := s.client()
	for _, size := range []int{0, 1, 32<<10 + 1, 128<<10 - 1, 128 << 10, 128<<10 + 1, 256 << 10, 9<<20 + 7} {
		b := blob(size)
		d := digest.Of(b)
		s.files.set(wire.FileName(d), b)
		for _, offset := range []int{0, 1, size / 2, size - 1, size} {
			if offset < 0 || offset > size {
				continue
			}
			var got bytes.Buffer
			if err := c.Fetch(t.Context(), d, int64(offset), &got); err != nil || !bytes.Equal(got.Bytes(), b[offset:]) {
				t.Errorf("Fetch of %d bytes from %d = %v with %d bytes that are not right", size, offset, err, got.Len())
			}
		}
	}
	if n := s.count(&s.sessions); n != 1 {
		t.Errorf("%d SFTP sessions, want the one used again", n)
	}
}

func TestFetchOfNothing(t *testing.T) {
	s := newServer(t)
	c := s.client()
	wants(t, c.Fetch(t.Context(), digest.Of([]byte("x")), 0, io.Discard), wire.ErrNotFound)
	d := digest.Of([]byte("y"))
	s.files.set(wire.FileName(d), []byte("y"))
	if err := c.Fetch(t.Context(), d, 2, io.Discard); err == nil || errors.Is(err, wire.ErrUnreachable) {
		t.Errorf("Fetch from behind the end = %v", err)
	}
	if err := c.Fetch(t.Context(), d, -1, io.Discard); err == nil {
		t.Error("Fetch from -1: no error")
	}
	s.files.denied = true
	wants(t, c.Fetch(t.Context(), d, 0, io.Discard), wire.ErrDenied)
	if n := s.count(&s.connections); n != 1 {
		t.Errorf("%d connections, want one that survives refusals", n)
	}
}

// The registry dies in the middle. What came is good, and the rest is fetched
// over another connection.
func TestFetchGoesOnAfterACrash(t *testing.T) {
	s := newServer(t)
	b := blob(5 << 20)
	d := digest.Of(b)
	s.files.set(wire.FileName(d), b)
	var once sync.Once
	s.files.read = func(p []byte, offset int64) (int, error) {
		if offset >= 3<<20 {
			once.Do(s.cut)
		}
		return bytes.NewReader(b).ReadAt(p, offset)
	}
	c := s.client()
	var got bytes.Buffer
	wants(t, c.Fetch(t.Context(), d, 0, &got), wire.ErrUnreachable, "lost")
	if !bytes.HasPrefix(b, got.Bytes()) {
		t.Fatal("what came before the crash is not right")
	}
	if err := c.Fetch(t.Context(), d, int64(got.Len()), &got); err != nil || !bytes.Equal(got.Bytes(), b) {
		t.Errorf("Fetch of the rest = %v, right %t", err, bytes.Equal(got.Bytes(), b))
	}
}

func TestFetchWithWrongSizes(t *testing.T) {
	s := newServer(t)
	b := blob(300 << 10)
	d := digest.Of(b)
	s.files.set(wire.FileName(d), b)
	c := s.client()
	for _, size := range []int64{1, 128 << 10, 300<<10 - 1, 300<<10 + 1, 1 << 60} {
		s.files.size = size
		if err := c.Fetch(t.Context(), d, 0, io.Discard); err == nil || errors.Is(err, wire.ErrUnreachable) {
			t.Errorf("Fetch of %d bytes that are said to be %d = %v", len(b), size, err)
		}
	}
	s.files.size = 1 << 20
	s.files.read = func(p []byte, _ int64) (int, error) { return len(p), nil } // without end
	var got countWriter
	if err := c.Fetch(t.Context(), d, 0, &got); err == nil || got > 2<<20 {
		t.Errorf("Fetch without end = %v after %d bytes", err, got)
	}
}

type countWriter int64

func (c *countWriter) Write(p []byte) (int, error) {
	*c += countWriter(len(p))
	return len(p), nil
}

func TestFetchReturnsTheErrorOfItsWriter(t *testing.T) {
	s := newServer(t)
	b := blob(3 << 20)
	d := digest.Of(b)
	s.files.set(wire.FileName(d), b)
	c := s.client()
	full := errors.New("disk full")
	if err := c.Fetch(t.Context(), d, 0, failingWriter{full}); err != full {
		t.Errorf("Fetch = %v, want %v", err, full)
	}
	if err := c.Fetch(t.Context(), d, 0, io.Discard); err != nil {
		t.Errorf("Fetch on the same connection: %v", err)
	}
	if n := s.count(&s.connections); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }

func TestFetchThatStalls(t *testing.T) {
	s := newServer(t)
	d := digest.Of(nil)
	s.files.set(wire.FileName(d), make([]byte, 1<<20))
	release := make(chan struct{})
	asked := make(chan struct{}, 100)
	s.files.read = func([]byte, int64) (int, error) {
		asked <- struct{}{}
		<-release
		return 0, io.EOF
	}
	defer close(release)
	c := s.client(func(o *client.Options) { o.Timeouts.Stall = 40 * time.Millisecond })
	wants(t, c.Fetch(t.Context(), d, 0, io.Discard), wire.ErrUnreachable, "no byte moved for 40ms")

	for len(asked) > 0 {
		<-asked
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	if err := s.client().Fetch(ctx, d, 0, io.Discard); err != context.Canceled {
		t.Errorf("Fetch = %v, want %v", err, context.Canceled)
	}
}

// A slow disk of ours is no stall of the registry's.
func TestFetchWaitsForItsWriter(t *testing.T) {
	s := newServer(t)
	b := blob(32 << 20) // more than can be on its way
	d := digest.Of(b)
	s.files.set(wire.FileName(d), b)
	c := s.client(func(o *client.Options) { o.Timeouts.Stall = 300 * time.Millisecond })
	if err := c.Fetch(t.Context(), d, 0, &slowWriter{}); err != nil {
		t.Error(err)
	}
}

type slowWriter struct{ n int }

func (w *slowWriter) Write(p []byte) (int, error) {
	if w.n++; w.n == 2 {
		<-time.After(time.Second) // the disk
	}
	return len(p), nil
}

func TestIdleSFTPSessionIsClosed(t *testing.T) {
	s := newServer(t)
	d := digest.Of([]byte("x"))
	s.files.set(wire.FileName(d), []byte("x"))
	closed := make(chan struct{}, 1)
	s.ended = func() { closed <- struct{}{} }
	c := s.client(func(o *client.Options) { o.Timeouts.Idle = 10 * time.Millisecond })
	for range 2 {
		if err := c.Fetch(t.Context(), d, 0, io.Discard); err != nil {
			t.Fatal(err)
		}
		<-closed
	}
	if n := s.count(&s.connections); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

func TestUpload(t *testing.T) {
	s := newServer(t)
	c := s.client()
	for _, size := range []int{0, 1, 128 << 10, 5<<20 + 3} {
		b := blob(size)
		var progress countWriter
		err := c.Upload(t.Context(), "upload", iotest.HalfReader(bytes.NewReader(b)), &progress)
		if err != nil || int(progress) != size {
			t.Errorf("Upload of %d bytes = %v, progress %d", size, err, progress)
		}
		if stored, _ := s.files.get("upload"); !bytes.Equal(stored, b) {
			t.Errorf("upload of %d bytes: stored are %d others", size, len(stored))
		}
	}
}

func TestGoOnSendsWhatTheRegistryLacks(t *testing.T) {
	b := blob(5<<20 + 3)
	for name, test := range map[string]struct {
		there []byte
		busy  bool
		sent  int
	}{
		"nothing is there":                  {nil, false, len(b)},
		"a part is there":                   {b[:3<<20+1], false, 2<<20 + 2},
		"all is there, and is not what was": {blob(len(b) + 1)[1:], false, len(b)},
		"more is there":                     {blob(len(b) + 1), false, len(b)},
		"another session writes it":         {b[:3<<20+1], true, len(b)},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			if test.there != nil {
				s.files.set("upload", bytes.Clone(test.there))
			}
			s.files.busy = test.busy
			var sent countWriter
			if err := s.client().GoOn(t.Context(), "upload", bytes.NewReader(b), int64(len(b)), &sent); err != nil || int(sent) != test.sent {
				t.Errorf("GoOn = %v, sent %d bytes, want %d", err, sent, test.sent)
			}
			if stored, _ := s.files.get("upload"); !bytes.Equal(stored, b) {
				t.Errorf("stored are %d other bytes", len(stored))
			}
		})
	}
}

func TestUploadThatIsGivenUp(t *testing.T) {
	s := newServer(t)
	c := s.client()
	refused := errors.New("not a layer")
	r := io.MultiReader(bytes.NewReader(blob(3<<20)), iotest.ErrReader(refused))
	if err := c.Upload(t.Context(), "upload", r, nil); err != refused {
		t.Errorf("Upload = %v, want %v", err, refused)
	}
	if b, ok := s.files.get("upload"); ok {
		t.Errorf("%d bytes of it are still there", len(b))
	}
	if err := c.Upload(t.Context(), "upload", strings.NewReader("x"), nil); err != nil {
		t.Errorf("Upload on the same connection: %v", err)
	}
}

func TestUploadThatIsRefused(t *testing.T) {
	s := newServer(t)
	c := s.client()
	s.files.full = true
	if err := c.Upload(t.Context(), "upload", bytes.NewReader(blob(9<<20)), nil); err == nil || !strings.Contains(err.Error(), "no space at the registry") {
		t.Errorf("Upload = %v, want what the registry says", err)
	}
	s.files.full, s.files.unfinished = false, true
	if err := c.Upload(t.Context(), "upload", strings.NewReader("x"), nil); err == nil || !strings.Contains(err.Error(), "quota") {
		t.Errorf("Upload = %v, want what the registry says when the file is closed", err)
	}
	s.files.denied = true
	err := c.Upload(t.Context(), "upload", strings.NewReader("x"), nil)
	wants(t, err, wire.ErrDenied)
	if n := s.count(&s.connections); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
	s.files = nil
	err = s.client().Upload(t.Context(), "upload", strings.NewReader("x"), nil)
	wants(t, err, wire.ErrDenied)
}

func TestUploadOverABrokenConnection(t *testing.T) {
	s := newServer(t)
	c := s.client()
	r := io.MultiReader(bytes.NewReader(blob(1<<20)), &cutReader{s}, bytes.NewReader(blob(9<<20)))
	err := c.Upload(t.Context(), "upload", r, nil)
	wants(t, err, wire.ErrUnreachable, "lost")
}

// cutReader cuts the server's connections and has no bytes.
type cutReader struct{ s *server }

func (r *cutReader) Read([]byte) (int, error) {
	r.s.cut()
	return 0, io.EOF
}

func TestExec(t *testing.T) {
	s := newServer(t)
	s.exec = func(line string, ch ssh.Channel) (uint32, bool) {
		in, _ := io.ReadAll(ch)
		io.WriteString(ch, "out "+line+" "+string(in))
		io.WriteString(ch.Stderr(), "err")
		return 4, true
	}
	var stdout, stderr strings.Builder
	status, err := s.client().Exec(t.Context(), "a 'b c'", strings.NewReader("in"), &stdout, &stderr)
	if status != wire.Conflict || err != nil || stdout.String() != "out a 'b c' in" || stderr.String() != "err" {
		t.Errorf("Exec = %v, %v, stdout %q, stderr %q", status, err, &stdout, &stderr)
	}
}

func TestExecEnds(t *testing.T) {
	for _, tt := range []struct {
		name   string
		exec   func(string, ssh.Channel) (uint32, bool)
		status wire.Status
		kind   error
	}{
		{"without reading stdin", func(string, ssh.Channel) (uint32, bool) { return 0, true }, wire.OK, nil},
		{"with a status that is none", func(string, ssh.Channel) (uint32, bool) { return 1 << 30, true }, wire.Failed, nil},
		{"without a status", func(string, ssh.Channel) (uint32, bool) { return 0, false }, 0, wire.ErrUnreachable},
		{"before it begins", nil, 0, wire.ErrDenied},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t)
			s.exec = tt.exec
			endless, w := io.Pipe()
			go w.Write(make([]byte, 8<<20))
			defer endless.Close()
			status, err := s.client().Exec(t.Context(), "x", endless, io.Discard, io.Discard)
			if tt.kind != nil {
				wants(t, err, tt.kind)
			} else if status != tt.status || err != nil {
				t.Errorf("Exec = %v, %v, want %v", status, err, tt.status)
			}
		})
	}
}

func TestExecReturnsTheErrorOfItsWriter(t *testing.T) {
	s := newServer(t)
	s.exec = func(_ string, ch ssh.Channel) (uint32, bool) {
		io.WriteString(ch, "out")
		return 0, true
	}
	full := errors.New("disk full")
	if _, err := s.client().Exec(t.Context(), "x", nil, failingWriter{full}, io.Discard); err != full {
		t.Errorf("Exec = %v, want %v", err, full)
	}
}

// What is no SFTP ends the call, whatever it is.
func TestSFTPNonsense(t *testing.T) {
	version := []byte{0, 0, 0, 5, 2, 0, 0, 0, 3}
	for name, says := range map[string][]byte{
		"nothing":       nil,
		"text":          []byte("This service allows sftp connections only.\n"),
		"huge packet":   {0xff, 0xff, 0xff, 0xff, 2},
		"empty packet":  {0, 0, 0, 0},
		"wrong version": {0, 0, 0, 5, 2, 0, 0, 0, 9},
		"short version": {0, 0, 0, 2, 2, 0},
		"wrong answer":  append(bytes.Clone(version), 0, 0, 0, 5, 101, 0, 0, 0, 77),
		"short answer":  append(bytes.Clone(version), 0, 0, 0, 1, 102),
		"no handle":     append(bytes.Clone(version), 0, 0, 0, 5, 102, 0, 0, 0, 1),
		"long handle":   append(bytes.Clone(version), 0, 0, 0, 9, 102, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff),
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			s.sftp = func(ch io.ReadWriteCloser) {
				var n uint32 // of the first packet
				binary.Read(ch, binary.BigEndian, &n)
				io.CopyN(io.Discard, ch, int64(n))
				ch.Write(says)
			}
			err := s.client().Fetch(t.Context(), digest.Of(nil), 0, io.Discard)
			if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("Fetch = %v", err)
			}
		})
	}
}
