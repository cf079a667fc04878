package keys

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"

	"deploytools/registry"
)

// Grant is what one line gives to whoever has its key, or has a certificate of
// its authority, and when it does.
type Grant struct {
	// Caller has what the line says. The user name, the address and what stands
	// in a certificate are left to whoever knows them.
	Caller registry.Caller
	// Command is run whatever is asked for; CommandSFTP allows nothing but SFTP;
	// "" leaves it to the client.
	Command string
	NoPTY   bool // no terminal

	From       Addresses // where the key may come from
	Expires    time.Time // the first moment at which the line counts no more; zero: never
	Principals []string  // of an authority: a certificate needs one of these; nil: the user name

	File string
	Line int // counts from 1
}

// CommandSFTP is the value of command= that allows nothing but SFTP, as in
// sshd_config(5).
const CommandSFTP = "internal-sftp"

// Where names the line for a message.
func (g Grant) Where() string { return fmt.Sprintf("%s: line %d", g.File, g.Line) }

// Check says why the line does not count at the time now for a client at the
// address ip, or nil.
func (g Grant) Check(ip netip.Addr, now time.Time) error {
	switch {
	case !g.From.Admit(ip):
		return fmt.Errorf("%s: from= leaves out %v", g.Where(), ip)
	case !g.Expires.IsZero() && !now.Before(g.Expires):
		return fmt.Errorf("%s: expired at %s", g.Where(), g.Expires.UTC().Format(time.RFC3339))
	}
	return nil
}

// Set is the keys of some files. The zero value and nil have none.
type Set struct {
	keys, authorities map[string][]Grant // by the key in SSH wire format
}

// LineError says why a line gives nobody access.
type LineError struct {
	Line int // counts from 1
	Text string
}

// Error returns the line's number and what is wrong with it.
func (e LineError) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Text) }

// Rules say how the lines of a file are taken.
type Rules struct {
	// Role is that of a line without role=. In a file of agents there may be no
	// other: whoever may add hosts cannot make himself an admin.
	Role registry.Role
	// Key is given each key in SSH wire format and says whether it is good
	// enough; nil takes all.
	Key func(blob []byte) error
	// Command is given each value of command= and says whether it can be run;
	// nil takes all.
	Command func(line string) error
}

// Parse reads the file name with the content data.
//
// The lines that were refused are returned beside the Set of the others. A file
// without any key that can be used is an error, which names the file and the
// first refused line.
func Parse(name string, data []byte, r Rules) (*Set, []LineError, error) {
	s := &Set{keys: map[string][]Grant{}, authorities: map[string][]Grant{}}
	var refused []LineError
	for n, text := range lines(data) {
		l, err := r.parseLine(text)
		if err != nil {
			refused = append(refused, LineError{n, err.Error()})
			continue
		}
		l.File, l.Line = name, n
		to := s.keys
		if l.authority {
			to = s.authorities
		}
		to[string(l.blob)] = append(to[string(l.blob)], l.Grant)
	}
	if s.Len() > 0 {
		return s, refused, nil
	}
	err := errors.New("no key that can be used")
	if len(refused) > 0 {
		err = fmt.Errorf("%w: %w", err, refused[0])
	}
	return nil, refused, fmt.Errorf("keys file %s: %w", name, err)
}

// lines returns what stands in the lines of a file, with their numbers, without
// comments and what is blank around the rest.
func lines(data []byte) iter.Seq2[int, string] {
	return func(yield func(int, string) bool) {
		n := 0
		for text := range strings.Lines(strings.TrimPrefix(string(data), "\ufeff")) {
			n++
			text = strings.TrimSpace(text)
			if text != "" && text[0] != '#' && !yield(n, text) {
				return
			}
		}
	}
}

// Key returns the lines of the key blob, in SSH wire format. As in sshd, the
// first one that counts is the one to take.
func (s *Set) Key(blob []byte) []Grant {
	if s == nil {
		return nil
	}
	return s.keys[string(blob)]
}

// Authority returns the cert-authority lines of the key blob: see Key.
func (s *Set) Authority(blob []byte) []Grant {
	if s == nil {
		return nil
	}
	return s.authorities[string(blob)]
}

// Len returns how many keys and authorities there are.
func (s *Set) Len() int {
	if s == nil {
		return 0
	}
	return len(s.keys) + len(s.authorities)
}

// All returns every line, in no order.
func (s *Set) All() iter.Seq[Grant] {
	return func(yield func(Grant) bool) {
		if s == nil {
			return
		}
		for _, m := range []map[string][]Grant{s.keys, s.authorities} {
			for _, grants := range m {
				for _, g := range grants {
					if !yield(g) {
						return
					}
				}
			}
		}
	}
}

// Join returns the keys of all sets. Lines of a key keep the order of the sets.
func Join(sets ...*Set) *Set {
	out := &Set{keys: map[string][]Grant{}, authorities: map[string][]Grant{}}
	for _, s := range sets {
		for blob, grants := range s.keys {
			out.keys[blob] = slices.Concat(out.keys[blob], grants)
		}
		for blob, grants := range s.authorities {
			out.authorities[blob] = slices.Concat(out.authorities[blob], grants)
		}
	}
	return out
}

// Fingerprint returns the fingerprint of the key blob, in SSH wire format, as
// ssh-keygen -l prints it.
func Fingerprint(blob []byte) string {
	sum := sha256.Sum256(blob)
	return fingerprintStart + base64.RawStdEncoding.EncodeToString(sum[:])
}

const fingerprintStart = "SHA256:"

// line is a line as far as it was read.
type line struct {
	Grant
	blob      []byte
	authority bool
	given     []string // options with a value, so far
}

func (r Rules) parseLine(text string) (*line, error) {
	l := &line{Grant: Grant{Caller: registry.Caller{Role: r.Role}}}
	first, rest := cutWord(text)
	if !isType(first) {
		if err := l.parseOptions(first); err != nil {
			return nil, err
		}
		first, rest = cutWord(rest)
	}
	var err error
	if l.blob, l.Caller.Comment, err = parseKey(first, rest); err != nil {
		return nil, err
	}
	l.Caller.Fingerprint = Fingerprint(l.blob)
	if r.Key != nil {
		if err := r.Key(l.blob); err != nil {
			return nil, err
		}
	}
	return l, r.checkTogether(l)
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
func parseKey(kind, rest string) (blob []byte, comment string, err error) {
	encoded, comment := cutWord(rest)
	if encoded == "" {
		return nil, "", errors.New("no key found: a line is [OPTIONS] TYPE BASE64 [COMMENT]")
	}
	blob, err = base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return nil, "", fmt.Errorf("the key is not in base64: %w", err)
	}
	if inside, ok := typeOf(blob); !ok || inside != kind {
		return nil, "", fmt.Errorf("the key is not of the type %q that the line says", printable(kind))
	}
	return blob, printable(comment), nil
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
