package registry

import (
	"slices"
	"strings"
	"time"

	"deploytools/verify/spec"
)

// Checks says what becomes of the checks that travel with a configuration. Nil
// leaves things as they are, so the zero value leaves all of it.
type Checks struct {
	Checks    *[]spec.Check // all of them, in order
	Successes *int          // see spec.Spec, also for the others; 0: agents have a word for it
	Total     *time.Duration
	Soak      *time.Duration
}

// change returns what old becomes, nil for nothing, and the change in words.
func (c Checks) change(old *spec.Spec) (*spec.Spec, string, error) {
	var is spec.Spec
	if old != nil {
		is = *old
	}
	before := is.Lines()
	if c.Checks != nil && len(*c.Checks) == 0 {
		is = spec.Spec{} // numbers about checks that are gone say nothing
	} else if c.Checks != nil {
		is.Checks = slices.Clone(*c.Checks)
	}
	if c.Successes != nil {
		is.Successes = *c.Successes
	}
	if c.Total != nil {
		is.Total = *c.Total
	}
	if c.Soak != nil {
		is.Soak = *c.Soak
	}
	switch {
	case slices.Equal(before, is.Lines()):
		return old, "", nil
	case is.IsZero():
		return nil, "checks removed", nil
	}
	if err := is.Validate(spec.FromHost); err != nil {
		return nil, "", fail(ErrUsage, "%v", err)
	}
	if old == nil {
		return &is, "checks added", nil
	}
	return &is, "checks changed", nil
}

// words joins what is said of several changes.
func words(all ...string) string {
	return strings.Join(slices.DeleteFunc(all, func(s string) bool { return s == "" }), ", ")
}
