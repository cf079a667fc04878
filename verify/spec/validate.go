package spec

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Origin says who wrote a specification, and so what it may ask of a host.
type Origin int

// The origins. The zero value is the one with the fewest rights.
const (
	FromRegistry Origin = iota // over the wire: exec and process checks are ErrHostOnly
	FromHost                   // the host's own flags, or a registry that they trust with all checks
)

// ErrHostOnly says that a check would run a program or look into processes, and
// its origin may not ask for that. Nothing was run.
var ErrHostOnly = errors.New("exec and process checks are taken from the host's own flags only")

// Validate reports the first rule that s breaks. Whoever takes a specification
// from outside calls it before anything else.
func (s Spec) Validate(from Origin) error {
	switch {
	case len(s.Checks) > MaxChecks:
		return fmt.Errorf("%d checks: want at most %d", len(s.Checks), MaxChecks)
	case s.Successes < 0 || s.Successes > MaxSuccesses:
		return fmt.Errorf("successes %d: want 0 to %d", s.Successes, MaxSuccesses)
	case !within(s.Total, MaxTotal):
		return fmt.Errorf("total %v: want 0 to %v", s.Total, MaxTotal)
	case !within(s.Soak, MaxSoak):
		return fmt.Errorf("soak %v: want 0 to %v", s.Soak, MaxSoak)
	}
	seen := map[string]bool{}
	for i, c := range s.Checks {
		name := orElse(c.Name, c.place(i))
		if err := c.Validate(from); err != nil {
			return fmt.Errorf("check %s: %w", quote(name), err)
		}
		if seen[name] {
			return fmt.Errorf("check %s: the name is given twice", quote(name))
		}
		seen[name] = true
	}
	return nil
}

// place is the name of a check that has none.
func (c Check) place(i int) string { return fmt.Sprintf("%s-%d", c.Type, i+1) }

func within(d, most time.Duration) bool { return d >= 0 && d <= most }

// Validate reports the first rule that c breaks.
func (c Check) Validate(from Origin) error {
	if c.Type == "" {
		return fmt.Errorf("type is missing; known: %s, %s, %s, %s, %s", TLS, HTTP, TCP, Exec, Process)
	}
	if !slices.Contains(types, c.Type) {
		return unknown("type", c.Type, types)
	}
	if err := c.validateKeys(); err != nil {
		return err
	}
	if c.Name != "" && !validName(c.Name) {
		return fmt.Errorf("name %s: want a letter or digit, then up to 127 of those and . _ + @ -", quote(c.Name))
	}
	if !within(c.Timeout, MaxTimeout) {
		return fmt.Errorf("timeout %v: want up to %v", c.Timeout, MaxTimeout)
	}
	switch c.Type {
	case TLS:
		return c.validateTLS()
	case HTTP:
		return c.validateHTTP()
	case TCP:
		return validateAddr(c.Addr)
	case Exec:
		return c.validateExec(from)
	}
	return c.validateProcess(from)
}

// validateKeys holds every value to its type and to what both forms can carry.
func (c Check) validateKeys() error {
	for _, k := range keys {
		vs := k.get(&c)
		if len(vs) > 0 && k.of != nil && !slices.Contains(k.of, c.Type) {
			return unknown("key", k.name, keyNames(c.Type))
		}
		for _, v := range vs {
			if len(v) > MaxTextBytes {
				return fmt.Errorf("%s: %d bytes: want at most %d", k.name, len(v), MaxTextBytes)
			}
			if !utf8.ValidString(v) {
				return fmt.Errorf("%s %s: want UTF-8", k.name, quote(v))
			}
		}
	}
	return nil
}

func (c Check) validateTLS() error {
	if err := validateAddr(c.Addr); err != nil {
		return err
	}
	if c.SNI != "" && (isIP(c.SNI) || !validHost(c.SNI)) {
		return fmt.Errorf("sni %s: want a host name", quote(c.SNI))
	}
	if (c.Cert == "") == (c.Fingerprint == "") {
		return errors.New("want one of cert and fingerprint")
	}
	if c.Cert != "" {
		if !fs.ValidPath(c.Cert) || c.Cert == "." || hasControl(c.Cert) {
			return fmt.Errorf("cert %s: want a path inside NEWROOT, such as etc/cert.pem", quote(c.Cert))
		}
		return nil
	}
	if f, err := ParseFingerprint(c.Fingerprint); err != nil || f != c.Fingerprint {
		return fmt.Errorf("fingerprint %s: want 64 lower-case hexadecimal digits", quote(c.Fingerprint))
	}
	return nil
}

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
	case c.Status != 0 && (c.Status < 100 || c.Status > 599):
		return fmt.Errorf("status %d: want 100 to 599", c.Status)
	case (c.JSON == "") != (c.Equals == ""):
		return errors.New("want json and equals together")
	case c.JSON != "" && !validPointer(c.JSON):
		return fmt.Errorf("json %s: want a JSON pointer, such as /id", quote(c.JSON))
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

func (c Check) validateExec(from Origin) error {
	switch {
	case from != FromHost:
		return ErrHostOnly
	case len(c.Args) == 0 || c.Args[0] == "":
		return errors.New("want arg=PROGRAM")
	case len(c.Args) > MaxArgs:
		return fmt.Errorf("%d args: want at most %d", len(c.Args), MaxArgs)
	case slices.ContainsFunc(c.Args, func(a string) bool { return strings.Contains(a, "\x00") }):
		return errors.New("arg: want no NUL")
	}
	return nil
}

func (c Check) validateProcess(from Origin) error {
	switch {
	case from != FromHost:
		return ErrHostOnly
	case (c.Unit == "") == (c.PIDFile == ""):
		return errors.New("want one of unit and pidfile")
	case c.Unit != "" && !validUnit(c.Unit):
		return fmt.Errorf("unit %s: want the name of a service, such as web.service or web@1", quote(c.Unit))
	case c.PIDFile != "" && (!strings.HasPrefix(c.PIDFile, "/") || hasControl(c.PIDFile)):
		return fmt.Errorf("pidfile %s: want an absolute path", quote(c.PIDFile))
	}
	return nil
}
