package keys_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode"

	"deploytools/registry"
	"deploytools/registry/keys"
)

// FuzzParse: whatever a file holds, it is read or refused; a line gives what
// each of its options says, and nothing that is printed of it steers a terminal.
func FuzzParse(f *testing.F) {
	_, text := key("ssh-ed25519", "x")
	for _, options := range []string{
		`restrict,from="10.0.0.0/8,!10.1.*",role=viewer `, `role=agent,host=web1,configs="web-*,db" `, `cert-authority,principals="a,b",expiry-time="20300101Z" `,
		`command="a \"b\" c",no-pty `, `expiry-time="203001011200",label="x y" `, ``,
	} {
		f.Add([]byte(options + text + " c\n# d\r\n"))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, role := range []registry.Role{registry.Admin, registry.Agent} {
			s, refused, err := keys.Parse("f", data, keys.Rules{Role: role})
			if (s == nil) != (err != nil) || err == nil && s.Len() == 0 {
				t.Fatalf("Parse = %v, %v, %v", s, refused, err)
			}
			for _, e := range refused {
				if strings.ContainsFunc(e.Error(), func(r rune) bool { return !unicode.IsPrint(r) }) {
					t.Errorf("%q cannot be shown", e.Error())
				}
			}
			for g := range s.All() {
				checkGrant(t, role, g)
			}
		}
	})
}

// checkGrant checks what must be true of every line that counts.
func checkGrant(t *testing.T, role registry.Role, g keys.Grant) {
	c := g.Caller
	isAgent := c.Role == registry.Agent
	if role == registry.Agent && !isAgent || c.Role == registry.NoRole {
		t.Errorf("%+v in a file of agents", g)
	}
	if isAgent && g.Command != "" && g.Command != keys.CommandSFTP || !isAgent && c.Host != "" {
		t.Errorf("%+v is of an agent and of an operator", g)
	}
	if c.Host != "" && registry.CheckHost(c.Host) != nil {
		t.Errorf("%+v: a host that breaks the rule", g)
	}
	if c.Configs != "" {
		if _, err := registry.ParseScope(string(c.Configs)); err != nil || c.Configs.Holds("") {
			t.Errorf("%+v: scope: %v", g, err)
		}
	}
	if strings.ContainsFunc(c.Label+c.Comment, func(r rune) bool { return !unicode.IsPrint(r) }) {
		t.Errorf("%+v cannot be shown", g)
	}
	if g.From != nil && g.From.Admit(netip.Addr{}) {
		t.Errorf("%+v admits nowhere", g)
	}
	if !g.Expires.IsZero() && g.Check(netip.MustParseAddr("10.0.0.1"), g.Expires.Add(time.Second)) == nil {
		t.Errorf("%+v never expires", g)
	}
}

func FuzzParseRevoked(f *testing.F) {
	_, text := key("ssh-ed25519", "x")
	f.Add([]byte("# gone\n" + text + " c\nkey: " + text + "\nserial: 7-12\nserial:3\nid: anna\nhash: SHA256:+RFKQ4vwK2UeHO99v4+CEe5k2gDnIfX5dIDIjDkCbH4\n"))
	f.Add([]byte("SSHKRL\n\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, bad := keys.ParseRevoked(data)
		for _, e := range bad {
			if strings.ContainsFunc(e.Error(), func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("%q cannot be shown", e.Error())
			}
		}
		if r == nil || r.Certificate(0, "") {
			t.Error("a certificate without a number and a name is revoked")
		}
		if twice := r.Plus(r); twice.Certificate(7, "anna") != r.Certificate(7, "anna") {
			t.Error("Plus changes what is revoked")
		}
	})
}
