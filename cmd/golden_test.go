package cmd_test

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite generated documents")

// mend is what a person runs when a generated document is out of date.
const mend = "go test ./cmd -run Docs -update"

// checkDocument compares the part of the document between the lines begin and
// end (the whole of it, when both are empty) with want, or writes it there
// under -update.
func checkDocument(t *testing.T, path, begin, end, want string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil && !(*update && begin == "") {
		t.Fatal(err)
	}
	head, got, tail := "", string(b), ""
	if begin != "" {
		var found, ended bool
		head, got, found = strings.Cut(got, begin+"\n")
		got, tail, ended = strings.Cut(got, end+"\n")
		if !found || !ended {
			t.Fatalf("%s: has no lines %q and %q", path, begin, end)
		}
		head, tail = head+begin+"\n", end+"\n"+tail
	}
	if got == want {
		return
	}
	if !*update {
		t.Fatalf("%s is out of date: run `%s`\n%s", path, mend, firstDifference(got, want))
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is out of date, and -update is refused where CI is set", path)
	}
	if err := os.WriteFile(path, []byte(head+want+tail), 0o644); err != nil {
		t.Fatal(err)
	}
}

// firstDifference returns the first line in which got and want differ.
func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	i := 0
	for i < len(g) && i < len(w) && g[i] == w[i] {
		i++
	}
	line := func(s []string) string {
		if i < len(s) {
			return s[i]
		}
		return "(end)"
	}
	return "it has:    " + line(g) + "\nshould be: " + line(w)
}
