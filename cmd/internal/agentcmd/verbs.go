package agentcmd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/pflag"

	"deploytools/cmd/internal/cli"
	"deploytools/cmd/internal/control"
	"deploytools/registry/console"
	"deploytools/registry/wire"
)

// verbs are what an operator does on the host. They ask the agent that works in
// the directory, by its socket, and need no registry but for those that deploy.
func (s *settings) verbs() []cli.Command {
	acting := []wire.Status{wire.NotFound, wire.Conflict, wire.Denied, wire.NotNow}
	deploying := append(acting, wire.Unreachable, wire.Untrusted, wire.RolledBack, wire.Broken)
	return []cli.Command{
		{
			Name: "status", Short: "show what this host runs, and what is in the way",
			Long: `What is live, since when and how it was verified, where a rollback leads, what the
registry has as of the last poll, when the next one is, and all that keeps the newest
revision away. Where no agent runs it is what the record says.

-wait has the registry asked at once, and waits until the newest revision is decided: the exit
status is 0 when it is live, 9 when it was rolled back here, 10 when that failed as well, and
75 when -timeout is over, as where a hold keeps it away.`,
			Examples: []string{"deploy-agent status -name web", "deploy-agent status -name web -wait -timeout 10m", "deploy-agent status -dir /srv/web -json"},
			Statuses: append(acting, wire.RolledBack, wire.Broken), New: func() cli.Op {
				return &statusOp{showOp: showOp{place: place{s: s}, verb: "status", result: new(statusResult)}}
			},
		},
		{
			Name: "why", Short: "say in plain words why this host is not on the newest revision, and what to do",
			Examples: []string{"deploy-agent why -name web"},
			Statuses: acting, New: func() cli.Op {
				return &showOp{place: place{s: s}, verb: "status", result: new(statusResult), why: true}
			},
		},
		{
			Name: "history", Short: "list the deployments on this host, the newest first",
			Long: `The deployment, the revision, how it ended, when it began, how long it took, and why.
-json says how long it was in each state besides.`,
			Examples: []string{"deploy-agent history -name web", "deploy-agent history -name web -n 0 -json"},
			Statuses: acting, New: func() cli.Op {
				return &showOp{place: place{s: s}, verb: "history", result: new(historyResult), counts: true}
			},
		},
		{
			Name: "check", Short: "compare what this host runs with what was deployed",
			Long: `The live root is compared with its manifest, every byte of it: modified, missing and
extra paths are named. -all looks at every root that is kept, at the cached layers and at
the records besides. It changes nothing, and no agent is needed. The exit status is 1
when anything is found.`,
			Examples: []string{"deploy-agent check -name web", "deploy-agent check -name web -all -json"},
			Statuses: acting, New: func() cli.Op { return &checkOp{place: place{s: s}} },
		},
		{
			Name: "gc", Short: "say what the next collection deletes, and why the rest stays",
			Long: `The agent collects by itself, some time after each deployment and once an hour: this
changes nothing. Without an agent that runs, -keep, -max-bytes and -min-free count as they are
given before gc, or in the environment; those that are not, as the program has them by itself.`,
			Examples: []string{"deploy-agent gc -explain -name web", "deploy-agent -keep 5 -min-free 10% gc -explain -name web"},
			Statuses: acting, New: func() cli.Op {
				return &showOp{place: place{s: s}, verb: "gc", result: new(gcResult), explains: true}
			},
		},
		{
			Name: "hold", Short: "keep new deployments from this host",
			Long: `Until resume, or until a time. A deployment that is under way goes on, and a rollback
on the host is done all the same. -reason has to be given. -until takes a time in UTC,
or with a zone as in 2026-12-24T18:00:00+01:00, which follows the clock, or how long it
lasts, which no change of the clock makes shorter as long as the host is up. It shows the status as it is then.`,
			Examples: []string{"deploy-agent hold -name web -reason 'sale until Monday'", "deploy-agent hold -name web -reason 'disk is exchanged' -until 2h"},
			Statuses: acting, New: func() cli.Op { return &holdOp{place: place{s: s}} },
		},
		{
			Name: "resume", Short: "end a hold of this host",
			Long: `Also one that a rollback has set, or a link ` + "`current`" + ` that was moved by hand, which is put back.
The registry is asked at once. It shows the status as it is then.

Where remove has begun and nothing is removed yet, as when its script has failed, resume
calls that off and leaves holds as they are: an agent may be started again.`,
			Examples: []string{"deploy-agent resume -name web"},
			Statuses: acting, New: func() cli.Op { return &actOp{place: place{s: s}, verb: "resume"} },
		},
		{
			Name: "retry", Short: "try again what has failed on this host",
			Long: `Failed revisions are no longer kept away, and where neither root works the deployment is
closed. A hold stays: they are tried when it has ended. The registry is asked at once. It shows the status as it is then.`,
			Examples: []string{"deploy-agent retry -name web"},
			Statuses: acting, New: func() cli.Op { return &actOp{place: place{s: s}, verb: "retry"} },
		},
		{
			Name: "rollback", Short: "make an earlier root live again, without the registry",
			Long: `That of the version before, or with -to any committed root that is kept, by its name or its revision;
history and gc -explain list them. A number alone is a revision, and never that of a
deployment, as log and evidence take it. A deployment that is under way is taken back for it.
The root is verified as it was then, and comes off again when that fails. The host then
stays until the registry has a later revision, or somebody resumes.

It is on record before anything is done, and goes on when you leave.` + aloneText,
			Examples: []string{"deploy-agent rollback -name web", "deploy-agent rollback -name web -to 41", "deploy-agent rollback -name web -to 000042-1f3a9c77d2e0"},
			Statuses: deploying, New: func() cli.Op { return &rollbackOp{place: place{s: s}} },
		},
		{
			Name: "repair", Short: "deploy what is live once more, into a fresh root",
			Long: `For a root that was modified, or has lost its bits: see check. The layers come from the
cache, or from the registry; the rest is as for any deployment.

It is on record before anything is done, and goes on when you leave.` + aloneText,
			Examples: []string{"deploy-agent repair -name web"},
			Statuses: deploying, New: func() cli.Op { return &deployOp{place: place{s: s}, verb: "repair"} },
		},
		{
			Name: "run-once", Short: "ask the registry now, and wait for what comes of it",
			Long: `The exit status is as that of -once: 0 when the newest revision is live, or how the
deployment ended, or what is in the way. A person asks for it: it does not wait for a
-window, as -once does.` + aloneText,
			Examples: []string{"deploy-agent run-once -name web"},
			Statuses: deploying, New: func() cli.Op { return &deployOp{place: place{s: s}, verb: "run-once"} },
		},
		{
			Name: "dry-run", Short: "fetch, unpack and check the newest revision, without switching",
			Long: `Also where a hold keeps it away, or it has failed here before. What was fetched stays for
the deployment that may follow.` + aloneText,
			Examples: []string{"deploy-agent dry-run -name web"},
			Statuses: deploying, New: func() cli.Op { return &deployOp{place: place{s: s}, verb: "dry-run"} },
		},
	}
}

// aloneText is about what deploys, where no agent runs.
const aloneText = `

Where no agent runs, one runs for as long as this takes, with the settings that are
given before the verb or as variables; -script has to be among them, and so has -verify
for a repair or run-once where what is live was deployed with checks.`

// showOp is a verb that only shows.
type showOp struct {
	place
	verb                       string
	result                     any // pointer to what it shows
	why, counts, explains, all bool
	count                      int
}

func (v *showOp) Flags(fs *pflag.FlagSet) {
	v.place.flags(fs)
	if v.counts {
		fs.IntVar(&v.count, "n", 20, "`number` of deployments; 0 is all that are kept")
	}
	if v.explains {
		fs.BoolVar(&v.all, "explain", false, "needed, since this deletes nothing: the agent does by itself")
	}
}

func (v *showOp) Run(ctx context.Context, o *cli.IO, _ []string) error {
	switch {
	case v.count < 0:
		return cli.Usage("-n cannot be negative")
	case v.explains && !v.all:
		return cli.Usage("gc should come with -explain: the agent collects by itself")
	}
	err := v.ask(ctx, o, v.verb, request{Count: v.count}, v.result)
	if errors.Is(err, control.ErrNobody) {
		err = v.look(ctx, v.verb, request{Count: v.count}, v.result)
		if v.explains && err == nil && !v.json && !slices.ContainsFunc([]string{"keep", "cleanold", "max-bytes", "min-free"}, v.at.given) {
			fmt.Fprintf(o.Stderr, "note: no agent runs there, and its settings are not known: this is for -keep %d\n", v.at.keep)
		}
	}
	if err != nil {
		return err
	}
	if v.why {
		s := v.result.(*statusResult)
		return v.show(o, &whyResult{Why: s.Why(v.call)})
	}
	if h, ok := v.result.(*historyResult); ok && len(h.Deployments) == 0 && !v.json {
		fmt.Fprintln(o.Stderr, "note: nothing was deployed here yet")
	}
	return v.show(o, v.result.(console.Result))
}

// actOp is a verb that changes the record.
type actOp struct {
	place
	verb string
}

func (v *actOp) Flags(fs *pflag.FlagSet) { v.place.flags(fs) }

func (v *actOp) Run(ctx context.Context, o *cli.IO, _ []string) error {
	return v.act(ctx, o, v.verb, request{})
}

// holdOp is the verb hold.
type holdOp struct {
	place
	reason, until string
}

func (v *holdOp) Flags(fs *pflag.FlagSet) {
	v.place.flags(fs)
	fs.StringVar(&v.reason, "reason", "", "`text` that says why; has to be given")
	fs.StringVar(&v.until, "until", "", "`time` in UTC when it ends by itself, or how long it lasts, such as 2h; without it, when somebody resumes")
}

func (v *holdOp) Run(ctx context.Context, o *cli.IO, _ []string) error {
	r := request{Reason: v.reason}
	if v.reason == "" {
		return cli.Usage("-reason should say why")
	}
	now := time.Now()
	at, err := console.Moment("until", v.until, now, 1)
	if err != nil {
		return cli.WithStatus(err, wire.Usage)
	}
	switch later, _ := console.Moment("until", v.until, now.Add(time.Hour), 1); {
	case at.IsZero():
	case !at.After(now):
		return cli.Usage("-until %q: is over already", v.until)
	case later.Equal(at):
		r.At = at
	default: // it depends on now, so it is a duration
		r.After = at.Sub(now)
	}
	return v.act(ctx, o, "hold", r)
}

// rollbackOp is the verb rollback.
type rollbackOp struct {
	place
	to string
}

func (v *rollbackOp) Flags(fs *pflag.FlagSet) {
	v.place.flags(fs)
	fs.StringVar(&v.to, "to", "", "`root` to make live: its name or its revision; without it that of the version before")
	cli.NamedFlag(fs, "to")
}

func (v *rollbackOp) Run(ctx context.Context, o *cli.IO, _ []string) error {
	return v.deploy(ctx, o, "rollback", request{To: v.to})
}

// deployOp is a verb that deploys what the registry has.
type deployOp struct {
	place
	verb string
}

func (v *deployOp) Flags(fs *pflag.FlagSet) { v.place.flags(fs) }

func (v *deployOp) Run(ctx context.Context, o *cli.IO, _ []string) error {
	return v.deploy(ctx, o, v.verb, request{})
}

// call is how a verb is called for this place.
func (p *place) call(verb string) string { return call(verb, p.at.dir) }

// callIn is call for one directory.
func callIn(dir string) func(verb string) string {
	return func(verb string) string { return call(verb, dir) }
}

// call is how a verb is called for the agent of a directory.
func call(verb, dir string) string {
	return fmt.Sprintf("deploy-agent %s -dir %s", verb, console.Join([]string{dir}))
}
