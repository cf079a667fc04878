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

	"deploytools/atomic"
)

const (
	hookLine     = 8 << 10 // of a line, for the log
	hookEvidence = 1 << 20 // of the output, for the evidence
)

// tail gives the lines of a growing file to onLine. It holds one line and one
// buffer, however fast the file grows.
type tail struct {
	path   string
	onLine func(string)

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
	if t.onLine != nil && t.err == nil {
		t.err = t.read(ctx)
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
		t.f, t.buf = f, make([]byte, 64<<10)
	}
	info, err := t.f.Stat()
	if err != nil {
		return err
	}
	for t.off < info.Size() && ctx.Err() == nil {
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
	if len(t.line) > 0 && ctx.Err() == nil {
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

func (t *tail) close() {
	if t.f != nil {
		t.f.Close()
	}
}

// capOutput makes evidence of an output file: of more than 1 MiB the beginning
// and the end are kept, raw. A program that still has the file open goes on
// writing to one that nobody sees.
func capOutput(path string) error {
	b, err := outputEnds(path)
	if err != nil || b == nil {
		return err
	}
	return atomic.WriteFile(path, b, 0o600)
}

// outputEnds returns what is to be kept of an output file; nil: all of it.
func outputEnds(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	left := info.Size() - hookEvidence
	if left <= 0 || !info.Mode().IsRegular() {
		return nil, nil
	}
	b, err := io.ReadAll(io.LimitReader(f, hookEvidence/2))
	if err != nil {
		return nil, err
	}
	b = fmt.Appendf(b, "\n[%d bytes left out]\n", left)
	end, err := io.ReadAll(io.NewSectionReader(f, info.Size()-hookEvidence/2, hookEvidence/2))
	return append(b, end...), err
}
