package registry

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"deploytools/registry/wire"
)

// Scope is a list of patterns, separated by commas, of the names of the
// configurations that a caller may see and change: `web-*,db`. In a pattern *
// stands for any characters and ? for one. The zero value is every
// configuration. What components and versions there are is no secret between
// callers; a scope is about configurations and the content of their layers.
type Scope string

// ParseScope checks the patterns of a scope. An empty list is an error: it would
// mean everything, which is what is said by leaving it out.
func ParseScope(text string) (Scope, error) {
	for pattern := range strings.SplitSeq(text, ",") {
		// A pattern that could be no name but for its wildcards fits nothing, and
		// whoever wrote it means something else.
		if err := wire.CheckName(strings.NewReplacer("*", "x", "?", "x").Replace(pattern)); err != nil {
			return "", fmt.Errorf("pattern %q of configurations: %w, and * and ? stand for others", pattern, wire.ErrName)
		}
	}
	return Scope(text), nil
}

// Holds reports whether the configuration name is in the scope.
func (s Scope) Holds(name string) bool {
	return s == "" || slices.ContainsFunc(strings.Split(string(s), ","), func(pattern string) bool {
		ok, err := path.Match(pattern, name)
		return ok && err == nil
	})
}

// check returns ErrDenied for a configuration outside of the scope, whether
// there is one of this name or not.
func (s Scope) check(name string) error {
	if s.Holds(name) {
		return nil
	}
	return fail(ErrDenied, "configuration %q is not one of your key's: configs=%q", name, string(s))
}

// CheckScope returns ErrDenied if the configuration name is none of the
// caller's, whether it exists or not.
func (c Caller) CheckScope(name string) error { return c.Configs.check(name) }

// CheckHost holds the rule for names of hosts.
func CheckHost(name string) error { return wire.CheckName(name) }
