package layers

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestDocsListEveryRefusal holds the table of docs/layer-format.md against what
// the tables of attacks make the code say, in both directions.
func TestDocsListEveryRefusal(t *testing.T) {
	b, err := os.ReadFile("../docs/layer-format.md")
	must(t, err)
	_, table, _ := strings.Cut(string(b), "<!-- errors -->\n")
	table, _, _ = strings.Cut(table, "<!-- /errors -->")
	rows := map[string]*regexp.Regexp{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(table, -1) {
		rows[row[1]] = regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(row[1]), "…", ".+") + "$")
	}
	used := map[string]bool{}
	for _, rule := range refusals(t) {
		found := false
		for row, re := range rows {
			if re.MatchString(rule) {
				found, used[row] = true, true
			}
		}
		if !found {
			t.Errorf("docs/layer-format.md does not list %q", rule)
		}
	}
	for row := range rows {
		if !used[row] {
			t.Errorf("docs/layer-format.md lists %q, which no test sees", row)
		}
	}
	for _, want := range []string{
		fmt.Sprintf("%d bytes each part, %d bytes in all, %d parts", maxComponent, maxPath, maxDepth),
		fmt.Sprintf("at most %d bytes", maxPath), "after the first 64 MiB", "at most 2 MiB long and unpacks to at most 1 MiB",
		fmt.Sprintf("`% x`", memberHeader),
	} {
		if !strings.Contains(string(b), want) {
			t.Errorf("docs/layer-format.md does not say %q", want)
		}
	}
	if ratioFree != 64<<20 || memberBytes != 1<<20 || memberMax != 2<<20 {
		t.Error("docs/layer-format.md says other sizes")
	}
}

// refusals returns the rules in all tables of archives that are refused.
func refusals(t *testing.T) []string {
	t.Helper()
	rules := []string{ // TestPrivilegesAreSetWhereAllowed
		"two values of security.capability", "security.capability is malformed",
	}
	prefix := regexp.MustCompile(`^(layer web:\d: )?(entry \d+( "([^"\\]|\\.)*")?: )?`)
	for _, table := range []map[string]attack{breakouts("/x"), streams(t), headers()} {
		for _, a := range table {
			rules = append(rules, prefix.ReplaceAllString(a.want, ""))
		}
	}
	for _, l := range limits() {
		rules = append(rules, prefix.ReplaceAllString(l.want, ""))
	}
	return rules
}
