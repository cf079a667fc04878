package spec

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

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
		case seen[name] && !slices.Contains(repeated, name):
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
		return "", "", "", false, fmt.Errorf("%s: want KEY=VALUE; a value with a comma stands in double quotes", quote(name))
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
