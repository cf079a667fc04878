package spec

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// validateNetwork holds to their rules the fields that say where to connect.
func (c Check) validateNetwork(from Origin) error {
	switch {
	case !slices.Contains(network, c.Type):
		return nil
	case c.Unix != "" && from != FromHost:
		return ErrHostOnly
	case c.Unix != "" && (!strings.HasPrefix(c.Unix, "/") || hasControl(c.Unix) || len(c.Unix) > maxSocketPath):
		return fmt.Errorf("unix %s: want an absolute path of at most %d bytes", quote(c.Unix), maxSocketPath)
	case c.Unix != "" && (c.Network != "" || c.Addresses != ""):
		return errors.New("unix: a socket has no network and no addresses")
	case c.Network != "" && !slices.Contains(networks, c.Network):
		return unknown("network", c.Network, networks)
	case c.Type != HTTP && (c.Addr == "") == (c.Unix == ""):
		return errors.New("want one of addr and unix")
	}
	if n, err := strconv.Atoi(c.Addresses); c.Addresses != "" && c.Addresses != AllAddresses &&
		(err != nil || n < 1 || n > MaxAddresses || strconv.Itoa(n) != c.Addresses) {
		return fmt.Errorf("addresses %s: want %s or 1 to %d", quote(c.Addresses), AllAddresses, MaxAddresses)
	}
	if c.Addr != "" {
		return validateAddr(c.Addr)
	}
	return nil
}

// maxSocketPath is what fits into sun_path, unix(7).
const maxSocketPath = 107

func (c Check) validateTLS() error {
	if c.SNI != "" && c.SNI != NoName && (isIP(c.SNI) || !validHost(c.SNI)) {
		return fmt.Errorf("sni %s: want a host name, or %s for none", quote(c.SNI), NoName)
	}
	for _, w := range []struct {
		name, word string
		known      []string
	}{{"starttls", c.StartTLS, StartTLSProtocols}, {"key", c.Key, keyTypes}, {"min", c.Min, tlsVersions}} {
		if w.word != "" && !slices.Contains(w.known, w.word) {
			return unknown(w.name, w.word, w.known)
		}
	}
	switch {
	case c.Key != "" && c.Min == "1.3":
		return errors.New("key: can be asked for up to TLS 1.2 only, so not with min=1.3")
	case len(c.ALPN) > 255 || hasControl(c.ALPN):
		return fmt.Errorf("alpn %s: want a protocol such as h2", quote(c.ALPN))
	case !within(c.MinValid, MaxValid) || !within(c.Warn, MaxValid):
		return fmt.Errorf("minvalid, warn: want up to %s", formatSpan(MaxValid))
	}
	if err := c.validateIdentity(); err != nil {
		return err
	}
	return c.validateTrust()
}

// validateIdentity is about which certificate must be served.
func (c Check) validateIdentity() error {
	given := 0
	for _, v := range []string{c.Cert, c.Fingerprint, c.SPKI} {
		if v != "" {
			given++
		}
	}
	if given > 1 || given == 0 && !c.Chain && c.Hostname == "" && c.MinValid == 0 {
		return errors.New("want one of cert, fingerprint and spki, or chain, hostname or minvalid")
	}
	if c.Cert != "" && !insideRoot(c.Cert) {
		return fmt.Errorf("cert %s: want a path inside NEWROOT, such as etc/cert.pem", quote(c.Cert))
	}
	for name, v := range map[string]string{"fingerprint": c.Fingerprint, "spki": c.SPKI} {
		if f, err := ParseFingerprint(v); v != "" && (err != nil || f != v) {
			return fmt.Errorf("%s %s: want 64 lower-case hexadecimal digits", name, quote(v))
		}
	}
	return nil
}

// validateTrust is about who vouches for it, and for which name.
func (c Check) validateTrust() error {
	switch {
	case c.Roots != "" && !c.Chain:
		return errors.New("roots: belongs to chain=true")
	case c.Roots != "" && c.Roots != SystemRoots && !insideRoot(c.Roots):
		return fmt.Errorf("roots %s: want %s or a path inside NEWROOT, such as etc/ca.pem", quote(c.Roots), SystemRoots)
	case c.Hostname == NoName && !c.Chain:
		return fmt.Errorf("hostname %s: belongs to chain=true", NoName)
	case c.Hostname != "" && c.Hostname != NoName && !validHost(c.Hostname):
		return fmt.Errorf("hostname %s: want a host name or an address", quote(c.Hostname))
	}
	return nil
}

func insideRoot(path string) bool { return fs.ValidPath(path) && path != "." && !hasControl(path) }

func (c Check) validateHTTP() error {
	u, err := url.Parse(c.URL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || validateURLHost(u) != nil || hasControl(c.URL) {
		return fmt.Errorf("url %s: want http://HOST[:PORT]/PATH or https://", quote(c.URL))
	}
	switch {
	case u.User != nil:
		return errors.New("url: want no user or password in it")
	case u.Fragment != "":
		return fmt.Errorf("url %s: want no fragment", quote(c.URL))
	case c.Insecure && u.Scheme != "https":
		return errors.New("insecure: belongs to https only")
	case (c.JSON == "") != (c.Equals == ""):
		return errors.New("want json and equals together")
	case c.JSON != "" && !validPointer(c.JSON):
		return fmt.Errorf("json %s: want a JSON pointer, such as /id", quote(c.JSON))
	case c.Method != "" && !slices.Contains(methods, c.Method):
		return unknown("method", c.Method, methods)
	case c.Method == "HEAD" && (c.Body != "" || c.JSON != ""):
		return errors.New("method HEAD: the answer has no body to look at")
	}
	if c.Status != "" {
		if err := c.Status.validate(); err != nil {
			return err
		}
	}
	if err := validatePlaceholders(c.Equals); err != nil {
		return fmt.Errorf("equals: %w", err)
	}
	if c.Host != "" {
		h, err := url.Parse("http://" + c.Host)
		if err != nil || h.Host != c.Host || validateURLHost(h) != nil {
			return fmt.Errorf("host %s: want HOST or HOST:PORT", quote(c.Host))
		}
	}
	return nil
}

func validateURLHost(u *url.URL) error {
	if p := u.Port(); p != "" || strings.HasSuffix(u.Host, ":") {
		if !validPort(p) {
			return errors.New("no port")
		}
	}
	if !validHost(u.Hostname()) {
		return errors.New("no host")
	}
	return nil
}

// own are the headers that have a key of their own, or that say how the
// request itself is sent.
var own = []string{"host", "connection", "content-length", "transfer-encoding", "upgrade", "te", "trailer", "expect"}

// validateHeaders holds each to RFC 9110 section 5.1 and 5.5.
func (c Check) validateHeaders(from Origin) error {
	switch {
	case len(c.Headers) == 0:
		return nil
	case from != FromHost:
		return ErrHostOnly
	case len(c.Headers) > MaxArgs:
		return fmt.Errorf("%d headers: want at most %d", len(c.Headers), MaxArgs)
	}
	for _, h := range c.Headers {
		name, value, ok := strings.Cut(h, ": ")
		if !ok || !validToken(name) || hasControl(value) {
			return fmt.Errorf(`header %s: want "NAME: VALUE"`, quote(h))
		}
		if slices.Contains(own, strings.ToLower(name)) {
			return fmt.Errorf("header %s: cannot be chosen", quote(name))
		}
	}
	return nil
}

// validToken is RFC 9110 section 5.6.2.
func validToken(s string) bool {
	for _, r := range s {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !letter && !strings.ContainsRune("!#$%&'*+-.^_`|~", r) {
			return false
		}
	}
	return s != ""
}

func (c Check) validateTCP(from Origin) error {
	if c.Send != "" && from != FromHost {
		return ErrHostOnly
	}
	for name, v := range map[string]string{"send": c.Send, "expect": c.Expect} {
		if _, err := Unescape(v); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}
