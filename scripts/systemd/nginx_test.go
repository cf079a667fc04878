//go:build systemd

package systemd

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"
)

// setUpNginx does what docs/recipes/nginx.md says: Debian's unit, and the
// command for the reload that the script has.
func setUpNginx(t *testing.T, p *place) {
	unit := blocks(read("docs/recipes/nginx.md"), "## On the host")
	settings := blocks(read("docs/recipes/README.md"), "## What they have in common")
	if len(unit) == 0 || len(settings) == 0 {
		t.Fatal("docs/recipes: no unit or no settings")
	}
	ours := func(text string) string {
		return strings.ReplaceAll(strings.ReplaceAll(text, "/web/", "/"+p.name+"/"), "localhost:443", p.addr)
	}
	write(t, "/etc/systemd/system/nginx.service.d/deploy.conf", ours(unit[0]), 0o644)
	run(t, "systemctl", "daemon-reload")
	run(t, "systemctl", "stop", "nginx") // Debian's own page
	_, version, _ := strings.Cut(run(t, "nginx", "-v"), "nginx/")
	p.version = "nginx " + strings.TrimSpace(version) + ", "
	run(t, "install", "-m", "0755", "scripts/hooks/nginx.sh", "/etc/deploy-agent/")
	write(t, "/etc/deploy-agent/edge.sh", "#!/bin/sh\nexport WAIT=3\nexec /etc/deploy-agent/nginx.sh\n", 0o755)
	p.start(t, strings.ReplaceAll(outdent(ours(settings[0]), "  "), "nginx.sh", "edge.sh"))
}

func nginxRoot(t *testing.T, p *place, mode string) map[string]string {
	t.Helper()
	files, shown, more := map[string]string{}, "site", ""
	switch mode {
	case refused:
		more = "no such setting;"
	case crashes: // nginx -t passes over a port that is taken
		more = "listen " + registryAddr + ";"
	case lies:
		shown = "other"
	}
	for _, name := range []string{"site", "other"} {
		files["certs/"+name+".pem"], files["certs/"+name+".key"] = certificate(t)
	}
	files["nginx.conf"] = fmt.Sprintf(`pid /run/nginx.pid;
error_log /var/log/nginx/error.log;
worker_processes 2;
events {}
http {
	access_log off;
	server {
		listen %s ssl;
		ssl_certificate certs/%[2]s.pem;
		ssl_certificate_key certs/%[2]s.key;
		location / { return 200 "hello\n"; }
		%s
	}
}
`, p.addr, shown, more)
	return files
}

// certificate returns a new one, and its key.
func certificate(t *testing.T) (cert, private string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: []string{"www.example.org"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
}

// certificateOf returns the digest of a root's certificate.
func certificateOf(root string) string {
	block, _ := pem.Decode([]byte(read(root + "/certs/site.pem")))
	if block == nil {
		return "no certificate"
	}
	return fmt.Sprintf("%x", sha256.Sum256(block.Bytes))
}
