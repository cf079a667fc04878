package verify

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"strings"
	"testing"
	"time"

	"deploytools/verify/spec"
)

// config serves the certificate.
func config(c tls.Certificate) *tls.Config { return &tls.Config{Certificates: []tls.Certificate{c}} }

// V-07: only the leaf was looked at: one that no browser took passed.
func TestV07ChainNameAndEndAreToldApart(t *testing.T) {
	root := newCA(t, "root", nil)
	middle := newCA(t, "middle", &root)
	other := newCA(t, "other", nil)
	leaf := issue(t, &middle, ecKey(t), nil)
	lasting := func(from, to time.Duration) tls.Certificate {
		return with(issue(t, &middle, ecKey(t), func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(from), time.Now().Add(to)
		}), middle)
	}
	const day = 24 * time.Hour
	old := newCA(t, "old", nil)
	oldMiddle := issue(t, &root, ecKey(t), func(c *x509.Certificate) {
		c.Subject.CommonName, c.IsCA, c.BasicConstraintsValid = "late", true, true
		c.NotBefore, c.NotAfter = time.Now().Add(-2*day), time.Now().Add(-day)
	})
	client := with(issue(t, &middle, ecKey(t), func(c *x509.Certificate) {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	}), middle)
	dir := tree(t, "ca.pem", pemFile(other, root))

	name := func(c *spec.Check) { c.Hostname = "www.example.org" }
	for what, row := range map[string]struct {
		config *tls.Config
		change func(*spec.Check)
		kind   Kind
		detail string // or warning
	}{
		"whole chain":         {config(with(leaf, middle)), name, "", ""},
		"with the root":       {config(with(leaf, root, middle)), name, "", ""},
		"name of SNI":         {config(with(leaf, middle)), func(c *spec.Check) { c.SNI = "www.example.org" }, "", ""},
		"name of the address": {config(with(leaf, middle)), nil, "", ""},
		"other name":          {config(with(leaf, middle)), func(c *spec.Check) { c.Hostname = "example.org" }, Hostname, "valid for www.example.org, not example.org"},
		"other name of SNI":   {config(with(leaf, middle)), func(c *spec.Check) { c.SNI = "mail.example.org" }, Hostname, "not mail.example.org"},
		"any name":            {config(with(leaf, middle)), func(c *spec.Check) { c.SNI, c.Hostname = "mail.example.org", spec.NoName }, "", ""},
		"name without chain":  {config(leaf), func(c *spec.Check) { c.Chain, c.Roots, c.Hostname = false, "", "mail.example.org" }, Hostname, ""},
		"missing in between":  {config(leaf), name, Chain, `"CN=leaf" was issued by "CN=middle", which is neither sent along nor trusted here`},
		"unknown root":        {config(with(leaf, middle, root)), func(c *spec.Check) { c.Roots = spec.SystemRoots }, Chain, `"CN=root" has issued itself and is not trusted here`},
		"by itself":           {config(issue(t, nil, ecKey(t), nil)), name, Chain, `"CN=leaf" has issued itself`},
		"expired":             {config(lasting(-2*day, -day)), name, Expired, "has expired on"},
		"expired, no chain":   {config(lasting(-2*day, -day)), func(c *spec.Check) { c.Chain, c.Roots, c.Hostname = false, "", "www.example.org" }, "", "has expired on"},
		"not yet valid":       {config(lasting(day, 2*day)), name, NotYetValid, "and here it is"},
		"late in between": {config(with(issue(t, &oldMiddle, ecKey(t), nil), oldMiddle)), name, Chain,
			"certificate has expired"},
		"for another use":   {config(client), name, Chain, "incompatible key usage"},
		"ends soon":         {config(lasting(-day, 5*day)), func(c *spec.Check) { c.MinValid = 7 * day }, Expiring, "in 4 days, want 7"},
		"ends later":        {config(lasting(-day, 8*day)), func(c *spec.Check) { c.MinValid = 7 * day }, "", ""},
		"minvalid, expired": {config(lasting(-2*day, -day)), func(c *spec.Check) { c.Chain, c.Roots, c.MinValid = false, "", day }, Expired, ""},
		"warned of":         {config(lasting(-day, 5*day)), func(c *spec.Check) { c.Warn = 7 * day }, "", "in 4 days"},
		"not warned of":     {config(lasting(-day, 8*day)), func(c *spec.Check) { c.Warn = 7 * day }, "", ""},
		"several things": {config(issue(t, &old, ecKey(t), func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })),
			func(c *spec.Check) { c.Hostname = "example.org" }, Expired, "; the certificate leads to no trusted one"},
	} {
		c := spec.Check{Type: spec.TLS, Addr: serveTLS(t, row.config), Chain: true, Roots: "ca.pem"}
		if row.change != nil {
			row.change(&c)
		}
		f := lookAt(t, c, Vars{NewRoot: dir})
		if f.Kind != row.kind || !strings.Contains(f.Detail+f.Warning, row.detail) || row.kind == "" && row.detail == "" && f.Warning != "" {
			t.Errorf("%s: %+v, want kind %q with %s", what, f, row.kind, row.detail)
		}
		if end := row.config.Certificates[0].Leaf.NotAfter; !f.NotAfter.Equal(end) {
			t.Errorf("%s: NotAfter = %v, want %v", what, f.NotAfter, end)
		}
	}
}

func TestProtocolAndVersionAreWhatWasAgreedOn(t *testing.T) {
	cert := issue(t, nil, ecKey(t), nil)
	speaks := func(low, high uint16, protocols ...string) *tls.Config {
		c := config(cert)
		c.MinVersion, c.MaxVersion, c.NextProtos = low, high, protocols
		return c
	}
	for what, row := range map[string]struct {
		config    *tls.Config
		min, alpn string
		kind      Kind
		detail    string
	}{
		"1.3":               {speaks(0, 0), "1.3", "", "", ""},
		"1.2, want 1.3":     {speaks(0, tls.VersionTLS12), "1.3", "", Version, "agreed on TLS 1.2, want TLS 1.3 or higher"},
		"1.0":               {speaks(tls.VersionTLS10, tls.VersionTLS10), "", "", Version, "agreed on TLS 1.0, want TLS 1.2"},
		"1.0 is enough":     {speaks(tls.VersionTLS10, tls.VersionTLS10), "1.0", "", "", ""},
		"h2":                {speaks(0, 0, "h2", "http/1.1"), "", "h2", "", ""},
		"not h2":            {speaks(0, 0, "http/1.1"), "", "h2", ALPN, "no application protocol"},
		"not in ALPN":       {speaks(0, 0), "", "h2", ALPN, `agreed on the protocol "", want "h2"`},
		"nothing asked for": {speaks(0, 0, "h2"), "", "", "", ""},
	} {
		c := spec.Check{Type: spec.TLS, Addr: serveTLS(t, row.config), Fingerprint: Fingerprint(cert.Leaf), Min: row.min, ALPN: row.alpn}
		if f := lookAt(t, c, Vars{}); f.Kind != row.kind || !strings.Contains(f.Detail, row.detail) {
			t.Errorf("%s: %+v, want kind %q with %s", what, f, row.kind, row.detail)
		}
	}
}

// V-07: of a pair of certificates the one was compared that was not deployed.
func TestV07OfAPairTheOneIsAskedForThatIsMeant(t *testing.T) {
	rsa, ec, ed := issue(t, nil, rsaKey(t), nil), issue(t, nil, ecKey(t), nil), issue(t, nil, edKey(t), nil)
	oldRSA := issue(t, nil, rsaKey(t), nil)
	ca := newCA(t, "ca", nil)
	issued := issue(t, &ca, rsaKey(t), nil)
	pair := func(all ...tls.Certificate) string { return serveTLS(t, &tls.Config{Certificates: all}) }
	both := pair(ec, rsa)
	new13 := config(rsa)
	new13.MinVersion = tls.VersionTLS13
	for what, row := range map[string]struct {
		addr string
		file []tls.Certificate
		key  string
		kind Kind
	}{
		"no key: what is preferred":        {both, []tls.Certificate{ec}, "", ""},
		"no key: the other":                {both, []tls.Certificate{rsa}, "", WrongCert},
		"no key: a file with both":         {both, []tls.Certificate{rsa, ec}, "", ""},
		"rsa":                              {both, []tls.Certificate{rsa}, "rsa", ""},
		"rsa of a file with both":          {both, []tls.Certificate{ec, rsa}, "rsa", ""},
		"ecdsa":                            {both, []tls.Certificate{ec}, "ecdsa", ""},
		"rsa forgotten":                    {pair(ec, oldRSA), []tls.Certificate{ec, rsa}, "rsa", WrongCert},
		"rsa forgotten, not asked for":     {pair(ec, oldRSA), []tls.Certificate{ec, rsa}, "", ""},
		"rsa is not there":                 {pair(ec), []tls.Certificate{ec, rsa}, "rsa", Handshake},
		"none such in the file":            {both, []tls.Certificate{ec}, "rsa", Spec},
		"ed25519":                          {pair(ed, rsa), []tls.Certificate{ed}, "ed25519", ""},
		"an issuer is not meant":           {pair(issued), []tls.Certificate{issued, ca}, "", ""},
		"an issuer is not meant, by key":   {pair(ca), []tls.Certificate{issued, ca}, "ecdsa", Spec},
		"speaks 1.3 only, cannot be asked": {serveTLS(t, new13), []tls.Certificate{rsa}, "rsa", Version},
	} {
		dir := tree(t, "cert.pem", pemFile(row.file...))
		c := spec.Check{Type: spec.TLS, Addr: row.addr, Cert: "cert.pem", Key: row.key}
		if f := lookAt(t, c, Vars{NewRoot: dir}); f.Kind != row.kind {
			t.Errorf("%s: %+v, want kind %q", what, f, row.kind)
		}
	}
}

func TestPublicKeyStaysWhenACertificateIsRenewed(t *testing.T) {
	key := ecKey(t)
	first, renewed := issue(t, nil, key, nil), issue(t, nil, key, nil)
	addr := serveTLS(t, config(renewed))
	c := spec.Check{Type: spec.TLS, Addr: addr, SPKI: sum(first.Leaf.RawSubjectPublicKeyInfo)}
	if f := lookAt(t, c, Vars{}); !f.OK || f.Got != c.SPKI {
		t.Errorf("renewed: %+v", f)
	}
	c.SPKI = sum(issue(t, nil, ecKey(t), nil).Leaf.RawSubjectPublicKeyInfo)
	if f := lookAt(t, c, Vars{}); f.Kind != WrongCert || f.Want != c.SPKI {
		t.Errorf("another key: %+v", f)
	}
}

// A port that lets in only those with certificates of their own has shown its
// own before it sends us away.
func TestCertificateIsSeenWhereOursIsAskedFor(t *testing.T) {
	cert := issue(t, nil, ecKey(t), nil)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		s := config(cert)
		s.ClientAuth, s.MaxVersion = tls.RequireAnyClientCert, version
		c := spec.Check{Type: spec.TLS, Addr: serveTLS(t, s), Fingerprint: Fingerprint(cert.Leaf)}
		if f := lookAt(t, c, Vars{}); !f.OK {
			t.Errorf("%s: %+v", tls.VersionName(version), f)
		}
		c.Fingerprint = strings.Repeat("ab", 32)
		if f := lookAt(t, c, Vars{}); f.Kind != WrongCert {
			t.Errorf("%s, another: %+v", tls.VersionName(version), f)
		}
	}
}

func TestNoNameIsAskedForWhereNoneIsWanted(t *testing.T) {
	names := make(chan string, 1)
	cert := newCert(t, "x", edKey(t))
	addr := serveTLS(t, &tls.Config{GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		names <- h.ServerName
		return &cert, nil
	}})
	_, port, _ := net.SplitHostPort(addr)
	c := spec.Check{Type: spec.TLS, Addr: "localhost:" + port, SNI: spec.NoName, Fingerprint: Fingerprint(cert.Leaf)}
	if f := lookAt(t, c, Vars{}); !f.OK || f.Target != c.Addr {
		t.Errorf("%+v", f)
	}
	if got := <-names; got != "" {
		t.Errorf("asked for %q, want no name", got)
	}
}
