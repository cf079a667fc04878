package agentcmd

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/pflag"

	"deploytools/agent"
	"deploytools/atomic"
	"deploytools/cmd/internal/cli"
	"deploytools/registry/wire"
	"deploytools/verify"
)

func (s *settings) evidenceCommand() cli.Command {
	return cli.Command{
		Name: "evidence", Args: "[ID]", Named: true, Short: "show or export the evidence of a deployment",
		Long: `Shows what is on record of the last deployment, or of the deployment ID; a number
will do. Neither an agent nor the registry has to be there. -o writes all of it, with what the programs have printed, to a tar archive.
Equal evidence makes equal archives.`,
		Examples: []string{"deploy-agent evidence -name web", "deploy-agent evidence -name web -json 42", "deploy-agent evidence -name web -o evidence.tar", "deploy-agent evidence -dir /srv/web -o - 42 | tar tv"},
		Statuses: []wire.Status{wire.NotFound},
		New:      func() cli.Op { return &evidence{place: place{s: s}} },
	}
}

// evidence is one call of the command.
type evidence struct {
	place
	out string
}

// Flags defines the flags.
func (e *evidence) Flags(fs *pflag.FlagSet) {
	e.place.flags(fs)
	fs.StringVar(&e.out, "o", "", "write a tar archive to this `file`; - is stdout")
	cli.FileFlag(fs, "o")
}

// Run shows or exports.
func (e *evidence) Run(_ context.Context, o *cli.IO, args []string) error {
	switch {
	case len(args) > 1:
		return cli.Usage("unexpected argument %q", args[1])
	case e.out != "" && e.json:
		return cli.Usage("-o and -json do not go together: the archive holds evidence.json")
	case e.out == "-" && o.IsTerminal(o.Stdout):
		return cli.Usage("stdout is a terminal: give a file with -o")
	}
	d, err := e.deployments()
	if err != nil {
		return err
	}
	id, err := d.Find(strings.Join(args, ""))
	if err != nil {
		return e.notThere(err)
	}
	if e.out != "" {
		return e.export(o, d, id)
	}
	found, err := d.Evidence(id)
	if err != nil {
		return e.notThere(err)
	}
	if e.json {
		return json.NewEncoder(o.Stdout).Encode(found)
	}
	return describe(o.Stdout, found)
}

// export writes the archive, whole or not at all.
func (e *evidence) export(o *cli.IO, d *agent.Deployments, id string) error {
	var b bytes.Buffer // some megabytes at most: output is capped
	if err := d.WriteTar(id, &b); err != nil {
		return e.notThere(err)
	}
	if e.out == "-" {
		_, err := b.WriteTo(o.Stdout)
		return err
	}
	return cli.Unmade(atomic.WriteFile(e.out, b.Bytes(), 0o600))
}

// describe is the evidence for people.
func describe(w io.Writer, e *agent.Evidence) error {
	d := &e.Deployment
	c := d.New.Configuration
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, a ...any) {
		if text := fmt.Sprintf(format, a...); text != "" {
			fmt.Fprintf(t, "%s\t%s\n", name, clean(strings.ReplaceAll(text, "\t", " ")))
		}
	}
	row("deployment", "%s", d.ID)
	row("host", "%s", e.Host)
	row("configuration", "%s, revision %d", c.Name, c.Revision)
	row("digest", "%s", c.Digest)
	for _, l := range c.Layers {
		row("layer", "%s:%s %s", l.Name, l.Version, l.Hash)
	}
	row("outcome", "%s", e.Outcome)
	if e.Outcome == agent.Committed {
		row("verification", "%s", cmp.Or(d.New.Verification, agent.Unverified))
	}
	row("reason", "%s", d.Reason)
	row("rollback", "%s", d.Broken)
	row("started", "%s", d.Started.UTC().Format(time.RFC3339))
	if !d.Ended.IsZero() {
		row("took", "%v", d.Ended.Sub(d.Started).Round(time.Millisecond))
	}
	for _, s := range e.States {
		row("state", "%s %v", s.State, s.Took.Round(time.Millisecond))
	}
	for _, p := range e.Programs {
		row("program", "%s: %s, %d bytes of output", p.Label, ended(&p), p.Output)
	}
	for _, r := range []struct {
		name   string
		report *verify.Report
	}{{"before", d.Baseline}, {"before", d.OldBaseline}, {"after", d.Checks}, {"soak", d.Soak}, {"restored", d.Restored}} {
		if r.report == nil {
			continue
		}
		for _, f := range r.report.Findings {
			row(r.name, "%s", f)
		}
	}
	return t.Flush()
}
