package ctlcmd

import (
	"bytes"
	"io"
	"sync"

	"deploytools/cmd/internal/cli"
	"deploytools/registry/wire"
)

// streams puts what a command of the registry prints in order again: stdout and
// stderr come on their own ways, and may end in one file. Lines of stderr never
// break into one of stdout, and an error comes behind all of stdout.
type streams struct {
	mu             sync.Mutex // guards what follows, and the writers
	stdout, stderr io.Writer
	held           []byte // of stderr
	inLine         bool   // the last line of stdout has no end yet
	failed         bool   // the error has begun
}

// ordered runs do, which runs a command, with the two ends for what that prints.
// All of it is written when ordered returns.
func ordered(o *cli.IO, do func(stdout, stderr io.Writer) (wire.Status, error)) (wire.Status, error) {
	s := &streams{stdout: o.Stdout, stderr: o.Stderr}
	status, err := do(outStream{s}, errStream{s})
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inLine && err != nil {
		s.held = append([]byte("\n"), s.held...) // the connection broke there
	}
	if len(s.held) > 0 {
		if _, e := s.stderr.Write(forShell(s.held)); err == nil {
			err = e
		}
	}
	return status, err
}

type outStream struct{ *streams }

func (s outStream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := bytes.IndexByte(p, '\n') + 1
	if first > 0 && s.inLine {
		n, err := s.stdout.Write(p[:first])
		if s.inLine = n < first; err != nil {
			return n, err
		}
		if err := s.release(); err != nil {
			return n, err
		}
	} else {
		first = 0
	}
	n, err := s.stdout.Write(p[first:])
	if n > 0 {
		s.inLine = p[first+n-1] != '\n'
	}
	return first + n, err
}

type errStream struct{ *streams }

func (s errStream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = append(s.held, p...)
	return len(p), s.release()
}

// release writes the lines that may be written now: what happens on the way, as
// far as stdout is between two lines.
func (s *streams) release() error {
	for !s.inLine && !s.failed {
		end := bytes.IndexByte(s.held, '\n') + 1
		if end == 0 {
			break
		}
		if s.failed = isError(s.held[:end]); s.failed {
			break
		}
		if _, err := s.stderr.Write(s.held[:end]); err != nil {
			return err
		}
		s.held = s.held[end:]
	}
	return nil
}

// forShell returns what the registry says at the end with the commands in its
// hints as a shell knows them.
func forShell(text []byte) []byte {
	return bytes.ReplaceAll(text, []byte("\nhint: see '"), []byte("\nhint: see 'deployctl "))
}

// isError tells the line of an error, which may be JSON, from what a command
// says on its way.
func isError(line []byte) bool {
	return bytes.HasPrefix(line, []byte("error:")) || bytes.HasPrefix(line, []byte("{"))
}
