package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/pflag"

	"deploytools/registry/console"
	"deploytools/registry/wire"
)

// page is the help of a program or of one command: one value, shown as text
// for -h and as Markdown for the documents.
type page struct {
	name, usage, short, long string
	commands                 []Command
	flags                    []flagHelp
	examples                 []string
	statuses                 []wire.Status
}

// flagHelp is one flag as help shows it.
type flagHelp struct {
	spelling string // "-addr host:port"
	usage    string
	fallback string   // the default; "" where it goes without saying
	env      []string // variables that set it
}

// page returns the help of the program itself.
func (p *Program) page() page {
	usage := p.Name
	fs := p.flagSet()
	if fs.HasAvailableFlags() {
		usage += " [flags]"
	}
	if p.dispatches() {
		usage += " command [flags] [arguments]"
	} else if p.Args != "" {
		usage += " " + p.Args
	}
	return page{
		name: p.Name, usage: usage, short: p.Short, long: p.Long,
		commands: p.visible(), flags: describe(fs, p.prefix()),
		examples: p.Examples, statuses: allStatuses(p.Statuses),
	}
}

// commandPage returns the help of one command.
func (p *Program) commandPage(c Command) page {
	usage := p.Name + " " + c.Name
	fs := newFlagSet(c.Name, c.New().Flags)
	if fs.HasAvailableFlags() {
		usage += " [flags]"
	}
	if c.Args != "" {
		usage += " " + c.Args
	}
	return page{
		name: p.Name + " " + c.Name, usage: usage, short: c.Short, long: c.Long,
		flags: describe(fs, ""), examples: c.Examples, statuses: allStatuses(c.Statuses),
	}
}

// allStatuses adds what every command can return, and sorts.
func allStatuses(own []wire.Status) []wire.Status {
	all := slices.Concat([]wire.Status{wire.OK, wire.Failed, wire.Usage}, own)
	slices.Sort(all)
	return slices.Compact(all)
}

// describe returns the flags that are shown. Without a prefix no variable sets
// them.
func describe(fs *pflag.FlagSet, prefix string) []flagHelp {
	var out []flagHelp
	fs.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		h := flagHelp{spelling: "-" + f.Name, usage: usage}
		if f.Shorthand != "" {
			h.spelling = "-" + f.Shorthand + ", -" + f.Name
		}
		if value != "" {
			h.spelling += " " + value
		}
		if !slices.Contains([]string{"", "0", "0s", "false", "[]"}, f.DefValue) {
			h.fallback = f.DefValue
		}
		if prefix != "" {
			h.env = variables(prefix, f)
		}
		out = append(out, h)
	})
	return out
}

// notes returns the default and the variables of a flag in brackets, or "".
func (h *flagHelp) notes(code string) string {
	var notes []string
	if h.fallback != "" {
		notes = append(notes, "default "+code+h.fallback+code)
	}
	for _, name := range h.env {
		notes = append(notes, code+"$"+name+code)
	}
	if notes == nil {
		return ""
	}
	return " (" + strings.Join(notes, ", ") + ")"
}

// text prints the page as help for a terminal.
func (p page) text(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n\nUsage:\n  %s\n", p.name, p.short, p.usage)
	if p.long != "" {
		fmt.Fprintf(&b, "\n%s\n", strings.TrimSpace(p.long))
	}
	table := func(title string, rows func(row func(left, right string))) {
		fmt.Fprintf(&b, "\n%s:\n", title)
		t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		rows(func(left, right string) { fmt.Fprintf(t, "  %s\t%s\n", left, right) })
		t.Flush()
	}
	if len(p.commands) > 0 {
		table("Commands", func(row func(left, right string)) {
			for _, c := range p.commands {
				row(c.Name, c.Short)
			}
		})
	}
	table("Flags", func(row func(left, right string)) {
		for _, f := range p.flags {
			row(f.spelling, f.usage+f.notes(""))
		}
		row("-h, -help", "show this text")
	})
	if len(p.examples) > 0 {
		fmt.Fprintf(&b, "\nExamples:\n")
		for _, e := range p.examples {
			fmt.Fprintf(&b, "  %s\n", e)
		}
	}
	table("Exit statuses", func(row func(left, right string)) {
		for _, s := range p.statuses {
			row(s.String(), meaning(s))
		}
	})
	_, err := io.WriteString(w, b.String())
	return err
}

// meaning returns what the table of exit statuses says about s, or nothing.
func meaning(s wire.Status) string {
	for _, row := range wire.Statuses {
		if row.Status == s {
			return row.Meaning
		}
	}
	return ""
}

// helpOp is the command help.
type helpOp struct{ p *Program }

func (h *helpOp) Flags(*pflag.FlagSet) {}

func (h *helpOp) Run(_ context.Context, o *IO, args []string) error {
	if len(args) == 0 {
		return h.p.page().text(o.Stdout)
	}
	if c, ok := h.p.command(args[0]); ok && len(args) == 1 {
		return h.p.commandPage(c).text(o.Stdout)
	}
	word := strings.Join(args, " ")
	if near := console.Nearest(word, h.p.names()); near != "" {
		return Usage("unknown command %q, the nearest is %s", word, near)
	}
	return Usage("unknown command %q", word)
}
