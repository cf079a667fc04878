package agentcmd

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"deploytools/agent"
	"deploytools/cmd/internal/cli"
)

// deploysItself reports whether our own program lies in a root below dir: what
// is deployed there is the agent, and the unit starts it through `current`.
func deploysItself(dir string) bool {
	exe, err := os.Readlink("/proc/self/exe")
	return err == nil && strings.HasPrefix(exe, real(filepath.Join(dir, "roots"))+"/")
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
