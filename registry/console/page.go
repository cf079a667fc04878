package console

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/pflag"

	"deploytools/registry/wire"
)

// Page is the help of a program or of one command: one value, shown as text
// for -h and as Markdown for the documents.
type Page struct {
	Name, Usage, Short, Long string      // Short is one line without a full stop
	Role                     string      // the least that may run it; "" where roles do not matter
	All                      bool        // a key with configs= may not run it
	Commands                 [][2]string // name and Short of each
	Flags                    []FlagHelp
	Examples                 []string
	Statuses                 []wire.Status // besides 0, 1 and 2
}

// FlagHelp is one flag as help shows it.
type FlagHelp struct {
	Spelling string // "-addr host:port"
	Usage    string
	Default  string   // "" where it goes without saying
	Env      []string // variables that set it
}

// DescribeFlags returns the flags that are shown. env, if not nil, returns the
// variables that set a flag.
func DescribeFlags(fs *pflag.FlagSet, env func(*pflag.Flag) []string) []FlagHelp {
	var out []FlagHelp
	fs.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		h := FlagHelp{Spelling: "-" + f.Name, Usage: usage}
		if f.Shorthand != "" {
			h.Spelling = "-" + f.Shorthand + ", -" + f.Name
		}
		if value != "" {
			h.Spelling += " " + value
		}
		if !slices.Contains([]string{"", "0", "0s", "false", "[]"}, f.DefValue) {
			h.Default = f.DefValue
		}
		if env != nil {
			h.Env = env(f)
		}
		out = append(out, h)
	})
	return out
}

// notes returns the default and the variables of a flag in brackets, or "".
func (h *FlagHelp) notes(code string) string {
	var notes []string
	if h.Default != "" {
		notes = append(notes, "default "+code+h.Default+code)
	}
	for _, name := range h.Env {
		notes = append(notes, code+"$"+name+code)
	}
	if notes == nil {
		return ""
	}
	return " (" + strings.Join(notes, ", ") + ")"
}

// Text prints the page as help for a terminal.
func (p Page) Text(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n\nUsage:\n  %s\n", p.Name, p.Short, p.Usage)
	if p.Long != "" {
		fmt.Fprintf(&b, "\n%s\n", strings.TrimSpace(p.Long))
	}
	if p.Role != "" {
		fmt.Fprintf(&b, "\n%s\n", p.roleText())
	}
	table := func(title string, rows func(row func(left, right string))) {
		fmt.Fprintf(&b, "\n%s:\n", title)
		t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		rows(func(left, right string) { fmt.Fprintf(t, "  %s\t%s\n", left, right) })
		t.Flush()
	}
	if len(p.Commands) > 0 {
		table("Commands", func(row func(left, right string)) {
			for _, c := range p.Commands {
				row(c[0], c[1])
			}
		})
	}
	table("Flags", func(row func(left, right string)) {
		for _, f := range p.Flags {
			row(f.Spelling, f.Usage+f.notes(""))
		}
		row("-h, -help", "show this text")
	})
	if len(p.Examples) > 0 {
		fmt.Fprintf(&b, "\nExamples:\n")
		for _, e := range p.Examples {
			fmt.Fprintf(&b, "  %s\n", e)
		}
	}
	table("Exit statuses", func(row func(left, right string)) {
		for _, s := range p.statuses() {
			row(s.String(), meaning(s))
		}
	})
	_, err := io.WriteString(w, b.String())
	return err
}

// MarshalJSON returns an object with the text, which is for people, and the list
// of commands.
func (p Page) MarshalJSON() ([]byte, error) {
	type command struct {
		Name  string `json:"name"`
		Short string `json:"short"`
	}
	out := struct {
		Schema   Schema    `json:"schema"`
		Commands []command `json:"commands,omitempty"`
		Help     string    `json:"help"`
	}{}
	for _, c := range p.Commands {
		out.Commands = append(out.Commands, command{c[0], c[1]})
	}
	var text strings.Builder
	if err := p.Text(&text); err != nil {
		return nil, err
	}
	out.Help = text.String()
	var b bytes.Buffer
	err := encodeJSON(&b, out)
	return b.Bytes(), err
}

func (p Page) roleText() string {
	text := "Your key needs the role " + p.Role + " or a greater one"
	if p.All {
		text += ", and no configs="
	}
	return text + "."
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

// statuses adds what every command can return, and sorts.
func (p Page) statuses() []wire.Status {
	all := slices.Concat([]wire.Status{wire.OK, wire.Failed, wire.Usage}, p.Statuses)
	slices.Sort(all)
	return slices.Compact(all)
}

// Markdown writes the page as a section with this heading: "##" and so on.
func (p Page) Markdown(b *strings.Builder, heading string) {
	fmt.Fprintf(b, "%s %s\n\n%s%s.\n\n```\n%s\n```\n\n", heading, p.Name, strings.ToUpper(p.Short[:1]), p.Short[1:], p.Usage)
	if p.Long != "" {
		fmt.Fprintf(b, "%s\n\n", strings.TrimSpace(p.Long))
	}
	if p.Role != "" {
		fmt.Fprintf(b, "%s\n\n", p.roleText())
	}
	if len(p.Commands) > 0 {
		b.WriteString("| command | |\n|---|---|\n")
		for _, c := range p.Commands {
			fmt.Fprintf(b, "| `%s` | %s |\n", c[0], cell(c[1]))
		}
		b.WriteString("\n")
	}
	if len(p.Flags) > 0 {
		b.WriteString("| flag | |\n|---|---|\n")
		for _, f := range p.Flags {
			fmt.Fprintf(b, "| `%s` | %s |\n", cell(f.Spelling), cell(f.Usage+f.notes("`")))
		}
		b.WriteString("\n")
	}
	if len(p.Examples) > 0 {
		fmt.Fprintf(b, "```\n%s\n```\n\n", strings.Join(p.Examples, "\n"))
	}
	b.WriteString("Exit statuses:")
	for i, s := range p.statuses() {
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

// Check returns what is wrong with the texts of the page. It is meant for tests.
func (p Page) Check() error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(p.Name+": "+format, a...)) }
	if p.Short == "" || strings.HasSuffix(p.Short, ".") || strings.Contains(p.Short, "\n") {
		bad("%q: should be one line without a full stop", p.Short)
	}
	for _, f := range p.Flags {
		if f.Usage == "" {
			bad("flag %s: has no usage", f.Spelling)
		}
	}
	for _, s := range p.Statuses {
		if meaning(s) == "" {
			bad("exit status %s: has no meaning", s)
		}
	}
	for _, e := range p.Examples {
		if !strings.Contains(e, strings.Fields(p.Name)[0]) {
			bad("example %q: does not call the program", e)
		}
	}
	return errors.Join(errs...)
}
