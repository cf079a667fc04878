package cli

import (
	"io"
	"strings"
)

// Markdown writes the reference of the program and of all its commands: the
// help texts as one section, headed at level 2.
func (p *Program) Markdown(w io.Writer) error {
	var b strings.Builder
	p.page().Markdown(&b, "##")
	for _, c := range p.visible() {
		p.commandPage(c).Markdown(&b, "###")
	}
	_, err := io.WriteString(w, b.String())
	return err
}
