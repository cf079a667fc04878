package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"deploytools/registry/console"
)

// page returns the help of the program itself.
func (p *Program) page() console.Page {
	usage := p.Name
	fs := p.flagSet()
	if fs.HasAvailableFlags() {
		usage += " [flags]"
	}
	if p.Alone {
		usage += " [command [flags] [arguments]]"
	} else if p.dispatches() {
		usage += " command [flags] [arguments]"
	} else if p.Args != "" {
		usage += " " + p.Args
	}
	page := console.Page{
		Name: p.Name, Usage: usage, Short: p.Short, Long: p.Long,
		Flags:    console.DescribeFlags(fs, func(f *pflag.Flag) []string { return variables(p.prefix(), f) }),
		Examples: p.Examples, Statuses: p.Statuses,
	}
	for _, c := range p.visible() {
		page.Commands = append(page.Commands, [2]string{c.Name, c.Short})
	}
	return page
}

// commandPage returns the help of one command.
func (p *Program) commandPage(c Command) console.Page {
	usage := p.Name + " " + c.Name
	fs := newFlagSet(c.Name, c.New().Flags)
	if fs.HasAvailableFlags() {
		usage += " [flags]"
	}
	if c.Args != "" {
		usage += " " + c.Args
	}
	return console.Page{
		Name: p.Name + " " + c.Name, Usage: usage, Short: c.Short, Long: c.Long,
		Flags: console.DescribeFlags(fs, nil), Examples: c.Examples, Statuses: c.Statuses,
	}
}

// helpOp is the command help.
type helpOp struct {
	p    *Program
	json bool
}

func (h *helpOp) Flags(fs *pflag.FlagSet) {
	fs.BoolVar(&h.json, "json", false, "print one JSON object")
}

func (h *helpOp) Run(_ context.Context, o *IO, args []string) error {
	if len(args) == 0 {
		return console.Show(o.Stdout, h.p.page(), h.json)
	}
	if c, ok := h.p.command(args[0]); ok && len(args) == 1 {
		return console.Show(o.Stdout, h.p.commandPage(c), h.json)
	}
	word := strings.Join(args, " ")
	if near := console.Nearest(word, h.p.names()); near != "" {
		return WithHint(Usage("unknown command %q, the nearest is %s", word, near), fmt.Sprintf("run '%s help %s'", h.p.Name, near))
	}
	return WithHint(Usage("unknown command %q", word), fmt.Sprintf("run '%s help'", h.p.Name))
}
