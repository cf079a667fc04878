package client_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"deploytools/registry/client"
	"deploytools/registry/wire"
)

// kinds returns a host key of each of three kinds, in our order of preference.
func kinds(t *testing.T) []ssh.Signer {
	t.Helper()
	e, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r, err := rsa.GenerateKey(rand.Reader, 1024) // small, for speed
	if err != nil {
		t.Fatal(err)
	}
	return []ssh.Signer{newKey(t), signer(t, e), signer(t, r)}
}

// known writes a known_hosts file that has the keys for the server.
func known(t *testing.T, s *server, keys ...ssh.Signer) string {
	t.Helper()
	var b strings.Builder
	for _, k := range keys {
		fmt.Fprintln(&b, knownhosts.Line([]string{s.addr()}, k.PublicKey()))
	}
	file := filepath.Join(t.TempDir(), "known_hosts")
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestEveryKindOfHostKeyIsOffered(t *testing.T) {
	have, other := kinds(t), kinds(t)
	fp := func(s ssh.Signer) string { return ssh.FingerprintSHA256(s.PublicKey()) }
	for _, tt := range []struct {
		name         string
		fingerprints []string
		known        []ssh.Signer
		connections  int
	}{
		{"first by fingerprint", []string{fp(have[0])}, nil, 1},
		{"second by fingerprint", []string{fp(have[1])}, nil, 2},
		{"last by fingerprint", []string{fp(other[0]), fp(have[2])}, nil, 3},
		{"first is known", nil, have[:1], 1},
		{"last is known", nil, have[2:], 1},
		{"first was changed, last is known", nil, []ssh.Signer{other[0], have[2]}, 2},
		{"old and new of one kind are known", nil, []ssh.Signer{other[1], have[1]}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t)
			s.hostKeys = have
			c := s.client(func(o *client.Options) {
				o.Fingerprints, o.KnownHosts = tt.fingerprints, []string{known(t, s, tt.known...)}
			})
			if err := c.Connect(t.Context()); err != nil {
				t.Fatal(err)
			}
			if n := s.count(&s.connections); n != tt.connections {
				t.Errorf("%d connections, want %d", n, tt.connections)
			}
		})
	}
}

func TestWrongHostKey(t *testing.T) {
	have, other := kinds(t), kinds(t)
	for _, tt := range []struct {
		name         string
		fingerprints []string
		known        []ssh.Signer
		says         []string
	}{
		{"by fingerprint", []string{ssh.FingerprintSHA256(other[0].PublicKey())}, nil, []string{"the registry logs"}},
		{"known", nil, other[:1], []string{"known_hosts, line 1", "ssh-keygen -R '[127.0.0.1]:"}},
		{"every kind known", nil, other, []string{"known_hosts, line 1", "ssh-keygen -R '[127.0.0.1]:"}},
		{"a kind known that it does not have", nil, []ssh.Signer{other[2]}, []string{"known_hosts, line 1", "ssh-keygen -R"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t)
			s.hostKeys = have[:2]
			c := s.client(func(o *client.Options) {
				o.Fingerprints, o.KnownHosts = tt.fingerprints, []string{known(t, s, tt.known...)}
			})
			err := c.Connect(t.Context())
			wants(t, err, wire.ErrUntrusted, s.addr(), "is not trusted", ssh.FingerprintSHA256(have[0].PublicKey()), "known is SHA256:")
			wants(t, err, wire.ErrUntrusted, tt.says...)
			if n := s.count(&s.asked); n != 0 {
				t.Errorf("%d of our keys were shown to a stranger", n)
			}
		})
	}
}

func TestUnknownHost(t *testing.T) {
	s := newServer(t)
	for name, file := range map[string]string{"empty file": known(t, s), "no file": filepath.Join(t.TempDir(), "none")} {
		c := s.client(func(o *client.Options) { o.Fingerprints, o.KnownHosts = nil, []string{file} })
		err := c.Connect(t.Context())
		wants(t, err, wire.ErrUntrusted, "is not known", s.fingerprint(), "ssh-keyscan -p ", ">>"+file)
		if s.count(&s.asked) != 0 {
			t.Errorf("%s: our key was shown to a stranger", name)
		}
	}
}

func TestRevokedHostKey(t *testing.T) {
	s := newServer(t)
	file := known(t, s, s.hostKeys[0])
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append([]byte("@revoked "), b...), 0o600); err != nil {
		t.Fatal(err)
	}
	err = s.client(func(o *client.Options) { o.Fingerprints, o.KnownHosts = nil, []string{file} }).Connect(t.Context())
	wants(t, err, wire.ErrUntrusted, "revoked")
}

func TestBrokenKnownHosts(t *testing.T) {
	s := newServer(t)
	file := filepath.Join(t.TempDir(), "known_hosts")
	if err := os.WriteFile(file, []byte("host ssh-ed25519 !!!\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := s.client(func(o *client.Options) { o.Fingerprints, o.KnownHosts = nil, []string{file} }).Connect(t.Context())
	wants(t, err, wire.ErrUntrusted, file)
}

func TestHostCertificate(t *testing.T) {
	s := newServer(t)
	authority, host := newKey(t), kinds(t)[1]
	cert := &ssh.Certificate{
		Key: host.PublicKey(), CertType: ssh.HostCert, ValidPrincipals: []string{"127.0.0.1"}, ValidBefore: ssh.CertTimeInfinity,
	}
	if err := cert.SignCert(rand.Reader, authority); err != nil {
		t.Fatal(err)
	}
	certified, err := ssh.NewCertSigner(cert, host)
	if err != nil {
		t.Fatal(err)
	}
	s.hostKeys = []ssh.Signer{newKey(t), certified}
	file := filepath.Join(t.TempDir(), "known_hosts")
	line := "@cert-authority " + knownhosts.Line([]string{s.addr()}, authority.PublicKey())
	if err := os.WriteFile(file, []byte(line+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.client(func(o *client.Options) { o.Fingerprints, o.KnownHosts = nil, []string{file} }).Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
}
