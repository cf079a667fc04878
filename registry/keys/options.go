package keys

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"deploytools/registry"
)

// Option is an option of a line, as documents show it.
type Option struct {
	Name  string // "from"
	Value string // how its value is written; "" where it has none
	Short string // what it does
	set   func(l *line, value string) error
}

// Options returns every option that is honoured.
func Options() []Option {
	nothing := func(*line, string) error { return nil }
	return []Option{
		{"role", "viewer", "what the key may do: `viewer`, `publisher`, `operator` or `admin`, or `agent`", (*line).setRole},
		{"configs", "web-*,db", "patterns of the configurations that the key may see and change; `*` and `?` stand for other characters. Without it, all of them", (*line).setConfigs},
		{"host", "web1", "name of the agent's host", (*line).setHost},
		{"label", "deploy of team A", "what the record calls the key, in place of its comment", (*line).setLabel},
		{"from", "10.0.0.0/8,!10.1.*", "addresses and networks from which the key may come; what a `!` stands before may not. Names of hosts are refused: nothing here asks the DNS", (*line).setFrom},
		{"expiry-time", "20271231", "`YYYYMMDD[HHMM[SS]]` in the registry's time zone, or in UTC with a `Z` behind it, from when on the key counts no more; sessions that are open end then", (*line).setExpiry},
		{"command", "showconf -name web", "runs this command of the console, whatever is asked for. `internal-sftp` allows SFTP only", (*line).setCommand},
		{"restrict", "", "no terminal, unless `pty` stands behind it", func(l *line, _ string) error { l.NoPTY = true; return nil }},
		{"no-pty", "", "no terminal: commands and scripts only", func(l *line, _ string) error { l.NoPTY = true; return nil }},
		{"pty", "", "a terminal, behind `restrict`", func(l *line, _ string) error { l.NoPTY = false; return nil }},
		{"cert-authority", "", "the key is no user's: it signs certificates, and who has one of them is taken", func(l *line, _ string) error { l.authority = true; return nil }},
		{"principals", "ops,anna", "behind `cert-authority`: a certificate has to name one of these. Without it, the user name at login", (*line).setPrincipals},
		{"no-port-forwarding", "", "always so", nothing},
		{"no-agent-forwarding", "", "always so", nothing},
		{"no-X11-forwarding", "", "always so", nothing},
		{"no-user-rc", "", "always so", nothing},
	}
}

// parseOptions reads the options of a line, separated by commas. Names are
// case-insensitive, as in sshd(8).
func (l *line) parseOptions(list string) error {
	table := Options()
	for more := true; more; {
		end := endOf(list, ",")
		text := list[:end]
		list, more = strings.CutPrefix(list[end:], ",")
		name, value, valued := strings.Cut(text, "=")
		i := slices.IndexFunc(table, func(o Option) bool { return strings.EqualFold(o.Name, name) })
		if i < 0 && strings.HasPrefix(text, "-----BEGIN") {
			return errors.New("a private key or something else in PEM begins here: what belongs here is the public key, from the file with .pub")
		}
		if i < 0 || valued != (table[i].Value != "") {
			return fmt.Errorf("option %q is not supported here, so the key is refused", printable(text))
		}
		o := table[i]
		if valued {
			if slices.Contains(l.given, o.Name) {
				return fmt.Errorf("option %s= is given twice", o.Name)
			}
			l.given = append(l.given, o.Name)
			var err error
			if value, err = unquote(value); err != nil {
				return fmt.Errorf("option %s=: %w", o.Name, err)
			}
		}
		if err := o.set(l, value); err != nil {
			return fmt.Errorf("option %s=: %w", o.Name, err)
		}
	}
	return nil
}

// unquote takes the quotes off a value. They may be missing where nothing in it
// needs them.
func unquote(s string) (string, error) {
	inside, quoted := strings.CutPrefix(s, `"`)
	if !quoted {
		if s == "" || strings.Contains(s, `"`) {
			return "", errors.New("its value should be in double quotes")
		}
		return s, nil
	}
	end := 0
	for ; end < len(inside) && inside[end] != '"'; end++ {
		if inside[end] == '\\' && end+1 < len(inside) && inside[end+1] == '"' {
			end++
		}
	}
	if end != len(inside)-1 {
		return "", errors.New("its value should end with the line's next double quote")
	}
	return strings.ReplaceAll(inside[:end], `\"`, `"`), nil
}

func (l *line) setRole(value string) (err error) {
	l.Caller.Role, err = registry.ParseRole(printable(value))
	return err
}

func (l *line) setConfigs(value string) (err error) {
	l.Caller.Configs, err = registry.ParseScope(printable(value))
	return err
}

func (l *line) setHost(value string) error {
	l.Caller.Host = value
	return registry.CheckHost(printable(value))
}

const maxLabel = 128 // bytes

func (l *line) setLabel(value string) error {
	if value == "" || len(value) > maxLabel || printable(value) != value {
		return fmt.Errorf("a label has 1 to %d bytes of printable text", maxLabel)
	}
	l.Caller.Label = value
	return nil
}

func (l *line) setFrom(value string) (err error) {
	l.From, err = parseAddresses(printable(value))
	return err
}

// expiryForms are those of sshd(8), by their length.
var expiryForms = map[int]string{8: "20060102", 12: "200601021504", 14: "20060102150405"}

func (l *line) setExpiry(value string) error {
	digits, utc := strings.CutSuffix(value, "Z")
	zone := time.Local
	if utc {
		zone = time.UTC
	}
	at, err := time.ParseInLocation(expiryForms[len(digits)], digits, zone)
	if err != nil || digits == "" {
		return fmt.Errorf("%q should be YYYYMMDD, YYYYMMDDHHMM or YYYYMMDDHHMMSS, and may have a Z behind it", printable(value))
	}
	l.Expires = at
	return nil
}

func (l *line) setCommand(value string) error {
	if strings.TrimSpace(value) == "" {
		return errors.New("no command")
	}
	l.Command = value
	return nil
}

func (l *line) setPrincipals(value string) error {
	for p := range strings.SplitSeq(value, ",") {
		if p == "" || printable(p) != p {
			return fmt.Errorf("%q should be names with commas between them", printable(value))
		}
		l.Principals = append(l.Principals, p)
	}
	return nil
}

// checkTogether says which options do not go together.
func (r Rules) checkTogether(l *line) error {
	isAgent := l.Caller.Role == registry.Agent
	switch {
	case r.Role == registry.Agent && !isAgent:
		return fmt.Errorf("option role=%s: this file is for agents", l.Caller.Role)
	case l.Caller.Host != "" && !isAgent:
		return errors.New("option host=: only an agent has a host")
	case l.Caller.Host != "" && l.authority:
		return errors.New("option host=: the certificates of an authority are for many hosts")
	case l.Caller.Label != "" && l.authority:
		return errors.New("option label=: the certificates of an authority have IDs")
	case l.Principals != nil && !l.authority:
		return errors.New("option principals=: goes with cert-authority only")
	case l.Command == "" || l.Command == CommandSFTP:
		return nil
	case isAgent:
		return errors.New("option command=: agents run no commands")
	case r.Command != nil:
		if err := r.Command(l.Command); err != nil {
			return fmt.Errorf("option command=: %s", printable(err.Error()))
		}
	}
	return nil
}
