package verify

import (
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"deploytools/verify/spec"
)

func TestTheServedCertificateIsComparedWithTheTree(t *testing.T) {
	for name, cert := range map[string]tls.Certificate{
		"ed25519": newCert(t, "a", edKey(t)), "ecdsa": newCert(t, "b", ecKey(t)),
	} {
		addr := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{cert}})
		root := tree(t, "etc/cert.pem", pemOf("CERTIFICATE", cert.Leaf.Raw))
		want := Fingerprint(cert.Leaf)

		f := lookAt(t, spec.Check{Type: spec.TLS, Addr: addr, Cert: "etc/cert.pem"}, Vars{NewRoot: root})
		if !f.OK || f.Want != want || f.Got != want || f.Check != "tls-1" || f.Target != addr {
			t.Errorf("%s: by cert: %+v, want %s", name, f, want)
		}
		if f := lookAt(t, spec.Check{Type: spec.TLS, Addr: addr, Fingerprint: want}, Vars{}); !f.OK {
			t.Errorf("%s: by fingerprint: %+v", name, f)
		}
	}
}

func TestWrongCertificateIsNamed(t *testing.T) {
	old := newCert(t, "old\x1b[2J", edKey(t))
	wanted := newCert(t, "new", edKey(t))
	addr := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{old}})
	root := tree(t, "cert.pem", pemOf("CERTIFICATE", wanted.Leaf.Raw))

	f := lookAt(t, spec.Check{Type: spec.TLS, Addr: addr, Cert: "cert.pem"}, Vars{NewRoot: root})
	if f.Kind != WrongCert || f.Got != Fingerprint(old.Leaf) || f.Want != Fingerprint(wanted.Leaf) {
		t.Errorf("got %+v", f)
	}
	for _, want := range []string{f.Got, f.Want, "CN=old", `"cert.pem"`} {
		if !strings.Contains(f.Detail, want) {
			t.Errorf("Detail %q does not tell %s", f.Detail, want)
		}
	}
	if strings.Contains(f.Detail, "\x1b") {
		t.Errorf("Detail %q holds a control character of the server's", f.Detail)
	}
}

// V-02: a probe asked for the name that it had dialled, and for none at an IP
// address, so that a virtual host could not be checked on its own machine.
func TestV02ServerNameIsIndependentOfTheAddress(t *testing.T) {
	certs := map[string]tls.Certificate{
		"":                newCert(t, "default", edKey(t)),
		"www.example.org": newCert(t, "www", edKey(t)),
		"api.example.org": newCert(t, "api", ecKey(t)),
	}
	addr := serveTLS(t, &tls.Config{GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		c := certs[h.ServerName]
		return &c, nil
	}})
	for sni := range certs {
		for owner, cert := range certs {
			c := spec.Check{Type: spec.TLS, Addr: addr, SNI: sni, Fingerprint: Fingerprint(cert.Leaf)}
			if f := lookAt(t, c, Vars{}); f.OK != (sni == owner) || !f.OK && f.Kind != WrongCert {
				t.Errorf("asked for %q, want the certificate of %q: %+v", sni, owner, f)
			}
		}
	}
}

func TestServerNameIsTheHostOfTheAddressByDefault(t *testing.T) {
	names := make(chan string, 10)
	cert := newCert(t, "x", edKey(t))
	addr := serveTLS(t, &tls.Config{GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		names <- h.ServerName
		return &cert, nil
	}})
	_, port, _ := net.SplitHostPort(addr)
	c := spec.Check{Type: spec.TLS, Addr: "localhost:" + port, Fingerprint: Fingerprint(cert.Leaf)}
	if f := lookAt(t, c, Vars{}); !f.OK {
		t.Fatalf("%+v", f)
	}
	if got := <-names; got != "localhost" {
		t.Errorf("asked for %q, want localhost", got)
	}
}

// V-01: a probe ignored its context, and a server that accepts and says
// nothing held it.
func TestV01TarpitEndsWithTheTimeoutOrTheContext(t *testing.T) {
	addr, accepted := tarpit(t)
	for _, c := range []spec.Check{
		{Type: spec.TLS, Addr: addr, Fingerprint: strings.Repeat("ab", 32)},
		{Type: spec.HTTP, URL: "http://" + addr + "/"},
		{Type: spec.HTTP, URL: "https://" + addr + "/"},
		{Type: spec.TCP, Addr: addr, Expect: "220"},
	} {
		quick := c
		quick.Timeout = 200 * time.Millisecond
		if f := lookAt(t, quick, Vars{}); f.Kind != Timeout || f.Duration > 5*time.Second {
			t.Errorf("%s: timeout: %+v", c, f)
		}
		<-accepted

		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			<-accepted
			cancel()
		}()
		if f := lookWith(t, ctx, c, Vars{}); f.Kind != Cancelled || f.Detail != "cancelled" || f.Duration > 5*time.Second {
			t.Errorf("%s: cancelled: %+v", c, f)
		}
	}
}

func TestDialHasADeadlineToo(t *testing.T) {
	addr := fullBacklog(t)
	for _, c := range []spec.Check{
		{Type: spec.TCP, Addr: addr},
		{Type: spec.HTTP, URL: "http://" + addr + "/"},
	} {
		c.Timeout = 50 * time.Millisecond
		if f := lookAt(t, c, Vars{}); f.Kind != Timeout || f.Duration > 5*time.Second {
			t.Errorf("%s: %+v", c, f)
		}
	}
}

func TestRefusedPortIsADialFailure(t *testing.T) {
	addr := refused(t)
	for _, c := range []spec.Check{
		{Type: spec.TLS, Addr: addr, Fingerprint: strings.Repeat("ab", 32)},
		{Type: spec.HTTP, URL: "http://" + addr + "/"},
		{Type: spec.HTTP, URL: "https://" + addr + "/"},
		{Type: spec.TCP, Addr: addr},
	} {
		if f := lookAt(t, c, Vars{}); f.Kind != Dial || !strings.Contains(f.Detail, "refused") {
			t.Errorf("%s: %+v", c, f)
		}
	}
}

func TestPortWithoutTLSIsAHandshakeFailure(t *testing.T) {
	addr := serve(t, func(c net.Conn) {
		c.Write([]byte("220 mail.example.org ESMTP\r\n"))
		c.Read(make([]byte, 1000))
	})
	c := spec.Check{Type: spec.TLS, Addr: addr, Fingerprint: strings.Repeat("ab", 32)}
	if f := lookAt(t, c, Vars{}); f.Kind != Handshake || f.Want != c.Fingerprint || !strings.Contains(f.Detail, "TLS handshake") {
		t.Errorf("%+v", f)
	}
}

// V-10: a PEM scanner written by hand stumbled over these.
func TestV10FirstCertificateOfAnyPEMFile(t *testing.T) {
	leaf, issuer := newCert(t, "leaf", edKey(t)), newCert(t, "issuer", edKey(t))
	a, b := pemOf("CERTIFICATE", leaf.Leaf.Raw), pemOf("CERTIFICATE", issuer.Leaf.Raw)
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	key := pemOf("PRIVATE KEY", []byte("secret"))
	damaged := bytes.Replace(a, []byte("\nMI"), []byte("\n!!"), 1)

	for name, row := range map[string]struct {
		file []byte
		want string // part of the error; "" is the leaf
	}{
		"alone":              {a, ""},
		"chain":              {join(a, b), ""},
		"key first":          {join(key, a, b), ""},
		"CRLF":               {bytes.ReplaceAll(join(a, b), []byte("\n"), []byte("\r\n")), ""},
		"text before":        {join([]byte("subject=CN = leaf\n\n"), a, b), ""},
		"trusted first":      {join(pemOf("TRUSTED CERTIFICATE", issuer.Leaf.Raw), a), ""},
		"headers":            {join([]byte("-----BEGIN PARAMETERS-----\nProc-Type: 4\n\nAAAA\n-----END PARAMETERS-----\n"), a), ""},
		"byte order mark":    {join([]byte("\ufeff"), a, b), ""},
		"no newline at end":  {bytes.TrimSpace(a), ""},
		"empty":              {nil, "no CERTIFICATE block"},
		"key only":           {key, "no CERTIFICATE block"},
		"damaged, then good": {join(damaged, b), "damaged"},
		"damaged alone":      {damaged, "damaged"},
		"cut off":            {a[:len(a)/2], "damaged"},
		"cut off, then good": {join(a[:len(a)/2], []byte("\n"), b), "damaged"},
		"good, then damaged": {join(b, damaged), "block 2 is damaged"},
		"no certificate":     {pemOf("CERTIFICATE", []byte("hello")), "x509"},
	} {
		all, err := certificates(row.file)
		if row.want == "" {
			if err != nil || !all[0].Equal(leaf.Leaf) {
				t.Errorf("%s: certificates = %v, want the leaf", name, err)
			}
		} else if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: certificates = %v, want ...%s", name, err, row.want)
		}
	}
}

func TestWantedCertificateStaysInsideTheTree(t *testing.T) {
	cert := newCert(t, "a", edKey(t))
	addr := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{cert}})
	content := pemOf("CERTIFICATE", cert.Leaf.Raw)
	outside := filepath.Join(tree(t, "cert.pem", content), "cert.pem")
	root := tree(t, "live/cert.pem", content)
	for name, target := range map[string]string{"inside": "live/cert.pem", "absolute": outside, "up": "../" + filepath.Base(filepath.Dir(outside)) + "/cert.pem"} {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(root, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "large"), make([]byte, maxCertBytes+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"live/cert.pem": "", "inside": "",
		"absolute": "escapes", "up": "escapes", "fifo": "not a regular file", "live": "not a regular file",
		"large": "larger than", "none": "no such file",
	} {
		f := lookAt(t, spec.Check{Type: spec.TLS, Addr: addr, Cert: name}, Vars{NewRoot: root})
		if want == "" && !f.OK || want != "" && (f.Kind != Spec || !strings.Contains(f.Detail, want)) {
			t.Errorf("cert=%s: %+v, want %q", name, f, want)
		}
	}
	f := lookAt(t, spec.Check{Type: spec.TLS, Addr: addr, Cert: "live/cert.pem"}, Vars{})
	if f.Kind != Spec || !strings.Contains(f.Detail, "NEWROOT") {
		t.Errorf("without a root: %+v", f)
	}
}
