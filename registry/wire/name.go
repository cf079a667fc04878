package wire

import (
	"errors"
	"fmt"
	"strings"
)

// MaxName is the greatest length of a name in bytes.
const MaxName = 128

// ErrName says that a text breaks the rule for names.
var ErrName = errors.New("a name starts with a letter or digit and has at most 128 of A-Z a-z 0-9 . _ + @ -")

// ErrVersionName says that a text breaks the rule for names of versions.
var ErrVersionName = errors.New("a version starts with a letter or digit and has at most 128 of A-Z a-z 0-9 . _ + @ - : ~")

// CheckName holds the one rule for the names of components, configurations and
// hosts: [A-Za-z0-9][A-Za-z0-9._+@-]{0,127}. Whatever passes is safe in a path,
// a log line and on a terminal.
func CheckName(s string) error { return check(s, "", ErrName) }

// CheckVersion is CheckName for names of versions, which may also hold : and ~.
func CheckVersion(s string) error { return check(s, ":~", ErrVersionName) }

func check(s, also string, rule error) error {
	if s == "" {
		return fmt.Errorf("name is empty: %w", rule)
	}
	if len(s) > MaxName {
		return fmt.Errorf("name %q... is %d bytes long: %w", s[:32], len(s), rule)
	}
	for i := range len(s) {
		c := s[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if letter || i > 0 && (strings.IndexByte("._+@-", c) >= 0 || strings.IndexByte(also, c) >= 0) {
			continue
		}
		return fmt.Errorf("name %q: %w", s, rule)
	}
	return nil
}
