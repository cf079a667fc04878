package verify

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"deploytools/verify/spec"
)

// judge holds what was shown to everything that the check wants. The finding
// has the kind of the first thing that is wrong, and tells all of them.
func (w wanted) judge(state tls.ConnectionState, now time.Time) Finding {
	leaf := state.PeerCertificates[0]
	want, source := w.identity(leaf)
	f := Finding{Want: want, Got: Fingerprint(leaf), NotAfter: leaf.NotAfter}
	if w.check.SPKI != "" {
		f.Got = sum(leaf.RawSubjectPublicKeyInfo)
	}
	var wrong []failure
	if want != "" && f.Got != want {
		wrong = append(wrong, failure{WrongCert, fmt.Errorf("%s serves %s (subject %q, valid from %s, key %s), want %s (%s)",
			w.check.Target(), f.Got, leaf.Subject, stamp(leaf.NotBefore), keyOf(leaf), want, source)})
	}
	for _, look := range []func(tls.ConnectionState, time.Time) *failure{w.time, w.name, w.chain, w.version, w.protocol} {
		if l := look(state, now); l != nil {
			wrong = append(wrong, *l)
		}
	}
	if left := leaf.NotAfter.Sub(now); left < w.check.Warn || left < 0 {
		f.Warning = ending(leaf, now)
	}
	var texts []string
	for _, l := range wrong {
		texts = append(texts, l.Error())
	}
	if len(wrong) > 0 {
		f.Kind, f.Detail = wrong[0].kind, strings.Join(texts, "; ")
	}
	return f
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }

// ending says when c ends.
func ending(c *x509.Certificate, now time.Time) string {
	left := c.NotAfter.Sub(now)
	if left < 0 {
		return fmt.Sprintf("the certificate has expired on %s", stamp(c.NotAfter))
	}
	return fmt.Sprintf("the certificate expires on %s, in %d days", stamp(c.NotAfter), left/(24*time.Hour))
}

// time is asked for by chain and minvalid. Without them a certificate that is
// the right one passes whatever the clock says: going back would not help it.
func (w wanted) time(state tls.ConnectionState, now time.Time) *failure {
	leaf := state.PeerCertificates[0]
	switch {
	case !w.check.Chain && w.check.MinValid == 0:
		return nil
	case now.After(leaf.NotAfter):
		return &failure{Expired, errors.New(ending(leaf, now))}
	case now.Before(leaf.NotBefore):
		return &failure{NotYetValid, fmt.Errorf("the certificate is valid from %s, and here it is %s", stamp(leaf.NotBefore), stamp(now))}
	case leaf.NotAfter.Sub(now) < w.check.MinValid:
		return &failure{Expiring, fmt.Errorf("%s, want %.4g", ending(leaf, now), w.check.MinValid.Hours()/24)}
	}
	return nil
}

func (w wanted) name(state tls.ConnectionState, _ time.Time) *failure {
	name := w.check.Hostname
	if name == "" && w.check.Chain {
		host, _, _ := net.SplitHostPort(w.check.Addr)
		name = cmp.Or(strings.TrimPrefix(w.check.SNI, spec.NoName), host)
	}
	if name == "" || name == spec.NoName {
		return nil
	}
	if err := state.PeerCertificates[0].VerifyHostname(name); err != nil {
		return &failure{Hostname, err}
	}
	return nil
}

func (w wanted) chain(state tls.ConnectionState, now time.Time) *failure {
	if !w.check.Chain {
		return nil
	}
	leaf, sent := state.PeerCertificates[0], state.PeerCertificates[1:]
	o := x509.VerifyOptions{Roots: w.roots, Intermediates: x509.NewCertPool(), CurrentTime: now}
	// That the certificate itself is out of its time was said already.
	if now.After(leaf.NotAfter) {
		o.CurrentTime = leaf.NotAfter
	} else if now.Before(leaf.NotBefore) {
		o.CurrentTime = leaf.NotBefore
	}
	for _, c := range sent {
		o.Intermediates.AddCert(c)
	}
	_, err := leaf.Verify(o)
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		err = errors.New(brokenAt(leaf, sent))
	}
	return &failure{Chain, fmt.Errorf("the certificate leads to no trusted one: %w", err)}
}

// brokenAt follows the issuers from leaf as far as they were sent.
func brokenAt(leaf *x509.Certificate, sent []*x509.Certificate) string {
	at := leaf
	for range sent {
		for _, c := range sent {
			if bytes.Equal(c.RawSubject, at.RawIssuer) {
				at = c
				break
			}
		}
	}
	if bytes.Equal(at.RawIssuer, at.RawSubject) {
		return fmt.Sprintf("%q has issued itself and is not trusted here", at.Subject)
	}
	return fmt.Sprintf("%q was issued by %q, which is neither sent along nor trusted here", at.Subject, at.Issuer)
}

// versions are the names that a check has for them.
var versions = map[string]uint16{
	"1.0": tls.VersionTLS10, "1.1": tls.VersionTLS11, "1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13,
}

func (w wanted) version(state tls.ConnectionState, _ time.Time) *failure {
	if state.Version >= versions[w.check.Min] {
		return nil
	}
	return &failure{Version, fmt.Errorf("agreed on %s, want TLS %s or higher", tls.VersionName(state.Version), w.check.Min)}
}

func (w wanted) protocol(state tls.ConnectionState, _ time.Time) *failure {
	if w.check.ALPN == state.NegotiatedProtocol {
		return nil
	}
	return &failure{ALPN, fmt.Errorf("agreed on the protocol %q, want %q", state.NegotiatedProtocol, w.check.ALPN)}
}
