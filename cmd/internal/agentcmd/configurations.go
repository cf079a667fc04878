package agentcmd

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"deploytools/agent"
	"deploytools/cmd/internal/cli"
	"deploytools/registry/wire"
)

// nameHere stands for the configuration's name in the names of files.
const nameHere = "{name}"

// ofTheAgent are the flags that are the same for every configuration of a
// process.
var ofTheAgent = []string{"addr", "fp", "known-hosts", "key", "instance", "max-rate", "name", "dir", "settings", "once", "retry", "dry-run", "http", "metrics-file", "log-format", "verbose"}

// configurations returns what the machine of each configuration takes, and the
// configurations whose settings cannot be used; the error says that none can, or
// what is wrong with all. Sources and observers are left to the caller.
func (s *settings) configurations() (all []agent.Options, bad []*misfit, _ error) {
	texts := splitLines(s.names)
	if len(texts) == 0 {
		return nil, nil, cli.Usage("-name should be set: the configuration to deploy")
	}
	dirs, states := map[string]string{}, map[string]string{}
	for i, text := range texts {
		name, _, err := cutName(text)
		if err != nil {
			return nil, nil, err
		}
		if slices.ContainsFunc(texts[:i], func(other string) bool { n, _, _ := strings.Cut(other, "="); return n == name }) {
			return nil, nil, cli.Usage("-name %s: there is a configuration %s already", text, name)
		}
		o, err := s.optionsOf(text)
		if err != nil {
			bad = append(bad, s.misfitOf(text, err))
			continue
		}
		if other, taken := dirs[real(o.Dir)]; taken {
			return nil, nil, cli.WithHint(cli.Usage("configurations %s and %s cannot share the directory %s", other, o.Name, o.Dir),
				"give each its own: -name "+o.Name+"=DIRECTORY")
		}
		dirs[real(o.Dir)] = o.Name
		if o.StateFile != "" {
			if other, taken := states[real(o.StateFile)]; taken {
				return nil, nil, cli.Usage("configurations %s and %s cannot share the state file %s: put {name} into -state", other, o.Name, o.StateFile)
			}
			states[real(o.StateFile)] = o.Name
		}
		all = append(all, o)
	}
	if err := publishApart(all); err != nil {
		return nil, nil, err
	}
	if len(all) == 0 {
		return nil, nil, errors.Unwrap(bad[0].err)
	}
	for _, m := range bad {
		if _, taken := dirs[real(m.dir)]; taken {
			m.dir = ""
		}
	}
	return all, bad, nil
}

// optionsOf returns what the machine of one configuration takes. text is a value
// of -name.
func (s *settings) optionsOf(text string) (agent.Options, error) {
	part, err := s.part(text)
	if err != nil {
		return agent.Options{}, err
	}
	o, err := part.options()
	if err != nil && part.settingsFile != "" && s.settingsFile != "" {
		err = cli.Usage("configuration %s: %w", part.name, err)
	}
	return o, err
}

// cutName reads a value of -name. Without a directory it is "".
func cutName(text string) (name, dir string, err error) {
	name, dir, placed := strings.Cut(text, "=")
	if err := wire.CheckName(name); err != nil {
		return "", "", cli.Usage("-name %q: %w", text, err)
	}
	if placed && dir == "" {
		return "", "", cli.Usage("-name %q: should have a directory behind the =", text)
	}
	return name, dir, nil
}

// part returns the settings of one configuration. text is a value of -name.
func (s *settings) part(text string) (*settings, error) {
	name, dir, err := cutName(text)
	if err != nil {
		return nil, err
	}
	file := strings.ReplaceAll(s.settingsFile, nameHere, name)
	vars, err := readEnvironment(file)
	if errors.Is(err, fs.ErrNotExist) && file != s.settingsFile { // a configuration may have none
		err = nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, cli.WithHint(cli.Usage("-settings %s: there is no such file", file), "give the name of the file that has the settings, or leave -settings out; a name with "+nameHere+" is of a file that may be missing")
	}
	if err != nil {
		return nil, cli.Usage("-settings %s: %w", file, err)
	}
	if unknown := cli.UnknownVariables(s.set, envPrefix, maps.Keys(vars)); len(unknown) > 0 {
		return nil, cli.Usage("-settings %s: %w", file, errors.Join(unknown...))
	}
	var part settings
	set := pflag.NewFlagSet(s.set.Name(), pflag.ContinueOnError)
	part.flags(set)
	err = cli.Overlay(set, s.set, envPrefix, lookup(vars), ofTheAgent...)
	if err == nil {
		err = cli.ExpandFiles(set, nameHere, name)
	}
	if err != nil && file != "" {
		return nil, cli.Usage("-settings %s: %w", file, err)
	}
	if err != nil {
		return nil, err
	}
	part.name = name
	if dir != "" {
		part.dir = dir
		if part.stateFile != "" && !filepath.IsAbs(part.stateFile) {
			part.stateFile = filepath.Join(dir, part.stateFile)
		}
	}
	return &part, nil
}

// named returns the one value of -name whose directory this is; "": there is none, or
// several share it.
func (s *settings) named(dir string) string {
	var found []string
	for _, text := range splitLines(s.names) {
		if part, err := s.part(text); err == nil && real(part.dir) == real(dir) {
			found = append(found, text)
		}
	}
	if len(found) != 1 {
		return ""
	}
	return found[0]
}

// envPrefix begins the names of our variables.
const envPrefix = "DEPLOY_AGENT"

// lookup returns what asks for one of the variables.
func lookup(vars map[string]string) func(name string) (value string, set bool) {
	return func(name string) (string, bool) { value, set := vars[name]; return value, set }
}

// readEnvironment reads the variables of one configuration.
func readEnvironment(file string) (map[string]string, error) {
	if file == "" {
		return nil, nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return parseEnvironment(string(b))
}

// real returns the one name of a place that may have several. What is not there
// yet, or cannot be looked at, has the one that it is given.
func real(path string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(abs)); err == nil {
		abs = filepath.Join(dir, filepath.Base(abs))
	}
	if whole, err := filepath.EvalSymlinks(abs); err == nil {
		return whole
	}
	return abs
}
