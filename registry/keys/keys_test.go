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

// admins are the rules of most files here.
var admins = keys.Rules{Role: registry.Admin}

// lookup returns the first line of a key.
func lookup(s *keys.Set, blob []byte) (keys.Grant, bool) {
	if grants := s.Key(blob); len(grants) > 0 {
		return grants[0], true
	}
	return keys.Grant{}, false
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
		"options that mean nothing":    "no-port-forwarding,No-X11-Forwarding,restrict,pty " + first + " anna\nno-user-rc,no-agent-forwarding " + second + " ben\n" + third,
		"twice, the first line counts": first + " anna\n" + first + " eve\n" + second + " ben\n" + third,
	} {
		s, refused, err := keys.Parse("f", []byte(file), admins)
		if err != nil || len(refused) > 0 {
			t.Errorf("%s: Parse = %v, %v, want neither", name, refused, err)
			continue
		}
		if s.Len() != 3 {
			t.Errorf("%s: %d keys, want 3", name, s.Len())
		}
		for comment, blob := range map[string][]byte{"anna": one, "ben": two, "": long} {
			c, ok := lookup(s, blob)
			want := registry.Caller{Role: registry.Admin, Fingerprint: keys.Fingerprint(blob), Comment: comment}
			if !ok || c.Caller != want || c.NoPTY || c.Command != "" {
				t.Errorf("%s: Key = %+v, %t, want %+v", name, c, ok, want)
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
		{`permitopen="host:1" ` + text, `option "permitopen=\"host:1\"" is not supported`},
		{`restrict,environment="echo \"a b\", c" ` + text, `option "environment=\"echo \\\"a b\\\", c\"" is not supported`},
		{`verify-required ` + text, `option "verify-required"`},
		{`agent-forwarding ` + text, `option "agent-forwarding"`},
		{`restrict="x" ` + text, `option "restrict=`},
		{`cert-authority=yes ` + text, `option "cert-authority=yes"`},
		{`from ` + text, `option "from"`},
		{`,` + text, `option "`},
		{`restrict, ` + text, `option "" is not`},
		{`restrict,,pty ` + text, `option "" is not`},
		{`nonsense="a` + "\x1b[2J" + `" ` + text, `a?[2J`},
		{`command="never closed ` + text, `option command=: its value should`},
		{`role= ` + text, `option role=: its value should`},
		{`role="viewer"admin ` + text, `option role=: its value should`},
		{`role=view"er" ` + text, `option role=: its value should`},
		{`role=root ` + text, `option role=: role "root": should be viewer,`},
		{`role=viewer,role=admin ` + text, `option role= is given twice`},
		{`from="10.0.0.1",from="10.0.0.2" ` + text, `option from= is given twice`},
		{`configs="web, db" ` + text, `option configs=: pattern " db"`},
		{`configs=web,db ` + text, `option "db" is not supported`},
		{`configs="" ` + text, `option configs=: pattern ""`},
		{`role=agent,host="-x" ` + text, `option host=: name "-x"`},
		{`host=web1 ` + text, `option host=: only an agent has a host`},
		{`role=agent,cert-authority,host=web1 ` + text, `option host=: the certificates`},
		{`label=x,cert-authority ` + text, `option label=: the certificates`},
		{`label="" ` + text, `option label=: a label has`},
		{`label="a` + "\x1b" + `" ` + text, `option label=: a label has`},
		{`label="` + strings.Repeat("x", 129) + `" ` + text, `option label=: a label has`},
		{`from="registry.example" ` + text, `option from=: "registry.example" should be an address`},
		{`from="*.example" ` + text, `option from=: "*.example" should be an address`},
		{`from="10.0.0.1/8" ` + text, `is 10.0.0.0/8 meant?`},
		{`from="10.0.0.0/33" ` + text, `is no network`},
		{`from="!::ffff:10.0.0.0/104,*" ` + text, `write it as one of IPv4`},
		{`from="!10.0.0.1" ` + text, `option from=: it admits nobody`},
		{`from="10.0.0.1," ` + text, `option from=: "" should be an address`},
		{`expiry-time="2020-01-01" ` + text, `option expiry-time=: "2020-01-01" should be YYYYMMDD`},
		{`expiry-time="20201301" ` + text, `option expiry-time=: "20201301"`},
		{`expiry-time="Z" ` + text, `option expiry-time=: "Z"`},
		{`expiry-time="2020010112Z" ` + text, `option expiry-time=: "2020010112Z"`},
		{`command=" " ` + text, `option command=: no command`},
		{`role=agent,command="help" ` + text, `option command=: agents run no commands`},
		{`principals="a" ` + text, `option principals=: goes with cert-authority only`},
		{`cert-authority,principals="a,,b" ` + text, `option principals=: "a,,b"`},
		{"restrict", "no key found"},
		{"restrict restrict " + text, "not in base64"},
		{"ssh-ed25519", "no key found"},
		{"ssh-rsa " + strings.Fields(text)[1], `not of the type "ssh-rsa"`},
		{"ssh-ed25519 AAAA", "not of the type"},
		{"ssh-ed25519 " + base64.StdEncoding.EncodeToString([]byte("\xff\xff\xff\xffssh-ed25519")), "not of the type"},
		{"ssh-ed25519 !!!", "not in base64"},
		{"-----BEGIN OPENSSH PRIVATE KEY-----", "the public key, from the file with .pub"},
	} {
		s, refused, err := keys.Parse("f", []byte("# two\n"+test.line+"\n"+good+"\n"), admins)
		if err != nil {
			t.Errorf("Parse(%q) = %v, want the other key", test.line, err)
			continue
		}
		if s.Key(blob) != nil || s.Authority(blob) != nil || s.Len() != 1 {
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
	s, refused, err := keys.Parse("f", []byte(text+"\n"+other), keys.Rules{Role: registry.Agent, Key: check})
	if err != nil || len(refused) != 1 || refused[0].Error() != "line 1: too weak" {
		t.Fatalf("Parse = %v, %v", refused, err)
	}
	if s.Key(weak) != nil {
		t.Error("the weak key has access")
	}
	if c, ok := lookup(s, strong); !ok || c.Caller.Role != registry.Agent {
		t.Errorf("Key = %v, %t, want an agent", c, ok)
	}
}

func TestFileWithoutUsableKeyIsAnErrorThatNamesIt(t *testing.T) {
	_, text := key("ssh-ed25519", "x")
	for _, test := range []struct{ data, want string }{
		{"", "keys file /etc/x.keys: no key that can be used"},
		{"# none\n\n", "keys file /etc/x.keys: no key that can be used"},
		{"\nno-tty " + text, `keys file /etc/x.keys: no key that can be used: line 2: option "no-tty" is not supported here, so the key is refused`},
	} {
		s, _, err := keys.Parse("/etc/x.keys", []byte(test.data), admins)
		if s != nil || err == nil || err.Error() != test.want {
			t.Errorf("Parse(%q) = %v, want %s", test.data, err, test.want)
		}
	}
}

func TestNobodyIsInANilSet(t *testing.T) {
	var s *keys.Set
	for range s.All() {
		t.Error("a nil Set has a line")
	}
	if s.Key(nil) != nil || s.Authority(nil) != nil || s.Len() != 0 {
		t.Error("a nil Set has a key")
	}
}

func TestCommentsCannotForgeALogLine(t *testing.T) {
	blob, text := key("ssh-ed25519", "x")
	s, _, err := keys.Parse("f", []byte(text+" a\x1b[31m \xff\u202eb\n"), admins)
	if err != nil {
		t.Fatal(err)
	}
	if g, _ := lookup(s, blob); g.Caller.Comment != "a?[31m ??b" {
		t.Errorf("comment %q, want its controls replaced", g.Caller.Comment)
	}
}
