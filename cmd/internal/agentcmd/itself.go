package agentcmd

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/pflag"

	"deploytools/agent"
	"deploytools/cmd/internal/cli"
)

// deploysItself reports whether our own program lies in a root below dir: what
// is deployed there is the agent, and the unit starts it through `current`.
func deploysItself(dir string) bool {
	exe, err := os.Readlink("/proc/self/exe")
	return err == nil && strings.HasPrefix(exe, real(filepath.Join(dir, "roots"))+"/")
}

// guardCommand is what the unit of an agent that deploys itself has called when the
// agent has ended.
func (s *settings) guardCommand() cli.Command {
	return cli.Command{
		Name: "guard", Short: "see to it that an agent that deploys itself comes back",
		Long: `For ExecStopPost= of a unit that starts the agent through ` + "`current`" + `: see docs/self-update.md.
The words before it are those of the unit's ExecStart=.

Where a deployment of the agent's own program is between its switch and what comes after
its hook, it starts a process that waits for an agent to go on. If none has after 60 s, that
takes the deployment back. It ends at once itself, and does nothing in all other cases.`,
		Examples: []string{"/var/lib/deploy-agent/agent/.back/bin/deploy-agent -name agent -dir /var/lib/deploy-agent/agent guard"},
		New:      func() cli.Op { return &guardOp{s} },
	}
}

type guardOp struct{ s *settings }

// Flags defines none.
func (v *guardOp) Flags(*pflag.FlagSet) {}

// Run starts the guards.
func (v *guardOp) Run(_ context.Context, _ *cli.IO, args []string) error {
	words, last := v.s.args[:max(0, len(v.s.args)-1)], v.s.args[len(v.s.args)-1:]
	if len(args) > 0 || !slices.Equal(last, []string{"guard"}) {
		return cli.Usage("guard should be the last word")
	}
	all, _, err := v.s.configurations()
	for _, o := range all {
		if deploysItself(o.Dir) {
			err = errors.Join(err, agent.Guard(o.Dir, o.Name, words))
		}
	}
	return err
}

// rescue is the whole work of this process: see [agent.RescueCommand].
func (s *settings) rescue(ctx context.Context, members []*member) error {
	// Whoever read the agent's log may be gone with the agent.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	i := slices.IndexFunc(members, func(m *member) bool { return m.o.Name == s.rescued[0] })
	if i < 0 {
		return cli.Usage("configuration %q: not of this agent", s.rescued[0])
	}
	o := members[i].o
	o.Mode.Once = true
	o.Observe.Notify, o.Observe.Enter = nil, nil
	a, err := agent.New(o)
	if err != nil {
		return err
	}
	return explain(a.Rescue(ctx, s.rescued[1]))
}
