package cmd_test

import (
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"deploytools/cmd/internal/agentcmd"
	"deploytools/cmd/internal/cli"
	"deploytools/cmd/internal/ctlcmd"
	"deploytools/cmd/internal/layerflags"
	"deploytools/cmd/internal/registrycmd"
	"deploytools/layers"
)

// programs returns every program, as docs/cli.md shows them.
func programs() []*cli.Program {
	return []*cli.Program{ctlcmd.Program(), registrycmd.Program(), agentcmd.Program()}
}

func TestDocsCommandLine(t *testing.T) {
	var b strings.Builder
	b.WriteString("# Command line\n\nGenerated from the programs: run `" + mend + "`.\n\n" +
		"A flag has one dash or two, and its value follows as `-name value` or `-name=value`; `--` ends the flags.\n" +
		"An environment variable sets a flag that the command line does not; one without a value is as good as none,\n" +
		"but where the flag says what empty means. Results go to stdout, `error:` and `hint:` lines to stderr.\n\n" +
		statusTable() + "\n")
	for _, p := range programs() {
		if err := p.Markdown(&b); err != nil {
			t.Fatal(err)
		}
	}
	checkDocument(t, "../docs/cli.md", "", "", strings.TrimRight(b.String(), "\n")+"\n")
}

func TestDocsOutsideRoots(t *testing.T) {
	hook, err := os.ReadFile("../scripts/hooks/shared.sh")
	if err != nil {
		t.Fatal(err)
	}
	checkDocument(t, "../docs/outside-roots.md", "<!-- hook -->", "<!-- /hook -->", "```sh\n"+string(hook)+"```\n")
}

func TestDocsLimitsOfLayers(t *testing.T) {
	var b strings.Builder
	b.WriteString("| flag | default | error | |\n|---|---|---|---|\n")
	defaults := reflect.ValueOf(layers.DefaultLimits())
	for _, l := range layerflags.Limits {
		usage := strings.ReplaceAll(l.Usage, "`", "")
		fmt.Fprintf(&b, "| `-%s` | %d | `limit %s` | %s |\n", l.Flag, defaults.FieldByName(l.Field).Int(), l.Field, usage)
	}
	if len(layerflags.Limits) != defaults.NumField() {
		t.Errorf("%d flags for %d limits", len(layerflags.Limits), defaults.NumField())
	}
	checkDocument(t, "../docs/layer-format.md", "<!-- limits -->", "<!-- /limits -->", b.String())
}

func TestProgramsAreWellFormed(t *testing.T) {
	for _, p := range programs() {
		if err := p.Check(); err != nil {
			t.Errorf("%s: %v", p.Name, err)
		}
	}
}
