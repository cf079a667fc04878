package spec

import (
	"errors"
	"fmt"
	"time"
)

// key is one key of the text form: a field of Check and who may use it.
type key struct {
	name string
	of   []Type // nil: every type
	get  func(*Check) []string
	set  func(*Check, string) error
}

// network are the types that open connections.
var network = []Type{TLS, HTTP, TCP}

// keys lists the keys in the order of String.
var keys = []key{
	{"type", nil,
		func(c *Check) []string { return values(string(c.Type)) },
		func(c *Check, v string) error { return c.Type.UnmarshalText([]byte(v)) }},
	text("name", nil, func(c *Check) *string { return &c.Name }),
	text("addr", []Type{TLS, TCP}, func(c *Check) *string { return &c.Addr }),
	text("unix", network, func(c *Check) *string { return &c.Unix }),
	text("network", network, func(c *Check) *string { return &c.Network }),
	text("addresses", network, func(c *Check) *string { return &c.Addresses }),
	text("starttls", []Type{TLS}, func(c *Check) *string { return &c.StartTLS }),
	text("sni", []Type{TLS}, func(c *Check) *string { return &c.SNI }),
	text("cert", []Type{TLS}, func(c *Check) *string { return &c.Cert }),
	digits("fingerprint", func(c *Check) *string { return &c.Fingerprint }),
	digits("spki", func(c *Check) *string { return &c.SPKI }),
	text("key", []Type{TLS}, func(c *Check) *string { return &c.Key }),
	yes("chain", []Type{TLS}, func(c *Check) *bool { return &c.Chain }),
	text("roots", []Type{TLS}, func(c *Check) *string { return &c.Roots }),
	text("hostname", []Type{TLS}, func(c *Check) *string { return &c.Hostname }),
	span("minvalid", []Type{TLS}, func(c *Check) *time.Duration { return &c.MinValid }),
	span("warn", []Type{TLS}, func(c *Check) *time.Duration { return &c.Warn }),
	text("alpn", []Type{TLS}, func(c *Check) *string { return &c.ALPN }),
	text("min", []Type{TLS}, func(c *Check) *string { return &c.Min }),
	text("url", []Type{HTTP}, func(c *Check) *string { return &c.URL }),
	text("host", []Type{HTTP}, func(c *Check) *string { return &c.Host }),
	text("method", []Type{HTTP}, func(c *Check) *string { return &c.Method }),
	list("header", []Type{HTTP}, func(c *Check) *[]string { return &c.Headers }),
	text("status", []Type{HTTP}, func(c *Check) *Status { return &c.Status }),
	text("body", []Type{HTTP, TCP}, func(c *Check) *string { return &c.Body }),
	text("json", []Type{HTTP}, func(c *Check) *string { return &c.JSON }),
	text("equals", []Type{HTTP}, func(c *Check) *string { return &c.Equals }),
	yes("insecure", []Type{HTTP}, func(c *Check) *bool { return &c.Insecure }),
	text("send", []Type{TCP}, func(c *Check) *string { return &c.Send }),
	text("expect", []Type{TCP}, func(c *Check) *string { return &c.Expect }),
	list("arg", []Type{Exec}, func(c *Check) *[]string { return &c.Args }),
	text("unit", []Type{Process}, func(c *Check) *string { return &c.Unit }),
	text("pidfile", []Type{Process}, func(c *Check) *string { return &c.PIDFile }),
	span("timeout", nil, func(c *Check) *time.Duration { return &c.Timeout }),
}

// repeated are the keys that may be given more than once.
var repeated = []string{"header", "arg"}

// text is the key of a field that holds its value as it is.
func text[T ~string](name string, of []Type, field func(*Check) *T) key {
	return key{name, of,
		func(c *Check) []string { return values(string(*field(c))) },
		func(c *Check, v string) error {
			if v == "" {
				return errors.New("want a value")
			}
			*field(c) = T(v)
			return nil
		}}
}

func values(v string) []string {
	if v == "" {
		return nil
	}
	return []string{v}
}

// list is the key of a field that holds every value given.
func list(name string, of []Type, field func(*Check) *[]string) key {
	return key{name, of,
		func(c *Check) []string { return *field(c) },
		func(c *Check, v string) error {
			*field(c) = append(*field(c), v)
			return nil
		}}
}

// digits is the key of a SHA-256.
func digits(name string, field func(*Check) *string) key {
	return key{name, []Type{TLS},
		func(c *Check) []string { return values(*field(c)) },
		func(c *Check, v string) (err error) {
			*field(c), err = ParseFingerprint(v)
			return err
		}}
}

// yes is the key of a fact.
func yes(name string, of []Type, field func(*Check) *bool) key {
	return key{name, of,
		func(c *Check) []string {
			if !*field(c) {
				return nil
			}
			return []string{"true"}
		},
		func(c *Check, v string) error {
			if v != "true" && v != "false" {
				return fmt.Errorf("%q: want true or false", v)
			}
			*field(c) = v == "true"
			return nil
		}}
}

// span is the key of a duration.
func span(name string, of []Type, field func(*Check) *time.Duration) key {
	return key{name, of,
		func(c *Check) []string {
			if *field(c) == 0 {
				return nil
			}
			return []string{formatSpan(*field(c))}
		},
		func(c *Check, v string) error {
			d, err := parseSpan(v)
			if err != nil || d <= 0 {
				return fmt.Errorf("%q: want a duration such as 10s, 12h or 30d", v)
			}
			*field(c) = d
			return nil
		}}
}
