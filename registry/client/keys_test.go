package client_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"deploytools/registry/client"
	"deploytools/registry/wire"
)

func run(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

// lockedKey makes a key file with the passphrase "open sesame".
func lockedKey(t *testing.T) (string, ssh.PublicKey) {
	t.Helper()
	file, key := writeKey(t)
	run(t, "ssh-keygen", "-q", "-p", "-P", "", "-N", "open sesame", "-f", file)
	return file, key
}

// sshAgent starts the real one with the keys of the files, and returns its
// socket.
func sshAgent(t *testing.T, files ...string) string {
	t.Helper()
	// Not t.TempDir: the path of a socket has 108 bytes at most.
	dir, err := os.MkdirTemp("", "agent")
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "socket")
	cmd := exec.Command("ssh-agent", "-D", "-a", socket)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		os.RemoveAll(dir)
	})
	if _, err := out.Read(make([]byte, 1)); err != nil { // it listens when it prints
		t.Fatal(err)
	}
	for _, f := range files {
		add := exec.Command("ssh-add", "-q", f)
		add.Env = append(os.Environ(), "SSH_AUTH_SOCK="+socket)
		if out, err := add.CombinedOutput(); err != nil {
			t.Fatalf("ssh-add: %v\n%s", err, out)
		}
	}
	return socket
}

// home makes a home directory that has the given files under .ssh.
func home(t *testing.T, files map[string]string) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	if err := os.Mkdir(filepath.Join(dir, ".ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, from := range files {
		if err := os.Rename(from, filepath.Join(dir, ".ssh", name)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRefusedKey(t *testing.T) {
	s := newServer(t)
	file, key := writeKey(t)
	err := s.client(func(o *client.Options) { o.KeyFile = file }).Connect(t.Context())
	wants(t, err, wire.ErrUntrusted, s.addr(), `"ann"`, ssh.FingerprintSHA256(key), file, "operator")
}

func TestDefaultKeys(t *testing.T) {
	s := newServer(t)
	ecdsa, key := writeKey(t)
	locked, _ := lockedKey(t)
	s.authorize(key)
	home(t, map[string]string{"id_ecdsa": ecdsa, "id_rsa": locked})
	if err := s.client(func(o *client.Options) { o.KeyFile = "" }).Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestRefusalNamesTheLockedKeys(t *testing.T) {
	s := newServer(t)
	file, _ := writeKey(t)
	locked, _ := lockedKey(t)
	home(t, map[string]string{"id_ed25519": file, "id_rsa": locked})
	err := s.client(func(o *client.Options) { o.KeyFile = "" }).Connect(t.Context())
	wants(t, err, wire.ErrUntrusted, "id_ed25519", "ssh-add", "id_rsa")
}

func TestNoKey(t *testing.T) {
	s := newServer(t)
	home(t, nil)
	err := s.client(func(o *client.Options) { o.KeyFile = "" }).Connect(t.Context())
	wants(t, err, wire.ErrUntrusted, "no usable key", "ssh-keygen")
	err = s.client(func(o *client.Options) { o.KeyFile = "/nonexistent/key" }).Connect(t.Context())
	wants(t, err, wire.ErrUntrusted, "cannot use key file /nonexistent/key: no such file or directory", "ssh-keygen", "-key")
	_, public := writeKey(t)
	file := filepath.Join(t.TempDir(), "key.pub")
	if err := os.WriteFile(file, ssh.MarshalAuthorizedKey(public), 0o600); err != nil {
		t.Fatal(err)
	}
	err = s.client(func(o *client.Options) { o.KeyFile = file }).Connect(t.Context())
	wants(t, err, wire.ErrUntrusted, "cannot use key file "+file, "private key")
	err = s.client(func(o *client.Options) { o.KeyFile, o.AgentSocket = "", "/nonexistent/agent" }).Connect(t.Context())
	wants(t, err, wire.ErrUntrusted, "SSH agent", "/nonexistent/agent")
	if n := s.count(&s.connections); n != 0 {
		t.Errorf("%d connections without a key, want none", n)
	}
}

func TestLockedKey(t *testing.T) {
	s := newServer(t)
	file, key := lockedKey(t)
	s.authorize(key)
	only := func(passphrase func(string) ([]byte, error)) func(*client.Options) {
		return func(o *client.Options) { o.KeyFile, o.Passphrase = file, passphrase }
	}
	err := s.client(only(nil)).Connect(t.Context())
	wants(t, err, wire.ErrUntrusted, file, "encrypted", "ssh-add")
	if n := s.count(&s.connections); n != 0 {
		t.Errorf("%d connections before the key was there, want none", n)
	}

	err = s.client(only(func(string) ([]byte, error) { return []byte("wrong"), nil })).Connect(t.Context())
	wants(t, err, wire.ErrUntrusted, "cannot use key file "+file+": it is encrypted, and the passphrase is wrong", "ssh-add "+file)

	asked := ""
	err = s.client(only(func(f string) ([]byte, error) {
		asked += f
		return []byte("open sesame"), nil
	})).Connect(t.Context())
	if err != nil || asked != file {
		t.Errorf("Connect = %v after asking for %q, want %q once", err, asked, file)
	}
}

func TestSSHAgent(t *testing.T) {
	s := newServer(t)
	home(t, nil)
	file, key := writeKey(t)
	s.authorize(key)
	socket := sshAgent(t, file)
	if err := s.client(func(o *client.Options) { o.KeyFile, o.AgentSocket = "", socket }).Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The same key, encrypted on disk, needs no passphrase.
	run(t, "ssh-keygen", "-q", "-p", "-P", "", "-N", "open sesame", "-f", file)
	if err := s.client(func(o *client.Options) { o.KeyFile, o.AgentSocket = file, socket }).Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	// A key file that is given is the only one that is shown.
	other, _ := writeKey(t)
	err := s.client(func(o *client.Options) { o.KeyFile, o.AgentSocket = other, socket }).Connect(t.Context())
	wants(t, err, wire.ErrUntrusted, other)
	if strings.Contains(err.Error(), ssh.FingerprintSHA256(key)) {
		t.Errorf("have %q, want the agent's key left out", err)
	}
}

func TestUserCertificate(t *testing.T) {
	s := newServer(t)
	file, _ := writeKey(t)
	authority, _ := writeKey(t)
	run(t, "ssh-keygen", "-q", "-s", authority, "-I", "ann", "-n", "ann", file+".pub")
	s.authorize(publicKey(t, file+"-cert")) // nothing but the certificate is let in
	if err := s.client(func(o *client.Options) { o.KeyFile = file }).Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
}
