package sshd

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"deploytools/registry"
	"deploytools/registry/keys"
)

// identity is who has authenticated a connection, and what he may do on it.
type identity struct {
	caller  registry.Caller
	command string    // is run whatever is asked for; "" is the client's choice
	noPTY   bool      // no terminal
	until   time.Time // when it has to be looked at again; zero: never

	peer peer          // and
	key  ssh.PublicKey // by which all that was found: see recheck
}

// peer is the other end of a connection.
type peer struct {
	user   string // as it names itself
	remote net.Addr
}

// identify returns what the key, or certificate, stands for at the time now, or
// says why it stands for nobody. It changes nothing.
func (s *Server) identify(p peer, key ssh.PublicKey, now time.Time) (identity, error) {
	id := identity{peer: p, key: key}
	plain, found := key, (*keys.Set).Key
	cert, isCert := key.(*ssh.Certificate)
	if isCert {
		plain, found = cert.Key, (*keys.Set).Authority
	}
	fingerprint := ssh.FingerprintSHA256(plain)
	fail := func(err error) (identity, error) {
		return identity{}, fmt.Errorf("user %q: key %s %w", p.user, fingerprint, err)
	}
	if err := CheckKey(plain.Marshal()); err != nil {
		return fail(fmt.Errorf("is refused: %w", err))
	}
	if s.o.Revoked().Key(fingerprint) {
		return fail(errors.New("is revoked"))
	}
	blob := plain.Marshal()
	if isCert {
		blob = cert.SignatureKey.Marshal()
	}
	grants := s.grants(p.user, func(set *keys.Set) []keys.Grant { return found(set, blob) })
	if len(grants) == 0 {
		return fail(errors.New("is not known"))
	}
	var reasons []string
	for _, g := range grants {
		err := g.Check(ipOf(p.remote), now)
		if err == nil && isCert {
			err = s.checkCertificate(cert, g, p, now)
		}
		if err != nil {
			reasons = append(reasons, err.Error())
			continue
		}
		id.take(g, cert)
		id.caller.User = clean(p.user, maxUser)
		id.caller.Remote = hostOf(p.remote)
		id.caller.Fingerprint = fingerprint
		return id, nil
	}
	return fail(errors.New("is not taken: " + strings.Join(reasons, "; ")))
}

// grants returns the lines that count for a user name: of agents for the agents'
// name, which may stand in either file, and of operators for all others, which
// may not.
func (s *Server) grants(user string, lines func(*keys.Set) []keys.Grant) []keys.Grant {
	if user == AgentUser {
		all := slices.Concat(lines(s.o.Agents()), lines(s.o.Operators()))
		return slices.DeleteFunc(all, func(g keys.Grant) bool { return g.Caller.Role != registry.Agent })
	}
	all := slices.Clone(lines(s.o.Operators()))
	return slices.DeleteFunc(all, func(g keys.Grant) bool { return g.Caller.Role < registry.Viewer })
}

// take takes over what the line g says, and the certificate; nil: there is none.
func (id *identity) take(g keys.Grant, cert *ssh.Certificate) {
	id.caller, id.command, id.noPTY, id.until = g.Caller, g.Command, g.NoPTY, g.Expires
	if cert == nil {
		return
	}
	id.caller.Authority = g.Caller.Fingerprint
	id.caller.Serial, id.caller.Comment = cert.Serial, clean(cert.KeyId, maxUser)
	if _, ok := cert.Extensions["permit-pty"]; !ok {
		id.noPTY = true
	}
	if c := cert.CriticalOptions[forceCommand]; c != "" {
		id.command = c
	}
	if cert.ValidBefore != ssh.CertTimeInfinity {
		if end := time.Unix(int64(cert.ValidBefore), 0); id.until.IsZero() || end.Before(id.until) {
			id.until = end
		}
	}
}

// Critical options of certificates that are honoured, as OpenSSH's
// PROTOCOL.certkeys has them.
const (
	forceCommand  = "force-command"
	sourceAddress = "source-address"
)

// checkCertificate says why the certificate, which an authority of ours is said
// to have signed, does not stand for the user of the line g.
func (s *Server) checkCertificate(cert *ssh.Certificate, g keys.Grant, p peer, now time.Time) error {
	principal := slices.IndexFunc(cert.ValidPrincipals, func(name string) bool {
		if g.Principals == nil {
			return name == p.user
		}
		return slices.Contains(g.Principals, name)
	})
	force, forced := cert.CriticalOptions[forceCommand]
	revoked := s.o.Revoked()
	switch {
	case cert.CertType != ssh.UserCert:
		return errors.New("the certificate is not one of a user")
	case len(cert.ValidPrincipals) == 0:
		// Which x/crypto, and OpenSSH long ago, would take for everybody's.
		return errors.New("the certificate names no principal (ssh-keygen -n)")
	case principal < 0:
		return fmt.Errorf("%s: the certificate is for %q, not for %s", g.Where(), cert.ValidPrincipals, wanted(g, p))
	case revoked.Certificate(cert.Serial, cert.KeyId) || revoked.Key(g.Caller.Fingerprint):
		return errors.New("the certificate is revoked")
	case cert.Signature == nil || cert.Signature.Format == ssh.KeyAlgoRSA:
		return errors.New("the certificate is signed with SHA-1")
	case forced && (force == "" || g.Command != "" && g.Command != force):
		return fmt.Errorf("%s: the certificate forces another command", g.Where())
	case forced && g.Caller.Role == registry.Agent && force != keys.CommandSFTP:
		return errors.New("the certificate forces a command, and agents run none")
	}
	if list, ok := cert.CriticalOptions[sourceAddress]; ok && !inNetworks(ipOf(p.remote), list) {
		return fmt.Errorf("the certificate is for other addresses than %s", hostOf(p.remote))
	}
	checker := ssh.CertChecker{
		SupportedCriticalOptions: []string{forceCommand, sourceAddress},
		Clock:                    func() time.Time { return now },
	}
	return checker.CheckCert(cert.ValidPrincipals[principal], cert)
}

func wanted(g keys.Grant, p peer) string {
	if g.Principals == nil {
		return fmt.Sprintf("%q", p.user)
	}
	return fmt.Sprintf("%q", g.Principals)
}

// inNetworks reports whether ip is in one of the addresses and networks of a
// certificate, which have commas between them. What cannot be read admits
// nobody.
func inNetworks(ip netip.Addr, list string) bool {
	for text := range strings.SplitSeq(list, ",") {
		network, err := netip.ParsePrefix(text)
		if a, addrErr := netip.ParseAddr(text); addrErr == nil {
			network, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err == nil && network.Contains(ip) {
			return true
		}
	}
	return false
}

// logged returns who it is, for a line of the log.
func (id identity) logged() []any {
	c := id.caller
	attrs := []any{"user", c.User, "key_fingerprint", c.Fingerprint}
	if name := c.String(); name != c.User {
		attrs = append(attrs, "key_comment", name)
	}
	if c.Authority != "" {
		attrs = append(attrs, "key_authority", c.Authority, "key_serial", c.Serial)
	}
	if c.Host != "" {
		attrs = append(attrs, "host", c.Host)
	}
	return attrs
}

// sameRights reports whether both may do the same.
func (id identity) sameRights(other identity) bool {
	return id.caller.SameRights(other.caller) && id.command == other.command && id.noPTY == other.noPTY && id.until.Equal(other.until)
}

// Recheck looks at every open connection again with the keys that count now. It
// cuts those whose keys are gone, have expired or are revoked, and those that
// have other rights now: who connects again has the new ones, and no command
// ever runs with a mixture.
func (s *Server) Recheck() {
	now := time.Now()
	for _, c := range s.connections() {
		c.recheck(now)
	}
}

func (c *conn) recheck(now time.Time) {
	id, err := c.s.identify(c.id.peer, c.id.key, now)
	switch {
	case err != nil:
		c.cut(err)
	case !id.sameRights(c.id):
		c.cut(errors.New("the key has other rights now"))
	}
}
