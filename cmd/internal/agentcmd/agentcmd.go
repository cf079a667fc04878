// Package agentcmd is the program deploy-agent: its flags, and the wiring of
// the machine to the registry's client and to the service manager.
package agentcmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
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

// memoryAim is how much memory the collector works hardest to stay in, in bytes. A root
// of more than some 200,000 files needs more, and gets it.
const memoryAim = 48 << 20

// Main runs deploy-agent with the words after its name and returns its exit
// status.
func Main(ctx context.Context, args []string, o *cli.IO) int {
	if len(args) > 0 && args[0] == agent.SuperviseCommand {
		return agent.Supervise(args[1:])
	}
	if len(args) > 0 && args[0] == agent.GuardCommand {
		return int(cli.Report(ctx, o.Stderr, agent.Stand(args[1:])))
	}
	// A host has other uses for its memory, and we have time.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryAim)
	}
	s := &settings{args: args}
	if len(args) > 2 && args[0] == agent.RescueCommand {
		s.rescued, s.args = args[1:3], args[3:]
	}
	return program(s).Main(ctx, s.args, o)
}

// Program returns deploy-agent, for documents.
func Program() *cli.Program { return program(&settings{}) }

func program(s *settings) *cli.Program {
	return &cli.Program{
		Name:  "deploy-agent",
		Short: "deploy one configuration on this host, and take it back when it fails",
		Long: `It asks the registry for the configuration -name. When there is a new revision it
fetches the layers, unpacks them below -dir into a fresh root, points the link
` + "`current`" + ` at it, runs -script with OLDROOT and NEWROOT in its environment, and
looks at the result with the -verify checks. When any of this fails the old root
comes back, by the same script with the roots exchanged, and is looked at too.

Several configurations are several -name, each with a directory of its own. They
share the connection and no failures; with -once the worst exit status counts.

TERM ends the agent at once; a hook that runs goes on, and the next start of the
agent picks up its result. HUP asks the registry now, ends a hold of this host, and tries
again what has failed before.`,
		Examples: []string{
			"deploy-agent -addr registry:2022 -fp SHA256:... -key /etc/deploy-agent/key -name web -dir /var/lib/deploy-agent/web -script /etc/deploy-agent/web.sh",
			"deploy-agent -name web -verify type=tls,addr=localhost:443,sni=www.example.org,cert=etc/site.pem -verify type=http,url=https://localhost/version,insecure=true,json=/id,equals={newid}",
			"deploy-agent -name web -once",
			"deploy-agent -name web -name api -dir /var/lib/deploy-agent/{name} -settings /etc/deploy-agent/{name}.environment -state /var/lib/deploy-agent/{name}/state.json",
		},
		Statuses: []wire.Status{wire.NotFound, wire.Conflict, wire.Denied, wire.Unreachable, wire.Untrusted, wire.RolledBack, wire.Broken, wire.NotNow},
		Flags:    s.flags,
		Run:      s.run,
		Alone:    true,
		Suggest:  s.suggest,
		Commands: append(s.verbs(), s.pinCommand(), s.unpinCommand(), s.logCommand(), s.evidenceCommand(), s.removeCommand(), s.doctorCommand(), s.guardCommand()),
	}
}

func (s *settings) logger(o *cli.IO) (*slog.Logger, error) {
	level := slog.LevelInfo
	if s.verbose {
		level = slog.LevelDebug
	}
	return cli.NewLogger(o, s.logFormat, level)
}

// connect returns the way to the registry. It has not met it yet.
func (s *settings) connect(log *slog.Logger) (*client.Client, error) {
	c, err := client.New(client.Options{
		Addr: s.addr, User: agentUser, Instance: cmp.Or(s.instance, instance()), Fingerprints: s.fingerprints, KnownHosts: s.knownHosts, KeyFile: s.key,
		Dial: s.maxRate.dial(), Log: log,
	})
	return c, cli.WithStatus(err, wire.Usage)
}

func (s *settings) run(ctx context.Context, o *cli.IO, _ []string) error {
	log, err := s.logger(o)
	if err != nil {
		return err
	}
	all, bad, err := s.configurations()
	if err != nil {
		return err
	}
	connection, err := s.connect(log)
	if err != nil {
		return err
	}
	defer connection.Close()
	for i, c := range all {
		if deploysItself(c.Dir) {
			all[i].Hook.Rescue = s.args
		}
		if path := c.Hook.NotifyScript; path != "" && agent.CheckProgram(path, nil) != nil {
			log.Warn("program of -notify cannot be started", "configuration", c.Name, "error", agent.CheckProgram(path, nil), "hint", notifyHint)
		}
	}
	members := s.assemble(ctx, all, bad, connection, log)
	for _, m := range members {
		if m.misfit != nil {
			continue
		}
		if _, err := agent.New(m.o); err != nil {
			return cli.WithStatus(err, wire.Usage)
		}
	}
	if s.rescued != nil {
		return s.rescue(ctx, members)
	}
	close, err := s.show(ctx, members, log)
	if err != nil {
		return err
	}
	defer close()
	hangups := make(chan os.Signal, 1) // from now on HUP does not end us
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	return serve(ctx, members, hangups, log)
}

// agentUser is the SSH user that a registry gives the agents' tree.
const agentUser = "deploy-agent"

// assemble gives every configuration what it needs of this process.
func (s *settings) assemble(ctx context.Context, all []agent.Options, bad []*misfit, connection *client.Client, log *slog.Logger) []*member {
	var members []*member
	var names []string
	for _, o := range all {
		names = append(names, o.Name)
		members = append(members, &member{o: o})
	}
	for _, b := range bad {
		names = append(names, b.name)
		members = append(members, &member{o: agent.Options{Name: b.name, Dir: b.dir, Mode: agent.Mode{Once: s.once}}, misfit: b})
	}
	told := newTold(names)
	together := &polls{ctx: ctx, all: connection.PollAll}
	for _, m := range members {
		m.alone, m.told, m.tally, m.shown, m.log, m.again = len(members) == 1, told, newTally(), func() {}, log, make(chan struct{}, 1)
		m.equip = func(o agent.Options) agent.Options {
			o.Version = cli.ReadBuild().Version
			o.Source = line{Client: connection, ask: connection.Poll, heard: m.heard}
			if !m.alone {
				o.Source = line{Client: connection, ask: together.ask, heard: m.heard, shared: true}
				o.Poll.Seed = step(strings.Join(names, " "))
			}
			o.Observe = m.observe(o.Dir)
			return o
		}
		if m.misfit == nil {
			m.o = m.equip(m.o)
		}
	}
	return members
}

// serve runs all members until ctx is done, or once.
func serve(ctx context.Context, members []*member, hangups <-chan os.Signal, log *slog.Logger) error {
	unstopped := context.AfterFunc(ctx, ops.Stopping)
	side, stop := context.WithCancel(ctx)
	defer stop()
	alive := func() bool {
		return !slices.ContainsFunc(members, func(m *member) bool { return !m.alive() })
	}
	go onHangup(side, hangups, members)
	go members[0].told.starting(side, alive)
	go ops.Watchdog(side, alive)
	errs := make([]error, len(members))
	var running sync.WaitGroup
	for i, m := range members {
		running.Go(func() {
			if errs[i] = m.run(ctx); len(members) > 1 && errs[i] != nil && ctx.Err() == nil {
				errs[i] = fmt.Errorf("configuration %s: %w", m.o.Name, errs[i])
			}
		})
	}
	running.Wait()
	if unstopped() {
		ops.Stopping()
	}
	if ctx.Err() != nil && !slices.ContainsFunc(errs, func(err error) bool { return err != nil && !errors.Is(err, context.Canceled) }) {
		for _, m := range members {
			log.Info("stopped", "configuration", m.o.Name)
		}
		return nil
	}
	return worst(errs)
}

// onHangup has every member reload.
func onHangup(ctx context.Context, hangups <-chan os.Signal, members []*member) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangups:
		}
		for _, m := range members {
			go m.reload(ctx) // ends when the machine has time for it, or with ctx
		}
	}
}

// severity lists the exit statuses of configurations, the worst first.
var severity = []wire.Status{wire.Broken, wire.RolledBack, wire.Failed, wire.Usage, wire.Untrusted, wire.Denied, wire.NotFound, wire.Conflict,
	wire.Unreachable, wire.NotNow}

// worst returns the worst error, with the text of all.
func worst(errs []error) error {
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	for i, err := range errs {
		errs[i] = explain(err)
	}
	slices.SortStableFunc(errs, func(x, y error) int {
		return slices.Index(severity, cli.StatusOf(x)) - slices.Index(severity, cli.StatusOf(y))
	})
	switch len(errs) {
	case 0:
		return nil
	case 1:
		return errs[0]
	}
	var texts []string
	for _, err := range errs {
		texts = append(texts, err.Error())
	}
	return &cli.Error{Status: cli.StatusOf(errs[0]), Hint: cli.HintOf(errs[0]), Err: errors.New(strings.Join(texts, "; "))}
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
		{agent.ErrOutside, wire.NotNow, "deploy-agent -once -retry begins it now, and so does systemctl reload"},
		{agent.ErrCrossed, wire.NotNow, "find what writes there, such as a timer or a tool that manages files, and have it leave the path to the agent; then run this again"},
		{agent.ErrNotNow, wire.NotNow, "the next run asks the check script again"},
		{agent.ErrForeign, wire.NotFound, foreignHint},
		{agent.ErrNoRoot, wire.NotFound, "'deploy-agent gc -explain' lists the roots"},
		{agent.ErrUnderWay, wire.Conflict, "'deploy-agent status' shows how far it is"},
		{agent.ErrRemoving, wire.Conflict, ""},
		{atomic.ErrOccupied, wire.Failed, "move it away, and say that again"},
		{atomic.ErrLocked, wire.Conflict, "one agent at a time works in a directory; to the one that runs there the verbs speak: deploy-agent status, run-once, retry"},
		{wire.ErrUntrusted, wire.Untrusted, ""},
		{wire.ErrUnreachable, wire.Unreachable, "the host keeps what it runs; check -addr, and whether deploy-registry runs there"},
		{wire.ErrDenied, wire.Denied, "look at the line of the key at the registry: its role, and whether configs= has this one"},
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

// explainTo is explain for who has typed a verb: what ends the way that it is in
// are verbs too. call is how they are called for the same directory.
func explainTo(err error, call func(verb string) string) error {
	for kind, hint := range map[error]string{ // no error is of two of them
		agent.ErrBroken:     "the log says what failed; mend the host or change the configuration, then " + call("retry"),
		agent.ErrRolledBack: "mend it, then " + call("retry") + "; a later revision is tried again by itself",
		agent.ErrHeld:       call("resume") + " ends the hold",
		agent.ErrOutside:    call("run-once") + " begins it now",
		agent.ErrNoRoot:     call("gc -explain") + " lists the roots; where there is none, " + call("run-once") + " deploys what the registry has",
		agent.ErrLive:       call("repair") + " deploys it once more, with the hook and the checks; where `current` names no root of the agent's, " + call("resume") + " has it name that one again",
		agent.ErrUnderWay:   call("why") + " says how far it is, and how to end it",
		agent.ErrRemoving:   removingHint(call),
	} {
		if errors.Is(err, kind) && cli.HintOf(err) == "" {
			err = cli.WithHint(err, hint)
		}
	}
	return explain(err)
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
