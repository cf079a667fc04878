package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"deploytools/registry/console"
	"deploytools/registry/wire"
)

// Program is one program. Name and Short are needed; a program has Commands,
// or Run, or both. Every program has the commands help, version and completion
// besides. It is used for one call of Main, since the flags may keep what was
// parsed.
type Program struct {
	Name     string // of the program, also for its variables: DEPLOYCTL_*
	Args     string // what Run takes after the flags; "" means nothing
	Short    string // one line, no full stop
	Long     string // paragraphs, without indentation
	Examples []string
	Statuses []wire.Status // that Run returns, besides 0, 1 and 2

	// Flags defines the program's own flags. They stand before the command,
	// and environment variables can set them.
	Flags    func(*pflag.FlagSet)
	Commands []Command
	// Run is the program without a command. Where there are Commands it is
	// given every command line that names none of them, so that it can send
	// commands elsewhere; nil makes those an error.
	Run func(ctx context.Context, o *IO, args []string) error
	// Suggest returns what word may become behind words, a command and what
	// follows it, where the command is Raw, Named or not known here, or for a NamedFlag. It is called
	// while somebody waits with a key pressed: it bounds its time, asks nothing
	// and prints nothing. Nil: nothing.
	Suggest func(ctx context.Context, o *IO, words []string, word string) []string
	// Alone says that Run is what the program does without any words, and that
	// it takes none.
	Alone bool

	json bool // the command that was called is to print JSON
}

// Command is one command of a program.
type Command struct {
	Name     string
	Args     string // what follows the flags, such as "FILE..."; "" means nothing
	Short    string // one line, no full stop
	Long     string // paragraphs, without indentation
	Examples []string
	Statuses []wire.Status // that it returns, besides 0, 1 and 2
	Files    bool          // its arguments are file names, for completion
	Named    bool          // Program.Suggest knows its arguments
	Hidden   bool          // in no list and no document
	// Raw leaves all words after the name to Run, unless the first of them asks
	// for help: for commands that are parsed elsewhere. Flags then only
	// documents them.
	Raw bool
	New func() Op // fresh flag values every time

	builtin bool // needs no settings: runs with a broken environment too
}

// Op is one call of a command: a struct whose fields are its flags.
type Op interface {
	Flags(*pflag.FlagSet)
	Run(ctx context.Context, o *IO, args []string) error
}

// Main runs the program with the words after its name, prints an error to
// stderr, and returns the exit status. It blocks until the command is done.
// Where the command takes -json and has it, the error is one JSON object.
func (p *Program) Main(ctx context.Context, args []string, o *IO) int {
	err := p.run(ctx, args, o)
	if p.json {
		return int(ReportJSON(ctx, o.Stderr, err))
	}
	return int(Report(ctx, o.Stderr, err))
}

func (p *Program) run(ctx context.Context, args []string, o *IO) error {
	// A user who asks for a version wants nothing else to matter.
	if len(args) > 0 && (args[0] == "-version" || args[0] == "--version") {
		args = append([]string{"version"}, args[1:]...)
	}
	fs := p.flagSet()
	err := console.ParseFlags(fs, args, false)
	if errors.Is(err, pflag.ErrHelp) {
		return p.page().Text(o.Stdout)
	}
	if err != nil {
		return p.usage(p.Name, &Error{Status: wire.Usage, Err: err})
	}
	words := fs.Args()
	if len(words) > 0 {
		if c, ok := p.command(words[0]); ok {
			return p.call(ctx, o, fs, c, words[1:])
		}
	}
	if err := p.refuse(words); err != nil {
		return p.usage(p.Name, err)
	}
	if err := fromEnv(fs, p.prefix(), o.lookup); err != nil {
		return p.usage(p.Name, err)
	}
	return p.usage(p.Name, p.Run(ctx, o, words))
}

// refuse returns an error for words that name no command and that Run does not
// take either.
func (p *Program) refuse(words []string) error {
	switch {
	case !p.dispatches() && (p.Args != "" || len(words) == 0):
		return nil
	case !p.dispatches():
		return Usage("unexpected argument %q", words[0])
	case p.Alone && len(words) == 0:
		return nil
	case len(words) == 0:
		return Usage("no command given")
	case p.Run != nil && !p.Alone:
		return nil
	}
	if near := console.Nearest(words[0], p.names()); near != "" {
		return Usage("unknown command %q, the nearest is %s", words[0], near)
	}
	return Usage("unknown command %q", words[0])
}

// dispatches reports whether the program's first argument is a command.
func (p *Program) dispatches() bool { return len(p.Commands) > 0 || p.Run == nil }

// call runs one command. own are the program's flags, parsed.
func (p *Program) call(ctx context.Context, o *IO, own *pflag.FlagSet, c Command, args []string) error {
	op := c.New()
	fs := newFlagSet(c.Name, op.Flags)
	rest, err := c.parse(fs, args)
	p.json = wantsJSON(fs, args)
	if errors.Is(err, pflag.ErrHelp) {
		return p.commandPage(c).Text(o.Stdout)
	}
	name, hint := p.Name+" "+c.Name, ""
	if err == nil && c.Args == "" && !c.Raw && len(rest) > 0 {
		err = fmt.Errorf("unexpected argument %q", rest[0])
		if f := fs.Lookup("to"); f != nil && !f.Changed && "0" <= rest[0] && rest[0] < ":" {
			hint = "if that is where it should go: -to " + console.Join(rest[:1])
		} else if f := fs.Lookup("name"); f != nil && !f.Changed {
			hint = "if it is a name: -name " + console.Join(rest[:1])
		}
	}
	if flag := misplaced(own, fs, c, args, err); flag != "" {
		err, hint = fmt.Errorf("flag -%s should stand before the command", flag), fmt.Sprintf("%s -%s ... %s ...", p.Name, flag, c.Name)
	}
	if err != nil {
		return p.usage(name, &Error{Status: wire.Usage, Hint: hint, Err: err})
	}
	if !c.builtin {
		if err := fromEnv(own, p.prefix(), o.lookup); err != nil {
			return p.usage(p.Name, err)
		}
	}
	return p.usage(name, op.Run(ctx, o, rest))
}

// wantsJSON reports whether the words have -json, which the command knows. They may not
// have been parsed, or not to the end.
func wantsJSON(fs *pflag.FlagSet, args []string) bool {
	f := fs.Lookup("json")
	if f == nil {
		return false
	}
	end := slices.Index(args, "--")
	if end < 0 {
		end = len(args)
	}
	return f.Value.String() == "true" || !f.Changed && slices.ContainsFunc(args[:end], func(word string) bool { return word == "-json" || word == "--json" })
}

// misplaced returns the flag of the program's own among those of the command,
// which does not know it; "": there is none. err is what parse has said. Where the
// words are parsed elsewhere, only that is wrong with them which nobody else takes.
func misplaced(own, fs *pflag.FlagSet, c Command, args []string, err error) string {
	if c.Raw && !c.builtin {
		_, err = console.NormalizeFlags(fs, args, true)
	}
	if unknown, ok := errors.AsType[*console.UnknownFlag](err); ok && own.Lookup(unknown.Name) != nil {
		return unknown.Name
	}
	return ""
}

// parse parses the words after the command's name and returns its arguments.
func (c *Command) parse(fs *pflag.FlagSet, args []string) ([]string, error) {
	if !c.Raw {
		err := console.ParseFlags(fs, args, true)
		return fs.Args(), err
	}
	if len(args) > 0 && !c.builtin {
		switch args[0] {
		case "-h", "-help", "--help":
			return nil, pflag.ErrHelp
		}
	}
	return args, nil
}

// usage adds the way to the help text to an error of usage without a hint,
// unless the user has been told already.
func (p *Program) usage(name string, err error) error {
	if e, ok := errors.AsType[*Error](err); ok && e.Err == nil || StatusOf(err) != wire.Usage || HintOf(err) != "" {
		return err
	}
	return WithHint(err, fmt.Sprintf("run '%s -h'", name))
}

// command returns the command of that name, hidden ones too.
func (p *Program) command(name string) (Command, bool) {
	for _, list := range [][]Command{p.Commands, p.builtins()} {
		for _, c := range list {
			if c.Name == name {
				return c, true
			}
		}
	}
	return Command{}, false
}

// visible returns the commands that help and documents show.
func (p *Program) visible() []Command {
	var out []Command
	for _, list := range [][]Command{p.Commands, p.builtins()} {
		for _, c := range list {
			if !c.Hidden {
				out = append(out, c)
			}
		}
	}
	return out
}

// names returns the names of the visible commands.
func (p *Program) names() []string {
	var out []string
	for _, c := range p.visible() {
		out = append(out, c.Name)
	}
	return out
}

func (p *Program) flagSet() *pflag.FlagSet { return newFlagSet(p.Name, p.Flags) }

// prefix returns how the names of the program's variables begin.
func (p *Program) prefix() string {
	return strings.ToUpper(strings.ReplaceAll(p.Name, "-", "_"))
}

func newFlagSet(name string, define func(*pflag.FlagSet)) *pflag.FlagSet {
	fs := pflag.NewFlagSet(name, pflag.ContinueOnError)
	fs.SortFlags = false // as the author ordered them
	if define != nil {
		define(fs)
	}
	return fs
}
