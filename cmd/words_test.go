package cmd_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// otherMeanings matches words that are not used for our things where they
// mean something else.
var otherMeanings = map[string]*regexp.Regexp{
	"":                     regexp.MustCompile(`SSH (server|client)s?|service manager`),
	"docs/architecture.md": regexp.MustCompile(`[Pp]ackages?`), // of Go
}

// code is what Markdown shows in code font, and comments.
var code = regexp.MustCompile("(?s)```.*?```|`[^`\n]*`|<!--.*?-->")

// synonyms returns the unused words in text, which is that of a document or of
// "".
func synonyms(unused *regexp.Regexp, document, text string) []string {
	text = otherMeanings[""].ReplaceAllString(code.ReplaceAllString(text, ""), "")
	if other := otherMeanings[document]; other != nil {
		text = other.ReplaceAllString(text, "")
	}
	return unused.FindAllString(text, -1)
}

func TestDocsUseNoSynonyms(t *testing.T) {
	unused := unusedWords(t)
	files, err := filepath.Glob("../docs/*.md")
	if err != nil || len(files) < 4 {
		t.Fatalf("documents: %q, %v", files, err)
	}
	for _, file := range files {
		name := strings.TrimPrefix(file, "../")
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text := string(b)
		if name == "docs/words.md" {
			text, _, _ = strings.Cut(text, "## Not used")
		}
		for _, word := range synonyms(unused, name, text) {
			t.Errorf("%s: says %q, see docs/words.md", name, word)
		}
	}
}

// Help texts, too, and every other text that the registry and its console hold.
func TestTextsUseNoSynonyms(t *testing.T) {
	unused := unusedWords(t)
	for _, p := range programs() {
		var b strings.Builder
		if err := p.Markdown(&b); err != nil {
			t.Fatal(err)
		}
		for _, word := range synonyms(unused, "", b.String()) {
			t.Errorf("help of %s: says %q, see docs/words.md", p.Name, word)
		}
	}
	for _, dir := range []string{"../registry", "../registry/console", "../registry/wire"} {
		for place, text := range literals(t, dir) {
			for _, word := range synonyms(unused, "", text) {
				t.Errorf("%s: says %q, see docs/words.md", place, word)
			}
		}
	}
}

// unusedWords matches what the last table of docs/words.md lists, also as
// plurals.
func unusedWords(t *testing.T) *regexp.Regexp {
	t.Helper()
	b, err := os.ReadFile("../docs/words.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, found := strings.Cut(string(b), "| not | but |\n|---|---|\n")
	var words []string
	for line := range strings.Lines(text) {
		not, _, _ := strings.Cut(strings.TrimPrefix(line, "| "), " |")
		words = append(words, strings.Split(not, ", ")...)
	}
	if !found || len(words) < 10 {
		t.Fatalf("docs/words.md lists %q as not used", words)
	}
	return regexp.MustCompile(`(?i)\b(` + strings.Join(words, "|") + `)s?\b`)
}

// literals returns the texts of the package in dir, by their place: string
// literals, but for imports and tags. Tests are not looked at.
func literals(t *testing.T, dir string) map[string]string {
	t.Helper()
	files, err := filepath.Glob(dir + "/*.go")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	set := token.NewFileSet()
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(set, file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.ImportSpec:
				return false
			case *ast.Field:
				n.Tag = nil
			case *ast.BasicLit:
				if n.Kind == token.STRING {
					text, err := strconv.Unquote(n.Value)
					if err != nil {
						t.Fatal(err)
					}
					out[fmt.Sprint(set.Position(n.Pos()))] = text
				}
			}
			return true
		})
	}
	if len(out) == 0 {
		t.Fatalf("%s: no texts were found", dir)
	}
	return out
}
