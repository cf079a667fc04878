package agentcmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"deploytools/agent"
	"deploytools/cmd/internal/cli"
	"deploytools/registry/console"
	"deploytools/registry/wire"
)

func (s *settings) logCommand() cli.Command {
	return cli.Command{
		Name: "log", Args: "[ID]", Named: true, Short: "show what the hook has printed last",
		Long: `Shows what the host's programs have printed in the last deployment that ran any,
or in the deployment ID; a number will do. Neither an agent nor the registry has to be
there.

-follow goes on while the deployment does, until that has ended. -phase check,
deploy, rollback or remove shows one program, without headings. What would steer a
terminal is shown as an escape; the export of deploy-agent evidence has the bytes.`,
		Examples: []string{"deploy-agent log -name web", "deploy-agent log -name web -follow", "deploy-agent log -name web -phase rollback 42", "deploy-agent log -dir /srv/web -json"},
		Statuses: []wire.Status{wire.NotFound},
		New:      func() cli.Op { return &logOp{place: place{s: s}} },
	}
}

// logOp is one call of log.
type logOp struct {
	place
	phase  string
	follow bool
}

// Flags defines the flags.
func (l *logOp) Flags(fs *pflag.FlagSet) {
	l.place.flags(fs)
	fs.StringVar(&l.phase, "phase", "", "one `phase` alone: check, deploy, rollback or remove")
	cli.NamedFlag(fs, "phase")
	fs.BoolVarP(&l.follow, "follow", "f", false, "go on until the deployment has ended")
}

var phases = []string{"check", "deploy", "rollback", "remove"}

// Run shows the output.
func (l *logOp) Run(ctx context.Context, o *cli.IO, args []string) error {
	switch {
	case len(args) > 1:
		return cli.Usage("unexpected argument %q", args[1])
	case l.follow && l.json:
		return cli.Usage("-follow and -json do not go together")
	case l.phase != "" && !slices.Contains(phases, l.phase):
		return cli.Usage("-phase %q: should be %s", l.phase, strings.Join(phases, ", "))
	}
	d, err := l.deployments()
	if err != nil {
		return err
	}
	id, err := d.FindOutput(strings.Join(args, ""), l.phase)
	if err != nil {
		return l.notThere(err)
	}
	programs := d.Programs(id, l.phase)
	if len(programs) == 0 && !(l.follow && d.UnderWay(id)) {
		return l.notThere(fmt.Errorf("deployment %s: no such program was run: %w", id, wire.ErrNotFound))
	}
	if l.follow {
		return l.followOn(ctx, o.Stdout, d, id)
	}
	return l.show(o.Stdout, d, id, programs)
}

// deployments are those of the place.
func (p *place) deployments() (*agent.Deployments, error) {
	if err := p.find(); err != nil {
		return nil, err
	}
	return agent.OpenDeployments(p.at.dir), nil
}

// notThere gives an error of agent.Deployments its exit status.
func (p *place) notThere(err error) error {
	if errors.Is(err, wire.ErrNotFound) {
		if _, none := agent.Look(p.viewing()); errors.Is(none, agent.ErrNothing) {
			return p.lost(none)
		}
		return cli.WithHint(cli.WithStatus(err, wire.NotFound), p.call("history")+" lists the deployments; where there is none, "+p.call("why")+" says why")
	}
	return p.lost(err)
}

// printed is what one program has printed, an object of log -json.
type printed struct {
	Schema     console.Schema `json:"schema"`
	Deployment string         `json:"deployment"`
	Phase      string         `json:"phase"`
	Program    string         `json:"program"`
	Attempt    int            `json:"attempt"`
	Exit       int            `json:"exit"`
	Running    bool           `json:"running"`
	Error      string         `json:"error,omitempty"`
	Started    time.Time      `json:"started"`
	DurationMS int64          `json:"duration_ms"`
	Bytes      int64          `json:"bytes"`
	Output     string         `json:"output"`
}

func (l *logOp) show(w io.Writer, d *agent.Deployments, id string, programs []agent.Program) error {
	for _, p := range programs {
		b, err := d.Output(id, &p)
		if err != nil {
			return err
		}
		if l.json {
			err = json.NewEncoder(w).Encode(printed{Deployment: id, Phase: p.Phase(), Program: p.Label, Attempt: p.Attempt, Exit: p.Exit,
				Running: p.Running, Error: p.Failure, Started: p.Started, DurationMS: p.Took.Milliseconds(), Bytes: p.Output, Output: string(b)})
		} else {
			err = l.text(w, id, &p, string(b))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (l *logOp) text(w io.Writer, id string, p *agent.Program, output string) error {
	var b strings.Builder
	if l.phase == "" {
		fmt.Fprintf(&b, "--- %s %s: %s\n", id, p.Label, ended(p))
	}
	for line := range strings.Lines(output) {
		b.WriteString(clean(strings.TrimSuffix(line, "\n")) + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// ended is how a program did, in words.
func ended(p *agent.Program) string {
	switch {
	case p.Running:
		return fmt.Sprintf("running since %s, attempt %d", p.Started.UTC().Format(time.RFC3339), p.Attempt)
	case p.Failure != "":
		return fmt.Sprintf("%s, attempt %d, %v", cli.Clean(p.Failure), p.Attempt, p.Took.Round(time.Millisecond))
	}
	return fmt.Sprintf("exit status %d, attempt %d, %v", p.Exit, p.Attempt, p.Took.Round(time.Millisecond))
}

// clean is cli.Clean of a line of output, in which tabs are text.
func clean(line string) string {
	fields := strings.Split(line, "\t")
	for i, f := range fields {
		fields[i] = cli.Clean(f)
	}
	return strings.Join(fields, "\t")
}

func (l *logOp) followOn(ctx context.Context, w io.Writer, d *agent.Deployments, id string) error {
	last := ""
	var failed error
	err := d.Follow(ctx, id, l.phase, func(label, line string) {
		if failed != nil {
			return
		}
		if label != last && l.phase == "" {
			_, failed = fmt.Fprintf(w, "--- %s %s\n", id, label)
		}
		if last = label; failed == nil {
			_, failed = fmt.Fprintln(w, clean(line))
		}
	})
	if failed != nil {
		return failed
	}
	return err
}
