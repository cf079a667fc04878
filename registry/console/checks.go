package console

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/pflag"

	"deploytools/registry"
	"deploytools/verify/spec"
)

// checkFlags say what becomes of the checks that travel with a configuration.
// Their names are those of the agent's flags.
type checkFlags struct {
	set       *pflag.FlagSet // that they were defined in last
	checks    []string
	successes int
	total     time.Duration
	soak      time.Duration
}

func (c *checkFlags) flags(fs *pflag.FlagSet) {
	c.set = fs
	fs.StringArrayVar(&c.checks, "verify", nil, "`check` that hosts carry out after a deployment, such as type=tls,addr=localhost:443,cert=etc/site.pem; repeat it for each one: these replace all that travelled with the configuration; '' removes them")
	fs.IntVar(&c.successes, "successes", 0, "`number` of times in a row that every check has to pass; 0 leaves it to the host")
	fs.DurationVar(&c.total, "verify-total", 0, "`time` that the checks have until they pass; 0 leaves it to the host")
	fs.DurationVar(&c.soak, "soak", 0, "`time` that the checks go on after that, before the deployment counts; 0 leaves it to the host")
}

// asked returns what the flags that were given ask for.
func (c *checkFlags) asked() (registry.Checks, error) {
	var out registry.Checks
	given := func(name string) bool { return c.set.Changed(name) }
	if given("successes") {
		out.Successes = &c.successes
	}
	if given("verify-total") {
		out.Total = &c.total
	}
	if given("soak") {
		out.Soak = &c.soak
	}
	if !given("verify") {
		return out, nil
	}
	checks := []spec.Check{}
	for _, text := range c.checks {
		if text == "" && len(c.checks) == 1 {
			break
		}
		one, err := spec.Parse(text, spec.FromHost)
		if err != nil {
			return out, usage("-verify: %v", err)
		}
		checks = append(checks, one)
	}
	out.Checks = &checks
	return out, nil
}

// noteHostOnly says which of the checks most hosts refuse.
func (s *Session) noteHostOnly(v *spec.Spec) {
	if v == nil {
		return
	}
	for _, name := range v.OnHostOnly() {
		fmt.Fprintf(s.Stderr, "note: check %q looks into the host itself: agents without -allow-exec-checks refuse this revision\n", name)
	}
}

// verifyRow is the checks of a revision.
type verifyRow struct {
	Checks    []checkRow `json:"checks"`
	Successes int        `json:"successes,omitempty"`
	Total     string     `json:"total,omitempty"`
	Soak      string     `json:"soak,omitempty"`
}

// checkRow is one check.
type checkRow struct {
	Name   string    `json:"name"`
	Type   spec.Type `json:"type"`
	Target string    `json:"target"`
	Text   string    `json:"text"` // as -verify takes it
}

// verifyOf returns what is shown of v; nil of nil.
func verifyOf(v *spec.Spec) *verifyRow {
	if v == nil {
		return nil
	}
	row := verifyRow{Checks: []checkRow{}, Successes: v.Successes}
	full := v.WithDefaults()
	for i, c := range v.Checks {
		row.Checks = append(row.Checks, checkRow{full.Checks[i].Name, c.Type, full.Checks[i].Target(), c.String()})
	}
	if v.Total != 0 {
		row.Total = v.Total.String()
	}
	if v.Soak != 0 {
		row.Soak = v.Soak.String()
	}
	return &row
}

// text writes a line for each check, and one for each number.
func (v *verifyRow) text(w io.Writer) {
	for _, c := range v.Checks {
		fmt.Fprintf(w, "Check:\t%s\n", Clean(c.Text))
	}
	if v.Successes != 0 {
		fmt.Fprintf(w, "Successes:\t%d\n", v.Successes)
	}
	if v.Total != "" {
		fmt.Fprintf(w, "Verify-total:\t%s\n", v.Total)
	}
	if v.Soak != "" {
		fmt.Fprintf(w, "Soak:\t%s\n", v.Soak)
	}
}

// checkDelta is one line of the checks that only one of two revisions has.
type checkDelta struct {
	Change string `json:"change"` // added or removed
	Text   string `json:"text"`
}

// compareChecks returns what differs: what was, then what is.
func compareChecks(was, is *spec.Spec) []checkDelta {
	lines := func(v *spec.Spec) map[string]bool {
		set := map[string]bool{}
		for _, line := range allLines(v) {
			set[line] = true
		}
		return set
	}
	before, now := lines(was), lines(is)
	var out []checkDelta
	for _, line := range allLines(was) {
		if !now[line] {
			out = append(out, checkDelta{"removed", line})
		}
	}
	for _, line := range allLines(is) {
		if !before[line] {
			out = append(out, checkDelta{"added", line})
		}
	}
	return out
}

func allLines(v *spec.Spec) []string {
	if v == nil {
		return nil
	}
	return v.Lines()
}
