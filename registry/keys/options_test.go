package keys_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"deploytools/registry"
	"deploytools/registry/keys"
)

// grantOf reads the one line of a file.
func grantOf(t *testing.T, options string, r keys.Rules) keys.Grant {
	t.Helper()
	_, text := key("ssh-ed25519", "x")
	s, refused, err := keys.Parse("ops.keys", []byte("\n"+options+" "+text+" anna\n"), r)
	if err != nil || len(refused) > 0 {
		t.Fatalf("Parse(%s) = %v, %v", options, refused, err)
	}
	for g := range s.All() {
		return g
	}
	panic("a Set without a line")
}

func TestOptionsSayWhatAKeyMay(t *testing.T) {
	for _, test := range []struct {
		options string
		want    registry.Caller // but for fingerprint and comment
		command string
		noPTY   bool
	}{
		{options: `role=viewer`, want: registry.Caller{Role: registry.Viewer}},
		{options: `ROLE="publisher"`, want: registry.Caller{Role: registry.Publisher}},
		{options: `role=operator,configs="web-*,db"`, want: registry.Caller{Role: registry.Operator, Configs: "web-*,db"}},
		{options: `configs=web,role=agent,host=web1.example`, want: registry.Caller{Role: registry.Agent, Configs: "web", Host: "web1.example"}},
		{options: `label="deploys, \"ours\""`, want: registry.Caller{Role: registry.Admin, Label: `deploys, "ours"`}},
		{options: `restrict`, want: registry.Caller{Role: registry.Admin}, noPTY: true},
		{options: `pty,no-pty`, want: registry.Caller{Role: registry.Admin}, noPTY: true},
		{options: `restrict,pty`, want: registry.Caller{Role: registry.Admin}},
		{options: `command="showconf -name \"web\""`, want: registry.Caller{Role: registry.Admin}, command: `showconf -name "web"`},
		{options: `restrict,command="a\b"`, want: registry.Caller{Role: registry.Admin}, command: `a\b`, noPTY: true},
		{options: `role=agent,command="internal-sftp"`, want: registry.Caller{Role: registry.Agent}, command: "internal-sftp"},
	} {
		g := grantOf(t, test.options, admins)
		test.want.Fingerprint, test.want.Comment = g.Caller.Fingerprint, "anna"
		if g.Caller != test.want || g.Command != test.command || g.NoPTY != test.noPTY {
			t.Errorf("%s: %+v, want %+v, command %q, without a terminal: %t", test.options, g, test.want, test.command, test.noPTY)
		}
		if g.Where() != "ops.keys: line 2" {
			t.Errorf("Where = %q", g.Where())
		}
	}
}

// Who may add agents cannot make himself an operator.
func TestFileOfAgentsHasAgentsOnly(t *testing.T) {
	_, text := key("ssh-ed25519", "x")
	for _, role := range []registry.Role{registry.Viewer, registry.Publisher, registry.Operator, registry.Admin} {
		_, refused, err := keys.Parse("f", []byte("role="+role.String()+" "+text), keys.Rules{Role: registry.Agent})
		if err == nil || len(refused) != 1 || refused[0].Text != "option role="+role.String()+": this file is for agents" {
			t.Errorf("role=%s among agents: %v, %v", role, refused, err)
		}
	}
	if g := grantOf(t, "role=agent", admins); g.Caller.Role != registry.Agent {
		t.Errorf("role=agent among operators: %+v", g)
	}
}

func TestFromAdmits(t *testing.T) {
	for _, test := range []struct{ from, in, out string }{
		{"10.0.0.1", "10.0.0.1 ::ffff:10.0.0.1", "10.0.0.2 ::1 "},
		{"10.0.0.0/8", "10.0.0.1 10.255.0.1", "11.0.0.1 ::a00:1"},
		{"10.1.*", "10.1.0.1 10.1.200.3", "10.10.0.1 110.1.0.1"},
		{"10.1.2.?", "10.1.2.3", "10.1.2.33"},
		{"10.0.0.0/8,!10.1.*", "10.0.0.1", "10.1.0.1 11.0.0.1"},
		{"!10.1.*,*", "10.0.0.1 fe80::1", "10.1.0.1"},
		{"*,!2001:db8::/32", "10.0.0.1 2001:db9::1", "2001:db8::1 2001:db8:ffff::1"},
		{"::1,FE80::*", "::1 fe80::1 fe80::1%eth0", "::2 fe81::1 127.0.0.1"},
		{"fe80::1", "fe80::1%eth0", "fe80::2%eth0"},
		{"::ffff:10.0.0.1", "10.0.0.1", "10.0.0.2"},
	} {
		g := grantOf(t, `from="`+test.from+`"`, admins)
		for want, addresses := range map[bool]string{true: test.in, false: test.out} {
			for _, a := range strings.Fields(addresses) {
				err := g.Check(netip.MustParseAddr(a), time.Now())
				if (err == nil) != want {
					t.Errorf("from=%q at %s: %v, want admitted: %t", test.from, a, err, want)
				}
				if err != nil && !strings.HasPrefix(err.Error(), "ops.keys: line 2: from= leaves out ") {
					t.Errorf("from=%q at %s: %v, want the line", test.from, a, err)
				}
			}
		}
		if g.Check(netip.Addr{}, time.Now()) == nil {
			t.Errorf("from=%q admits who has no address", test.from)
		}
	}
	if err := grantOf(t, "restrict", admins).Check(netip.Addr{}, time.Now()); err != nil {
		t.Errorf("without from=: %v", err)
	}
}

func TestExpiryTime(t *testing.T) {
	was := time.Local
	defer func() { time.Local = was }()
	time.Local = time.FixedZone("east", 2*3600)
	for text, want := range map[string]string{
		"20271231": "2027-12-30T22:00:00Z", "20271231Z": "2027-12-31T00:00:00Z", "202712311530": "2027-12-31T13:30:00Z",
		"202712311530Z": "2027-12-31T15:30:00Z", "20271231153059": "2027-12-31T13:30:59Z", "20271231153059Z": "2027-12-31T15:30:59Z",
	} {
		g := grantOf(t, `expiry-time="`+text+`"`, admins)
		end, err := time.Parse(time.RFC3339, want)
		if err != nil {
			t.Fatal(err)
		}
		ip := netip.MustParseAddr("10.0.0.1")
		if err := g.Check(ip, end.Add(-time.Nanosecond)); err != nil {
			t.Errorf("expiry-time=%s, just before: %v", text, err)
		}
		if err := g.Check(ip, end); err == nil || err.Error() != "ops.keys: line 2: expired at "+want {
			t.Errorf("expiry-time=%s: %v, want it expired at %s", text, err, want)
		}
	}
}

func TestAuthoritiesAreNoKeys(t *testing.T) {
	blob, text := key("ssh-ed25519", "ca")
	s, refused, err := keys.Parse("f", []byte("cert-authority,principals=\"ops,anna\",role=operator "+text+" ca\n"+
		"cert-authority,role=viewer "+text+" ca\n"), admins)
	if err != nil || len(refused) > 0 {
		t.Fatal(refused, err)
	}
	grants := s.Authority(blob)
	if s.Key(blob) != nil || len(grants) != 2 || s.Len() != 1 {
		t.Fatalf("%d lines of the key, %d of the authority, want 0 and 2", len(s.Key(blob)), len(grants))
	}
	if g := grants[0]; g.Caller.Role != registry.Operator || strings.Join(g.Principals, " ") != "ops anna" || g.Line != 1 {
		t.Errorf("first line %+v", g)
	}
	if g := grants[1]; g.Caller.Role != registry.Viewer || g.Principals != nil || g.Line != 2 {
		t.Errorf("second line %+v", g)
	}
}

func TestCommandIsLookedAt(t *testing.T) {
	_, text := key("ssh-ed25519", "x")
	rules := keys.Rules{Role: registry.Admin, Command: func(line string) error {
		if line != "help" {
			return errors.New("no such thing\x1b")
		}
		return nil
	}}
	_, refused, err := keys.Parse("f", []byte(`command="helq" `+text), rules)
	if err == nil || len(refused) != 1 || refused[0].Text != "option command=: no such thing?" {
		t.Errorf("Parse = %v, %v", refused, err)
	}
	for _, command := range []string{"help", "internal-sftp"} {
		if g := grantOf(t, `command="`+command+`"`, rules); g.Command != command {
			t.Errorf("command %q, want %q", g.Command, command)
		}
	}
}

func TestJoinKeepsTheOrderOfLines(t *testing.T) {
	blob, text := key("ssh-ed25519", "x")
	other, more := key("ssh-ed25519", "y")
	var sets []*keys.Set
	for _, data := range []string{"role=viewer " + text, text + "\ncert-authority " + more, "role=operator " + text + "\n" + more} {
		s, _, err := keys.Parse("f", []byte(data), admins)
		if err != nil {
			t.Fatal(err)
		}
		sets = append(sets, s)
	}
	s := keys.Join(sets...)
	var roles []string
	for _, g := range s.Key(blob) {
		roles = append(roles, g.Caller.Role.String())
	}
	if got := strings.Join(roles, " "); got != "viewer admin operator" || s.Len() != 3 || len(s.Authority(other)) != 1 || len(s.Key(other)) != 1 {
		t.Errorf("joined: %s, %d keys", got, s.Len())
	}
	if len(sets[0].Key(blob)) != 1 {
		t.Error("Join has changed a set")
	}
}

func TestRevoked(t *testing.T) {
	one, text := key("ssh-ed25519", "one")
	two, second := key("ssh-ed25519", "two")
	three, _ := key("ssh-ed25519", "three")
	four, fourth := key("ssh-ed25519", "four")
	r, bad := keys.ParseRevoked([]byte("# gone\n\n" + text + " anna\r\nkey: " + second + " ben\n" + keys.Fingerprint(three) + "=\nhash:" +
		" SHA256:+RFKQ4vwK2UeHO99v4+CEe5k2gDnIfX5dIDIjDkCbH4\nsha256: " + fourth + "\nserial: 7\nserial:10-12\nid: anna's laptop \n"))
	if len(bad) > 0 {
		t.Fatalf("refused: %v", bad)
	}
	for _, blob := range [][]byte{one, two, three, four} {
		if !r.Key(keys.Fingerprint(blob)) {
			t.Errorf("%s is not revoked", keys.Fingerprint(blob))
		}
	}
	if !r.Key("SHA256:+RFKQ4vwK2UeHO99v4+CEe5k2gDnIfX5dIDIjDkCbH4") || r.Key("SHA256:AAA") || r.Key("") {
		t.Error("fingerprints are not compared")
	}
	for serial, want := range map[uint64]bool{0: false, 6: false, 7: true, 8: false, 9: false, 10: true, 11: true, 12: true, 13: false} {
		if got := r.Certificate(serial, "x"); got != want {
			t.Errorf("serial %d is revoked: %t, want %t", serial, got, want)
		}
	}
	if !r.Certificate(1, "anna's laptop") || r.Certificate(1, "anna") || r.Certificate(1, "") {
		t.Error("IDs are not compared")
	}
	if r.Len() != 8 {
		t.Errorf("%d entries, want 8", r.Len())
	}
	var none *keys.Revoked
	if none.Key(keys.Fingerprint(one)) || none.Certificate(7, "anna") || none.Len() != 0 {
		t.Error("a nil list revokes something")
	}
	both := none.Plus(r)
	if !both.Key(keys.Fingerprint(one)) || !both.Certificate(11, "") || both.Len() != r.Len() {
		t.Error("Plus loses entries")
	}
}

// What is not understood is said, and the rest of the list still counts.
func TestBadLinesOfAListDoNotHideTheOthers(t *testing.T) {
	blob, text := key("ssh-ed25519", "one")
	for _, line := range []string{
		"nonsense", "serial: x", "serial: 0", "serial: 9-7", "serial: -1", "serial:", "id:", "hash: MD5:aa", "SHA256:AAAA", "key: AAAA", "ssh-ed25519 AAAA", "serial: 1\x1b",
	} {
		r, bad := keys.ParseRevoked([]byte(line + "\n" + text + "\n"))
		if len(bad) != 1 || bad[0].Line != 1 || strings.ContainsRune(bad[0].Text, 0x1b) {
			t.Errorf("%q: %v, want it refused", line, bad)
		}
		if !r.Key(keys.Fingerprint(blob)) || r.Len() != 1 {
			t.Errorf("%q hides the line behind it", line)
		}
	}
	if _, bad := keys.ParseRevoked([]byte("SSHKRL\n\x00\x00\x00\x00\x01")); len(bad) != 1 || !strings.Contains(bad[0].Text, "binary format") {
		t.Errorf("OpenSSH's binary format: %v", bad)
	}
}
