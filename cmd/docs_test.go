package cmd_test

import (
	"strings"
	"testing"

	"deploytools/cmd/internal/cli"
	"deploytools/cmd/internal/ctlcmd"
)

// programs returns every program, as docs/cli.md shows them.
func programs() []*cli.Program {
	return []*cli.Program{ctlcmd.Program()}
}

func TestDocsCommandLine(t *testing.T) {
	var b strings.Builder
	b.WriteString("# Command line\n\nGenerated from the programs: run `" + mend + "`.\n\n" +
		"A flag has one dash or two, and its value follows as `-name value` or `-name=value`; `--` ends the flags.\n" +
		"An environment variable sets a flag that the command line does not. Results go to stdout, `error:` and `hint:` lines to stderr.\n\n" +
		statusTable() + "\n")
	for _, p := range programs() {
		if err := p.Markdown(&b); err != nil {
			t.Fatal(err)
		}
	}
	checkDocument(t, "../docs/cli.md", "", "", strings.TrimRight(b.String(), "\n")+"\n")
}

func TestProgramsAreWellFormed(t *testing.T) {
	for _, p := range programs() {
		if err := p.Check(); err != nil {
			t.Errorf("%s: %v", p.Name, err)
		}
	}
}
