package agent

import (
	"bytes"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"deploytools/verify/spec"
)

// A Mapping says that a file of the root is published: that it lies at a fixed
// path as well, as long as the root is live. docs/published-files.md has its text form.
type Mapping struct {
	From     string      // relative to the root
	To       string      // absolute
	Mode     fs.FileMode `json:",omitzero"`  // permission bits; 0: as the file there has them, or else the one in the root
	Owner    []string    `json:",omitempty"` // candidates, the first that the host knows; none: as the file there has it, or else ours
	Group    []string    `json:",omitempty"`
	Optional bool        `json:",omitzero"` // the root may lack it
}

// mappingKeys are what may follow FROM=TO.
var mappingKeys = map[string]func(*Mapping, string) error{
	"mode":     setMode,
	"owner":    func(m *Mapping, v string) (err error) { m.Owner, err = candidates(v); return err },
	"group":    func(m *Mapping, v string) (err error) { m.Group, err = candidates(v); return err },
	"optional": setOptional,
}

func setMode(m *Mapping, v string) error {
	n, err := strconv.ParseUint(v, 8, 16)
	if err != nil || n == 0 || n > 0o777 {
		return fmt.Errorf("%q: should be permissions such as 0640", v)
	}
	m.Mode = fs.FileMode(n)
	return nil
}

func setOptional(m *Mapping, v string) error {
	if v != "true" && v != "false" {
		return fmt.Errorf("%q: should be true or false", v)
	}
	m.Optional = v == "true"
	return nil
}

// candidates reads names or numbers with slashes between them.
func candidates(v string) ([]string, error) {
	all := strings.Split(v, "/")
	for _, name := range all {
		if name == "" || strings.ContainsFunc(name, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) || r == ':' }) {
			return nil, fmt.Errorf("%q: should be a name or number, or several with / between them", v)
		}
	}
	return all, nil
}

// ParseMapping reads FROM=TO[,KEY=VALUE...] and checks it.
func ParseMapping(text string) (Mapping, error) {
	if !strings.Contains(text, "=") {
		return Mapping{}, fmt.Errorf("%q: want FILE=/PATH, the file in the root and where it is published", text)
	}
	from, to, rest, more, err := spec.CutPair(text)
	if err != nil {
		return Mapping{}, err
	}
	m := Mapping{From: filepath.Clean(from), To: to}
	for seen := map[string]bool{}; more; {
		var name, value string
		if name, value, rest, more, err = spec.CutPair(rest); err != nil {
			return Mapping{}, err
		}
		set := mappingKeys[name]
		switch {
		case set == nil:
			return Mapping{}, fmt.Errorf("unknown key %q: there are mode, owner, group and optional", name)
		case seen[name]:
			return Mapping{}, fmt.Errorf("key %q is given twice", name)
		}
		if err := set(&m, value); err != nil {
			return Mapping{}, fmt.Errorf("%s: %w", name, err)
		}
		seen[name] = true
	}
	return m, m.check(from)
}

// check looks at the two paths; from is what was written.
func (m *Mapping) check(from string) error {
	for _, path := range []string{from, m.To} {
		if strings.ContainsFunc(path, unicode.IsControl) {
			return fmt.Errorf("%q: cannot have control characters", path)
		}
	}
	switch {
	case m.From == "." || !filepath.IsLocal(m.From) || strings.HasSuffix(from, "/"):
		return fmt.Errorf("%q: should be the path of a file in the root, such as etc/certs/site.pem", from)
	case !filepath.IsAbs(m.To) || m.To != filepath.Clean(m.To) || m.To == "/":
		return fmt.Errorf("%q: should be the absolute path of a file, without .. and //", m.To)
	}
	return nil
}

// String returns the text form, which ParseMapping reads back.
func (m Mapping) String() string {
	var b strings.Builder
	pair := func(name, value string) {
		if strings.Contains(value, ",") || strings.HasPrefix(value, `"`) {
			value = `"` + strings.ReplaceAll(value, `"`, `""`) + `"`
		}
		b.WriteString("," + name + "=" + value)
	}
	pair(m.From, m.To)
	if m.Mode != 0 {
		pair("mode", fmt.Sprintf("%04o", uint32(m.Mode)))
	}
	for _, k := range []struct {
		name string
		all  []string
	}{{"owner", m.Owner}, {"group", m.Group}} {
		if len(k.all) > 0 {
			pair(k.name, strings.Join(k.all, "/"))
		}
	}
	if m.Optional {
		pair("optional", "true")
	}
	return b.String()[1:]
}

// mappingsName is the file in a root that says what the root publishes.
const mappingsName = ".deploy/publish"

const (
	maxMappings      = 1000    // that a root has
	maxMappingsBytes = 1 << 20 // that they have in text
)

// wanted is a mapping and who wants it.
type wanted struct {
	Mapping
	where  string // in words
	ofRoot bool   // the root does, not the host
}

// refuse says that it cannot be. What the root says is definite; what the host's
// own flag says is the host's to mend.
func (w *wanted) refuse(err error) error {
	err = fmt.Errorf("%s: %w", w.where, err)
	if w.ofRoot {
		return bad(err)
	}
	return err
}

// parseMappings reads the text of mappingsName: a mapping a line, and lines that
// begin with # say nothing. The error names the line.
func parseMappings(text []byte) ([]wanted, error) {
	var all []wanted
	n := 0
	for line := range bytes.Lines(text) {
		n++
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		where := fmt.Sprintf("%s, line %d", mappingsName, n)
		m, err := ParseMapping(string(line))
		if err == nil && len(all) == maxMappings {
			err = fmt.Errorf("there cannot be more than %d mappings", maxMappings)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", where, err)
		}
		all = append(all, wanted{m, where, true})
	}
	return all, nil
}

// below reports whether path is below one of the prefixes: by components, not by
// letters.
func below(path string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(prefix string) bool {
		rel, err := filepath.Rel(prefix, path)
		return err == nil && rel != "." && filepath.IsLocal(rel)
	})
}
