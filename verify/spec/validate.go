package spec

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Origin says who wrote a specification, and so what it may ask of a host.
type Origin int

// The origins. The zero value is the one with the fewest rights.
const (
	FromRegistry Origin = iota // over the wire: what reaches into the host is ErrHostOnly
	FromHost                   // the host's own flags, or a registry that they trust with all checks
)

// ErrHostOnly says that a check would run a program, look into processes, or
// speak to what only the host itself can speak to or in words of its own, and
// its origin may not ask for that. Nothing was run.
var ErrHostOnly = errors.New("exec and process checks, and the keys unix, header and send, are taken from the host's own flags only")

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
	if err := c.validateNetwork(from); err != nil {
		return err
	}
	switch c.Type {
	case TLS:
		return c.validateTLS()
	case HTTP:
		if err := c.validateHeaders(from); err != nil {
			return err
		}
		return c.validateHTTP()
	case TCP:
		return c.validateTCP(from)
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
