package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"deploytools/registry"
	"deploytools/registry/wire"
)

// Command is one command of the console.
type Command struct {
	Name, Short, Long string
	Args              string        // what follows the flags; "" means nothing
	Role              registry.Role // the least that may run it
	Reach             Reach         // what a key with configs= may do with it
	Mutates           bool          // it changes something, which goes on record
	Rows              bool          // under -json it prints an object for each row
	Stdin             bool          // it reads standard input; the others are given none
	Hidden            bool          // in no list and no document
	Raw               bool          // it writes bytes, and has no -json
	Examples          []string
	Statuses          []wire.Status // that it returns, besides 0, 1 and 2
	New               func() Op     // fresh flag values every time
}

// Op is one call of a command: a struct whose fields are its flags.
type Op interface {
	Flags(*pflag.FlagSet)
	// Run does the work. Its errors are the domain's; nothing is printed.
	Run(ctx context.Context, s *Session, args []string) (Result, error)
}

// Reach says how a command keeps to the scope of a caller (registry.Scope). The
// zero value is the careful one.
type Reach int

const (
	// AllConfigurations: what it shows or changes belongs to no one
	// configuration; callers with a scope may not run it.
	AllConfigurations Reach = iota
	// OwnConfigurations: it shows and changes configurations of the caller's
	// only. An Op about one configuration says so as a confined.
	OwnConfigurations
	// NoConfiguration: it shows and changes nothing of any configuration.
	NoConfiguration
)

// confined is an Op about one configuration, which is looked at before it runs
// and before it suggests anything.
type confined interface {
	configuration() string // as its flags or words name it; "" where they do not
}

// Result is what a command found out. The same value is marshalled under -json,
// so text and JSON cannot differ. A nil Result prints nothing as text.
type Result interface {
	Text(w io.Writer) error
}

// rows is a Result of many, which are printed as they come: a line each, or a
// JSON object each.
type rows iter.Seq2[Result, error]

// Text prints the rows up to the first error.
func (r rows) Text(w io.Writer) error {
	for row, err := range r {
		if err != nil {
			return err
		}
		if err := row.Text(w); err != nil {
			return err
		}
	}
	return nil
}

// suggester is an optional ability of an Op: to complete the value of a flag.
type suggester interface {
	suggest(ctx context.Context, s *Session, flag string) ([]string, error)
}

// Session is one caller's connection to the console. It is not safe for
// concurrent use.
type Session struct {
	Registry *registry.Registry
	Caller   registry.Caller
	Stdin    io.Reader
	Stdout   io.Writer
	Stderr   io.Writer
	Build    wire.Build // of this registry
	Daemon   Daemon     // around the registry; nil: none
	// Ran, if not nil, is told of each line that Exec has run, those of a
	// script too, but not of empty ones.
	Ran func(line string, took time.Duration, status wire.Status)

	json     bool     // commands print JSON unless told otherwise
	words    []string // of the command that runs
	scripted bool     // Stdin is the script that runs
}

// Exec runs one command line as ssh sends it, and reports errors on Stderr. An
// empty line does nothing.
func Exec(ctx context.Context, s *Session, line string) wire.Status {
	started := time.Now()
	status := s.exec(ctx, line)
	if s.Ran != nil && strings.TrimSpace(line) != "" {
		s.Ran(line, time.Since(started), status)
	}
	return status
}

func (s *Session) exec(ctx context.Context, line string) wire.Status {
	words, err := Split(line)
	if err != nil {
		return s.report(usage("%v", err))
	}
	if len(words) == 0 {
		return wire.OK
	}
	return Run(ctx, s, words)
}

// Run runs one command, given as words, and reports errors on Stderr.
func Run(ctx context.Context, s *Session, words []string) wire.Status {
	here := *s
	return here.report(here.run(ctx, words))
}

// run sets s.json as soon as it is known.
func (s *Session) run(ctx context.Context, words []string) error {
	if len(words) == 0 {
		return usage("no command is given")
	}
	// Errors of the command line itself should have the form asked for, too.
	s.words = words
	before := s.json
	s.json = before || slices.Contains(words, "-json") || slices.Contains(words, "--json")
	c, ok := Lookup(words[0])
	if !ok {
		return unknownCommand(words[0])
	}
	op := c.New()
	fs := c.flagSet(op)
	err := ParseFlags(fs, words[1:], true)
	if errors.Is(err, pflag.ErrHelp) {
		return c.Page().Text(s.Stdout)
	}
	hint := fmt.Sprintf("see 'help %s'", c.Name)
	if err == nil && c.Args == "" && fs.NArg() > 0 {
		err = fmt.Errorf("unexpected argument %q", fs.Arg(0))
		if f := fs.Lookup("name"); f != nil && !f.Changed && wire.CheckName(fs.Arg(0)) == nil {
			hint = "if it is a name: -name " + fs.Arg(0)
		}
	}
	if err != nil {
		if s.Caller.Role < c.Role { // whatever the flags
			err := s.allowed(c, op)
			s.refused(ctx, fs, err)
			return err
		}
		return &registry.Error{Kind: registry.ErrUsage, Text: err.Error(), Hint: hint}
	}
	args := adopted(op, fs.Args())
	s.json = before
	if f := fs.Lookup("json"); f.Changed {
		s.json = f.Value.String() == "true"
	}
	if c.Raw && s.json {
		return usage("%s writes bytes and knows no -json", c.Name)
	}
	if err := s.allowed(c, op); err != nil {
		s.refused(ctx, fs, err)
		return err
	}
	result, err := op.Run(ctx, s, args)
	if e, ok := errors.AsType[*registry.Error](err); ok && e.Hint == "" && errors.Is(e, registry.ErrUsage) {
		e.Hint = hint
	}
	if err != nil {
		failed := c.Mutates && !isDryRun(fs) && !errors.Is(err, registry.ErrNoContent)
		if failed || errors.Is(err, registry.ErrDenied) {
			s.refused(ctx, fs, err)
		}
		return err
	}
	err = s.show(result)
	if errors.Is(err, registry.ErrDenied) { // of what is looked up only then
		s.refused(ctx, fs, err)
	}
	return err
}

// allowed returns ErrDenied for what the caller's key does not allow.
func (s *Session) allowed(c Command, op Op) error {
	denied := func(format string, args ...any) error {
		return &registry.Error{Kind: registry.ErrDenied, Text: fmt.Sprintf(format, args...)}
	}
	if s.Caller.Role < c.Role {
		return denied("%s needs the role %s, your key has %s", c.Name, c.Role, s.Caller.Role)
	}
	if c.Reach == AllConfigurations && s.Caller.Configs != "" {
		return denied("%s is for keys that may see every configuration, yours has configs=%q", c.Name, string(s.Caller.Configs))
	}
	if op, ok := op.(confined); ok {
		if name := op.configuration(); name != "" {
			return s.Caller.CheckScope(name)
		}
	}
	return nil
}

// flagSet returns the flags of the command: its own and -json, which a raw one
// knows to refuse it.
func (c Command) flagSet(op Op) *pflag.FlagSet {
	fs := pflag.NewFlagSet(c.Name, pflag.ContinueOnError)
	fs.SortFlags = false
	op.Flags(fs)
	c.flagJSON(fs)
	return fs
}

func (c Command) flagJSON(fs *pflag.FlagSet) {
	text := "print one JSON object"
	if c.Rows {
		text += " a line"
	}
	fs.Bool("json", false, text)
	fs.Lookup("json").Hidden = c.Raw // which knows it to refuse it
}

// Describe defines the flags of the command, for help: what they are set to is
// lost.
func (c Command) Describe(fs *pflag.FlagSet) {
	c.New().Flags(fs)
	c.flagJSON(fs)
}

// Page returns the help of the command.
func (c Command) Page() Page {
	use := c.Name + " [flags]"
	if c.Args != "" {
		use += " " + c.Args
	}
	return Page{
		Name: c.Name, Usage: use, Short: c.Short, Long: c.Long, Role: c.Role.String(), All: c.Reach == AllConfigurations,
		Flags:    DescribeFlags(c.flagSet(c.New()), nil),
		Examples: c.Examples, Statuses: append([]wire.Status{wire.Denied}, c.Statuses...),
	}
}

// show prints the result. Names in it hold the rule for names; whatever else a
// client chose (paths, comments) is cleaned where it is put in.
func (s *Session) show(result Result) error {
	all, isRows := result.(rows)
	switch {
	case isRows && s.json:
		for row, err := range all {
			if err != nil {
				return err
			}
			if err := encodeJSON(s.Stdout, row); err != nil {
				return err
			}
		}
		return nil
	case s.json && result == nil:
		_, err := fmt.Fprintln(s.Stdout, `{"schema":1}`)
		return err
	case result == nil:
		return nil
	}
	err := Show(s.Stdout, result, s.json)
	if o, ok := result.(outcome); ok && err == nil {
		err = o.Outcome()
	}
	return err
}

// Show writes a result as text, or as one line of JSON.
func Show(w io.Writer, result Result, json bool) error {
	if json {
		return encodeJSON(w, result)
	}
	return result.Text(w)
}

func encodeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// Failure is an error as JSON, on stderr.
type Failure struct {
	Schema Schema      `json:"schema"`
	Error  string      `json:"error,omitempty"` // empty: the result has told
	Hint   string      `json:"hint,omitempty"`
	Status wire.Status `json:"status"`
}

// report prints an error and returns the exit status for it.
func (s *Session) report(err error) wire.Status {
	if err == nil {
		return wire.OK
	}
	if told, ok := errors.AsType[*scriptError](err); ok {
		return told.status
	}
	status, hint := StatusOf(err), ""
	if e, ok := errors.AsType[*registry.Error](err); ok {
		hint = Clean(e.Hint)
	}
	text := Clean(err.Error())
	if s.json {
		encodeJSON(s.Stderr, Failure{Error: text, Hint: hint, Status: status})
		return status
	}
	fmt.Fprintf(s.Stderr, "error: %s\n", text)
	if hint != "" {
		fmt.Fprintf(s.Stderr, "hint: %s\n", hint)
	}
	return status
}

// StatusOf returns the exit status for an error of the domain.
func StatusOf(err error) wire.Status {
	for _, row := range []struct {
		kind   error
		status wire.Status
	}{
		{registry.ErrUsage, wire.Usage}, {registry.ErrNotFound, wire.NotFound},
		{registry.ErrConflict, wire.Conflict}, {registry.ErrDenied, wire.Denied},
	} {
		if errors.Is(err, row.kind) {
			return row.status
		}
	}
	return wire.Failed
}

// Schema is the version of the JSON that commands print. Keys are only added.
type Schema struct{}

// MarshalJSON returns the number.
func (Schema) MarshalJSON() ([]byte, error) { return []byte("1"), nil }

func usage(format string, args ...any) error {
	return &registry.Error{Kind: registry.ErrUsage, Text: fmt.Sprintf(format, args...)}
}

// unknownCommand keeps the text of the original tool set.
func unknownCommand(word string) error {
	e := &registry.Error{Kind: registry.ErrUsage, Text: "Unknown command, supported commands are: " + strings.Join(names(), " ")}
	e.Hint = fmt.Sprintf("%q is no command", word)
	if near := Nearest(word, names()); near != "" {
		e.Hint += ", the nearest is " + near
	}
	return e
}

func names() []string {
	var out []string
	for _, c := range Commands() {
		out = append(out, c.Name)
	}
	return out
}

// Commands returns the commands that are shown, in the order in which help
// lists them.
func Commands() []Command {
	return slices.DeleteFunc(everyCommand(), func(c Command) bool { return c.Hidden })
}

// Lookup returns the command of this name, a hidden one too.
func Lookup(name string) (Command, bool) {
	table := everyCommand()
	i := slices.IndexFunc(table, func(c Command) bool { return c.Name == name })
	if i < 0 {
		return Command{}, false
	}
	return table[i], true
}
