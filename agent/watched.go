package agent

import (
	"fmt"
	"time"
)

// Watched is what was seen of the live root between deployments.
type Watched struct {
	Failing  *Failing  `json:"failing,omitempty"`
	Expires  *Expires  `json:"expires,omitempty"`
	Modified *Failing  `json:"modified,omitempty"`
	Compared time.Time `json:"compared,omitzero"` // with its manifest, last
}

// Failing is what is wrong with it.
type Failing struct {
	Since time.Time `json:"since"`
	What  string    `json:"what"`
}

// Expires is the certificate that ends first, or else another that ends too soon for
// its own check.
type Expires struct {
	Check string    `json:"check"`
	At    time.Time `json:"at"`
	Days  int       `json:"days_left"`
	Soon  bool      `json:"soon"` // sooner than -warn-expiry or its check wants
}

// watched returns what is shown of w; nil: there is nothing.
func (a *Agent) watched(w Watch) *Watched {
	out := Watched{Compared: w.Inspected}
	if !w.Failing.IsZero() {
		out.Failing = &Failing{w.Failing, w.Checks}
	}
	if !w.Altered.IsZero() {
		out.Modified = &Failing{w.Altered, w.Difference}
	}
	if !w.Expires.IsZero() {
		e, soon := w.ending(a.o.Checks.WarnExpiry, now())
		out.Expires = &Expires{e.Check, e.At, daysLeft(e.At, now()), soon}
	}
	if out == (Watched{}) {
		return nil
	}
	return &out
}

// DaysLeft is how many whole days the certificate that ends first is still valid:
// less than 0 once it has ended, and 0 where none is known.
func (w *Watch) DaysLeft(at time.Time) int {
	return daysLeft(w.Expires, at)
}

func daysLeft(end, at time.Time) int {
	if end.IsZero() {
		return 0
	}
	left := end.Sub(at)
	if left < 0 {
		left -= 24*time.Hour - 1
	}
	return int(left / (24 * time.Hour))
}

// says returns what is wrong with the live root, a sentence each, and what to do.
func (w *Watched) says(verb func(string) string) (says, do []string) {
	if w == nil {
		return nil, nil
	}
	if f := w.Failing; f != nil {
		says = append(says, fmt.Sprintf("Since %s the live root fails its checks: %s.", stamp(f.Since), f.What))
		do = append(do, "the agent's own log has what the checks saw", verb("rollback")+" makes the root before it live; nothing goes back by itself after a deployment")
	}
	if f := w.Modified; f != nil {
		says = append(says, fmt.Sprintf("Since %s the live root is not what was unpacked: %s.", stamp(f.Since), f.What))
		do = append(do, verb("repair")+" makes it anew", verb("check")+" lists all of it")
	}
	if e := w.Expires; e != nil && e.Soon {
		says = append(says, fmt.Sprintf("The certificate that check %s sees ends at %s, in %d days.", e.Check, stamp(e.At), e.Days))
		do = append(do, "deploy a new certificate before it ends")
	}
	return says, do
}
