package sshd

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"deploytools/registry"
	"deploytools/registry/keys"
	"deploytools/registry/wire"
)

// keygen runs ssh-keygen in dir.
func keygen(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("ssh-keygen", append([]string{"-q"}, args...)...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("ssh-keygen %q: %s", args, out)
	}
	return string(out)
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Certificates as ssh-keygen makes them, shown by ssh.
func TestCertificatesOfOpenSSH(t *testing.T) {
	for _, kind := range []string{"ed25519", "rsa", "ecdsa"} {
		dir := t.TempDir()
		for _, name := range []string{"ca", "user"} {
			keygen(t, dir, "-t", kind, "-N", "", "-C", name, "-f", name)
		}
		d := newDaemon(t)
		set := parse(t, registry.Admin, `cert-authority,role=viewer,principals="ops" `+read(t, filepath.Join(dir, "ca.pub")))
		revoked, _ := keys.ParseRevoked([]byte("serial: 13\nid: stolen\n"))
		d.o.Operators, d.o.Revoked = func() *keys.Set { return set }, func() *keys.Revoked { return revoked }
		d.listen(t)
		for _, test := range []struct {
			name   string
			sign   []string // for ssh-keygen -s
			status int
			stdout string // how it starts
			stderr string
		}{
			{name: "principal", sign: []string{"-n", "ops,dev"}, stdout: "deploy-registry "},
			{name: "no principal", sign: nil, status: 255},
			{name: "another principal", sign: []string{"-n", "anna"}, status: 255},
			{name: "expired", sign: []string{"-n", "ops", "-V", "20200101:20200102"}, status: 255},
			{name: "not yet valid", sign: []string{"-n", "ops", "-V", "+1d:+2d"}, status: 255},
			{name: "of a host", sign: []string{"-n", "ops", "-h"}, status: 255},
			{name: "revoked serial", sign: []string{"-n", "ops", "-z", "13"}, status: 255},
			{name: "revoked ID", sign: []string{"-n", "ops", "-I", "stolen"}, status: 255},
			{name: "these addresses", sign: []string{"-n", "ops", "-O", "source-address=127.0.0.0/8"}, stdout: "deploy-registry "},
			{name: "other addresses", sign: []string{"-n", "ops", "-O", "source-address=192.0.2.0/24"}, status: 255},
			{name: "forced command", sign: []string{"-n", "ops", "-O", "force-command=help help"}, stdout: "help: list"},
			{name: "greater forced command", sign: []string{"-n", "ops", "-O", "force-command=delconf -name x -force"}, status: int(wire.Denied), stderr: "needs the role admin, your key has viewer"},
			{name: "critical option", sign: []string{"-n", "ops", "-O", "critical:verify-required"}, status: 255},
		} {
			if kind != "ed25519" && test.name != "principal" && test.name != "another principal" {
				continue
			}
			os.Remove(filepath.Join(dir, "user-cert.pub"))
			keygen(t, dir, append(append([]string{"-s", "ca", "-I", "laptop"}, test.sign...), "user.pub")...)
			cmd := d.ssh(t, "ssh", "-i", filepath.Join(dir, "user"), "anna@registry", "version")
			stdout, stderr, status := output(t, cmd, "")
			if status != test.status || !strings.HasPrefix(stdout, test.stdout) || !strings.Contains(stderr, test.stderr) {
				t.Errorf("%s, %s: exit status %d, %q, %q, want %d, %q", kind, test.name, status, stdout, stderr, test.status, test.stdout)
			}
		}
		opened := d.log.wait(t, "connection opened")
		ca, _, _, _, err := ssh.ParseAuthorizedKey([]byte(read(t, filepath.Join(dir, "ca.pub"))))
		if err != nil {
			t.Fatal(err)
		}
		if opened["key_comment"] != "laptop" || opened["key_authority"] != ssh.FingerprintSHA256(ca) {
			t.Errorf("log: %v, want the certificate's ID and authority", opened)
		}
	}
}

// ssh learns the keys to come while it trusts the old one, and then trusts a
// registry that has only the new ones.
func TestOpenSSHLearnsHostKeysToCome(t *testing.T) {
	dir := t.TempDir()
	for name, kind := range map[string]string{"host_key": "ed25519", "host_key_next": "ed25519", "host_key_rsa": "rsa", "host_key_ecdsa": "ecdsa"} {
		keygen(t, dir, "-t", kind, "-N", "", "-f", name)
	}
	log := &journal{}
	all, err := LoadHostKeys(dir, newLog(log))
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 4 || len(shown(all)) != 3 || len(log.lines(t, "another host key fingerprint: "+ssh.FingerprintSHA256(all[3].PublicKey()))) != 1 {
		t.Fatalf("%d keys, %d shown, log %s", len(all), len(shown(all)), log.text.String())
	}
	d := newDaemon(t, func(o *Options) { o.HostKeys = all })
	d.host = all[0]
	d.listen(t)
	d.ssh(t, "ssh") // writes what it knows
	known := filepath.Join(d.dir, "known")
	learn := func() {
		t.Helper()
		if stdout, stderr, status := d.run(t, "", "-o", "UpdateHostKeys=yes", "version"); status != 0 {
			t.Fatalf("ssh: exit status %d, %q, %s", status, stdout, stderr)
		}
	}
	learn()
	for _, key := range all {
		text := strings.Fields(string(ssh.MarshalAuthorizedKey(key.PublicKey())))[1]
		if n := strings.Count(read(t, known), text); n != 1 {
			t.Errorf("%s stands in known_hosts %d times: %s", key.PublicKey().Type(), n, read(t, known))
		}
	}
	// The old key goes, and ssh forgets it.
	next, err := parseHostKey([]byte(read(t, filepath.Join(dir, "host_key_next"))))
	if err != nil {
		t.Fatal(err)
	}
	d2 := start(t, func(o *Options) { o.HostKeys, o.Operators = []ssh.Signer{next}, d.o.Operators })
	d2.operator, d2.dir = d.operator, d.dir
	if _, stderr, status := d2.run(t, "", "-o", "UpdateHostKeys=yes", "-i", "op", "version"); status != 0 {
		t.Fatalf("ssh does not trust the new key: exit status %d, %s", status, stderr)
	}
	if got := strings.Count(read(t, known), "\n"); got != 1 || !strings.Contains(read(t, known), strings.Fields(string(ssh.MarshalAuthorizedKey(next.PublicKey())))[1]) {
		t.Errorf("known_hosts after the change: %s", read(t, known))
	}
}

// A proof is for a session and for the registry's own keys, and there are not
// many to be had.
func TestProofOfHostKeys(t *testing.T) {
	d := start(t)
	foreign := newKey(t)
	blob := func(keys ...ssh.Signer) (b []byte) {
		for _, k := range keys {
			b = append(b, ssh.Marshal(struct{ Blob []byte }{k.PublicKey().Marshal()})...)
		}
		return b
	}
	c := d.mustDial(t, "anna", d.operator)
	ok, reply, err := c.SendRequest(proveRequest, true, blob(d.host))
	if err != nil || !ok {
		t.Fatalf("no proof: %v", err)
	}
	var proof struct{ Signature []byte }
	var signature ssh.Signature
	if err := ssh.Unmarshal(reply, &proof); err != nil {
		t.Fatal(err)
	}
	if err := ssh.Unmarshal(proof.Signature, &signature); err != nil {
		t.Fatal(err)
	}
	signed := ssh.Marshal(struct {
		Request       string
		Session, Blob []byte
	}{proveRequest, c.SessionID(), d.host.PublicKey().Marshal()})
	if err := d.host.PublicKey().Verify(signed, &signature); err != nil {
		t.Error(err)
	}
	for name, payload := range map[string][]byte{
		"foreign": blob(foreign), "one of each": blob(d.host, foreign), "too many": blob(d.host, d.host), "nonsense": []byte("\xff\xff\xff\xffx"),
	} {
		c := d.mustDial(t, "anna", d.operator)
		if ok, _, err := c.SendRequest(proveRequest, true, payload); ok || err != nil {
			t.Errorf("%s: a proof, %v", name, err)
		}
	}
	for n := 2; n <= maxProofs; n++ {
		if ok, _, err := c.SendRequest(proveRequest, true, blob(d.host)); !ok || err != nil {
			t.Errorf("proof %d is refused: %v", n, err)
		}
	}
	if ok, _, err := c.SendRequest(proveRequest, true, blob(d.host)); ok || err != nil {
		t.Errorf("there are proofs without end, %v", err)
	}
}
