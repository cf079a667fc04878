package agentcmd

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"deploytools/agent"
	"deploytools/cmd/internal/cli"
	"deploytools/registry/console"
)

// The results of the verbs: each is one value, shown as text or as JSON.

// process is an agent that runs.
type process struct {
	PID     int    `json:"pid"`
	Version string `json:"version"`
}

// statusResult is that of status and of the acts on the record.
type statusResult struct {
	Schema schema `json:"schema"`
	agent.Status
	Agent  *process `json:"agent,omitempty"`
	Silent bool     `json:"silent,omitempty"` // one has the directory, and does not answer
}

// schema is console.Schema that can be read, too.
type schema struct{ console.Schema }

// UnmarshalJSON takes any number: fields are only ever added.
func (*schema) UnmarshalJSON([]byte) error { return nil }

// facts is a table of names and values.
type facts struct{ t *tabwriter.Writer }

func newFacts(w io.Writer) facts { return facts{tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)} }

func (f facts) row(name, format string, args ...any) {
	fmt.Fprintf(f.t, "%s\t%s\n", name, cli.Clean(fmt.Sprintf(format, args...)))
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// Text shows a fact on a line. What is not there is left out.
func (s statusResult) Text(w io.Writer) error {
	f := newFacts(w)
	f.row("configuration", "%s, in %s", s.Name, s.Dir)
	switch {
	case s.Agent != nil:
		f.row("agent", "runs since %s, process %d, version %s", stamp(s.Started), s.Agent.PID, s.Agent.Version)
	case s.Silent:
		f.row("agent", "has the directory, but does not answer at its control.sock")
	default:
		f.row("agent", "does not run")
	}
	if s.Unable {
		f.row("state", "not known: the record is of a newer version")
	} else {
		f.row("state", "%s since %s", s.State, stamp(s.Since))
	}
	switch {
	case s.Unable:
		f.row("live", "not known; `current` names %s", cmp.Or(s.Current, "nothing"))
	case s.Live == nil:
		f.row("live", "nothing")
	default:
		f.root("live", s.Live)
		f.row("layers", "%s", strings.Join(s.Live.Layers, " "))
		if len(s.Live.Checks) > 0 {
			f.row("checked with", "%s", strings.Join(s.Live.Checks, ", "))
		}
	}
	for _, p := range s.Files {
		f.published(p)
	}
	if s.Back != nil {
		f.root("previous", s.Back)
	}
	if d := s.Under; d != nil {
		named := ""
		if d.Root != "" && d.Root == s.Current {
			named = "; `current` names its root"
		}
		f.row("deployment", "%s: revision %d, since %s, in %s%s", d.ID, d.Revision, stamp(d.Started), s.State, named)
	}
	f.watched(s.Watched)
	if l := s.Looking; l != nil {
		f.row("looking", "with the checks of revision %d, since %s, until %s at most", l.Revision, stamp(l.Since), stamp(l.Until))
	}
	if m := s.Missing; m != nil {
		f.row("failing", "%s, tried until %s", m.Checks, stamp(m.Until))
	}
	if s.Coming != nil {
		f.row("fetching", "%s", s.Coming)
	}
	if d := s.Last; d != nil {
		f.row("last", "%s: revision %d %s in %s, at %s%s", d.ID, d.Revision, howEnded(d), took(d), stamp(d.Ended), because(d))
	}
	switch {
	case s.Newest == nil && s.Agent == nil && !s.Silent:
		f.row("registry", "not asked: no agent runs")
	case !s.Unable:
		f.newest(s.Newest)
	}
	if !s.Next.IsZero() {
		f.row("next poll", "%s", stamp(s.Next))
	}
	if s.Wanted != "" {
		f.row("wanted", "%s, by a person", s.Wanted)
	}
	for _, b := range s.Blocks {
		f.row("blocked", "%s", blockText(b))
	}
	return f.t.Flush()
}

func (f facts) root(name string, r *agent.Shown) {
	gone := ""
	if r.Gone {
		gone = ", which is gone"
	}
	f.row(name, "revision %d, %s, since %s, in %s%s", r.Revision, r.Verification, stamp(r.Committed), r.Root, gone)
}

func (f facts) published(p agent.PublishedFile) {
	text := p.Path + ", from " + p.From
	if p.Differs != "" {
		text += "; changed by somebody else: " + p.Differs
	}
	if len(p.Kept) > 0 {
		text += "; of earlier changes is kept: " + strings.Join(p.Kept, ", ")
	}
	f.row("published", "%s", text)
}

// watched shows what was seen of the live root between deployments.
func (f facts) watched(w *agent.Watched) {
	if w == nil {
		return
	}
	if w.Failing != nil {
		f.row("failing", "since %s: %s", stamp(w.Failing.Since), w.Failing.What)
	}
	if w.Modified != nil {
		f.row("modified", "since %s: %s", stamp(w.Modified.Since), w.Modified.What)
	}
	if e := w.Expires; e != nil {
		soon := ""
		if e.Soon {
			soon = ": SOON"
		}
		f.row("certificate", "of check %s ends %s, %d days left%s", e.Check, stamp(e.At), e.Days, soon)
	}
	if !w.Compared.IsZero() {
		f.row("compared", "with its manifest at %s", stamp(w.Compared))
	}
}

func (f facts) newest(n *agent.Newest) {
	switch {
	case n == nil:
		f.row("registry", "not asked yet")
	case n.Digest == "":
		f.row("registry", "has no such configuration, asked %s", stamp(n.Polled))
	case n.Here:
		f.row("registry", "has revision %d, which is live, asked %s", n.Revision, stamp(n.Polled))
	default:
		f.row("registry", "has revision %d, asked %s", n.Revision, stamp(n.Polled))
	}
}

func blockText(b agent.Block) string {
	s := string(b.Kind) + ": " + b.Text
	if !b.Since.IsZero() {
		s += ", since " + stamp(b.Since)
	}
	if !b.Until.IsZero() {
		s += ", until " + stamp(b.Until)
	}
	if b.Later {
		s += ", until a later revision"
	}
	return s
}

// changeText is a line about a fixed path.
func changeText(c agent.Change) string {
	if c.From == "" {
		return fmt.Sprintf("publishes %s: %s", c.Path, c.Does)
	}
	return fmt.Sprintf("publishes %s: %s, from %s", c.Path, c.Does, c.From)
}

func took(d *agent.Deployed) string {
	return time.Duration(d.Took * float64(time.Second)).Round(time.Millisecond).String()
}

// howEnded is how a deployment ended.
func howEnded(d *agent.Deployed) string {
	if d.ByHand {
		return string(d.Outcome) + ", by hand"
	}
	return string(d.Outcome)
}

func because(d *agent.Deployed) string {
	if d.Reason == "" {
		return ""
	}
	return ": " + d.Reason
}

// whyResult is that of why.
type whyResult struct {
	Schema schema `json:"schema"`
	agent.Why
}

// Text is what one would say, and what to do, a line each.
func (r whyResult) Text(w io.Writer) error {
	var b strings.Builder
	for _, s := range r.Says {
		fmt.Fprintln(&b, cli.Clean(s))
	}
	for _, d := range r.Do {
		fmt.Fprintln(&b, "- "+cli.Clean(d))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// historyResult is that of history.
type historyResult struct {
	Schema      schema           `json:"schema"`
	Name        string           `json:"name"`
	Deployments []agent.Deployed `json:"deployments"`
}

// Text shows a deployment on a line, the newest first.
func (r historyResult) Text(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for i := range r.Deployments {
		d := &r.Deployments[i]
		if d.Error != "" {
			fmt.Fprintf(t, "%s\t%s\t\t\t%s\n", d.ID, d.Outcome, cli.Clean(d.Error))
			continue
		}
		fmt.Fprintf(t, "%s\trevision %d\t%s\t%s\t%s\t%s\n", d.ID, d.Revision, howEnded(d), stamp(d.Started), took(d),
			cli.Clean(cmp.Or(d.Reason, string(d.Verification))))
	}
	return t.Flush()
}

// gcResult is that of gc -explain.
type gcResult struct {
	Schema schema `json:"schema"`
	Name   string `json:"name"`
	*agent.Retention
}

// Text shows a thing on a line.
func (r gcResult) Text(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, d := range r.Things {
		does := "goes"
		if d.Kept {
			does = "stays"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", does, agent.Size(d.Bytes), cli.Clean(d.Name), cli.Clean(d.Rule))
	}
	if r.Short > 0 {
		fmt.Fprintf(t, "%s more should go, by %s: nothing else may\n", agent.Size(r.Short), r.Limit)
	}
	return t.Flush()
}

// checkResult is that of check.
type checkResult struct {
	Schema schema `json:"schema"`
	Name   string `json:"name"`
	Whole  bool   `json:"whole"`
	*agent.Integrity
}

// actResult is that of the acts that deploy something.
type actResult struct {
	Schema     schema          `json:"schema"`
	Name       string          `json:"name"`
	Deployment *agent.Deployed `json:"deployment"` // null: there was nothing to do, or something is in the way
	Live       *agent.Shown    `json:"live,omitempty"`
	kept       bool            // something is in the way, as the error says
}

// Text is a line of what was done, and one of what is live.
func (r actResult) Text(w io.Writer) error {
	var b strings.Builder
	switch d := r.Deployment; {
	case d == nil && !r.kept:
		b.WriteString("nothing to deploy\n")
	case d != nil:
		fmt.Fprintf(&b, "%s: revision %d %s in %s%s\n", d.ID, d.Revision, howEnded(d), took(d), cli.Clean(because(d)))
		for _, c := range d.Changes {
			fmt.Fprintf(&b, "%s\n", cli.Clean(changeText(c)))
		}
		for _, text := range d.Warnings {
			fmt.Fprintf(&b, "warning: %s\n", cli.Clean(text))
		}
	}
	if r.Live != nil {
		fmt.Fprintf(&b, "live: revision %d, %s, in %s\n", r.Live.Revision, r.Live.Verification, cli.Clean(r.Live.Root))
	}
	_, err := io.WriteString(w, b.String())
	return err
}
