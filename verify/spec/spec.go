package spec

import (
	"time"
)

// What holds where a specification says nothing, and how verify repeats.
const (
	DefaultTimeout   = 10 * time.Second // one look of one check
	DefaultTotal     = 2 * time.Minute  // all checks with all their repetitions
	DefaultSuccesses = 1                // in a row, of every check
	DefaultStatus    = 200              // of an http check
	FirstRetry       = time.Second      // pause after the first round that did not pass; doubles
	MaxRetry         = 16 * time.Second // longest pause
)

// Limits that Validate holds a specification to.
const (
	MaxChecks    = 64
	MaxSuccesses = 100
	MaxTimeout   = 10 * time.Minute
	MaxTotal     = time.Hour
	MaxSoak      = 7 * 24 * time.Hour
	MaxTextBytes = 4096 // of one value
	MaxArgs      = 64
)

// Type says what a check looks at.
type Type string

// The types.
const (
	TLS     Type = "tls"     // the certificate that a port serves
	HTTP    Type = "http"    // the answer to one GET
	TCP     Type = "tcp"     // a port, and what it says first
	Exec    Type = "exec"    // the exit status of a program on the host
	Process Type = "process" // what the main process of a service runs from, and since when
)

// types lists every type, in the order of messages.
var types = []Type{TLS, HTTP, TCP, Exec, Process}

// Spec is a set of checks that must all pass. The zero value has no checks:
// what it is asked about is then not verified, which is no success.
type Spec struct {
	Checks    []Check       `json:",omitempty"`
	Successes int           `json:",omitzero"` // in a row, of every check; 0 is DefaultSuccesses
	Total     time.Duration `json:",omitzero"` // for all checks until they pass; 0 is DefaultTotal
	Soak      time.Duration `json:",omitzero"` // how long they must go on passing; 0 is no soak
}

// Check is one look from outside. Which fields belong to which Type is said at
// the fields; the others stay empty.
type Check struct {
	Type    Type
	Name    string        `json:",omitzero"` // unique in its Spec; empty: see WithDefaults
	Timeout time.Duration `json:",omitzero"` // of one look, all of it; 0 is DefaultTimeout

	Addr        string `json:",omitzero"` // tls, tcp: host:port
	SNI         string `json:",omitzero"` // tls: server name to ask for; empty is the host of Addr, and none for an IP address
	Cert        string `json:",omitzero"` // tls: path inside NEWROOT; its first certificate must be the one served
	Fingerprint string `json:",omitzero"` // tls: instead of Cert, the SHA-256 of the certificate, 64 lower-case hex digits

	URL      string `json:",omitzero"` // http: what to GET; redirects are not followed
	Host     string `json:",omitzero"` // http: host[:port] to ask for, in the header, in SNI and for the certificate; empty is the host of URL
	Status   int    `json:",omitzero"` // http: 0 is DefaultStatus
	Body     string `json:",omitzero"` // http: text that the body contains; may use placeholders
	JSON     string `json:",omitzero"` // http: RFC 6901 pointer to a field of the body that is Equals
	Equals   string `json:",omitzero"` // http: may use placeholders: {newid} {oldid} {name} {revision} {newroot}
	Insecure bool   `json:",omitzero"` // http: take any certificate

	Expect string `json:",omitzero"` // tcp: what the port says first; empty: connecting is enough

	Args []string `json:",omitempty"` // exec: program and arguments; no shell

	Unit    string `json:",omitzero"` // process: unit of systemd whose main process it is
	PIDFile string `json:",omitzero"` // process: instead of Unit, absolute path of a file with its process id
}

// WithDefaults returns s with every zero value replaced by what it stands for.
// A check without a name gets its type and its place, counted from 1: "tls-1".
// It changes nothing that s refers to.
func (s Spec) WithDefaults() Spec {
	s.Successes = orElse(s.Successes, DefaultSuccesses)
	s.Total = orElse(s.Total, DefaultTotal)
	checks := make([]Check, len(s.Checks))
	for i, c := range s.Checks {
		c.Name = orElse(c.Name, c.place(i))
		c.Timeout = orElse(c.Timeout, DefaultTimeout)
		if c.Type == HTTP {
			c.Status = orElse(c.Status, DefaultStatus)
		}
		if host, _, err := splitAddr(c.Addr); c.Type == TLS && err == nil && !isIP(host) {
			c.SNI = orElse(c.SNI, host)
		}
		checks[i] = c
	}
	s.Checks = checks
	return s
}

func orElse[T comparable](v, other T) T {
	var zero T
	if v == zero {
		return other
	}
	return v
}

// Target names what c looks at, for people: an address with the name asked
// for, a URL, a program.
func (c Check) Target() string {
	switch c.Type {
	case TLS:
		if c.SNI != "" {
			return c.Addr + " as " + c.SNI
		}
		return c.Addr
	case HTTP:
		if c.Host != "" {
			return c.URL + " as " + c.Host
		}
		return c.URL
	case TCP:
		return c.Addr
	case Exec:
		if len(c.Args) > 0 {
			return c.Args[0]
		}
	case Process:
		return orElse(c.Unit, c.PIDFile)
	}
	return ""
}
