package console

import (
	"slices"
	"strings"
	"testing"

	"deploytools/registry"
)

func TestAddverTellsOnceThatACheckWaits(t *testing.T) {
	var b strings.Builder
	tell := checkProgress(&b)
	for _, p := range []registry.CheckProgress{{Done: 1, Total: 9, Waiting: true}, {Done: 1, Total: 9, Waiting: true}, {Done: 5, Total: 9, Waiting: false}, {Done: 5, Total: 9, Waiting: true}, {Done: 9, Total: 9, Waiting: false}} {
		tell(p)
	}
	const waits = "checking the archive: waiting for memory that other checks have; it goes on by itself\n"
	if want := waits + "checking the archive: 5 of 9 bytes\n" + waits + "checking the archive: 9 of 9 bytes\n"; b.String() != want {
		t.Errorf("told %q, want %q", b.String(), want)
	}
}

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
