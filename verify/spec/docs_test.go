package spec

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

func TestDocsNameEveryKeyAndNoOther(t *testing.T) {
	b, err := os.ReadFile("../../docs/checks.md")
	if err != nil {
		t.Fatal(err)
	}
	table, _, _ := strings.Cut(string(b), "\n## ")
	documented := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| (`[a-z`, ]+`) \\|").FindAllStringSubmatch(table, -1) {
		for name := range strings.SplitSeq(strings.ReplaceAll(row[1], "`", ""), ", ") {
			documented[name] = true
		}
	}
	for _, k := range keys {
		if !documented[k.name] {
			t.Errorf("docs/checks.md: key %q is missing", k.name)
		}
		delete(documented, k.name)
	}
	for name := range documented {
		t.Errorf("docs/checks.md: there is no key %q", name)
	}
}
