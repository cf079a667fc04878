// Package agentcmd is the program deploy-agent: its flags, and the wiring of
// the machine to the registry's client and to the service manager.
package agentcmd

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"deploytools/agent"
	"deploytools/atomic"
	"deploytools/cmd/internal/cli"
	"deploytools/cmd/internal/ops"
	"deploytools/registry/client"
	"deploytools/registry/wire"
)

// Main runs deploy-agent with the words after its name and returns its exit
// status.
func Main(ctx context.Context, args []string, o *cli.IO) int {
	if len(args) > 0 && args[0] == agent.SuperviseCommand {
		return agent.Supervise(args[1:])
	}
	return Program().Main(ctx, args, o)
}

// Program returns deploy-agent, for one call of Main and for documents.
func Program() *cli.Program {
	s := &settings{}
	return &cli.Program{
		Name:  "deploy-agent",
		Short: "deploy one configuration on this host, and take it back when it fails",
		Long: `It asks the registry for the configuration -name. When there is a new revision it
fetches the layers, unpacks them below -dir into a fresh root, points the link
` + "`current`" + ` at it, runs -script with OLDROOT and NEWROOT in its environment, and
looks at the result with the -verify checks. When any of this fails the old root
comes back, by the same script with the roots exchanged, and is looked at too.

TERM ends the agent at once; a hook that runs goes on, and the next start of the
agent picks up its result. HUP asks the registry now, ends a hold of this host, and tries
again what has failed before.`,
		Examples: []string{
			"deploy-agent -addr registry:2022 -fp SHA256:... -key /etc/deploy-agent/key -name web -dir /var/lib/deploy-agent/web -script /etc/deploy-agent/web.sh",
			"deploy-agent -name web -verify type=tls,addr=localhost:443,sni=www.example.org,cert=etc/site.pem -verify type=http,url=https://localhost/version,insecure=true,json=/id,equals={newid}",
			"deploy-agent -name web -once",
		},
		Statuses: []wire.Status{wire.NotFound, wire.Conflict, wire.Denied, wire.Unreachable, wire.Untrusted, wire.RolledBack, wire.Broken, wire.NotNow},
		Flags:    s.flags,
		Run:      s.run,
	}
}

func (s *settings) run(ctx context.Context, o *cli.IO, _ []string) error {
	level := slog.LevelInfo
	if s.verbose {
		level = slog.LevelDebug
	}
	log, err := cli.NewLogger(o, s.logFormat, level)
	if err != nil {
		return err
	}
	options, err := s.options()
	if err != nil {
		return err
	}
	source, err := client.New(client.Options{
		Addr: s.addr, User: agentUser, Fingerprints: s.fingerprints, KnownHosts: s.knownHosts, KeyFile: s.key, Log: log,
	})
	if err != nil {
		return cli.WithStatus(err, wire.Usage)
	}
	options.Source = source
	options.Observe = observe(log)
	a, err := agent.New(options)
	if err != nil {
		return cli.WithStatus(err, wire.Usage)
	}
	hangup, stop := context.WithCancel(ctx)
	defer stop()
	go onHangup(hangup, a, log)
	err = a.Run(ctx)
	ops.Stopping()
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		log.Info("stopped", "configuration", s.name)
		return nil
	}
	return explain(err)
}

// agentUser is the SSH user that a registry gives the agents' tree.
const agentUser = "deploy-agent"

// observe tells the service manager what the machine does: ready as soon as it
// knows its own state.
func observe(log *slog.Logger) agent.Observe {
	var once sync.Once
	return agent.Observe{
		Log:    log,
		Enter:  func(agent.State) { once.Do(ops.Ready) },
		Notify: func(status string) { once.Do(ops.Ready); ops.Status(status) },
	}
}

// onHangup is what `systemctl reload` does: a person asks.
func onHangup(ctx context.Context, a *agent.Agent, log *slog.Logger) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP)
	defer signal.Stop(signals)
	for {
		select {
		case <-ctx.Done():
			return
		case <-signals:
		}
		err := errors.Join(a.Resume(ctx), a.Retry(ctx))
		if err != nil && ctx.Err() == nil {
			log.Error("reload failed", "error", err)
			continue
		}
		log.Info("reloaded")
	}
}

// explain gives an error of Run its exit status and what to do about it.
func explain(err error) error {
	for _, row := range []struct {
		kind   error
		status wire.Status
		hint   string
	}{
		{agent.ErrBroken, wire.Broken, "the log says what failed; mend the host or change the configuration, then systemctl reload"},
		{agent.ErrRolledBack, wire.RolledBack, "mend it, then deploy-agent -once -retry, or systemctl reload; a later revision is tried again by itself"},
		{agent.ErrRegistryHolds, wire.NotNow, "the command resume at the registry ends the hold"},
		{agent.ErrHeld, wire.NotNow, "deploy-agent -once -retry ends the hold, and so does systemctl reload"},
		{agent.ErrNotNow, wire.NotNow, "the next run asks the check script again"},
		{atomic.ErrLocked, wire.Conflict, "one agent at a time works in a directory; give this one another -dir"},
		{wire.ErrUntrusted, wire.Untrusted, ""},
		{wire.ErrUnreachable, wire.Unreachable, "the host keeps what it runs; check -addr, and whether deploy-registry runs there"},
		{wire.ErrDenied, wire.Denied, ""},
		{wire.ErrNotFound, wire.NotFound, ""},
	} {
		if !errors.Is(err, row.kind) {
			continue
		}
		err = cli.WithStatus(err, row.status)
		if row.hint != "" && cli.HintOf(err) == "" {
			err = cli.WithHint(err, row.hint)
		}
		return err
	}
	return cli.Unwritable(err)
}

// splitLines lets a variable of the environment hold several values.
func splitLines(values []string) []string {
	var out []string
	for _, v := range values {
		for line := range strings.SplitSeq(v, "\n") {
			if line = strings.TrimSpace(line); line != "" {
				out = append(out, line)
			}
		}
	}
	return out
}
