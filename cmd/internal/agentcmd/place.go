package agentcmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"deploytools/agent"
	"deploytools/atomic"
	"deploytools/cmd/internal/cli"
	"deploytools/cmd/internal/control"
	"deploytools/registry/console"
	"deploytools/registry/wire"
)

// place is the directory that a verb is about, and how its result is shown.
type place struct {
	s         *settings // of the program
	at        *settings // of what is meant, as find has found it
	dir, name string
	json      bool
}

func (p *place) flags(fs *pflag.FlagSet) {
	fs.StringVar(&p.dir, "dir", "", "`directory` of the agent; as -dir of the program when not given")
	fs.StringVar(&p.name, "name", "", "`name` of the configuration, where the directory is that of the unit, "+agent.UnitDir+"/NAME")
	fs.BoolVar(&p.json, "json", false, "print one JSON object")
	cli.FileFlag(fs, "dir")
	cli.NamedFlag(fs, "name")
}

func (p *place) show(o *cli.IO, r console.Result) error { return console.Show(o.Stdout, r, p.json) }

// find decides which directory is meant, and with which settings: those of the
// verb's flags, of the program's, or of the unit.
func (p *place) find() error {
	text, err := p.named()
	if err != nil {
		return err
	}
	p.at = p.s
	if text != "" {
		if p.at, err = p.s.part(text); err != nil {
			return err
		}
	}
	unit := filepath.Join(agent.UnitDir, p.at.name)
	switch {
	case p.dir != "" && p.at.name != "":
		p.at.dir = strings.ReplaceAll(p.dir, nameHere, p.at.name)
	case p.dir != "":
		p.at.dir = p.dir
	case worked(p.at.dir, p.at.name):
	case p.at.name != "" && (worked(unit, p.at.name) || !p.at.given("dir") && !strings.Contains(text, "=")):
		p.at.dir = unit
	case p.at.name == "" && !p.at.given("dir"):
		dirs, _ := filepath.Glob(filepath.Join(agent.UnitDir, "*", "journal.json")) // no error: the pattern is sound
		if len(dirs) > 1 {
			return tooMany()
		} else if len(dirs) == 1 {
			p.at.dir = filepath.Dir(dirs[0])
		}
	}
	return belongs(p.at.dir, p.at.name)
}

// ofRecord takes the settings of the configuration that the directory is of, for what they
// count where none was named.
func (p *place) ofRecord() error {
	a, err := agent.Look(agent.Options{Dir: p.at.dir})
	if err != nil {
		return nil // others say what is wrong there
	}
	dir := p.at.dir
	if p.at, err = p.s.part(a.Record().Name); err != nil {
		return err
	}
	p.at.dir = dir
	return nil
}

// foreignHint is for who works in the directory of another configuration.
const foreignHint = "each has a directory of its own: name it with -dir, in which {name} may stand for the name"

// belongs refuses a directory of another configuration than is meant. Where
// nobody has worked, or the record cannot be read, others say so.
func belongs(dir, name string) error {
	a, err := agent.Look(agent.Options{Dir: dir})
	if err != nil || name == "" || a.Record().Name == name {
		return nil
	}
	return cli.WithHint(cli.WithStatus(fmt.Errorf("%s %w %q, not %q", dir, agent.ErrForeign, a.Record().Name, name), wire.NotFound),
		foreignHint)
}

// named returns the configuration that is meant, as -name of the program has it,
// or nothing.
func (p *place) named() (string, error) {
	all := splitLines(p.s.names)
	for _, text := range all {
		if name, _, _ := strings.Cut(text, "="); p.name == name {
			return text, nil
		}
	}
	switch {
	case p.name != "":
		return p.name, nil
	case len(all) > 1 && p.dir == "":
		return "", tooMany()
	case len(all) == 1:
		return all[0], nil
	}
	return "", nil
}

func tooMany() error {
	return cli.WithHint(cli.Usage("there are several configurations"), "say which one is meant: -name NAME behind the verb, or -dir DIR")
}

// worked reports whether an agent has worked in the directory, for this name if
// it is given. A record that cannot be read is some agent's.
func worked(dir, name string) bool {
	a, err := agent.Look(agent.Options{Dir: dir})
	if err != nil {
		return name == "" && !errors.Is(err, agent.ErrNothing)
	}
	return name == "" || a.Record().Name == name
}

// ask has the agent that runs in the place answer. The error wraps
// control.ErrNobody where there is none.
func (p *place) ask(ctx context.Context, o *cli.IO, verb string, r request, result any) error {
	if err := p.find(); err != nil {
		return err
	}
	err := control.Call(ctx, p.at.dir, verb, r, func(text string) { fmt.Fprintln(o.Stderr, "note:", cli.Clean(text)) }, result)
	if errors.Is(err, fs.ErrPermission) {
		return p.lost(err)
	}
	return err
}

// look answers from the disk.
func (p *place) look(ctx context.Context, verb string, r request, result any) error {
	if verb == "gc" {
		if err := p.ofRecord(); err != nil {
			return err
		}
	}
	if _, err := p.at.retention(); err != nil {
		return err
	}
	a, err := agent.Look(p.viewing())
	if err != nil {
		return p.lost(err)
	}
	if err := into(result)(reply(ctx, a, verb, r, func(string) {})); err != nil {
		return err
	}
	if s, ok := result.(*statusResult); ok {
		s.Silent = busy(p.at.dir)
	}
	return nil
}

// act changes the record: by the agent, or where none runs directly.
func (p *place) act(ctx context.Context, o *cli.IO, verb string, r request) error {
	var result statusResult
	err := p.ask(ctx, o, verb, r, &result)
	if errors.Is(err, control.ErrNobody) {
		err = p.actAlone(ctx, o, verb, r, &result)
	}
	if err != nil {
		return err
	}
	return p.show(o, result)
}

func (p *place) actAlone(ctx context.Context, o *cli.IO, verb string, r request, result any) error {
	if err := p.become(o); err != nil {
		return err
	}
	a, release, err := agent.Alone(ctx, p.viewing())
	if err != nil {
		return p.lost(err)
	}
	defer release()
	note := "no agent runs there; it counts when one does"
	if verb == "resume" && a.Record().Removing != nil {
		note = calledOff(p.call)
	}
	notes := func(text string) { fmt.Fprintln(o.Stderr, "note:", cli.Clean(text)) }
	if err := into(result)(reply(ctx, a, verb, r, notes)); err != nil {
		return err
	}
	notes(note)
	return nil
}

// deploy has the agent deploy something, or where none runs one that is made for
// it.
func (p *place) deploy(ctx context.Context, o *cli.IO, verb string, r request) error {
	var result actResult
	err := p.ask(ctx, o, verb, r, &result)
	if errors.Is(err, control.ErrNobody) {
		err = p.deployAlone(ctx, o, verb, r, &result)
	}
	if result.Name != "" {
		result.kept = err != nil
		err = errors.Join(err, p.show(o, result))
	}
	return err
}

func (p *place) deployAlone(ctx context.Context, o *cli.IO, verb string, r request, result any) error {
	if busy(p.at.dir) {
		return p.lost(atomic.ErrLocked)
	}
	if a, err := agent.Look(p.viewing()); err == nil {
		if a.Record().Removing != nil { // no agent could be started either
			return explainTo(fmt.Errorf("configuration %q %w", a.Record().Name, agent.ErrRemoving), p.call)
		}
		if err := p.ofRecord(); err != nil {
			return err
		}
	} else if !errors.Is(err, agent.ErrNothing) || !p.at.given("script") {
		return p.lost(err)
	}
	if !p.at.given("script") {
		return cli.WithHint(cli.WithStatus(fmt.Errorf("no agent runs in %s", p.at.dir), wire.NotNow),
			startHint(p.at.dir, p.at.name)+" and say it again; or give its settings before the verb, -script among them: deploy-agent -settings FILE "+verb+" -dir "+console.Join([]string{p.at.dir}))
	}
	if live, err := agent.Look(p.viewing()); err == nil && verb != "rollback" && verb != "dry-run" {
		if err := p.checked(live.Record().Live); err != nil {
			return err
		}
	}
	if err := p.become(o); err != nil {
		return err
	}
	a, err := p.at.brief(o)
	if err != nil {
		return err
	}
	if !p.at.verbose {
		fmt.Fprintln(o.Stderr, "note: no agent runs there, one does for as long as this takes; -v before "+verb+" shows its log")
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- a.Run(running) }()
	answered := make(chan error, 1)
	asking, giveUp := context.WithCancel(ctx)
	defer giveUp()
	go func() {
		answered <- into(result)(reply(asking, a, verb, r, func(text string) { fmt.Fprintln(o.Stderr, "note:", cli.Clean(text)) }))
	}()
	select {
	case err = <-answered:
		stop()
		<-ended
	case err = <-ended:
		giveUp()
		<-answered
		err = explainTo(err, p.call)
	}
	return err
}

// checked refuses to deploy without checks what takes the place of a root that was
// looked at with checks of the host, unless that was said.
func (p *place) checked(live *agent.Root) error {
	if live == nil || !live.CheckedByHost() || p.at.given("verify") {
		return nil
	}
	return cli.WithHint(cli.Usage("-verify should be set: what is live was deployed with checks of this host"),
		"give the agent's settings before the verb, by -settings FILE or one by one; -verify '' is none")
}

// into returns what takes an answer into result, the pointer of which it is.
func into(result any) func(any, error) error {
	return func(v any, err error) error {
		if v == nil {
			return err
		}
		b, e := json.Marshal(v)
		return errors.Join(err, e, json.Unmarshal(b, result))
	}
}

// viewing are the options of an agent that does not run.
func (p *place) viewing() agent.Options {
	keep, _ := p.at.retention() // look says what is wrong with it, where it counts
	return agent.Options{Name: p.at.name, Dir: p.at.dir, Keep: keep}
}

// lost gives an error about the place its status and what to do.
func (p *place) lost(err error) error {
	switch {
	case errors.Is(err, agent.ErrNothing):
		return cli.WithHint(cli.WithStatus(err, wire.NotFound), "name the directory with -dir, or the configuration with -name")
	case errors.Is(err, atomic.ErrLocked):
		return cli.WithHint(cli.WithStatus(fmt.Errorf("an agent has %s, and does not answer at its %s", p.at.dir, control.Name), wire.NotNow),
			"it may be starting or ending: try again; one of an earlier version has no socket")
	case agent.Damaged(err):
		serves := ""
		if link, e := os.Readlink(filepath.Join(p.at.dir, "current")); e == nil {
			serves = "; `current` names " + link + " as before"
		}
		return cli.WithHint(err, startHint(p.at.dir, p.at.name)+": it makes the record anew from what lies there"+serves)
	case errors.Is(err, fs.ErrPermission):
		return cli.WithHint(cli.WithStatus(err, wire.Denied), "only root and the agent's own user may: use sudo")
	}
	return err
}

// busy reports whether somebody has the directory's lock.
func busy(dir string) bool {
	f, err := os.Open(filepath.Join(dir, "lock"))
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

// given reports whether a flag of the program was set, on the command line or by
// a variable.
func (s *settings) given(flag string) bool { return s.set.Changed(flag) }

// brief returns an agent that runs for the sake of one verb.
func (s *settings) brief(o *cli.IO) (*agent.Agent, error) {
	if s.name == "" {
		return nil, cli.Usage("-name should be set: the configuration to deploy")
	}
	log, err := s.logger(o)
	if err != nil {
		return nil, err
	}
	if !s.verbose {
		log = slog.New(&briefly{w: o.Stderr})
	}
	options, err := s.options()
	if err != nil {
		return nil, err
	}
	options.Mode = agent.Mode{}
	if options.Source, err = s.connect(log); err != nil {
		return nil, err
	}
	options.Observe = agent.Observe{Log: log, Locked: attend(options.Dir, log)}
	a, err := agent.New(options)
	return a, cli.WithStatus(err, wire.Usage)
}
