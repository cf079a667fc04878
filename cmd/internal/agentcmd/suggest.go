package agentcmd

import (
	"context"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"deploytools/agent"
	"deploytools/cmd/internal/cli"
)

// suggest returns what word may become behind words, a command and what follows it: what
// the host keeps. Whatever cannot be read is no names.
func (s *settings) suggest(_ context.Context, _ *cli.IO, words []string, word string) (found []string) {
	p, verb, typed := place{s: s}, words[0], words[1:]
	flag, before := "", "" // whose value word is, and what of it stands before that
	if dashed, _, joined := strings.Cut(word, "="); joined && strings.HasPrefix(word, "-") {
		flag, before = strings.TrimLeft(dashed, "-"), dashed+"="
	} else if n := len(typed); n > 0 && strings.HasPrefix(typed[n-1], "-") && slices.Contains([]string{"name", "to", "phase"}, strings.TrimLeft(typed[n-1], "-")) {
		flag, typed = strings.TrimLeft(typed[n-1], "-"), typed[:n-1]
	}
	for i, w := range typed {
		name, value, joined := strings.Cut(strings.TrimLeft(w, "-"), "=")
		if !joined && i+1 < len(typed) {
			value = typed[i+1]
		}
		switch {
		case !strings.HasPrefix(w, "-"):
		case name == "dir":
			p.dir = value
		case name == "name":
			p.name = value
		}
	}
	for _, value := range p.suggest(verb, flag) {
		found = append(found, before+value)
	}
	return found
}

// suggest returns the values of a flag, or of the argument of a verb where flag is empty.
func (p *place) suggest(verb, flag string) (found []string) {
	switch flag {
	case "phase":
		return phases
	case "name":
		return p.names()
	}
	if p.find() != nil {
		return nil
	}
	switch verb {
	case "rollback":
		kept, _ := agent.Kept(p.at.dir)
		for _, r := range slices.Backward(kept) {
			found = append(found, filepath.Base(r.Root))
			if n := strconv.FormatUint(r.Revision, 10); !slices.Contains(found, n) {
				found = append(found, n)
			}
		}
	case "pin", "unpin":
		found, _ = agent.RootNames(p.at.dir)
	case "log", "evidence":
		found, _ = agent.OpenDeployments(p.at.dir).IDs()
	}
	return found
}

// names returns those of the configurations that are known here.
func (p *place) names() (names []string) {
	for _, text := range splitLines(p.s.names) {
		name, _, _ := strings.Cut(text, "=")
		names = append(names, name)
	}
	dirs, _ := filepath.Glob(filepath.Join(agent.UnitDir, "*")) // no error: the pattern is sound
	for _, dir := range append(dirs, p.dir) {
		if a, err := agent.Look(agent.Options{Dir: dir}); err == nil && dir != "" {
			names = append(names, a.Record().Name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
