package cmd_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestRecipesPEM: the scripts for mail refuse a file whose key and certificate are
// not a pair. That the servers' own checks, which do not look at that, agree to all
// is simulated.
func TestRecipesPEM(t *testing.T) {
	tried := map[string]string{"postfix": "postfix postconf", "dovecot": "doveconf"}
	cert, key, err := newCertificate()
	if err != nil {
		t.Fatal(err)
	}
	_, other, err := newCertificate()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range chosen(t, os.Getenv(recipesVar)) {
		if tried[r.name] == "" {
			continue
		}
		script, err := filepath.Abs("../scripts/hooks/" + r.name + ".sh")
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		for name := range strings.FieldsSeq(tried[r.name]) {
			shell(t, dir, "echo '#!/bin/sh' >"+name+" && chmod +x "+name)
		}
		for name, c := range map[string]struct{ pem, says string }{
			"a pair":           {string(key) + string(cert), ""},
			"another's key":    {string(other) + string(cert), "error: the key in mail.pem is not that of the certificate"},
			"without a key":    {string(cert), "error: mail.pem holds no private key"},
			"only a key":       {string(key), "error: mail.pem holds no certificate that is still valid"},
			"nothing of these": {"", "error: mail.pem holds no certificate that is still valid"},
		} {
			if err := os.WriteFile(filepath.Join(dir, "mail.pem"), []byte(c.pem), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(script)
			cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "DEPLOY_PHASE=check", "NEWROOT="+dir, "PEM=mail.pem")
			out, err := cmd.CombinedOutput()
			if (err == nil) != (c.says == "") || !strings.Contains(string(out), c.says) {
				t.Errorf("%s, %s: %v, %q; want %q", r.name, name, err, out, c.says)
			}
		}
	}
}
