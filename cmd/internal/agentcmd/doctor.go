package agentcmd

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"deploytools/agent"
	"deploytools/cmd/internal/cli"
	"deploytools/cmd/internal/doctor"
)

func (s *settings) doctorCommand() cli.Command {
	return cli.Command{
		Name: "doctor", Short: "look for what commonly goes wrong on this host",
		Long: `A line for each thing that it looks at: ok, warn, or FAIL with what to do. -name and -dir
behind it mean what they mean for the other verbs. It asks the registry, and writes nothing
but for a moment below -dir.

The settings are those before the verb, and of -env. Where none are given they are those of the
agent that runs there, or of the files of its unit, and its relative names of files count from
where it works. Where there are none of these either, nothing is said of what depends on them.

The exit status is 1 when something fails.`,
		Examples: []string{
			"deploy-agent doctor -name web",
			"deploy-agent -name web -dir /srv/web doctor -env /srv/web.environment -json",
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

// diagnosis is the result of the command.
type diagnosis struct{ doctor.Diagnosis }

func (v *doctorOp) Run(ctx context.Context, o *cli.IO, _ []string) error {
	d := &diagnosis{}
	t, err := v.taken(ctx)
	var all []agent.Options
	var bad []*misfit
	if err == nil {
		err = v.narrow(t.s)
	}
	if err == nil {
		all, bad, err = t.s.configurations()
	}
	if err != nil && t.why != nil {
		err = cli.WithHint(fmt.Errorf("%w; %w", err, t.why), cmp.Or(cli.HintOf(err), cli.HintOf(t.why)))
	}
	if err != nil {
		hint := "mend that setting"
		if len(t.s.names) == 0 {
			hint = "-dir DIR or -name NAME behind doctor says whose agent is meant; or " + settingsHint
		}
		d.Fail("settings", cmp.Or(cli.HintOf(err), hint), "%v", err)
		if v.dir != "" {
			d.unreadable(v.dir)
		}
	} else {
		if t.from == "" {
			d.Warn("settings", cmp.Or(cli.HintOf(t.why), settingsHint), "none are given, and %v: the key, the registry, the programs and the checks are not looked at", t.why)
		} else {
			d.OK("settings", "configurations: %d, %s", len(all), t.from)
		}
		for _, m := range bad {
			d.Fail("settings", cmp.Or(cli.HintOf(m.err), misfitHint), "configuration %s: %v", m.name, m.err)
		}
		d.variables(t.s, t.vars, o)
		d.Clock("so that -window, certificates and logs have the right time")
		if t.from != "" {
			d.registry(ctx, t.s, all, o)
		}
		for _, c := range all {
			d.host(c)
			if t.from != "" {
				d.settled(t.s, c)
			}
			d.unit(ctx, c.Name)
		}
		runs := slices.ContainsFunc(all, func(c agent.Options) bool { return busy(c.Dir) })
		d.http(ctx, t.s.http, runs)
		if t.s.metricsFile != "" {
			d.In("-metrics-file", t.s.metricsFile)
		}
	}
	return d.Show(o, v.json)
}

// unreadable says what is wrong with the record of a directory, where that keeps its name.
func (d *diagnosis) unreadable(dir string) {
	if _, err := agent.Look(agent.Options{Dir: dir}); err != nil {
		d.record(agent.Options{Dir: dir, Name: dir})
	}
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
		d.Warn("settings", "mend its name, or take it out: the agent does not read it", "%v", err)
	}
}
