package agentcmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"deploytools/agent"
	"deploytools/cmd/internal/cli"
	"deploytools/cmd/internal/control"
	"deploytools/registry/console"
)

// unitSettings is where the units have their files of variables.
const unitSettings = "/etc/deploy-agent"

// settingsHint says how doctor is given settings.
const settingsHint = "give what the agent is given: flags before doctor, -settings FILE among them, or doctor -env FILE for each file of its unit"

// given is what an agent was given when it was started.
type given struct {
	WorkDir   string            `json:"work_dir"`
	Args      []string          `json:"args"`
	Variables map[string]string `json:"variables"` // that are ours
}

// givenHere is what this process was given.
func givenHere() (given, error) {
	dir, err := os.Getwd()
	g := given{WorkDir: dir, Args: os.Args[1:], Variables: map[string]string{}}
	for _, v := range os.Environ() {
		if name, value, _ := strings.Cut(v, "="); strings.HasPrefix(name, envPrefix+"_") {
			g.Variables[name] = value
		}
	}
	return g, err
}

// taken are the settings that doctor works with.
type taken struct {
	s    *settings
	vars map[string]string // that count besides
	from string            // whose they are; "": nobody's, they are the defaults
	why  error             // it is ""; nil: nobody was asked
}

// taken finds the settings. Where they are those of an agent or of its unit, it goes to
// the directory where that works.
func (v *doctorOp) taken(ctx context.Context) (taken, error) {
	if len(v.env) > 0 {
		return v.ofFiles(v.env, "of "+strings.Join(v.env, " and "))
	}
	given := false
	v.s.set.VisitAll(func(f *pflag.Flag) {
		given = given || f.Changed && !slices.Contains([]string{"name", "dir", "log-format", "verbose"}, f.Name)
	})
	if given {
		return v.ofFiles(nil, "as given")
	}
	if err := v.find(); err != nil {
		t, _ := v.ofFiles(nil, "") // no error: there are no files
		return t, err
	}
	var err error
	if v.dir, err = filepath.Abs(v.at.dir); err != nil {
		return taken{}, err
	}
	v.name = v.at.name
	return v.ofAgent(ctx)
}

// ofAgent returns the settings of the agent that runs in the directory, or of its unit.
func (v *doctorOp) ofAgent(ctx context.Context) (taken, error) {
	var g given
	err := control.Call(ctx, v.dir, "given", nil, func(string) {}, &g)
	if errors.Is(err, control.ErrNobody) {
		return v.ofUnit()
	}
	base, set := &settings{args: g.Args}, pflag.NewFlagSet(v.s.set.Name(), pflag.ContinueOnError)
	base.flags(set)
	if err == nil {
		err = console.ParseFlags(set, g.Args, false)
	}
	if err != nil {
		t, _ := v.ofFiles(nil, "")
		t.why = fmt.Errorf("the agent of %s does not say its own: %w", v.dir, v.lost(err))
		return t, nil
	}
	s := &settings{args: g.Args}
	own := pflag.NewFlagSet(v.s.set.Name(), pflag.ContinueOnError)
	s.flags(own)
	err = cmp.Or(cli.Overlay(own, set, envPrefix, lookup(g.Variables)), os.Chdir(g.WorkDir))
	return taken{s: s, vars: g.Variables, from: "of the agent that runs"}, err
}

// ofUnit returns the settings that a unit would give to the agent of its directory.
func (v *doctorOp) ofUnit() (taken, error) {
	if files := unitFiles(unitSettings, v.dir); len(files) > 0 {
		t, err := v.ofFiles(files, "of "+strings.Join(files, " and "))
		work := v.dir
		if _, shared := unitOf(unitSettings, v.dir, filepath.Base(v.dir)); shared {
			work = filepath.Dir(v.dir)
		}
		if e := os.Chdir(work); err == nil && !errors.Is(e, fs.ErrNotExist) { // the unit makes it
			err = e
		}
		return t, err
	}
	t, err := v.ofFiles(nil, "")
	t.why = fmt.Errorf("no agent runs in %s", v.dir)
	return t, err
}

// unitFiles returns the files in etc that the unit of an agent's directory reads, the one
// that counts most last.
func unitFiles(etc, dir string) (files []string) {
	name := filepath.Base(dir)
	if dir != filepath.Join(agent.UnitDir, name) {
		return nil
	}
	for _, file := range []string{"environment", name + ".environment"} {
		if _, err := os.Stat(filepath.Join(etc, file)); err == nil {
			files = append(files, filepath.Join(etc, file))
		}
	}
	return files
}

// ofFiles returns the settings of the program, with the variables of files.
func (v *doctorOp) ofFiles(files []string, from string) (taken, error) {
	t := taken{s: &settings{}, vars: map[string]string{}, from: from}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			return t, err
		}
		more, err := parseEnvironment(string(b))
		if err != nil {
			return t, fmt.Errorf("%s: %w", file, err)
		}
		maps.Copy(t.vars, more)
	}
	own := pflag.NewFlagSet(v.s.set.Name(), pflag.ContinueOnError)
	t.s.flags(own)
	return t, cli.Overlay(own, v.s.set, envPrefix, lookup(t.vars))
}
