package agentcmd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"deploytools/agent"
	"deploytools/atomic"
	"deploytools/cmd/internal/cli"
	"deploytools/registry/wire"
)

func (s *settings) removeCommand() cli.Command {
	return cli.Command{
		Name: "remove", Short: "take a configuration off this host",
		Long: `The remove script runs, with DEPLOY_PHASE=remove and the live root as OLDROOT, then the
link ` + "`current`" + ` goes, and then roots, layers, evidence and records: all that the agent has
made in its directory, and nothing else. Where the script fails, nothing is removed:
deploy-agent log shows what it has printed, and deploy-agent resume calls it all off.

The agent of the configuration has to be ended first. What was cut off goes on when it
is said again; until then no agent works in the directory. -keep-data may be another then
as long as nothing is removed. The registry goes on listing the host: see deployctl forget.`,
		Examples: []string{
			"deploy-agent remove -name web -remove-script /etc/deploy-agent/web-remove.sh -dry-run",
			"deploy-agent remove -name web -remove-script '' -keep-data -yes",
		},
		Statuses: []wire.Status{wire.NotFound, wire.Conflict, wire.Denied},
		New:      func() cli.Op { return &removeOp{place: place{s: s}} },
	}
}

// removeOp is the command remove.
type removeOp struct {
	place
	script                string
	set                   *pflag.FlagSet
	dryRun, keepData, yes bool
}

func (v *removeOp) Flags(fs *pflag.FlagSet) {
	v.set = fs
	v.place.flags(fs)
	fs.StringVar(&v.script, "remove-script", "", "`program` that takes it off the host; has to be said here or among the settings of the agent, empty is none")
	fs.BoolVar(&v.keepData, "keep-data", false, "leave roots, layers and evidence: an agent that starts again has nothing to fetch")
	fs.BoolVar(&v.dryRun, "dry-run", false, "only show what would go")
	fs.BoolVar(&v.yes, "yes", false, "do not ask")
	cli.FileFlag(fs, "remove-script")
}

// removal is the result of the command.
type removal struct {
	Schema   schema   `json:"schema"`
	Name     string   `json:"name"`
	Dir      string   `json:"dir"`
	Root     string   `json:"root,omitempty"`          // that was live
	Script   string   `json:"script,omitempty"`        // that runs first
	Unsaid   bool     `json:"script_unsaid,omitempty"` // which that is has to be said for more than a dry run
	Goes     []string `json:"goes"`
	Stays    []string `json:"stays,omitempty"`   // files at fixed paths, and what others have put between what goes
	Mounted  []string `json:"mounted,omitempty"` // in what goes: nothing is done before they are not
	KeepData bool     `json:"keep_data,omitempty"`
	Again    bool     `json:"again,omitempty"` // it had begun before
	Done     bool     `json:"done"`
	Left     []string `json:"left,omitempty"`
}

// Text says it in a few lines.
func (r removal) Text(w io.Writer) error {
	b := bufio.NewWriter(w)
	if r.Done {
		fmt.Fprintf(b, "%s was taken off this host\n", r.Name)
		for _, path := range slices.Compact(slices.Sorted(slices.Values(append(r.Left, r.Stays...)))) {
			fmt.Fprintf(b, "left      %s\n", cli.Clean(path))
		}
		return b.Flush()
	}
	switch {
	case r.Script != "":
		fmt.Fprintf(b, "runs      %s, on %s\n", cli.Clean(r.Script), r.Root)
	case r.Unsaid:
		fmt.Fprintf(b, "runs      the program of -remove-script, which has to be said\n")
	case r.Root != "":
		fmt.Fprintf(b, "runs      nothing, %s is live\n", r.Root)
	}
	for _, path := range r.Goes {
		fmt.Fprintf(b, "goes      %s\n", cli.Clean(path))
	}
	for _, path := range r.Stays {
		fmt.Fprintf(b, "stays     %s\n", cli.Clean(path))
	}
	for _, path := range r.Mounted {
		fmt.Fprintf(b, "mounted   %s, in what goes: umount it first\n", cli.Clean(path))
	}
	return b.Flush()
}

func (v *removeOp) Run(ctx context.Context, o *cli.IO, _ []string) error {
	a, err := v.machine(o)
	if err != nil {
		return err
	}
	m, err := a.Remains(v.keepData)
	if err != nil {
		return v.refused(err)
	}
	r := removal{Name: m.Name, Dir: m.Dir, Root: m.Root, Script: m.Script, Goes: m.Gone, Stays: m.Stays, Mounted: m.Mounted, KeepData: m.KeepData, Again: m.Again}
	if m.StateFile != "" {
		r.Goes = append(r.Goes, m.StateFile)
	}
	if v.dryRun {
		r.Unsaid = !v.set.Changed("remove-script") && !v.at.given("remove-script")
		return v.show(o, r)
	}
	if err := v.confirm(o, r); err != nil {
		return err
	}
	if err := a.Remove(ctx, v.keepData); err != nil {
		return v.refused(err)
	}
	r.Done, r.Left = true, a.Leftovers()
	return v.show(o, r)
}

// machine returns the agent that is to be removed.
func (v *removeOp) machine(o *cli.IO) (*agent.Agent, error) {
	if err := v.find(); err != nil {
		return nil, err
	}
	if err := v.become(o); err != nil {
		return nil, err
	}
	if err := v.ofRecord(); err != nil {
		return nil, err
	}
	s := v.at
	there, err := agent.Look(agent.Options{Dir: s.dir, Name: s.name})
	if err != nil {
		return nil, v.refused(err)
	}
	s.name = there.Record().Name
	switch {
	case v.set.Changed("remove-script"):
		s.removeScript = v.script
	case !s.given("remove-script") && !v.dryRun:
		return nil, cli.WithHint(cli.Usage("-remove-script should say which program takes %s off the host", s.name),
			"give it, or -remove-script '' where there is nothing to stop")
	}
	if !s.given("state") {
		s.stateFile = filepath.Join(s.dir, s.stateFile)
	}
	options, err := s.options()
	if err != nil {
		return nil, err
	}
	options.Mode = agent.Mode{}
	if options.Observe.Log, err = s.logger(o); err != nil {
		return nil, err
	}
	if options.Source, err = s.connect(options.Observe.Log); err != nil {
		return nil, err
	}
	a, err := agent.New(options)
	return a, cli.WithStatus(err, wire.Usage)
}

// confirm asks a person, or wants to have been told.
func (v *removeOp) confirm(o *cli.IO, r removal) error {
	if v.yes {
		return nil
	}
	if !o.IsTerminal(o.Stdin) {
		return cli.WithHint(cli.Usage("nobody is there to ask"), "-dry-run shows what would go, -yes does it")
	}
	if err := r.Text(o.Stderr); err != nil {
		return err
	}
	fmt.Fprintf(o.Stderr, "Type %s to remove it: ", r.Name)
	answer, err := bufio.NewReader(io.LimitReader(o.Stdin, 1024)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if strings.TrimSpace(answer) != r.Name {
		return errors.New("not confirmed, nothing was removed")
	}
	return nil
}

// removingHint is for whoever finds a removal that has begun.
func removingHint(call func(verb string) string) string {
	return call("remove") + " brings that to its end; " + call("resume") + " calls it off as long as nothing is removed"
}

// calledOff is what resume says where it was a removal.
func calledOff(call func(verb string) string) string {
	return "the removal is called off; what the remove script has done stays done: " + call("repair") + " deploys what is live once more"
}

// refused gives an error its status and what to do.
func (v *removeOp) refused(err error) error {
	script, failed := errors.AsType[*agent.RemoveScriptError](err)
	switch {
	case failed && script.Ran:
		return cli.WithHint(cli.WithStatus(err, wire.Failed), fmt.Sprintf("nothing is removed, and no agent works here until it is: '%s' shows what it has printed; mend it and say remove again, or '%s' calls it off",
			v.call("log -phase remove"), v.call("resume")))
	case failed:
		return cli.WithHint(cli.WithStatus(err, wire.Failed), "nothing has begun; give the path of a program, which counts from the directory where you are")
	case errors.Is(err, agent.ErrGoing):
		return cli.WithHint(cli.WithStatus(err, wire.Conflict), "without -keep-data it goes on to its end")
	case errors.Is(err, agent.ErrMounted):
		return cli.WithHint(cli.WithStatus(err, wire.Conflict), "nothing was removed; umount that, and say remove again")
	case errors.Is(err, atomic.ErrLocked):
		return cli.WithHint(cli.WithStatus(err, wire.Conflict), endHint(v.at.dir, v.at.name))
	case errors.Is(err, agent.ErrUnderWay):
		return cli.WithHint(cli.WithStatus(err, wire.Conflict), "let the agent come to an end: start it, or run it with -once")
	}
	return cli.Unwritable(v.lost(err))
}
