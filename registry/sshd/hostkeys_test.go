package sshd

import (
	"bytes"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

func TestNewHostKeyStays(t *testing.T) {
	dir := t.TempDir()
	// What a crash of the first start leaves, before the key has its name.
	writeFile(t, filepath.Join(dir, ".atomic-abcdefghijklmnopqrstuvwxyz.tmp"), nil)
	log := &journal{}
	first, err := LoadHostKeys(dir, slog.New(slog.NewJSONHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if kind := first[0].PublicKey().Type(); kind != ssh.KeyAlgoED25519 {
		t.Errorf("new key of type %s, want ed25519", kind)
	}
	info, err := os.Stat(filepath.Join(dir, "host_key"))
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("host_key: %v, mode %v, want 0600", err, info.Mode())
	}
	fingerprint := ssh.FingerprintSHA256(first[0].PublicKey())
	if len(log.lines(t, "host key fingerprint: "+fingerprint)) != 1 {
		t.Errorf("log %s, want the fingerprint %s", log.text.String(), fingerprint)
	}
	second, err := LoadHostKeys(dir, slog.New(slog.NewJSONHandler(log, nil)))
	if len(log.lines(t, "new host key made, there was none")) != 1 {
		t.Errorf("log %s, want that the first start, and it alone, made a key", log.text.String())
	}
	if err != nil || !bytes.Equal(second[0].PublicKey().Marshal(), first[0].PublicKey().Marshal()) {
		t.Errorf("the second start has another key: %v", err)
	}
	out, err := exec.Command("ssh-keygen", "-lf", filepath.Join(dir, "host_key")).Output()
	if err != nil || !strings.Contains(string(out), fingerprint) {
		t.Errorf("ssh-keygen -lf = %s, %v, want %s", out, err, fingerprint)
	}
}

func TestHostKeyOfAnyKindIsOffered(t *testing.T) {
	for _, test := range []struct {
		name string
		args []string
		want string // the signature that clients see
	}{
		{"upstream's", []string{"-t", "ecdsa", "-b", "256", "-m", "PEM"}, ssh.KeyAlgoECDSA256},
		{"ecdsa 521", []string{"-t", "ecdsa", "-b", "521"}, ssh.KeyAlgoECDSA521},
		{"ed25519", []string{"-t", "ed25519"}, ssh.KeyAlgoED25519},
		{"rsa in PEM", []string{"-t", "rsa", "-b", "2048", "-m", "PEM"}, ssh.KeyAlgoRSASHA256},
		{"rsa", []string{"-t", "rsa", "-b", "2048"}, ssh.KeyAlgoRSASHA512},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			if out, err := exec.Command("ssh-keygen", append(test.args, "-q", "-N", "", "-f", filepath.Join(dir, "host_key"))...).CombinedOutput(); err != nil {
				t.Fatalf("ssh-keygen: %s", out)
			}
			keys, err := LoadHostKeys(dir, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			d := start(t, func(o *Options) { o.HostKeys = keys })
			d.host = keys[0]
			offers := func(algorithm string) bool {
				_, _, status := d.run(t, "", "-o", "HostKeyAlgorithms="+algorithm, "help")
				return status == 0
			}
			if !offers(test.want) {
				t.Errorf("%s is not offered", test.want)
			}
			if offers("ssh-rsa") {
				t.Error("SHA-1 is offered")
			}
		})
	}
}

// Replacing a key that cannot be read would make clients take the registry for
// an impostor, and a person could not get the old one back.
func TestDamagedHostKeyIsNeverReplaced(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "host_key")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", path).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %s", out)
	}
	locked, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "dsa", "-m", "PEM", "-N", "", "-f", path+"2").CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %s", out)
	}
	weak, err := os.ReadFile(path + "2")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, content, want string
	}{
		{"empty", "", "the file is empty"},
		{"blank", " \n", "the file is empty"},
		{"cut", string(locked[:len(locked)/2]), "no key found"},
		{"text", "hello", "no key found"},
		{"locked", string(locked), "needs a passphrase"},
		{"dsa", string(weak), "DSA keys are too weak"},
	} {
		writeFile(t, path, []byte(test.content))
		_, err := LoadHostKeys(dir, slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "restore it") {
			t.Errorf("%s: %v, want %s, the file's name and what to do", test.name, err, test.want)
		}
		if now, _ := os.ReadFile(path); string(now) != test.content {
			t.Errorf("%s: the file was changed", test.name)
		}
	}
}

// A key to come that cannot be read is said at the start, and not when everybody
// relies on it.
func TestKeyToComeHasToBeGood(t *testing.T) {
	for name, want := range map[string]string{"host_key_next": "host_key_next: the file is empty: mend the file", "host_key_next.pub": "", "other": "", ".host_key_next.swp": ""} {
		dir := t.TempDir()
		writeFile(t, filepath.Join(dir, name), nil)
		keys, err := LoadHostKeys(dir, slog.New(slog.DiscardHandler))
		if want == "" && (err != nil || len(keys) != 1) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("with %s: %d keys, %v, want %q", name, len(keys), err, want)
		}
	}
}

func TestHostKeyNeedsItsDirectory(t *testing.T) {
	_, err := LoadHostKeys(filepath.Join(t.TempDir(), "none"), slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "none/host_key") {
		t.Errorf("LoadHostKeys = %v, want an error that names the file", err)
	}
}
