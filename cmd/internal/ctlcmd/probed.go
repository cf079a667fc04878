package ctlcmd

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"deploytools/cmd/internal/cli"
	"deploytools/registry/console"
	"deploytools/verify"
	"deploytools/verify/spec"
)

// probed is what probe -json prints.
type probed struct {
	Schema   console.Schema `json:"schema"`
	OK       bool           `json:"ok"`
	Findings []probedCheck  `json:"findings"`
	Seconds  float64        `json:"seconds"`
}

type probedCheck struct {
	Check    string      `json:"check"`
	Type     spec.Type   `json:"type"`
	Target   string      `json:"target"`
	OK       bool        `json:"ok"`
	Kind     verify.Kind `json:"kind,omitempty"`
	Detail   string      `json:"detail,omitempty"`
	Means    string      `json:"means,omitempty"`
	Do       string      `json:"do,omitempty"`
	Want     string      `json:"want,omitempty"`
	Got      string      `json:"got,omitempty"`
	Warning  string      `json:"warning,omitempty"`
	Expires  time.Time   `json:"expires,omitzero"`
	Attempts int         `json:"attempts"`
	Seconds  float64     `json:"seconds"`
}

func (p *probe) print(o *cli.IO, r verify.Report) error {
	out := probed{OK: r.Verified, Findings: []probedCheck{}, Seconds: r.Took.Seconds()}
	for _, f := range r.Findings {
		one := probedCheck{Check: f.Check, Type: f.Type, Target: f.Target, OK: f.OK, Kind: f.Kind, Detail: f.Detail, Want: f.Want, Got: f.Got,
			Warning: f.Warning, Expires: f.NotAfter.UTC(), Attempts: f.Attempts, Seconds: f.Duration.Seconds()}
		if !f.OK {
			m := f.Kind.Explain()
			one.Means, one.Do = m.Means, strings.ReplaceAll(m.Do, "`", "")
			one.Do = p.instead(f, one.Do)
		}
		out.Findings = append(out.Findings, one)
	}
	if p.json {
		return json.NewEncoder(o.Stdout).Encode(out)
	}
	var b strings.Builder
	for _, f := range out.Findings {
		f.text(&b)
	}
	_, err := fmt.Fprint(o.Stdout, b.String())
	return err
}

// instead is what to do here where do is for the host.
func (p *probe) instead(f verify.Finding, do string) string {
	if f.Kind == verify.Spec && p.root == "" && p.cert == "" && f.Type == spec.TLS {
		return "say where the certificate is, with -cert FILE or -root DIRECTORY, or give fingerprint=DIGEST in place of cert="
	}
	return do
}

// text is a line for what passed, and some for what did not.
func (f *probedCheck) text(b *strings.Builder) {
	head := fmt.Sprintf("%s (%s %s)", f.Check, f.Type, f.Target)
	took := time.Duration(f.Seconds * float64(time.Second)).Round(time.Millisecond)
	if f.OK {
		fmt.Fprintf(b, "ok    %s, %v", cli.Clean(head), took)
		if !f.Expires.IsZero() && f.Warning == "" {
			fmt.Fprintf(b, ", certificate until %s", f.Expires.Format(time.DateOnly))
		}
		b.WriteString("\n")
	} else {
		fmt.Fprintf(b, "FAIL  %s: %s: %s\n", cli.Clean(head), f.Kind, strings.ReplaceAll(f.Detail, "\n", "\n      "))
		fmt.Fprintf(b, "      means: %s\n", f.Means)
		if f.Do != "" {
			fmt.Fprintf(b, "      next:  %s\n", f.Do)
		}
	}
	if f.Warning != "" {
		fmt.Fprintf(b, "      warning: %s\n", f.Warning)
	}
}
