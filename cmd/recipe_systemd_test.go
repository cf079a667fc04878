package cmd_test

import (
	"os"
	"strings"
	"testing"
)

// underSystemd are recipes that need a systemd: scripts/systemd tries them, by
// `make systemd`.
var underSystemd = []string{"service", "socket"}

// TestDocsRecipesUnderSystemd: each of them has its line in the matrix of
// `make systemd`, with a verdict for each trial.
func TestDocsRecipesUnderSystemd(t *testing.T) {
	b, err := os.ReadFile("../docs/recipes/matrix-systemd.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(b), "\n| recipe |")
	table, _, _ = strings.Cut(table, "\n\n")
	head, rows, _ := strings.Cut(table, "\n")
	for _, name := range underSystemd {
		_, row, ok := strings.Cut("\n"+rows, "\n| "+name+" |")
		row, _, _ = strings.Cut(row, "\n")
		if !ok || strings.Count(row, "|") != strings.Count(head, "|") || strings.Contains(row, "|  |") {
			t.Errorf("%s: %q is in matrix-systemd.md below %q: run `make systemd`", name, row, head)
		}
	}
}
