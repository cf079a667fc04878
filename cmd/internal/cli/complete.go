package cli

import (
	"context"
	"embed"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"deploytools/registry/console"
)

// completeName is the hidden command that the completion scripts call with the
// words after the program's name, with the quotes that the user has typed, and
// the one under the cursor last, even if it is empty. It prints what this word
// may become, a whole word a line, or completeFiles or completeDirectories alone.
const completeName = "__complete"

// These ask the shell to complete the names of files, or of directories alone.
const (
	completeFiles       = ":files"
	completeDirectories = ":directories"
)

// The scripts, by shell. PROGRAM stands for the name of the program and
// FUNCTION for the same as an identifier.
//
//go:embed completion/*
var completionScripts embed.FS

var shells = []string{"bash", "zsh", "fish"}

// builtins returns the commands that every program has.
func (p *Program) builtins() []Command {
	return []Command{
		{
			Name: "help", Args: "[COMMAND]", Short: "show help", builtin: true,
			New: func() Op { return &helpOp{p: p} },
		}, {
			Name: "version", Short: "show what the program was built from", builtin: true,
			Long: "-version in place of the command does the same.",
			New:  func() Op { return &versionOp{program: p.Name} },
		}, {
			Name: "completion", Args: strings.Join(shells, "|"), Short: "print a completion script for a shell", builtin: true,
			Long: "The script completes " + p.completes() + "\n\n" +
				"In bash it is loaded by the first example, in zsh by the second, in fish by\nthe third.",
			Examples: []string{
				"source <(" + p.Name + " completion bash)",
				"source <(" + p.Name + " completion zsh)",
				p.Name + " completion fish | source",
			},
			New: func() Op { return &completionOp{p} },
		}, {
			Name: completeName, Args: "WORD...", Short: "complete a command line", builtin: true, Hidden: true, Raw: true,
			New: func() Op { return &completeOp{p} },
		},
	}
}

// completes says what the scripts complete.
func (p *Program) completes() string {
	switch {
	case p.Suggest == nil:
		return "commands, flags and file names."
	case p.Alone:
		return "commands, flags, file names, and the names of what the\nhost keeps: configurations, roots, revisions and deployments."
	}
	return "commands, flags, file names, and the names that the\nregistry has, unless it takes too long to answer."
}

// completionOp is the command completion.
type completionOp struct{ p *Program }

func (c *completionOp) Flags(*pflag.FlagSet) {}

func (c *completionOp) Run(_ context.Context, o *IO, args []string) error {
	if len(args) != 1 || !slices.Contains(shells, args[0]) {
		return Usage("completion needs one shell: %s", strings.Join(shells, ", "))
	}
	script, err := completionScripts.ReadFile("completion/completion." + args[0])
	if err != nil {
		return err
	}
	function := strings.ReplaceAll(c.p.Name, "-", "_")
	_, err = strings.NewReplacer("PROGRAM", c.p.Name, "FUNCTION", function).WriteString(o.Stdout, string(script))
	return err
}

// completeOp is the hidden command behind the scripts.
type completeOp struct{ p *Program }

func (c *completeOp) Flags(*pflag.FlagSet) {}

func (c *completeOp) Run(ctx context.Context, o *IO, args []string) error {
	if len(args) == 0 {
		return nil
	}
	words := make([]string, len(args)-1)
	for i := range words {
		words[i] = unquote(args[i], o.Env("HOME"))
	}
	// The last word stays as it is: its quotes may be open still, and no name
	// that is offered begins with quotes.
	_, err := io.WriteString(o.Stdout, strings.Join(c.p.complete(ctx, o, words, args[len(args)-1]), ""))
	return err
}

// unquote returns what the shell makes of a word, as far as nothing has to be
// expanded but a leading ~/; other words stay as they are.
func unquote(word, home string) string {
	words, err := console.Split(word)
	if err != nil || len(words) != 1 {
		return word
	}
	if rest, ok := strings.CutPrefix(word, "~/"); ok && rest == words[0][2:] && home != "" {
		return home + "/" + rest
	}
	return words[0]
}

// unfinished is a command line of which the last word is being typed.
type unfinished struct {
	words   []string
	word    string
	at      int     // where the command stands in words, or -1
	command Command // none if it is not known here
}

// complete returns the lines that complete word, which follows words.
func (p *Program) complete(ctx context.Context, o *IO, words []string, word string) []string {
	fs := p.flagSet()
	u, positional := unfinished{words: words, word: word, at: -1}, 0
	for i := 0; i < len(words); i++ {
		if flag := valueFlag(fs, words[i]); flag != nil {
			if i++; i == len(words) {
				return p.completeValue(ctx, o, u, flag)
			}
			continue
		}
		if strings.HasPrefix(words[i], "-") {
			continue
		}
		if u.at >= 0 {
			positional++
			continue
		}
		c, ok := p.command(words[i])
		u.command, u.at = c, i
		if !ok {
			return p.suggest(ctx, o, u)
		}
		fs = newFlagSet(c.Name, c.New().Flags)
	}
	name, _, valued := strings.Cut(word, "=")
	switch {
	case strings.HasPrefix(word, "-") && valued:
		return p.completeValue(ctx, o, u, valueFlag(fs, name))
	case strings.HasPrefix(word, "-"):
		return lines(word, flagNames(fs, word), false)
	case u.at < 0 || u.command.Name == "help" && positional == 0:
		return lines(word, p.names(), false)
	case u.command.Name == "completion" && positional == 0:
		return lines(word, shells, false)
	case u.command.Named, u.command.Raw && u.command.Args != "":
		return p.suggest(ctx, o, u)
	}
	return lines(word, nil, u.command.Files)
}

// completeValue completes the value of a flag, which may stand in one word with
// it, -flag=value. The flag is nil if it is not known here.
func (p *Program) completeValue(ctx context.Context, o *IO, u unfinished, flag *pflag.Flag) []string {
	if flag != nil && flag.Annotations[annotationFile] != nil {
		if what, _ := pflag.UnquoteUsage(flag); what == "directory" {
			return []string{completeDirectories + "\n"}
		}
		return lines(u.word, nil, true)
	}
	if !u.command.Raw && (flag == nil || flag.Annotations[annotationNamed] == nil) {
		return nil
	}
	return p.suggest(ctx, o, u)
}

// suggest returns the lines for what Suggest knows, with the program's own
// flags set as they are for the command.
func (p *Program) suggest(ctx context.Context, o *IO, u unfinished) []string {
	if p.Suggest == nil {
		return nil
	}
	own := p.flagSet()
	if console.ParseFlags(own, u.words[:u.at], false) != nil || fromEnv(own, p.prefix(), o.lookup) != nil {
		return nil
	}
	return lines(u.word, p.Suggest(ctx, o, u.words[u.at:], u.word), false)
}

// lines returns the candidates that begin with word, or the request for files.
func lines(word string, candidates []string, files bool) []string {
	if files {
		return []string{completeFiles + "\n"}
	}
	var out []string
	for _, c := range candidates {
		if strings.HasPrefix(c, word) {
			out = append(out, fmt.Sprintln(c))
		}
	}
	return out
}

// valueFlag returns the flag that takes the word after this one as its value,
// or nil.
func valueFlag(fs *pflag.FlagSet, word string) *pflag.Flag {
	name, dashed := strings.CutPrefix(word, "-")
	if !dashed || name == "" {
		return nil
	}
	flag := fs.Lookup(strings.TrimPrefix(name, "-"))
	if flag == nil || flag.NoOptDefVal != "" {
		return nil
	}
	return flag
}

// flagNames returns the flags with as many dashes as the user began with.
func flagNames(fs *pflag.FlagSet, word string) []string {
	dashes := "-"
	if strings.HasPrefix(word, "--") {
		dashes = "--"
	}
	out := []string{}
	fs.VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			out = append(out, dashes+f.Name)
		}
	})
	return append(out, dashes+"help")
}
