package sshd

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"deploytools/registry"
	"deploytools/registry/console"
	"deploytools/registry/keys"
	"deploytools/registry/wire"
)

func TestUserNameSaysWhichKeysCount(t *testing.T) {
	d := start(t)
	for _, test := range []struct {
		user string
		key  ssh.Signer
		want bool
	}{
		{"anna", d.operator, true},
		{"root", d.operator, true},
		{"", d.operator, true},
		{"deploy-agent", d.operator, false},
		{"deploy-agent", d.agent, true},
		{"anna", d.agent, false},
		{"anna", newKey(t), false},
		{"deploy-agent", newKey(t), false},
	} {
		if _, err := d.dial(t, test.user, test.key); (err == nil) != test.want {
			t.Errorf("user %q: %v, want access: %t", test.user, err, test.want)
		}
	}
}

// Agents may stand among the operators, but nobody gets more rights by standing
// among the agents.
func TestAgentsFileMakesNoOperators(t *testing.T) {
	agent, admin := newKey(t), newKey(t)
	agents := parse(t, registry.Admin, "role=agent "+line(agent, "x"))
	d := start(t, func(o *Options) {
		o.Operators = func() *keys.Set { return agents }
		o.Agents = set(t, registry.Admin, admin, "x")
	})
	for _, user := range []string{"anna", AgentUser} {
		if _, err := d.dial(t, user, admin); err == nil {
			t.Errorf("user %q got in with an admin's line among the agents", user)
		}
		if _, err := d.dial(t, user, agent); (err == nil) != (user == AgentUser) {
			t.Errorf("user %q with an agent's line among the operators: %v", user, err)
		}
	}
}

// CVE-2024-45337: a server that remembers which key it was asked about takes
// whoever offers an administrator's public key for the administrator.
func TestKeyThatIsOnlyOfferedIsNobody(t *testing.T) {
	admin, viewer := newKey(t), newKey(t)
	both := parse(t, registry.Admin, line(admin, "admin"), "role=viewer "+line(viewer, "viewer"))
	d := newDaemon(t, func(o *Options) { o.Operators = func() *keys.Set { return both } })
	d.operator = viewer
	d.front.exec = func(_ context.Context, s *console.Session, _ string) wire.Status {
		fmt.Fprintln(s.Stdout, s.Caller.Role, s.Caller.Comment, s.Caller.Fingerprint)
		return wire.OK
	}
	d.listen(t)
	d.ssh(t, "ssh")
	// Only the public half: ssh offers it, and then has no proof.
	writeFile(t, filepath.Join(d.dir, "stolen.pub"), ssh.MarshalAuthorizedKey(admin.PublicKey()))
	if _, stderr, status := output(t, d.ssh(t, "ssh", "-i", "stolen.pub", "anna@registry", "x"), ""); status != 255 {
		t.Fatalf("a key without proof got in: %s", stderr)
	}
	stdout, stderr, status := output(t, d.ssh(t, "ssh", "-v", "-i", "stolen.pub", "-i", "op", "anna@registry", "x"), "")
	if !strings.Contains(stderr, "Server accepts key: stolen.pub") {
		t.Fatalf("ssh did not offer the stolen key: %s", stderr)
	}
	want := "viewer viewer " + ssh.FingerprintSHA256(viewer.PublicKey()) + "\n"
	if status != 0 || stdout != want {
		t.Errorf("the caller is %q (status %d), want %q", stdout, status, want)
	}
}

func TestOnlyPublicKeysAuthenticate(t *testing.T) {
	d := start(t)
	nc, err := net.Dial("tcp", d.addr)
	if err != nil {
		t.Fatal(err)
	}
	asked := false
	_, _, _, err = ssh.NewClientConn(nc, "", &ssh.ClientConfig{
		User: "anna", HostKeyCallback: ssh.FixedHostKey(d.host.PublicKey()),
		Auth: []ssh.AuthMethod{ssh.PasswordCallback(func() (string, error) { asked = true; return "", nil })},
	})
	if err == nil || asked {
		t.Errorf("a password was asked for: %t, %v", asked, err)
	}
}

func TestRefusalSaysWhichKey(t *testing.T) {
	d := start(t)
	key := newKey(t)
	d.dial(t, "anna\n\x1b[2J", key)
	l := d.log.wait(t, "connection refused")
	text := l["error"].(string)
	if !strings.Contains(text, ssh.FingerprintSHA256(key.PublicKey())) || !strings.Contains(text, `anna`) {
		t.Errorf("error %q, want the user and the key", text)
	}
	if strings.ContainsAny(text, "\n\x1b") {
		t.Errorf("error %q has control characters", text)
	}
}

func TestAlgorithms(t *testing.T) {
	d := start(t)
	for _, test := range []struct {
		name   string
		config ssh.Config
		want   bool
	}{
		{"post-quantum", ssh.Config{KeyExchanges: []string{"mlkem768x25519-sha256"}}, true},
		{"curve25519", ssh.Config{KeyExchanges: []string{"curve25519-sha256"}}, true},
		{"curve25519 of libssh", ssh.Config{KeyExchanges: []string{"curve25519-sha256@libssh.org"}}, true},
		{"group 16", ssh.Config{KeyExchanges: []string{"diffie-hellman-group16-sha512"}}, true},
		{"group 14", ssh.Config{KeyExchanges: []string{"diffie-hellman-group14-sha256"}}, true},
		{"group 14, SHA-1", ssh.Config{KeyExchanges: []string{"diffie-hellman-group14-sha1"}}, false},
		{"group 1", ssh.Config{KeyExchanges: []string{"diffie-hellman-group1-sha1"}}, false},
		{"nistp256", ssh.Config{KeyExchanges: []string{"ecdh-sha2-nistp256"}}, false},
		{"GCM", ssh.Config{Ciphers: []string{"aes128-gcm@openssh.com"}}, true},
		{"chacha20", ssh.Config{Ciphers: []string{"chacha20-poly1305@openssh.com"}}, !hasFastAES()},
		{"PuTTY 0.78", ssh.Config{Ciphers: []string{"aes256-ctr"}, MACs: []string{"hmac-sha2-256"}}, true},
		{"CBC", ssh.Config{Ciphers: []string{"aes128-cbc"}}, false},
		{"RC4", ssh.Config{Ciphers: []string{"arcfour256"}}, false},
		{"SHA-1", ssh.Config{Ciphers: []string{"aes128-ctr"}, MACs: []string{"hmac-sha1"}}, false},
		{"SHA-1-96", ssh.Config{Ciphers: []string{"aes128-ctr"}, MACs: []string{"hmac-sha1-96"}}, false},
	} {
		nc, err := net.Dial("tcp", d.addr)
		if err != nil {
			t.Fatal(err)
		}
		sc, _, _, err := ssh.NewClientConn(nc, "", &ssh.ClientConfig{
			Config: test.config, User: "anna", Auth: []ssh.AuthMethod{ssh.PublicKeys(d.operator)},
			HostKeyCallback: ssh.FixedHostKey(d.host.PublicKey()),
		})
		if (err == nil) != test.want {
			t.Errorf("%s: %v, want it taken: %t", test.name, err, test.want)
		}
		if err == nil {
			if v := string(sc.ServerVersion()); v != "SSH-2.0-generic" {
				t.Errorf("%s: version %q", test.name, v)
			}
			sc.Close()
		}
		nc.Close()
	}
}

func TestStrictKeyExchange(t *testing.T) {
	d := start(t)
	_, stderr, _ := d.run(t, "", "-vv", "help")
	if !strings.Contains(stderr, "kex-strict-s-v00@openssh.com") {
		t.Error("ssh -vv shows no strict key exchange")
	}
}

func TestCheckKey(t *testing.T) {
	dir := t.TempDir()
	generated := func(args ...string) []byte {
		name := filepath.Join(dir, strings.Join(args, ""))
		if out, err := exec.Command("ssh-keygen", append(args, "-q", "-N", "", "-f", name)...).CombinedOutput(); err != nil {
			t.Fatalf("ssh-keygen %v: %s", args, out)
		}
		text, err := os.ReadFile(name + ".pub")
		if err != nil {
			t.Fatal(err)
		}
		key, _, _, _, err := ssh.ParseAuthorizedKey(text)
		if err != nil {
			t.Fatal(err)
		}
		return key.Marshal()
	}
	sized := func(bits uint) []byte {
		n := new(big.Int).Lsh(big.NewInt(1), bits-1)
		key, err := ssh.NewPublicKey(&rsa.PublicKey{N: n.Add(n, big.NewInt(1)), E: 65537})
		if err != nil {
			t.Fatal(err)
		}
		return key.Marshal()
	}
	signer := newKey(t)
	certificate := &ssh.Certificate{Key: signer.PublicKey(), CertType: ssh.UserCert, ValidBefore: ssh.CertTimeInfinity}
	if err := certificate.SignCert(rand.Reader, signer); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		blob []byte
		want string
	}{
		{"ed25519", generated("-t", "ed25519"), ""},
		{"ecdsa", generated("-t", "ecdsa"), ""},
		{"rsa 2048", sized(2048), ""},
		{"rsa 8192", sized(8192), ""},
		{"rsa 1024", sized(1024), "RSA key of 1024 bits"},
		{"rsa 2047", sized(2047), "RSA key of 2047 bits"},
		{"rsa 16384", sized(16384), "RSA key of 16384 bits"},
		{"dsa", generated("-t", "dsa"), "DSA keys are too weak"},
		{"certificate", certificate.Marshal(), "a certificate"},
		{"nothing", nil, "cannot read the key"},
		{"text", []byte("ssh-ed25519"), "cannot read the key"},
	} {
		err := CheckKey(test.blob)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("CheckKey(%s) = %v, want %q", test.name, err, test.want)
		}
	}
}
