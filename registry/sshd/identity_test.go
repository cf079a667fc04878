package sshd

import (
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"deploytools/registry"
	"deploytools/registry/keys"
)

// moment is the time at which certificates are looked at here.
var moment = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// certified returns a certificate for anna that change has changed before it
// was signed.
func certified(t *testing.T, authority ssh.Signer, change func(*ssh.Certificate)) *ssh.Certificate {
	t.Helper()
	c := &ssh.Certificate{
		Key: newKey(t).PublicKey(), CertType: ssh.UserCert, KeyId: "anna's laptop", Serial: 7, ValidPrincipals: []string{"anna", "ops"},
		ValidAfter: uint64(moment.Add(-time.Hour).Unix()), ValidBefore: uint64(moment.Add(time.Hour).Unix()),
		Permissions: ssh.Permissions{CriticalOptions: map[string]string{}, Extensions: map[string]string{"permit-pty": ""}},
	}
	if change != nil {
		change(c)
	}
	if err := c.SignCert(rand.Reader, authority); err != nil {
		t.Fatal(err)
	}
	return c
}

func at(user, address string) peer {
	return peer{user, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(address + ":1"))}
}

// A certificate is taken only if everything about it is right. What x/crypto
// would take and must not: one without principals, one signed with SHA-1.
func TestCertificates(t *testing.T) {
	ca, other := newKey(t), newKey(t)
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	old, err := ssh.NewSignerFromKey(weak)
	if err != nil {
		t.Fatal(err)
	}
	sha1, err := ssh.NewSignerWithAlgorithms(old.(ssh.AlgorithmSigner), []string{ssh.KeyAlgoRSA})
	if err != nil {
		t.Fatal(err)
	}
	sha2, err := ssh.NewSignerWithAlgorithms(old.(ssh.AlgorithmSigner), []string{ssh.KeyAlgoRSASHA256})
	if err != nil {
		t.Fatal(err)
	}
	type certificate = ssh.Certificate
	option := func(name, value string) func(*certificate) {
		return func(c *certificate) { c.CriticalOptions[name] = value }
	}
	for _, test := range []struct {
		name      string
		authority ssh.Signer
		change    func(*certificate)
		options   string // of the authority's line
		revoked   string
		user      string
		want      string // what the refusal says; "" is none
	}{
		{name: "as it should be"},
		{name: "for ever", change: func(c *certificate) { c.ValidAfter, c.ValidBefore = 0, ssh.CertTimeInfinity }},
		{name: "RSA, SHA-2", authority: sha2},
		{name: "RSA, SHA-1", authority: sha1, want: "signed with SHA-1"},
		{name: "no principals", change: func(c *certificate) { c.ValidPrincipals = nil }, want: "names no principal"},
		{name: "no principals, listed ones wanted", options: `principals="ops"`, change: func(c *certificate) { c.ValidPrincipals = nil }, want: "names no principal"},
		{name: "another's", user: "ben", want: `is for ["anna" "ops"], not for "ben"`},
		{name: "role principal", user: "ben", options: `principals="dev,ops"`},
		{name: "user name where others are wanted", options: `principals="dev"`, want: `not for ["dev"]`},
		{name: "agents' name", user: AgentUser, want: "is not known"},
		{name: "of a host", change: func(c *certificate) { c.CertType = ssh.HostCert }, want: "is not one of a user"},
		{name: "of no type", change: func(c *certificate) { c.CertType = 0 }, want: "is not one of a user"},
		{name: "expired", change: func(c *certificate) { c.ValidBefore = uint64(moment.Unix()) }, want: "has expired"},
		{name: "not yet", change: func(c *certificate) { c.ValidAfter = uint64(moment.Unix()) + 1 }, want: "not yet valid"},
		{name: "time beyond all", change: func(c *certificate) { c.ValidBefore = 1 << 63 }, want: "has expired"},
		{name: "unknown authority", authority: other, want: "is not known"},
		{name: "unknown critical option", change: option("verify-required", ""), want: "unsupported critical option"},
		{name: "unknown extension", change: func(c *certificate) { c.Extensions["login@github.com"] = "anna" }},
		{name: "from here", change: option("source-address", "192.0.2.1,10.0.0.0/8")},
		{name: "from elsewhere", change: option("source-address", "192.0.2.1,11.0.0.0/8"), want: "is for other addresses than 10.0.0.9"},
		{name: "from nonsense", change: option("source-address", "*"), want: "is for other addresses"},
		{name: "from nowhere", change: option("source-address", ""), want: "is for other addresses"},
		{name: "forced", change: option("force-command", "help")},
		{name: "forced to nothing", change: option("force-command", ""), want: "forces another command"},
		{name: "forced twice the same", options: `command="help"`, change: option("force-command", "help")},
		{name: "forced twice", options: `command="help"`, change: option("force-command", "version"), want: "forces another command"},
		{name: "line's from=", options: `from="11.0.0.0/8"`, want: "from= leaves out 10.0.0.9"},
		{name: "line's expiry", options: `expiry-time="20261122115959Z"`, want: "expired at 2026-11-22T11:59:59Z"},
		{name: "revoked serial", revoked: "serial: 5-9", want: "the certificate is revoked"},
		{name: "revoked ID", revoked: "id: anna's laptop", want: "the certificate is revoked"},
		{name: "revoked authority", revoked: ssh.FingerprintSHA256(ca.PublicKey()), want: "the certificate is revoked"},
		{name: "something else revoked", revoked: "serial: 6\nid: anna\n" + ssh.FingerprintSHA256(other.PublicKey())},
	} {
		authority := test.authority
		if authority == nil {
			authority = ca
		}
		known := ca
		if authority == sha1 || authority == sha2 {
			known = authority
		}
		options := "cert-authority,role=operator"
		if test.options != "" {
			options += "," + test.options
		}
		operators := parse(t, registry.Admin, options+" "+line(known, "the authority"))
		revoked, bad := keys.ParseRevoked([]byte(test.revoked))
		if len(bad) > 0 {
			t.Fatal(bad)
		}
		d := newDaemon(t, func(o *Options) {
			o.Operators = func() *keys.Set { return operators }
			o.Revoked = func() *keys.Revoked { return revoked }
		})
		c := certified(t, authority, test.change)
		user := "anna"
		if test.user != "" {
			user = test.user
		}
		id, err := d.identify(at(user, "10.0.0.9"), c, moment)
		if test.want != "" {
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%s: %v, want %q", test.name, err, test.want)
			}
			continue
		}
		want := registry.Caller{
			User: user, Role: registry.Operator, Fingerprint: ssh.FingerprintSHA256(c.Key), Comment: "anna's laptop",
			Authority: ssh.FingerprintSHA256(known.PublicKey()), Serial: 7, Remote: "10.0.0.9",
		}
		if err != nil || id.caller != want {
			t.Errorf("%s: %+v, %v, want %+v", test.name, id.caller, err, want)
		}
	}
}

// An agent's certificate names the agents' user name, and its authority stands
// where agents do.
func TestCertificateOfAnAgent(t *testing.T) {
	ca := newKey(t)
	agents := parse(t, registry.Agent, "cert-authority,configs=web "+line(ca, "ca"))
	d := newDaemon(t, func(o *Options) { o.Agents = func() *keys.Set { return agents } })
	for _, test := range []struct {
		user    string
		change  func(*ssh.Certificate)
		allowed bool
	}{
		{user: AgentUser, change: func(c *ssh.Certificate) { c.ValidPrincipals = []string{AgentUser} }, allowed: true},
		{user: AgentUser, change: func(c *ssh.Certificate) {
			c.ValidPrincipals, c.CriticalOptions["force-command"] = []string{AgentUser}, keys.CommandSFTP
		}, allowed: true},
		{user: AgentUser, change: func(c *ssh.Certificate) {
			c.ValidPrincipals, c.CriticalOptions["force-command"] = []string{AgentUser}, "help"
		}},
		{user: AgentUser},
		{user: "anna"},
	} {
		id, err := d.identify(at(test.user, "10.0.0.9"), certified(t, ca, test.change), moment)
		if (err == nil) != test.allowed {
			t.Errorf("%s: %v, want access: %t", test.user, err, test.allowed)
		}
		if err == nil && (id.caller.Role != registry.Agent || id.caller.Configs != "web") {
			t.Errorf("%s: %+v, want an agent of web", test.user, id.caller)
		}
	}
}

// One bit of a certificate changed, and it is worth nothing.
func TestCertificateThatWasTamperedWith(t *testing.T) {
	ca := newKey(t)
	operators := parse(t, registry.Admin, "cert-authority "+line(ca, "ca"))
	d := newDaemon(t, func(o *Options) { o.Operators = func() *keys.Set { return operators } })
	c := certified(t, ca, nil)
	if _, err := d.identify(at("anna", "10.0.0.9"), c, moment); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*ssh.Certificate){
		"principals": func(c *ssh.Certificate) { c.ValidPrincipals = []string{"anna", "root"} },
		"validity":   func(c *ssh.Certificate) { c.ValidBefore++ },
		"key":        func(c *ssh.Certificate) { c.Key = newKey(t).PublicKey() },
		"signature": func(c *ssh.Certificate) {
			c.Signature = &ssh.Signature{Format: c.Signature.Format, Blob: make([]byte, 64)}
		},
		"none":       func(c *ssh.Certificate) { c.Signature = nil },
		"extensions": func(c *ssh.Certificate) { c.Extensions = map[string]string{"permit-pty": "", "x": ""} },
	} {
		forged := *c
		change(&forged)
		if _, err := d.identify(at("anna", "10.0.0.9"), &forged, moment); err == nil {
			t.Errorf("%s: a forged certificate is taken", name)
		}
	}
}

// What a certificate allows adds up with what its authority's line allows: the
// lesser of both.
func TestCertificateNarrows(t *testing.T) {
	ca := newKey(t)
	for _, test := range []struct {
		options string
		change  func(*ssh.Certificate)
		command string
		noPTY   bool
		until   time.Time
	}{
		{options: "cert-authority", until: moment.Add(time.Hour)},
		{options: "cert-authority,restrict", noPTY: true, until: moment.Add(time.Hour)},
		{options: "cert-authority", change: func(c *ssh.Certificate) { c.Extensions = nil }, noPTY: true, until: moment.Add(time.Hour)},
		{options: `cert-authority,expiry-time="20261122123000Z"`, until: moment.Add(30 * time.Minute)},
		{options: `cert-authority,expiry-time="20261122150000Z"`, until: moment.Add(time.Hour)},
		{options: `cert-authority`, change: func(c *ssh.Certificate) { c.ValidBefore = ssh.CertTimeInfinity }},
		{options: `cert-authority,command="help"`, command: "help", until: moment.Add(time.Hour)},
		{options: `cert-authority`, change: func(c *ssh.Certificate) { c.CriticalOptions["force-command"] = "help" }, command: "help", until: moment.Add(time.Hour)},
	} {
		operators := parse(t, registry.Admin, test.options+" "+line(ca, "ca"))
		d := newDaemon(t, func(o *Options) { o.Operators = func() *keys.Set { return operators } })
		id, err := d.identify(at("anna", "10.0.0.9"), certified(t, ca, test.change), moment)
		if err != nil || id.command != test.command || id.noPTY != test.noPTY || !id.until.Equal(test.until) {
			t.Errorf("%s: %+v, %v, want %+v", test.options, id, err, test)
		}
	}
}

// The first line of a key that counts here and now is the one.
func TestLinesAreTriedInOrder(t *testing.T) {
	key := newKey(t)
	operators := parse(t, registry.Admin,
		`role=admin,from="10.0.0.0/8",expiry-time="20261122123000Z" `+line(key, "office"), `role=agent `+line(key, "host"), `role=viewer,from="!192.0.2.66,*" `+line(key, "road"))
	d := newDaemon(t, func(o *Options) { o.Operators = func() *keys.Set { return operators } })
	for _, test := range []struct {
		address string
		now     time.Time
		want    registry.Role
	}{
		{"10.1.2.3", moment, registry.Admin}, {"10.1.2.3", moment.Add(time.Hour), registry.Viewer},
		{"192.0.2.1", moment, registry.Viewer}, {"[::ffff:10.1.2.3]", moment, registry.Admin}, {"[2001:db8::1]", moment, registry.Viewer},
		{"192.0.2.66", moment, registry.NoRole},
	} {
		id, err := d.identify(at("anna", test.address), key.PublicKey(), test.now)
		if id.caller.Role != test.want || (err == nil) != (test.want != registry.NoRole) {
			t.Errorf("from %s at %v: %s, %v, want %s", test.address, test.now, id.caller.Role, err, test.want)
		}
		if err != nil && !strings.Contains(err.Error(), "keys: line 1: from= leaves out 192.0.2.66; keys: line 3: from=") {
			t.Errorf("from %s: %v, want the lines that leave it out", test.address, err)
		}
	}
	if id, err := d.identify(at(AgentUser, "192.0.2.66"), key.PublicKey(), moment); err != nil || id.caller.Role != registry.Agent {
		t.Errorf("as an agent: %+v, %v", id, err)
	}
}

func TestRevokedKeyIsNobody(t *testing.T) {
	d := newDaemon(t)
	list := ""
	d.o.Revoked = func() *keys.Revoked {
		r, bad := keys.ParseRevoked([]byte(list))
		if len(bad) > 0 {
			t.Fatal(bad)
		}
		return r
	}
	identify := func() error {
		_, operator := d.identify(at("anna", "10.0.0.9"), d.operator.PublicKey(), moment)
		_, agent := d.identify(at(AgentUser, "10.0.0.9"), d.agent.PublicKey(), moment)
		return errors.Join(operator, agent)
	}
	if err := identify(); err != nil {
		t.Fatal(err)
	}
	for _, key := range []ssh.Signer{d.operator, d.agent} {
		for _, list = range []string{line(key, "x"), ssh.FingerprintSHA256(key.PublicKey())} {
			if err := identify(); err == nil || !strings.HasSuffix(err.Error(), ssh.FingerprintSHA256(key.PublicKey())+" is revoked") {
				t.Errorf("%q: %v, want it revoked", list, err)
			}
		}
	}
}

func TestCheckCommand(t *testing.T) {
	for _, line := range []string{"help", "showconf -name web", `showconf -name "web"`} {
		if err := CheckCommand(line); err != nil {
			t.Errorf("CheckCommand(%q) = %v", line, err)
		}
	}
	for _, line := range []string{"", "nonsense", "help; version", `help "`, `""`} {
		if CheckCommand(line) == nil {
			t.Errorf("CheckCommand(%q) takes it", line)
		}
	}
}
