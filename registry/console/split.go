package console

import (
	"errors"
	"fmt"
	"strings"
)

// MaxLine is how long a command line may be, in bytes.
const MaxLine = 16 << 10

// Split cuts a command line into words as a POSIX shell does, with single
// quotes, double quotes and backslashes (POSIX.1-2017, XCU 2.2), but runs and
// expands nothing. Operators and expansions of a shell are errors unless they
// are quoted; patterns, ~ and # are plain characters. No character is ever
// dropped in silence. Its cost grows with the length of the line.
func Split(line string) ([]string, error) {
	if len(line) > MaxLine {
		return nil, fmt.Errorf("command line of %d bytes is longer than %d", len(line), MaxLine)
	}
	var words []string
	var word strings.Builder
	inWord := false
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case c == ' ' || c == '\t':
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
			continue
		case c == '\'':
			n := strings.IndexByte(line[i+1:], '\'')
			if n < 0 {
				return nil, errors.New("unmatched single quote")
			}
			word.WriteString(line[i+1 : i+1+n])
			i += n + 1
		case c == '"':
			n, err := doubleQuoted(line[i+1:], &word)
			if err != nil {
				return nil, err
			}
			i += n
		case c == '\\' && i+1 == len(line):
			return nil, errors.New("nothing follows the last backslash")
		case c == '\\' && !lineEnd(line[i+1]):
			i++
			word.WriteByte(line[i])
		case c == '\\' || lineEnd(c):
			return nil, errOneLine
		case strings.IndexByte(";&|<>()$`", c) >= 0:
			return nil, fmt.Errorf("unquoted %q: there is no shell here, quote it or leave it out", c)
		default:
			word.WriteByte(c)
		}
		inWord = true
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, nil
}

var errOneLine = errors.New("a command is one line: quote what is to hold a line end")

func lineEnd(c byte) bool { return c == '\n' || c == '\r' }

// doubleQuoted appends what stands before the closing quote to word, and
// returns how many bytes of s it took, the quote included.
func doubleQuoted(s string, word *strings.Builder) (int, error) {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			return i + 1, nil
		case '$', '`':
			return 0, fmt.Errorf("%q in double quotes: there is no shell here, use single quotes or a backslash", s[i])
		case '\\':
			if i+1 == len(s) {
				break
			}
			if lineEnd(s[i+1]) {
				return 0, errOneLine
			}
			if strings.IndexByte("$`\"\\", s[i+1]) >= 0 {
				i++
			}
		}
		word.WriteByte(s[i])
	}
	return 0, errors.New("unmatched double quote")
}

// Join quotes words so that Split, and a shell, give them back.
func Join(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = quote(w)
	}
	return strings.Join(quoted, " ")
}

func quote(w string) string {
	safe := func(r rune) bool {
		return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("@%+=:,./_-", r)
	}
	if w != "" && strings.IndexFunc(w, func(r rune) bool { return !safe(r) }) < 0 {
		return w
	}
	return "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
}
