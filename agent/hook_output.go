package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

const (
	hookLine     = 8 << 10 // of a line, for the log
	hookLogged   = 1 << 20 // of the output, for the log
	hookEvidence = 1 << 20 // of the output, for the evidence
	hookBuffer   = 64 << 10
	hookEnd      = 8 << 20 // of the output while the program runs, besides the beginning
)

// tail gives the lines of a growing file to onLine. It holds one line and one
// buffer, however fast the file grows.
type tail struct {
	path   string
	onLine func(string)
	most   int64 // bytes of the file to read; 0: all

	f    *os.File
	off  int64
	buf  []byte
	line []byte // the line under way, at most hookLine of it
	cut  bool   // and there was more
	err  error  // the file cannot be read; a result does not depend on that
}

// poll gives the lines that are complete by now, up to the size that the file
// has when it begins: a program that writes faster than we read does not keep
// us here. A file that is not there yet has no lines. It stops when ctx is done.
func (t *tail) poll(ctx context.Context) {
	if t.onLine == nil || t.err != nil {
		return
	}
	if t.err = t.read(ctx); t.most > 0 && t.off > t.most {
		if len(t.line) > 0 {
			t.emit()
		}
		t.onLine("[more of it in " + t.path + "]")
		t.onLine = nil
	}
}

func (t *tail) read(ctx context.Context) error {
	if t.f == nil {
		f, err := os.Open(t.path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		t.f, t.buf = f, make([]byte, hookBuffer)
	}
	info, err := t.f.Stat()
	if err != nil {
		return err
	}
	for t.off < info.Size() && ctx.Err() == nil && (t.most == 0 || t.off <= t.most) {
		n, err := t.f.ReadAt(t.buf[:min(int64(len(t.buf)), info.Size()-t.off)], t.off)
		t.off += int64(n)
		t.split(t.buf[:n])
		if n == 0 && err == io.EOF {
			return nil // somebody has cut the file
		}
		if err != nil && err != io.EOF {
			return err
		}
	}
	return nil
}

// finish is the last poll: what follows the last newline is a line too.
func (t *tail) finish(ctx context.Context) {
	t.poll(ctx)
	if len(t.line) > 0 && t.onLine != nil && ctx.Err() == nil {
		t.emit()
	}
}

func (t *tail) split(b []byte) {
	for len(b) > 0 {
		part, rest, whole := bytes.Cut(b, []byte{'\n'})
		keep := min(len(part), hookLine-len(t.line))
		t.line = append(t.line, part[:keep]...)
		t.cut = t.cut || keep < len(part)
		if whole {
			t.emit()
		}
		b = rest
	}
}

func (t *tail) emit() {
	line := string(t.line)
	if t.cut {
		line += "..."
	}
	t.onLine(line)
	t.line, t.cut = t.line[:0], false
}

// replaced reports whether the path names another file than the one that is read.
func (t *tail) replaced() bool {
	if t.f == nil {
		return false
	}
	here, err := t.f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(t.path)
	return err == nil && !os.SameFile(here, there)
}

func (t *tail) close() {
	if t.f != nil {
		t.f.Close()
	}
}

// openOutput opens an output file for reading: nothing but a file, whatever
// else a program has put in its place.
func openOutput(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: not a file", path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// freeMiddle gives the disk back what a long output has between its beginning and
// its end: a program that writes without end fills no disk. Offsets stay as they
// are, for whoever writes and reads. A file system that cannot do it keeps all.
func freeMiddle(f *os.File) {
	info, err := f.Stat()
	if err != nil {
		return
	}
	const begin = hookLogged + hookBuffer // the log may not have got to it yet
	if n := info.Size() - begin - hookEnd; n > 0 {
		unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, begin, n)
	}
}

// markRoom is more than the line takes that says how much was left out: a file that has
// it is all that was kept.
const markRoom = 64

// outputEnds returns what is to be kept of an output file; nil: all of it.
func outputEnds(f *os.File) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	left := info.Size() - hookEvidence
	if left <= markRoom {
		return nil, nil
	}
	b, err := io.ReadAll(io.NewSectionReader(f, 0, hookEvidence/2))
	if err != nil {
		return nil, err
	}
	b = fmt.Appendf(b, "\n[%d bytes left out]\n", left)
	end, err := io.ReadAll(io.NewSectionReader(f, info.Size()-hookEvidence/2, hookEvidence/2))
	return append(b, end...), err
}

// readOutput returns what an output file holds, as much of it as evidence keeps.
func readOutput(path string) ([]byte, error) {
	f, err := openOutput(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := outputEnds(f)
	if err == nil && b == nil {
		b, err = io.ReadAll(io.LimitReader(f, hookEvidence+hookEvidence/2))
	}
	return b, err
}
