package verify

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"deploytools/verify/spec"
)

// lookTLS compares the certificate that is served under c.SNI with the one that
// should be, byte for byte. Its chain, names and end are looked at only where c
// asks for that: a wrong certificate stays wrong with a good chain.
func lookTLS(ctx context.Context, c spec.Check, v Vars) Finding {
	w := wanted{check: c}
	var err error
	if c.Cert != "" {
		if w.certs, err = readCertificates(v.NewRoot, c.Cert); err != nil {
			return Finding{Kind: Spec, Detail: fmt.Sprintf("cert %q: %v", c.Cert, err)}
		}
		if w.certs, err = withKey(ends(w.certs), c.Key); err != nil {
			return Finding{Kind: Spec, Detail: fmt.Sprintf("cert %q: %v", c.Cert, err)}
		}
	}
	if c.Chain && c.Roots != "" && c.Roots != spec.SystemRoots {
		roots, err := readCertificates(v.NewRoot, c.Roots)
		if err != nil {
			return Finding{Kind: Spec, Detail: fmt.Sprintf("roots %q: %v", c.Roots, err)}
		}
		w.roots = x509.NewCertPool()
		for _, r := range roots {
			w.roots.AddCert(r)
		}
	}
	return eachAddress(ctx, c, c.Addr, w.look)
}

// wanted is what a tls check wants, with what it names read.
type wanted struct {
	check spec.Check
	certs []*x509.Certificate // one of them; none: whatever the check says
	roots *x509.CertPool      // nil: those of the host
}

// look is one look at one address.
func (w wanted) look(ctx context.Context, connect func() (net.Conn, error)) Finding {
	conn, err := connect()
	if err == nil {
		defer conn.Close()
		if w.check.StartTLS != "" {
			err = upgrade(conn, w.check.StartTLS)
		}
	}
	if err != nil {
		return w.lost(ctx, err)
	}
	state, err := w.shake(ctx, conn)
	if err != nil {
		return w.lost(ctx, err)
	}
	return w.judge(state, time.Now())
}

// lost is the finding where no certificate was seen.
func (w wanted) lost(ctx context.Context, err error) Finding {
	f := lost(ctx, Handshake, err)
	f.Want, _ = w.identity(nil)
	return f
}

// shake returns what the other side shows in a handshake. Who asks for a
// certificate of ours and then has no more to say to us has shown its own.
func (w wanted) shake(ctx context.Context, conn net.Conn) (tls.ConnectionState, error) {
	asked := false
	config := &tls.Config{
		// The certificate is compared, not trusted: that is the check. The lowest
		// version is judged like everything else, to say what was offered.
		InsecureSkipVerify: true,
		MinVersion:         tls.VersionTLS10,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			asked = true
			return new(tls.Certificate), nil
		},
	}
	if w.check.SNI != spec.NoName {
		config.ServerName = w.check.SNI
	}
	if w.check.ALPN != "" {
		config.NextProtos = []string{w.check.ALPN}
	}
	if w.check.Key != "" {
		config.MaxVersion, config.CipherSuites = tls.VersionTLS12, suitesFor(w.check.Key)
	}
	t := tls.Client(conn, config)
	err := t.HandshakeContext(ctx)
	state := t.ConnectionState()
	switch {
	case err == nil:
	case asked && len(state.PeerCertificates) > 0 && ctx.Err() == nil:
	default:
		err = fmt.Errorf("TLS handshake with %s: %w", conn.RemoteAddr(), err)
		if w.check.Key != "" {
			err = fmt.Errorf("%w (asked for a key of the kind %s, with TLS 1.2 at most)", err, w.check.Key)
		}
		return state, &failure{handshakeKind(err), err}
	}
	return state, nil
}

// suitesFor lists the cipher suites in which a key of this kind signs. In TLS
// 1.3 they do not tell (RFC 8446 section 4.2.3), and the list of signature
// algorithms, which would, cannot be chosen in crypto/tls.
func suitesFor(key string) []uint16 {
	signs := "_ECDSA_" // ed25519 too, RFC 8422 section 5.10
	if key == "rsa" {
		signs = "_RSA_"
	}
	var ids []uint16
	for _, s := range slices.Concat(tls.CipherSuites(), tls.InsecureCipherSuites()) {
		if strings.Contains(s.Name, signs) && !strings.Contains(s.Name, "_RC4_") {
			ids = append(ids, s.ID)
		}
	}
	return ids
}

// withKey returns those of certs that have a key of the kind, or all of them
// for none.
func withKey(certs []*x509.Certificate, key string) ([]*x509.Certificate, error) {
	if key == "" {
		return certs, nil
	}
	other := func(c *x509.Certificate) bool { return keyOf(c) != key }
	if certs = slices.DeleteFunc(slices.Clone(certs), other); len(certs) == 0 {
		return nil, fmt.Errorf("none of its certificates has a key of the kind %s", key)
	}
	return certs, nil
}

// keyOf names the kind of c's key as a check does.
func keyOf(c *x509.Certificate) string {
	switch c.PublicKeyAlgorithm {
	case x509.RSA:
		return "rsa"
	case x509.ECDSA:
		return "ecdsa"
	case x509.Ed25519:
		return "ed25519"
	}
	return "other"
}

// identity returns the sum that served must have, and where it is from. Where a
// file has several certificates, as for a pair, it is the one with the same
// kind of key. served may be nil.
func (w wanted) identity(served *x509.Certificate) (sum, source string) {
	if len(w.certs) == 0 {
		return cmp.Or(w.check.SPKI, w.check.Fingerprint), "as the check says"
	}
	c := w.certs[0]
	if i := slices.IndexFunc(w.certs, func(c *x509.Certificate) bool { return served != nil && keyOf(c) == keyOf(served) }); i >= 0 {
		c = w.certs[i]
	}
	return Fingerprint(c), fmt.Sprintf("from %q, key %s", w.check.Cert, keyOf(c))
}

// Fingerprint is the SHA-256 of the certificate as it is transmitted (DER), in
// 64 lower-case hex digits.
func Fingerprint(c *x509.Certificate) string { return sum(c.Raw) }

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}
