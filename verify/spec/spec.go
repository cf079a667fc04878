package spec

import (
	"time"
)

// What holds where a specification says nothing, and how verify repeats.
const (
	DefaultTimeout   = 10 * time.Second // one look of one check
	DefaultTotal     = 2 * time.Minute  // all checks with all their repetitions
	DefaultSuccesses = 1                // in a row, of every check
	DefaultStatus    = Status("200")    // of an http check
	DefaultMin       = "1.2"            // TLS version of a tls check
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
	MaxArgs      = 64   // of an exec check; headers of an http check
	MaxAddresses = 32   // that a name stands for
	MaxValid     = 10 * 365 * 24 * time.Hour
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

// Words of fields that are no names or numbers.
const (
	NoName       = "-"      // SNI, Hostname
	SystemRoots  = "system" // Roots
	AllAddresses = "all"    // Addresses
)

// StartTLSProtocols lists what StartTLS may be.
var StartTLSProtocols = []string{"smtp", "imap", "pop3", "sieve", "ftp", "ldap", "postgres"}

// Other words that fields may be.
var (
	networks    = []string{"tcp4", "tcp6"}
	keyTypes    = []string{"rsa", "ecdsa", "ed25519"}
	tlsVersions = []string{"1.0", "1.1", "1.2", "1.3"}
	methods     = []string{"GET", "HEAD"}
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

	Addr      string `json:",omitzero"` // tls, tcp: host:port
	Unix      string `json:",omitzero"` // tls, tcp: instead of Addr, http: instead of the address of URL: absolute path of a socket
	Network   string `json:",omitzero"` // tls, http, tcp: tcp4 or tcp6, to look at addresses of one kind only
	Addresses string `json:",omitzero"` // tls, http, tcp: how many of the addresses of a name must pass: empty, AllAddresses or a number, see NeedAddresses

	StartTLS    string        `json:",omitzero"` // tls: one of StartTLSProtocols, which comes before the handshake
	SNI         string        `json:",omitzero"` // tls: server name to ask for; empty is the host of Addr, and none for an IP address; NoName is none
	Cert        string        `json:",omitzero"` // tls: path inside NEWROOT; its first certificate must be the one served, or with Key its first one with such a key
	Fingerprint string        `json:",omitzero"` // tls: instead of Cert, the SHA-256 of the certificate, 64 lower-case hex digits
	SPKI        string        `json:",omitzero"` // tls: instead of Cert, the SHA-256 of its public key (SubjectPublicKeyInfo), in the same form
	Key         string        `json:",omitzero"` // tls: rsa, ecdsa or ed25519: ask for the certificate with such a key, where there are several
	Chain       bool          `json:",omitzero"` // tls: the certificate must lead to one of Roots, and be for Hostname
	Roots       string        `json:",omitzero"` // tls: path inside NEWROOT of certificates to trust; empty or SystemRoots is what the host trusts
	Hostname    string        `json:",omitzero"` // tls: name or address that the certificate must be for; empty with Chain is SNI or else the host of Addr; NoName is none
	MinValid    time.Duration `json:",omitzero"` // tls: how long the certificate must still be valid
	Warn        time.Duration `json:",omitzero"` // tls: how long it should still be valid: less is told, and no failure
	ALPN        string        `json:",omitzero"` // tls: the protocol to ask for, which must be agreed
	Min         string        `json:",omitzero"` // tls: lowest TLS version to agree on, 1.0 to 1.3; empty is DefaultMin

	URL      string   `json:",omitzero"`  // http: what to ask for; redirects are not followed
	Host     string   `json:",omitzero"`  // http: host[:port] to ask for, in the header, in SNI and for the certificate; empty is the host of URL
	Method   string   `json:",omitzero"`  // http: GET or HEAD; empty is GET
	Headers  []string `json:",omitempty"` // http: "Name: value", to send along
	Status   Status   `json:",omitzero"`  // http: empty is DefaultStatus
	Body     string   `json:",omitzero"`  // http: text that the body contains, tcp: that the port says; may use placeholders
	JSON     string   `json:",omitzero"`  // http: RFC 6901 pointer to a field of the body that is Equals
	Equals   string   `json:",omitzero"`  // http: may use placeholders: {newid} {oldid} {name} {revision} {newroot}
	Insecure bool     `json:",omitzero"`  // http: take any certificate

	Send   string `json:",omitzero"` // tcp: what to say after connecting, with the escapes of Unescape
	Expect string `json:",omitzero"` // tcp: what the port says first, likewise; empty, and without Body: connecting is enough

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
		if c.Type == TLS {
			c.Min = orElse(c.Min, DefaultMin)
			if host, _, err := splitAddr(c.Addr); err == nil && !isIP(host) {
				c.SNI = orElse(c.SNI, host)
			}
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
	at := orElse(c.Addr, c.socket())
	switch c.Type {
	case TLS:
		if c.SNI != "" && c.SNI != NoName {
			at += " as " + c.SNI
		}
		for _, how := range []string{c.StartTLS, c.Key, c.Network} {
			if how != "" {
				at += " (" + how + ")"
			}
		}
		return at
	case HTTP:
		at = c.URL
		if c.Host != "" {
			at += " as " + c.Host
		}
		if c.Unix != "" {
			return at + " at " + c.socket()
		}
	case Exec:
		if len(c.Args) > 0 {
			return c.Args[0]
		}
	case Process:
		return orElse(c.Unit, c.PIDFile)
	}
	if c.Network != "" {
		at += " (" + c.Network + ")"
	}
	return at
}

func (c Check) socket() string {
	if c.Unix == "" {
		return ""
	}
	return "unix:" + c.Unix
}
