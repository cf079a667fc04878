package spec

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// key is one key of the text form: a field of Check and who may use it.
type key struct {
	name string
	of   []Type // nil: every type
	get  func(*Check) []string
	set  func(*Check, string) error
}

// keys lists the keys in the order of String.
var keys = []key{
	{"type", nil,
		func(c *Check) []string { return values(string(c.Type)) },
		func(c *Check, v string) error { return c.Type.UnmarshalText([]byte(v)) }},
	text("name", nil, func(c *Check) *string { return &c.Name }),
	text("addr", []Type{TLS, TCP}, func(c *Check) *string { return &c.Addr }),
	text("sni", []Type{TLS}, func(c *Check) *string { return &c.SNI }),
	text("cert", []Type{TLS}, func(c *Check) *string { return &c.Cert }),
	{"fingerprint", []Type{TLS},
		func(c *Check) []string { return values(c.Fingerprint) },
		func(c *Check, v string) (err error) {
			c.Fingerprint, err = ParseFingerprint(v)
			return err
		}},
	text("url", []Type{HTTP}, func(c *Check) *string { return &c.URL }),
	text("host", []Type{HTTP}, func(c *Check) *string { return &c.Host }),
	{"status", []Type{HTTP}, getStatus, setStatus},
	text("body", []Type{HTTP}, func(c *Check) *string { return &c.Body }),
	text("json", []Type{HTTP}, func(c *Check) *string { return &c.JSON }),
	text("equals", []Type{HTTP}, func(c *Check) *string { return &c.Equals }),
	{"insecure", []Type{HTTP}, getInsecure, setInsecure},
	text("expect", []Type{TCP}, func(c *Check) *string { return &c.Expect }),
	{"arg", []Type{Exec},
		func(c *Check) []string { return c.Args },
		func(c *Check, v string) error {
			c.Args = append(c.Args, v)
			return nil
		}},
	text("unit", []Type{Process}, func(c *Check) *string { return &c.Unit }),
	text("pidfile", []Type{Process}, func(c *Check) *string { return &c.PIDFile }),
	{"timeout", nil, getTimeout, setTimeout},
}

// text is the key of a field that holds its value as it is.
func text(name string, of []Type, field func(*Check) *string) key {
	return key{name, of,
		func(c *Check) []string { return values(*field(c)) },
		func(c *Check, v string) error {
			if v == "" {
				return errors.New("want a value")
			}
			*field(c) = v
			return nil
		}}
}

func values(v string) []string {
	if v == "" {
		return nil
	}
	return []string{v}
}

func getStatus(c *Check) []string {
	if c.Status == 0 {
		return nil
	}
	return []string{strconv.Itoa(c.Status)}
}

func setStatus(c *Check, v string) error {
	n, err := strconv.Atoi(v)
	if err != nil || n == 0 {
		return fmt.Errorf("%q: want a number", v)
	}
	c.Status = n
	return nil
}

func getInsecure(c *Check) []string {
	if !c.Insecure {
		return nil
	}
	return []string{"true"}
}

func setInsecure(c *Check, v string) error {
	if v != "true" && v != "false" {
		return fmt.Errorf("%q: want true or false", v)
	}
	c.Insecure = v == "true"
	return nil
}

func getTimeout(c *Check) []string {
	if c.Timeout == 0 {
		return nil
	}
	return []string{c.Timeout.String()}
}

func setTimeout(c *Check, v string) error {
	t, err := time.ParseDuration(v)
	if err != nil || t <= 0 {
		return fmt.Errorf("%q: want a duration such as 10s", v)
	}
	c.Timeout = t
	return nil
}

// ParseFingerprint reads the SHA-256 of a certificate in hexadecimal digits of
// either case, with or without colons, and returns 64 lower-case ones.
func ParseFingerprint(s string) (string, error) {
	hexDigits := strings.ToLower(strings.ReplaceAll(s, ":", ""))
	if b, err := hex.DecodeString(hexDigits); err != nil || len(b) != 32 {
		return "", fmt.Errorf("%s: want the 64 hexadecimal digits of a SHA-256", quote(s))
	}
	return hexDigits, nil
}

// Parse reads one check in its text form and validates it. Names and values of
// the wrong kind are errors that say what would have been right.
func Parse(text string, from Origin) (Check, error) {
	var c Check
	seen := map[string]bool{}
	for rest, more := text, true; more; {
		name, value, tail, again, err := CutPair(rest)
		if err != nil {
			return Check{}, fmt.Errorf("check %s: %w", quote(text), err)
		}
		i := slices.IndexFunc(keys, func(k key) bool { return k.name == name })
		switch {
		case i < 0:
			return Check{}, fmt.Errorf("check %s: %w", quote(text), unknown("key", name, keyNames(c.Type)))
		case seen[name] && name != "arg":
			return Check{}, fmt.Errorf("check %s: key %q is given twice", quote(text), name)
		}
		if err := keys[i].set(&c, value); err != nil {
			return Check{}, fmt.Errorf("check %s: %s: %w", quote(text), name, err)
		}
		seen[name] = true
		rest, more = tail, again
	}
	if err := c.Validate(from); err != nil {
		return Check{}, fmt.Errorf("check %s: %w", quote(text), err)
	}
	return c, nil
}

// CutPair takes the first KEY=VALUE off s, by the quoting rule of checks; more
// says that a comma followed.
func CutPair(s string) (name, value, rest string, more bool, err error) {
	name, s, ok := strings.Cut(s, "=")
	if !ok || strings.Contains(name, ",") {
		name, _, _ = strings.Cut(name, ",")
		return "", "", "", false, fmt.Errorf("%s: want KEY=VALUE", quote(name))
	}
	if !strings.HasPrefix(s, `"`) {
		value, rest, more = strings.Cut(s, ",")
		return name, value, rest, more, nil
	}
	var b strings.Builder
	for s = s[1:]; ; {
		part, tail, ok := strings.Cut(s, `"`)
		if !ok {
			return "", "", "", false, fmt.Errorf("%s: the double quote is never closed", name)
		}
		b.WriteString(part)
		if !strings.HasPrefix(tail, `"`) {
			s = tail
			break
		}
		b.WriteByte('"')
		s = tail[1:]
	}
	if s != "" && s[0] != ',' {
		return "", "", "", false, fmt.Errorf("%s: want a comma after the closing double quote", name)
	}
	rest, more = strings.CutPrefix(s, ",")
	return name, b.String(), rest, more, nil
}

// String returns the text form. For a valid check, Parse reads it back.
func (c Check) String() string {
	var pairs []string
	for _, k := range keys {
		for _, v := range k.get(&c) {
			if strings.Contains(v, ",") || strings.HasPrefix(v, `"`) {
				v = `"` + strings.ReplaceAll(v, `"`, `""`) + `"`
			}
			pairs = append(pairs, k.name+"="+v)
		}
	}
	return strings.Join(pairs, ",")
}

// keyNames lists the keys of t; of every type when t is none yet.
func keyNames(t Type) []string {
	var names []string
	for _, k := range keys {
		if t == "" || k.of == nil || slices.Contains(k.of, t) {
			names = append(names, k.name)
		}
	}
	return names
}

// quote quotes what a user wrote and keeps an error about a long text readable.
func quote(s string) string {
	if len(s) > 200 {
		return strconv.Quote(s[:200]) + "..."
	}
	return strconv.Quote(s)
}
