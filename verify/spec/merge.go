package spec

import (
	"fmt"
)

// Source says where a check comes from.
type Source string

// The sources, the nearest to the host first.
const (
	Host          Source = "host"          // the flags of the agent
	Configuration Source = "configuration" // the revision at the registry
	Root          Source = "root"          // RootFile in the root
)

// RootFile is where a root has checks of its own: see ParseLines.
const RootFile = ".deploy/verify"

// Part is what one source asks for.
type Part struct {
	From Source
	Spec Spec
}

// Merge returns what all parts ask for together, and where each check comes
// from. The parts come the nearest first. Every check counts, but for one whose
// explicit name a nearer part has given to a check: that one takes its place. Of
// two numbers the greater counts. A check without a name gets one that is like
// that of WithDefaults and not taken, so that the result can be validated; one
// part alone is left as it is.
func Merge(parts ...Part) (Spec, []Source) {
	var whole Spec
	var from []Source
	filled, taken := 0, map[string]bool{}
	for _, p := range parts {
		own := map[string]bool{} // a name that a part gives twice is for Validate to find
		for _, c := range p.Spec.Checks {
			if c.Name != "" && taken[c.Name] && !own[c.Name] {
				continue
			}
			if c.Name != "" {
				taken[c.Name], own[c.Name] = true, true
			}
			whole.Checks, from = append(whole.Checks, c), append(from, p.From)
		}
		if len(p.Spec.Checks) > 0 {
			filled++
		}
		whole.Successes = max(whole.Successes, p.Spec.Successes)
		whole.Total = max(whole.Total, p.Spec.Total)
		whole.Soak = max(whole.Soak, p.Spec.Soak)
	}
	if filled > 1 {
		whole.Checks = named(whole.Checks, taken)
	}
	return whole, from
}

// named gives every check a name that is not taken.
func named(checks []Check, taken map[string]bool) []Check {
	for i, c := range checks {
		if c.Name != "" {
			continue
		}
		name := c.place(i)
		for n := i + 2; taken[name]; n++ {
			name = fmt.Sprintf("%s-%d", c.Type, n)
		}
		taken[name], checks[i].Name = true, name
	}
	return checks
}
