package spec

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// MaxFileBytes limits what ParseLines reads.
const MaxFileBytes = 64 << 10

// ErrTooLarge says that a file of checks is larger than MaxFileBytes.
var ErrTooLarge = fmt.Errorf("larger than %d bytes", MaxFileBytes)

// Lines returns all that s says, in the text form: a line for each check, in
// order, then "successes=3", "total=1m0s" and "soak=30s" where they are set. Two
// specifications that differ have different lines. A line may hold line ends.
func (s Spec) Lines() []string {
	var all []string
	for _, c := range s.Checks {
		all = append(all, c.String())
	}
	if s.Successes != 0 {
		all = append(all, "successes="+strconv.Itoa(s.Successes))
	}
	if s.Total != 0 {
		all = append(all, "total="+s.Total.String())
	}
	if s.Soak != 0 {
		all = append(all, "soak="+s.Soak.String())
	}
	return all
}

// IsZero reports whether s says nothing at all.
func (s Spec) IsZero() bool {
	return len(s.Checks) == 0 && s.Successes == 0 && s.Total == 0 && s.Soak == 0
}

// ParseLines reads a file of checks: one a line, in the text form. Blanks around
// a line, empty lines and those that begin with # say nothing. It validates each
// check as Parse does, and the whole. The error names the line.
func ParseLines(text string, from Origin) ([]Check, error) {
	if len(text) > MaxFileBytes {
		return nil, ErrTooLarge
	}
	var all []Check
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		c, err := Parse(line, from)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		all = append(all, c)
	}
	if err := (Spec{Checks: all}).Validate(from); err != nil {
		return nil, err
	}
	return all, nil
}

// OnHostOnly returns the names of the checks of s that an origin other than the
// host may not ask for: those that run a program or look into processes.
func (s Spec) OnHostOnly() []string {
	var names []string
	for i, c := range s.Checks {
		if errors.Is(c.Validate(FromRegistry), ErrHostOnly) {
			names = append(names, orElse(c.Name, c.place(i)))
		}
	}
	return names
}
