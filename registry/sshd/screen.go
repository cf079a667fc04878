package sshd

import (
	"io"
	"strings"
	"sync"
	"unicode/utf8"

	"deploytools/registry/console"
)

// screen is where a command's results go on a terminal. Nothing in them can
// steer it: what is neither printable nor a newline or a tab is shown as an
// escape. Safe for concurrent use.
type screen struct {
	w       io.Writer
	newline string // what ends a line; a terminal in raw mode needs CRLF

	mu    sync.Mutex
	part  []byte // of a rune
	begun bool   // a line that has no end yet
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := append(s.part, p...)
	whole := len(b) - partialRune(b)
	s.part = append([]byte(nil), b[whole:]...)
	if err := s.show(string(b[:whole])); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (s *screen) show(text string) error {
	if text == "" {
		return nil
	}
	var b strings.Builder
	for i, c := 0, 0; i < len(text); i += c {
		n := strings.IndexAny(text[i:], "\n\t")
		if n < 0 {
			n = len(text) - i
		}
		c = n
		b.WriteString(console.Clean(text[i : i+n]))
		if i+n < len(text) {
			if text[i+n] == '\n' {
				b.WriteString(s.newline)
			} else {
				b.WriteByte('\t')
			}
			c++
		}
	}
	s.begun = text[len(text)-1] != '\n'
	_, err := io.WriteString(s.w, b.String())
	return err
}

// end finishes the last line, so that a prompt can follow.
func (s *screen) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.show(string(s.part))
	s.part = nil
	if s.begun {
		s.show("\n")
	}
}

// partialRune returns how many bytes at the end of b are the start of a rune.
func partialRune(b []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(b); n++ {
		if c := b[len(b)-n]; utf8.RuneStart(c) {
			if c >= utf8.RuneSelf && !utf8.FullRune(b[len(b)-n:]) {
				return n
			}
			return 0
		}
	}
	return 0
}
