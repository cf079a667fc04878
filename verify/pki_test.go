package verify

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"testing"
	"time"
)

func rsaKey(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// newCA makes a certificate that may issue others, by itself or by parent.
func newCA(t *testing.T, name string, parent *tls.Certificate) tls.Certificate {
	t.Helper()
	return issue(t, parent, ecKey(t), func(c *x509.Certificate) {
		c.Subject.CommonName, c.IsCA, c.BasicConstraintsValid = name, true, true
		c.KeyUsage = x509.KeyUsageCertSign
	})
}

// issue makes a certificate for www.example.org and loopback, valid for an
// hour, that parent signs, or the key itself.
func issue(t *testing.T, parent *tls.Certificate, key crypto.Signer, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: "leaf"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		DNSNames:     []string{"www.example.org"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	if change != nil {
		change(template)
	}
	issuer, signer := template, key
	if parent != nil {
		issuer, signer = parent.Leaf, parent.PrivateKey.(crypto.Signer)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// with is c with the certificates of others sent after its own.
func with(c tls.Certificate, others ...tls.Certificate) tls.Certificate {
	for _, o := range others {
		c.Certificate = append(c.Certificate[:len(c.Certificate):len(c.Certificate)], o.Leaf.Raw)
	}
	return c
}

// pemFile holds the certificates of all.
func pemFile(all ...tls.Certificate) []byte {
	var b []byte
	for _, c := range all {
		b = append(b, pemOf("CERTIFICATE", c.Leaf.Raw)...)
	}
	return b
}
