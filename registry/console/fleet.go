package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"deploytools/registry"
	"deploytools/registry/wire"
)

// fleetCommands are the commands about hosts.
func fleetCommands() []Command {
	return []Command{
		{
			Name: "hosts", Short: "list the hosts, and when they were last heard of", Role: registry.Viewer, Reach: OwnConfigurations,
			Long: `A line for each agent: the host, its instance, how long ago it was heard of, the version of the
agent, and where the host stands with each of its configurations, as status says it. A host
has the name that host= in its key's line gives it, else the key's fingerprint; agents that
have one key are told apart by the instance. "silent" is a host of which nothing has been heard
for three of its polls and some minutes.`,
			Examples: []string{"hosts", "hosts -json"},
			New:      func() Op { return new(hostsOp) },
		},
		{
			Name: "status", Short: "show which hosts run what is wanted", Args: "[NAME]", Role: registry.Viewer, Reach: OwnConfigurations,
			Long: `A line for each host and configuration: the configuration, the host, where it stands, the revision
that is wanted and the one that runs, since when, how it was verified, how long ago the host was
heard of, and what the matter is.

A host stands as "same" when it says that it runs what is wanted. Else it is "deploying";
"behind", and has not begun; "rolled back", because what is wanted failed there; "held";
"moved", because somebody moved its link; "broken", with neither version serving; or
"unknown", because its agent polls but never reported. The exit status is 1 if one host or more is
not "same", or runs what fails its checks. "unwanted" is what hosts run of a configuration that was deleted.

-wait waits until every host is "same", "rolled back" or "broken", and names those that are not yet;
hosts that are held or silent it waits for until -timeout.

What a host says is its own word: a key speaks for its own host and configurations only.`,
			Examples: []string{"status", "status project1", "status project1 -wait -timeout 10m", "status -name project1 -json"}, Statuses: []wire.Status{wire.NotFound},
			New: func() Op { return new(statusOp) },
		},
		{
			Name: "log", Short: "show what the hook of a host printed last", Args: "[HOST NAME]", Role: registry.Operator, Reach: OwnConfigurations,
			Long: `The end of what the host's programs printed in the last deployment of the configuration, at most
64 KiB. What is not printable comes as ?. The host has more of it, and what earlier
deployments printed: deploy-agent log ID, and deployments/ in its agent's directory.`,
			Examples: []string{"log web1 project1"}, Statuses: []wire.Status{wire.NotFound, wire.Conflict},
			New: func() Op { return new(logOp) },
		},
		{
			Name: "forget", Short: "forget a host that is gone", Args: "[HOST]", Role: registry.Admin, Reach: OwnConfigurations, Mutates: true,
			Long: `Drops what the host's agents have told, about all configurations that your key may change, or
about one: a record for each agent and configuration. A host whose agent still runs is back within a minute. To keep it out, take its key out
of the file of keys.`,
			Examples: []string{"forget web1"}, Statuses: []wire.Status{wire.NotFound},
			New: func() Op { return new(forgetOp) },
		},
	}
}

// agentArgs name agents of a host.
type agentArgs struct {
	configName
	host, instance string
}

func (a *agentArgs) Flags(fs *pflag.FlagSet) {
	fs.StringVar(&a.host, "host", "", "`name` of the host, as hosts shows it")
	a.configName.Flags(fs)
	fs.StringVar(&a.instance, "instance", "", "which `agent` of those with the host's name, as hosts shows it")
}

func (a *agentArgs) suggest(ctx context.Context, s *Session, flag string) ([]string, error) {
	if flag == "host" || flag == "" && a.host == "" {
		return hostNames(ctx, s)
	}
	return a.configName.suggest(ctx, s, flag)
}

func (a *agentArgs) adopt(args []string) []string { return adoptName(&a.host, args) }

// check fails unless the host is given, and no word is left.
func (a *agentArgs) check(args []string) error {
	switch {
	case a.host == "":
		return usage("-host should be set")
	case len(args) > 0:
		return usage("unexpected argument %q", args[0])
	}
	return nil
}

type logOp struct{ agentArgs }

func (l *logOp) adopt(args []string) []string { return adoptName(&l.name, l.agentArgs.adopt(args)) }

func (l *logOp) suggest(ctx context.Context, s *Session, flag string) ([]string, error) {
	if flag == "name" || flag == "" && l.host != "" && l.name == "" {
		return s.reportedBy(ctx, l.host), nil
	}
	return l.agentArgs.suggest(ctx, s, flag)
}

// reportedBy returns the configurations about which a host has reported, any host where
// none is named. Without an answer of the registry there are none.
func (s *Session) reportedBy(ctx context.Context, host string) (names []string) {
	all, _ := s.hosts(ctx, "")
	for _, h := range all {
		if h.Report != nil && (host == "" || h.Name == host) {
			names = append(names, h.Configuration)
		}
	}
	return slices.Compact(names)
}

// which has a refusal of log name what can be asked for.
func (l *logOp) which(ctx context.Context, s *Session, err error) error {
	e, ok := errors.AsType[*registry.Error](err)
	switch names := s.reportedBy(ctx, l.host); {
	case !ok || len(names) == 0:
	case len(names) == 1:
		e.Hint = fmt.Sprintf("see 'log %s %s'", l.host, names[0])
	default:
		e.Hint = fmt.Sprintf("see 'log %s NAME', with one of: %s", l.host, some(names))
	}
	return err
}

type hookLog struct {
	Schema        Schema    `json:"schema"`
	Host          string    `json:"host"`
	Configuration string    `json:"configuration"`
	Deployment    string    `json:"deployment"`
	Received      time.Time `json:"received,omitzero"`
	Cut           bool      `json:"cut"` // it is only the end
	Output        string    `json:"output"`
}

func (l *logOp) Run(ctx context.Context, s *Session, args []string) (Result, error) {
	if err := l.check(args); err != nil {
		return nil, err
	}
	if l.name == "" {
		return nil, l.which(ctx, s, usage("-name should be set, or the configuration stand behind the host"))
	}
	out, err := s.Registry.HookOutput(ctx, s.Caller, l.host, l.name, l.instance)
	if errors.Is(err, registry.ErrNotFound) {
		err = l.which(ctx, s, err)
	}
	if err != nil {
		return nil, err
	}
	if !s.json {
		s.noteOutput(out, l.host, l.name)
	}
	return hookLog{Host: l.host, Configuration: l.name, Deployment: Clean(out.Deployment), Received: out.Received, Cut: out.Cut, Output: cleanLines(out.Text)}, nil
}

func (s *Session) noteOutput(out registry.Output, host, name string) {
	switch {
	case out.Text == "":
		fmt.Fprintln(s.Stderr, "note: nothing was printed")
	case out.Cut:
		fmt.Fprintln(s.Stderr, "note: this is only the end of it")
	}
	if out.Text != "" && out.Deployment == "" {
		fmt.Fprintf(s.Stderr, "note: this is of another deployment than the one that failed; %s\n", onHost(host, name))
	}
}

// cleanLines is Clean for text of several lines, which may have tabs in them.
func cleanLines(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		i := strings.IndexAny(s, "\n\t")
		if i < 0 {
			i = len(s)
		}
		b.WriteString(Clean(s[:i]))
		b.WriteString(s[i:min(i+1, len(s))])
		s = s[min(i+1, len(s)):]
	}
	return b.String()
}

func (l hookLog) Text(w io.Writer) error {
	text := l.Output
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	_, err := io.WriteString(w, text)
	return err
}

type forgetOp struct {
	agentArgs
	acting
}

func (f *forgetOp) Flags(fs *pflag.FlagSet) {
	f.agentArgs.Flags(fs)
	f.acting.Flags(fs)
}

func (f *forgetOp) Run(ctx context.Context, s *Session, args []string) (Result, error) {
	if err := f.check(args); err != nil {
		return nil, err
	}
	if s.Daemon != nil && !f.dryRun {
		s.Daemon.Unsee(func(one registry.Sighting) bool {
			return one.Host == f.host && (f.name == "" || one.Configuration == f.name) && (f.instance == "" || one.Instance == f.instance) &&
				s.Caller.Configs.Holds(one.Configuration)
		})
	}
	return f.told(s.Registry.Forget(ctx, f.act(s), f.host, f.name, f.instance))
}
