package sshd

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"deploytools/registry"
	"deploytools/registry/console"
	"deploytools/registry/keys"
	"deploytools/registry/wire"
)

// Whatever takes rights away, or changes them, ends what is open with the old
// ones; what leaves them as they are does not.
func TestRecheckEndsWhatHasOtherRights(t *testing.T) {
	ca, user, other := newKey(t), newKey(t), newKey(t)
	cert := certified(t, ca, func(c *ssh.Certificate) {
		c.Key, c.ValidAfter, c.ValidBefore = user.PublicKey(), 0, ssh.CertTimeInfinity
	})
	certSigner, err := ssh.NewCertSigner(cert, user)
	if err != nil {
		t.Fatal(err)
	}
	key, authority, rest := " "+line(user, "user"), " "+line(ca, "ca"), "\n"+line(other, "other")
	for _, test := range []struct {
		name           string
		signer         ssh.Signer
		before, after  string // lines of the operators
		revoked        string
		agentBy, agent string // lines of the agents, before and after; the user is one
		want           string // why it is cut; "" stays
	}{
		{name: "nothing", signer: user, before: "role=viewer" + key, after: rest + "\nrole=viewer" + key},
		{name: "comment", signer: user, before: key, after: key + " else"},
		{name: "label", signer: user, before: key, after: "label=x" + key},
		{name: "where it may come from", signer: user, before: key, after: `from="127.0.0.1"` + key},
		{name: "removed", signer: user, before: key, after: rest, want: "is not known"},
		{name: "smaller role", signer: user, before: key, after: "role=viewer" + key, want: "other rights"},
		{name: "greater role", signer: user, before: "role=viewer" + key, after: key, want: "other rights"},
		{name: "scope", signer: user, before: key, after: "configs=web" + key, want: "other rights"},
		{name: "forced command", signer: user, before: key, after: "command=help" + key, want: "other rights"},
		{name: "no terminal", signer: user, before: key, after: "no-pty" + key, want: "other rights"},
		{name: "other addresses", signer: user, before: key, after: `from="192.0.2.1"` + key, want: "from= leaves out 127.0.0.1"},
		{name: "expired", signer: user, before: key, after: "expiry-time=20200101" + key, want: "expired at"},
		{name: "revoked", signer: user, before: key, after: key, revoked: ssh.FingerprintSHA256(user.PublicKey()), want: "is revoked"},
		{name: "becomes an agent's", signer: user, before: key, after: "role=agent" + key, want: "is not known"},
		{name: "certificate", signer: certSigner, before: "cert-authority" + authority, after: "cert-authority" + authority + rest},
		{name: "authority removed", signer: certSigner, before: "cert-authority" + authority, after: rest, want: "is not known"},
		{name: "authority has a smaller role", signer: certSigner, before: "cert-authority" + authority, after: "cert-authority,role=viewer" + authority, want: "other rights"},
		{name: "other principals", signer: certSigner, before: "cert-authority" + authority, after: "cert-authority,principals=dev" + authority, want: "is for"},
		{name: "serial revoked", signer: certSigner, before: "cert-authority" + authority, after: "cert-authority" + authority, revoked: "serial: 7", want: "certificate is revoked"},
		{name: "authority revoked", signer: certSigner, before: "cert-authority" + authority, after: "cert-authority" + authority, revoked: ssh.FingerprintSHA256(ca.PublicKey()), want: "certificate is revoked"},
		{name: "agent's scope", signer: user, before: rest, after: rest, agentBy: "configs=web" + key, agent: `configs="web,db"` + key, want: "other rights"},
		{name: "agent", signer: user, before: rest, after: rest, agentBy: key, agent: key},
		{name: "agent removed", signer: user, before: rest, after: rest, agentBy: key, agent: rest, want: "is not known"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var operators, agents atomic.Pointer[keys.Set]
			var revoked atomic.Pointer[keys.Revoked]
			operators.Store(parse(t, registry.Admin, test.before))
			d := start(t, func(o *Options) { o.Operators, o.Revoked = operators.Load, revoked.Load })
			name := "anna"
			if test.agentBy != "" {
				name = AgentUser
				agents.Store(parse(t, registry.Agent, test.agentBy))
				d.o.Agents = agents.Load
			}
			c := d.mustDial(t, name, test.signer)
			ping := func() error {
				_, _, err := c.SendRequest("keepalive@openssh.com", true, nil)
				return err
			}
			if err := ping(); err != nil { // then it is on the list
				t.Fatal(err)
			}
			operators.Store(parse(t, registry.Admin, test.after))
			if test.agent != "" {
				agents.Store(parse(t, registry.Agent, test.agent))
			}
			list, bad := keys.ParseRevoked([]byte(test.revoked))
			if len(bad) > 0 {
				t.Fatal(bad)
			}
			revoked.Store(list)
			d.Recheck()
			if test.want == "" {
				if err := ping(); err != nil {
					t.Errorf("it was cut: %v", err)
				}
				return
			}
			if ping() == nil {
				t.Fatalf("it goes on, want it cut: %s", test.want)
			}
			closed := d.log.wait(t, "connection closed")
			if reason := fmt.Sprint(closed["error"]); !strings.Contains(reason, test.want) {
				t.Errorf("cut because %q, want %q", reason, test.want)
			}
		})
	}
}

// Commands and transfers that run end with the connection.
func TestRecheckEndsWhatRuns(t *testing.T) {
	var operators atomic.Pointer[keys.Set]
	d := newDaemon(t, func(o *Options) { o.Operators = operators.Load })
	operators.Store(parse(t, registry.Admin, line(d.operator, "anna")))
	started := make(chan struct{})
	d.front.exec = func(ctx context.Context, _ *console.Session, _ string) wire.Status {
		close(started)
		<-ctx.Done()
		return wire.Failed
	}
	d.listen(t)
	cmd := d.ssh(t, "ssh", "-i", "op", "anna@registry", "wait")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-started
	operators.Store(parse(t, registry.Admin, line(newKey(t), "other")))
	d.Recheck()
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 255 {
		t.Errorf("ssh ended with %d, want 255", code)
	}
}

// A key that is taken away while somebody logs in with it: whoever comes on the
// list after Recheck has gone through it is looked at all the same.
func TestRecheckMissesNobodyWhoIsComing(t *testing.T) {
	d := newDaemon(t)
	was, none := parse(t, registry.Admin, line(d.operator, "anna")), parse(t, registry.Admin, line(newKey(t), "other"))
	var asked atomic.Int64
	d.o.Operators = func() *keys.Set {
		if asked.Add(1) == 1 { // the login's question; then the key is gone
			return was
		}
		return none
	}
	d.listen(t)
	if c, err := d.dial(t, "anna", d.operator); err == nil {
		if _, _, err := c.SendRequest("keepalive@openssh.com", true, nil); err == nil {
			t.Error("who came in with a key that is gone stays")
		}
	}
	if n := asked.Load(); n < 2 {
		t.Errorf("the keys were asked for %d times", n)
	}
}

// Without anybody's doing, a session ends when its key or certificate does.
func TestSessionEndsWithItsKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := time.Now().Add(time.Minute).Truncate(time.Second)
		ca, user := newKey(t), newKey(t)
		cert := certified(t, ca, func(c *ssh.Certificate) { c.Key, c.ValidAfter, c.ValidBefore = user.PublicKey(), 0, uint64(end.Unix()) })
		certSigner, err := ssh.NewCertSigner(cert, user)
		if err != nil {
			t.Fatal(err)
		}
		d := newDaemon(t)
		set := parse(t, registry.Admin, "cert-authority "+line(ca, "ca"), "expiry-time="+end.UTC().Format("20060102150405Z")+" "+line(d.operator, "anna"))
		d.o.Operators = func() *keys.Set { return set }
		p := d.serveInMemory()
		byKey, byCert, agent := p.connect("192.0.2.2:1"), p.connect("192.0.2.3:1"), p.connect("192.0.2.4:1")
		d.member(t, byKey, "anna", d.operator)
		d.member(t, byCert, "anna", certSigner)
		d.member(t, agent, AgentUser, d.agent)
		time.Sleep(time.Until(end) - time.Millisecond)
		synctest.Wait()
		if isClosed(byKey) || isClosed(byCert) {
			t.Error("cut before the end")
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if !isClosed(byKey) || !isClosed(byCert) {
			t.Error("not cut at the end")
		}
		if isClosed(agent) {
			t.Error("a key without an end is cut")
		}
		d.end(t)
	})
}
