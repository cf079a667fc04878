package keys

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"deploytools/registry"
)

// Set is the keys of one file.
type Set struct {
	callers map[string]registry.Caller // by the key in SSH wire format
}

// LineError says why a line gives nobody access.
type LineError struct {
	Line int // counts from 1
	Text string
}

// Error returns the line's number and what is wrong with it.
func (e LineError) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Text) }

// Parse reads the file name with the content data. A key on a line without
// options has the given role. checkKey is given each key in SSH wire format and
// says whether it is good enough; nil takes all.
//
// The lines that were refused are returned beside the Set of the others. A file
// without any key that can be used is an error, which names the file and the
// first refused line.
func Parse(name string, data []byte, role registry.Role, checkKey func(blob []byte) error) (*Set, []LineError, error) {
	s := &Set{callers: map[string]registry.Caller{}}
	var refused []LineError
	n := 0
	for text := range strings.Lines(strings.TrimPrefix(string(data), "\ufeff")) {
		n++
		text = strings.TrimSpace(text)
		if text == "" || text[0] == '#' {
			continue
		}
		l, err := parseLine(text)
		if err == nil && checkKey != nil {
			err = checkKey(l.blob)
		}
		if err != nil {
			refused = append(refused, LineError{n, err.Error()})
			continue
		}
		if _, ok := s.callers[string(l.blob)]; !ok { // as in sshd, the first line counts
			s.callers[string(l.blob)] = registry.Caller{Role: role, Fingerprint: Fingerprint(l.blob), Comment: l.comment}
		}
	}
	if len(s.callers) > 0 {
		return s, refused, nil
	}
	err := errors.New("no key that can be used")
	if len(refused) > 0 {
		err = fmt.Errorf("%w: %w", err, refused[0])
	}
	return nil, refused, fmt.Errorf("keys file %s: %w", name, err)
}

// Lookup returns what the key blob, in SSH wire format, stands for: its role,
// fingerprint and comment. A nil Set has no keys.
func (s *Set) Lookup(blob []byte) (registry.Caller, bool) {
	if s == nil {
		return registry.Caller{}, false
	}
	c, ok := s.callers[string(blob)]
	return c, ok
}

// Len returns how many keys there are.
func (s *Set) Len() int {
	if s == nil {
		return 0
	}
	return len(s.callers)
}

// Fingerprint returns the fingerprint of the key blob, in SSH wire format, as
// ssh-keygen -l prints it.
func Fingerprint(blob []byte) string {
	sum := sha256.Sum256(blob)
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])
}

type line struct {
	blob    []byte
	comment string
}

func parseLine(text string) (line, error) {
	first, rest := cutWord(text)
	if !isType(first) {
		if err := checkOptions(first); err != nil {
			return line{}, err
		}
		first, rest = cutWord(rest)
	}
	return parseKey(first, rest)
}

// isType tells the type of a key from options: no option starts like one.
func isType(word string) bool {
	for _, start := range []string{"ssh-", "ecdsa-", "sk-"} {
		if strings.HasPrefix(word, start) {
			return true
		}
	}
	return false
}

// parseKey reads BASE64 [COMMENT] behind the key's type.
func parseKey(kind, rest string) (line, error) {
	encoded, comment := cutWord(rest)
	if encoded == "" {
		return line{}, errors.New("no key found: a line is [OPTIONS] TYPE BASE64 [COMMENT]")
	}
	blob, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return line{}, fmt.Errorf("the key is not in base64: %w", err)
	}
	if inside, ok := typeOf(blob); !ok || inside != kind {
		return line{}, fmt.Errorf("the key is not of the type %q that the line says", printable(kind))
	}
	return line{blob, printable(comment)}, nil
}

// typeOf returns the name that a key in SSH wire format starts with (RFC 4253
// section 6.6).
func typeOf(blob []byte) (string, bool) {
	if len(blob) < 4 {
		return "", false
	}
	n := binary.BigEndian.Uint32(blob)
	if uint64(n) > uint64(len(blob)-4) {
		return "", false
	}
	return string(blob[4 : 4+n]), true
}

// cutWord cuts text at the first blank that stands outside of double quotes.
func cutWord(text string) (word, rest string) {
	end := endOf(text, " \t")
	return text[:end], strings.TrimLeft(text[end:], " \t")
}

// endOf returns where the first of the characters stands in text, outside of
// double quotes, or its length. A backslash takes the meaning from a quote.
func endOf(text, characters string) int {
	quoted := false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && i+1 < len(text) && text[i+1] == '"':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && strings.IndexByte(characters, c) >= 0:
			return i
		}
	}
	return len(text)
}

// printable replaces what would steer a terminal or a log.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) && r != unicode.ReplacementChar {
			return r
		}
		return '?'
	}, s)
}
