package agent

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"deploytools/verify"
	"deploytools/verify/spec"
)

// certificate is a layer with a certificate and its key in one file, and what
// else is said.
func certificate(t *testing.T, more files) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "site"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	must(err)
	site := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	site = append(site, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})...)
	all := files{"site.pem": string(site)}
	for name, content := range more {
		all[name] = content
	}
	return archive(all)
}

// tlsHost returns a host whose port serves, for each connection, the
// certificate that the script has put into place.
func tlsHost(t *testing.T, script string) *host {
	h := realHost(t, script)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	t.Cleanup(func() { l.Close() })
	config := &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		c, err := tls.LoadX509KeyPair(h.dir+"/served.pem", h.dir+"/served.pem")
		return &c, err
	}}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				tls.Server(c, config).Handshake()
				c.Close()
			}()
		}
	}()
	h.o.Verify.Checks = []spec.Check{{Type: spec.TLS, Addr: l.Addr().String(), Cert: "site.pem", Warn: 24 * time.Hour}}
	return h
}

// V-11: whatever the look at a port found, the deployment was told as done.
// V-09: after the way back nobody looked whether the old certificate is served.
func TestV11V09ServedCertificateDecidesThereAndBack(t *testing.T) {
	h := tlsHost(t, `
echo "$DEPLOY_ACTION $LAYER_0_VERSION" >> calls
test -e "$NEWROOT/reload-forgotten" || cp "$NEWROOT/site.pem" served.pem
test -e stuck && echo > served.pem
true
`)
	h.src.put("v1", certificate(t, nil))
	if err := h.runReal(t.Context()); err != nil || h.live() != "v1" || h.agent.Record().Live.Verification != Verified {
		t.Fatalf("v1: %v, %q is live\n%s", err, h.live(), h.logged)
	}
	if h.lines("WARN", "the certificate expires on") != 1 {
		t.Errorf("v1: the log does not warn of its end once\n%s", h.logged)
	}

	h.src.put("v2", certificate(t, files{"reload-forgotten": ""}))
	err := h.runReal(t.Context())
	last := h.agent.Record().Last
	if !errors.Is(err, ErrRolledBack) || h.live() != "v1" || last.Checks.Findings[0].Kind != verify.WrongCert || !strings.Contains(last.Reason, "wrong-cert") {
		t.Fatalf("v2: %v, %q is live: %+v", err, h.live(), last)
	}
	if last.Restored == nil || !last.Restored.Verified {
		t.Errorf("v2: after the way back: %+v, want a look that passed", last.Restored)
	}

	must(os.WriteFile(h.dir+"/stuck", nil, 0o600))
	h.src.put("v3", certificate(t, nil))
	err = h.runReal(t.Context())
	if r := h.agent.Record(); !errors.Is(err, ErrBroken) || r.State != Broken || r.Deployment.Restored.Findings[0].Kind != verify.Handshake {
		t.Errorf("v3: %v in %s: %+v, want what serves nothing to be told", err, r.State, r.Deployment)
	}
	if want := "deploy v1, deploy v2, rollback v1, deploy v3, rollback v1"; !strings.HasPrefix(h.calledAs(), want) {
		t.Errorf("the script was called as %q, want %q", h.calledAs(), want)
	}
}
