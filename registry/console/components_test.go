package console

import (
	"slices"
	"strings"
	"testing"
)

// Blanks at the ends of lines stand only where the original tool set printed them:
// scripts may look for these.
func TestBlanksAtTheEndsOfLines(t *testing.T) {
	d := newDesk(t).examples()
	for _, c := range everyCommand() {
		for _, example := range c.Examples {
			stdout := d.must(example)
			words := strings.Fields(example)
			original := words[0] == "showconf" && !slices.Contains(words, "-digests") || words[0] == "showcomp" && !slices.Contains(words, "-v")
			if got := strings.Contains(stdout, " \n"); got != original && !c.Raw {
				t.Errorf("%s: blanks at the ends of lines: %t, want %t\n%s", example, got, original, stdout)
			}
		}
	}
}
