package agentcmd

import (
	"fmt"
	"strings"
)

// parseEnvironment reads variables as a unit's EnvironmentFile= holds them
// (systemd.exec(5)): NAME=VALUE a line; lines that begin with # or ; say nothing;
// a value in quotes may go over several lines; a backslash takes the next
// character as it is, and at the end of a line joins it with the next.
func parseEnvironment(text string) (map[string]string, error) {
	vars := map[string]string{}
	for n := 1; text != ""; {
		line, rest, _ := strings.Cut(text, "\n")
		trimmed := strings.TrimSpace(line)
		if trimmed == "" || trimmed[0] == '#' || trimmed[0] == ';' {
			text = rest
			n++
			continue
		}
		name, _, ok := strings.Cut(line, "=")
		if name = strings.TrimSpace(name); !ok || !isVariable(name) {
			return nil, fmt.Errorf("line %d: should be NAME=VALUE", n)
		}
		after := text[strings.IndexByte(text, '=')+1:]
		value, rest, ok := parseValue(after)
		if !ok {
			return nil, fmt.Errorf("line %d: the quote of %s has no end", n, name)
		}
		vars[name] = value
		n += strings.Count(text[:len(text)-len(rest)], "\n")
		text = rest
	}
	return vars, nil
}

func isVariable(name string) bool {
	for i, r := range name {
		letter := r == '_' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z'
		if !letter && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return name != ""
}

// parseValue reads a value to the end of its last line.
func parseValue(text string) (value, rest string, ok bool) {
	var out strings.Builder
	keep := 0 // what no white space at the end takes away
	text = strings.TrimLeft(text, " \t")
	quote := byte(0)
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case quote == 0 && c == '\n':
			return out.String()[:max(keep, len(strings.TrimRight(out.String(), " \t\r")))], text[i+1:], true
		case c == '\\' && quote != '\'' && i+1 < len(text):
			i++
			if next := text[i]; next == '\n' {
				continue
			} else if quote == '"' && !strings.ContainsRune("\"\\`$", rune(next)) {
				out.WriteByte('\\')
			}
			out.WriteByte(text[i])
			keep = out.Len()
		case c == quote && quote != 0:
			quote, keep = 0, out.Len()
		case quote == 0 && (c == '"' || c == '\'') && out.Len() == 0 && keep == 0:
			quote = c
		default:
			out.WriteByte(c)
		}
	}
	return out.String()[:max(keep, len(strings.TrimRight(out.String(), " \t\r")))], "", quote == 0
}
