package agentcmd

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/pflag"

	"deploytools/agent"
	"deploytools/cmd/internal/cli"
	"deploytools/registry/console"
	"deploytools/registry/wire"
)

func (s *settings) doctorCommand() cli.Command {
	return cli.Command{
		Name: "doctor", Short: "look for what commonly goes wrong on this host",
		Long: `A line for each thing that it looks at: ok, warn, or FAIL with what to do. It takes the
settings that the agent would, so the variables of a unit have to be given: -env reads
them. -name and -dir behind it mean what they mean for the other verbs. It asks the
registry, and writes nothing but for a moment below -dir.

The exit status is 1 when something fails.`,
		Examples: []string{
			"deploy-agent -name web -dir /var/lib/deploy-agent/web doctor -env /etc/deploy-agent/environment -env /etc/deploy-agent/web.environment",
			"deploy-agent doctor -name web -json",
		},
		New: func() cli.Op { return &doctorOp{place: place{s: s}} },
	}
}

// doctorOp is the command doctor.
type doctorOp struct {
	place
	env []string
}

func (v *doctorOp) Flags(fs *pflag.FlagSet) {
	v.place.flags(fs)
	fs.StringArrayVar(&v.env, "env", nil, "`file` of variables that counts more than the environment, as a unit's EnvironmentFile=; may be repeated, the last one counts most")
	cli.FileFlag(fs, "env")
}

// The levels of what was found.
const (
	levelOK   = "ok"
	levelWarn = "warn"
	levelFail = "FAIL"
)

// found is the result of one look.
type found struct {
	Level string `json:"level"`
	About string `json:"about"`
	Text  string `json:"text"`
	Next  string `json:"next,omitempty"` // what to do
}

// diagnosis is the result of the command.
type diagnosis struct {
	Schema console.Schema `json:"schema"`
	Looks  []found        `json:"looks"`
	Failed int            `json:"failed"`
}

func (d *diagnosis) ok(about, format string, args ...any) {
	d.Looks = append(d.Looks, found{levelOK, about, fmt.Sprintf(format, args...), ""})
}

func (d *diagnosis) warn(about, next, format string, args ...any) {
	d.Looks = append(d.Looks, found{levelWarn, about, fmt.Sprintf(format, args...), next})
}

func (d *diagnosis) fail(about, next, format string, args ...any) {
	d.Looks = append(d.Looks, found{levelFail, about, fmt.Sprintf(format, args...), next})
	d.Failed++
}

// Text is a line for each look, and one for what to do.
func (d *diagnosis) Text(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, f := range d.Looks {
		fmt.Fprintf(t, "%s\t%s\t%s\n", f.Level, cli.Clean(f.About), cli.Clean(f.Text))
		if f.Next != "" {
			fmt.Fprintf(t, "\t\thint: %s\n", cli.Clean(f.Next))
		}
	}
	return t.Flush()
}

func (v *doctorOp) Run(ctx context.Context, o *cli.IO, _ []string) error {
	d := &diagnosis{}
	s, vars, err := v.settings()
	var all []agent.Options
	var bad []*misfit
	if err == nil {
		err = v.narrow(s)
	}
	if err == nil {
		all, bad, err = s.configurations()
	}
	if err != nil {
		d.fail("settings", cmp.Or(cli.HintOf(err), "give what the agent is given; -env reads the variables of a unit"), "%v", err)
	} else {
		d.ok("settings", "configurations: %d", len(all))
		for _, m := range bad {
			d.fail("settings", cmp.Or(cli.HintOf(m.err), misfitHint), "configuration %s: %v", m.name, m.err)
		}
		d.variables(s, vars, o)
		d.clock()
		d.registry(ctx, s, all, o)
		for _, c := range all {
			d.host(ctx, c)
		}
		d.http(s.http)
	}
	if err := console.Show(o.Stdout, d, v.json); err != nil {
		return err
	}
	if d.Failed > 0 {
		return &cli.Error{Status: wire.Failed}
	}
	return nil
}

// settings returns those of the program, with the variables of -env, and those.
func (v *doctorOp) settings() (*settings, map[string]string, error) {
	vars := map[string]string{}
	for _, file := range v.env {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, nil, err
		}
		more, err := parseEnvironment(string(b))
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", file, err)
		}
		maps.Copy(vars, more)
	}
	s := &settings{}
	fs := pflag.NewFlagSet(v.s.set.Name(), pflag.ContinueOnError)
	s.flags(fs)
	return s, vars, cli.Overlay(fs, v.s.set, envPrefix, lookup(vars))
}

// narrow has s be about the one configuration that -name and -dir behind the verb
// mean, where they are given.
func (v *doctorOp) narrow(s *settings) error {
	if v.name == "" && v.dir == "" {
		return nil
	}
	p := place{s: s, dir: v.dir, name: v.name}
	if err := p.find(); err != nil {
		return err
	}
	text, err := p.named()
	if err != nil {
		return err
	}
	if text == "" {
		text = s.named(p.at.dir)
	}
	if text == "" { // then it is the one that was deployed there
		if a, err := agent.Look(agent.Options{Dir: p.at.dir}); err == nil {
			text = a.Record().Name
		}
	}
	name, dir, _ := strings.Cut(text, "=")
	if s.names = nil; name != "" {
		s.names = []string{name}
	}
	if dir == p.at.dir { // with what the directory of a -name says besides
		s.names = []string{text}
	}
	return s.set.Set("dir", p.at.dir)
}

// variables looks for those that nothing reads, of -env and of the environment.
func (d *diagnosis) variables(s *settings, vars map[string]string, o *cli.IO) {
	all := maps.Clone(vars)
	if o.Environ != nil {
		for _, v := range o.Environ() {
			name, value, _ := strings.Cut(v, "=")
			all[name] = value
		}
	}
	for _, err := range cli.UnknownVariables(s.set, envPrefix, maps.Keys(all)) {
		d.warn("settings", "mend its name, or take it out: the agent does not read it", "%v", err)
	}
}
