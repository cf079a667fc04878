package cli

import (
	"fmt"
	"io"
	"strings"
)

// Markdown writes the reference of the program and of all its commands: the
// help texts as one section, headed at level 2.
func (p *Program) Markdown(w io.Writer) error {
	var b strings.Builder
	p.page().markdown(&b, "##")
	for _, c := range p.visible() {
		p.commandPage(c).markdown(&b, "###")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (p page) markdown(b *strings.Builder, heading string) {
	fmt.Fprintf(b, "%s %s\n\n%s%s.\n\n```\n%s\n```\n\n", heading, p.name, strings.ToUpper(p.short[:1]), p.short[1:], p.usage)
	if p.long != "" {
		fmt.Fprintf(b, "%s\n\n", strings.TrimSpace(p.long))
	}
	if len(p.commands) > 0 {
		b.WriteString("| command | |\n|---|---|\n")
		for _, c := range p.commands {
			fmt.Fprintf(b, "| `%s` | %s |\n", c.Name, cell(c.Short))
		}
		b.WriteString("\n")
	}
	if len(p.flags) > 0 {
		b.WriteString("| flag | |\n|---|---|\n")
		for _, f := range p.flags {
			fmt.Fprintf(b, "| `%s` | %s |\n", cell(f.spelling), cell(f.usage+f.notes("`")))
		}
		b.WriteString("\n")
	}
	if len(p.examples) > 0 {
		fmt.Fprintf(b, "```\n%s\n```\n\n", strings.Join(p.examples, "\n"))
	}
	b.WriteString("Exit statuses:")
	for i, s := range p.statuses {
		if i > 0 {
			b.WriteString(",")
		}
		fmt.Fprintf(b, " %s", s)
	}
	b.WriteString(".\n\n")
}

// cell makes s fit into one cell of a table.
func cell(s string) string {
	return strings.NewReplacer("|", `\|`, "\n", " ").Replace(s)
}
