package verify

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the table of kinds into docs/checks.md")

// Whoever reads the document looks for the word in the message.
func TestDocsHaveTheTableOfKinds(t *testing.T) {
	const file, begin, end = "../docs/checks.md", "<!-- kinds -->\n", "<!-- /kinds -->"
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(b), begin)
	_, tail, ends := strings.Cut(rest, end)
	if !ok || !ends {
		t.Fatalf("%s has no place for the table", file)
	}
	table := "| kind | what it means | what to do |\n|---|---|---|\n"
	for _, m := range Meanings {
		table += fmt.Sprintf("| `%s` | %s | %s |\n", m.Kind, m.Means, m.Do)
	}
	want := head + begin + table + end + tail
	if want == string(b) {
		return
	}
	if !*update || os.Getenv("CI") != "" {
		t.Fatalf("%s is not what the code says: run 'go test ./verify -run Docs -update'", file)
	}
	if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestEveryKindHasAMeaning(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "kinds.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	ast.Inspect(f, func(node ast.Node) bool {
		v, ok := node.(*ast.ValueSpec)
		if !ok || len(v.Values) != 1 {
			return true
		}
		if lit, ok := v.Values[0].(*ast.BasicLit); ok {
			n++
			text, _ := strconv.Unquote(lit.Value)
			if m := Kind(text).Explain(); m.Means == "" || m.Do == "" {
				t.Errorf("kind %s has no meaning", text)
			}
		}
		return true
	})
	if n != len(Meanings) || n < 20 {
		t.Errorf("%d kinds and %d meanings", n, len(Meanings))
	}
}
