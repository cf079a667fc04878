package cli

import (
	"context"
	"embed"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// completeName is the hidden command that the completion scripts call with the
// words after the program's name, the one under the cursor last, even if it is
// empty. It prints one candidate a line, or completeFiles alone.
const completeName = "__complete"

// completeFiles asks the shell to complete the names of files.
const completeFiles = ":files"

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
			New: func() Op { return &helpOp{p} },
		}, {
			Name: "version", Short: "show what the program was built from", builtin: true,
			Long: "-version in place of the command does the same.",
			New:  func() Op { return &versionOp{program: p.Name} },
		}, {
			Name: "completion", Args: strings.Join(shells, "|"), Short: "print a completion script for a shell", builtin: true,
			Long: "The script completes commands, flags and file names.\n\n" +
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

func (c *completeOp) Run(_ context.Context, o *IO, args []string) error {
	if len(args) == 0 {
		return nil
	}
	_, err := io.WriteString(o.Stdout, strings.Join(c.p.complete(args[:len(args)-1], args[len(args)-1]), ""))
	return err
}

// complete returns the lines that complete word, which follows words.
func (p *Program) complete(words []string, word string) []string {
	fs := p.flagSet()
	command, files, positional := Command{}, false, 0
	for i := 0; i < len(words); i++ {
		if flag := valueFlag(fs, words[i]); flag != nil {
			if i++; i == len(words) {
				return lines(word, nil, flag.Annotations[annotationFile] != nil)
			}
			continue
		}
		if strings.HasPrefix(words[i], "-") {
			continue
		}
		if command.Name != "" {
			positional++
			continue
		}
		c, ok := p.command(words[i])
		if !ok {
			return nil
		}
		command, fs, files = c, newFlagSet(c.Name, c.New().Flags), c.Files
	}
	switch {
	case strings.HasPrefix(word, "-"):
		return lines(word, flagNames(fs, word), false)
	case command.Name == "" || command.Name == "help" && positional == 0:
		return lines(word, p.names(), false)
	case command.Name == "completion" && positional == 0:
		return lines(word, shells, false)
	}
	return lines(word, nil, files)
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
