package keys_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"deploytools/registry"
	"deploytools/registry/keys"
)

// key returns a key in SSH wire format and as a line has it.
func key(kind string, material string) (blob []byte, text string) {
	for _, part := range []string{kind, material} {
		blob = binary.BigEndian.AppendUint32(blob, uint32(len(part)))
		blob = append(blob, part...)
	}
	return blob, kind + " " + base64.StdEncoding.EncodeToString(blob)
}

func TestParseTakesWhatSshdTakes(t *testing.T) {
	one, first := key("ssh-ed25519", "one")
	two, second := key("sk-ssh-ed25519@openssh.com", "two")
	long, third := key("ssh-rsa", strings.Repeat("x", 100<<10))
	for name, file := range map[string]string{
		"plain":                        first + " anna\n" + second + " ben\n" + third + "\n",
		"comments, blank lines":        "# ops\n\n" + first + " anna\n  \n\t# ssh-rsa AAAA\n" + second + " ben\n" + third,
		"CRLF":                         strings.ReplaceAll(first+" anna\n"+second+" ben\n"+third+"\n", "\n", "\r\n"),
		"byte order mark":              "\ufeff" + first + " anna\n" + second + " ben\n" + third,
		"blanks":                       "  " + strings.Replace(first, " ", "\t  ", 1) + "   anna\t\n" + second + "\tben\n" + third,
		"restrict":                     "restrict " + first + " anna\nRestrict,restrict " + second + " ben\n" + third,
		"twice, the first line counts": first + " anna\n" + first + " eve\n" + second + " ben\n" + third,
	} {
		s, refused, err := keys.Parse("f", []byte(file), registry.Admin, nil)
		if err != nil || len(refused) > 0 {
			t.Errorf("%s: Parse = %v, %v, want neither", name, refused, err)
			continue
		}
		if s.Len() != 3 {
			t.Errorf("%s: %d keys, want 3", name, s.Len())
		}
		for comment, blob := range map[string][]byte{"anna": one, "ben": two, "": long} {
			c, ok := s.Lookup(blob)
			want := registry.Caller{Role: registry.Admin, Fingerprint: keys.Fingerprint(blob), Comment: comment}
			if !ok || c != want {
				t.Errorf("%s: Lookup = %+v, %t, want %+v", name, c, ok, want)
			}
		}
	}
}

func TestFingerprintIsSshKeygens(t *testing.T) {
	// The key and its fingerprint are from ssh-keygen -l.
	blob, err := base64.StdEncoding.DecodeString("AAAAC3NzaC1lZDI1NTE5AAAAIDK/7tOh5iSiGe+zVFKk2EKg1ZT03JLFw3aEOhVX7yfX")
	if err != nil {
		t.Fatal(err)
	}
	if got := keys.Fingerprint(blob); got != "SHA256:+RFKQ4vwK2UeHO99v4+CEe5k2gDnIfX5dIDIjDkCbH4" {
		t.Errorf("Fingerprint = %s, want %s", got, "SHA256:+RFKQ4vwK2UeHO99v4+CEe5k2gDnIfX5dIDIjDkCbH4")
	}
}

// A line that could mean less than its key alone gives nobody access.
func TestParseNeverWidensRights(t *testing.T) {
	_, good := key("ssh-ed25519", "good")
	blob, text := key("ssh-ed25519", "narrow")
	for _, test := range []struct{ line, want string }{
		{`from="10.0.0.0/8" ` + text, `option "from=\"10.0.0.0/8\"" is not supported`},
		{`restrict,command="echo \"a b\", c" ` + text, `option "command=\"echo \\\"a b\\\", c\"" is not supported`},
		{`expiry-time="20200101" ` + text, `option "expiry-time=`},
		{`cert-authority ` + text, `option "cert-authority"`},
		{`no-pty ` + text, `option "no-pty"`},
		{`restrict="x" ` + text, `option "restrict=`},
		{`role=viewer ` + text, `option "role=viewer"`},
		{`,` + text, `option "`},
		{`command="a` + "\x1b[2J" + `" ` + text, `a?[2J`},
		{`command="never closed ` + text, `option "command=`},
		{"restrict", "no key found"},
		{"restrict restrict " + text, "not in base64"},
		{"ssh-ed25519", "no key found"},
		{"ssh-rsa " + strings.Fields(text)[1], `not of the type "ssh-rsa"`},
		{"ssh-ed25519 AAAA", "not of the type"},
		{"ssh-ed25519 " + base64.StdEncoding.EncodeToString([]byte("\xff\xff\xff\xffssh-ed25519")), "not of the type"},
		{"ssh-ed25519 !!!", "not in base64"},
		{"-----BEGIN OPENSSH PRIVATE KEY-----", "option "},
	} {
		s, refused, err := keys.Parse("f", []byte("# two\n"+test.line+"\n"+good+"\n"), registry.Admin, nil)
		if err != nil {
			t.Errorf("Parse(%q) = %v, want the other key", test.line, err)
			continue
		}
		if _, ok := s.Lookup(blob); ok || s.Len() != 1 {
			t.Errorf("Parse(%q) gives access to %d keys, want the other only", test.line, s.Len())
		}
		if len(refused) != 1 || refused[0].Line != 2 || !strings.Contains(refused[0].Text, test.want) {
			t.Errorf("Parse(%q) refuses %v, want line 2 with %s", test.line, refused, test.want)
		}
		for _, e := range refused {
			if strings.ContainsRune(e.Error(), 0x1b) {
				t.Errorf("Parse(%q): %q has a control character", test.line, e.Error())
			}
		}
	}
}

func TestParseAsksWhetherAKeyIsGoodEnough(t *testing.T) {
	weak, text := key("ssh-dss", "weak")
	strong, other := key("ssh-ed25519", "strong")
	check := func(b []byte) error {
		if bytes.Equal(b, weak) {
			return errors.New("too weak")
		}
		return nil
	}
	s, refused, err := keys.Parse("f", []byte(text+"\n"+other), registry.Agent, check)
	if err != nil || len(refused) != 1 || refused[0].Error() != "line 1: too weak" {
		t.Fatalf("Parse = %v, %v", refused, err)
	}
	if _, ok := s.Lookup(weak); ok {
		t.Error("the weak key has access")
	}
	if c, ok := s.Lookup(strong); !ok || c.Role != registry.Agent {
		t.Errorf("Lookup = %v, %t, want an agent", c, ok)
	}
}

func TestFileWithoutUsableKeyIsAnErrorThatNamesIt(t *testing.T) {
	_, text := key("ssh-ed25519", "x")
	for _, test := range []struct{ data, want string }{
		{"", "keys file /etc/x.keys: no key that can be used"},
		{"# none\n\n", "keys file /etc/x.keys: no key that can be used"},
		{"\nno-pty " + text, `keys file /etc/x.keys: no key that can be used: line 2: option "no-pty" is not supported here, so the key is refused`},
	} {
		s, _, err := keys.Parse("/etc/x.keys", []byte(test.data), registry.Admin, nil)
		if s != nil || err == nil || err.Error() != test.want {
			t.Errorf("Parse(%q) = %v, want %s", test.data, err, test.want)
		}
	}
}

func TestNobodyIsInANilSet(t *testing.T) {
	var s *keys.Set
	if _, ok := s.Lookup(nil); ok || s.Len() != 0 {
		t.Error("a nil Set has a key")
	}
}

func TestCommentsCannotForgeALogLine(t *testing.T) {
	blob, text := key("ssh-ed25519", "x")
	s, _, err := keys.Parse("f", []byte(text+" a\x1b[31m \xff\u202eb\n"), registry.Admin, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c, _ := s.Lookup(blob); c.Comment != "a?[31m ??b" {
		t.Errorf("comment %q, want its controls replaced", c.Comment)
	}
}

func FuzzParse(f *testing.F) {
	_, text := key("ssh-ed25519", "x")
	f.Add([]byte(`restrict,from="a,b" ` + text + " c\n# d\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, refused, err := keys.Parse("f", data, registry.Admin, nil)
		if (s == nil) != (err != nil) || err == nil && s.Len() == 0 {
			t.Errorf("Parse = %v, %v, %v", s, refused, err)
		}
	})
}
