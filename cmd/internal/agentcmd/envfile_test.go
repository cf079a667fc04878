package agentcmd

import (
	"maps"
	"testing"
)

func TestParseEnvironment(t *testing.T) {
	for _, row := range []struct {
		name, text string
		want       map[string]string // nil: refused
	}{
		{"nothing", "", map[string]string{}},
		{"plain", "A=1\nB = two words \nC=", map[string]string{"A": "1", "B": "two words", "C": ""}},
		{"no end of line", "A=1", map[string]string{"A": "1"}},
		{"comments", "# A=1\n ; B=2\n\nC=3 # not a comment\n", map[string]string{"C": "3 # not a comment"}},
		{"quotes", "A=\" x \"\nB='a\"b'\nC=it's", map[string]string{"A": " x ", "B": `a"b`, "C": "it's"}},
		{"several lines", "A=\"type=tcp,addr=a:1\ntype=tcp,addr=b:2\"\nB=2\n", map[string]string{"A": "type=tcp,addr=a:1\ntype=tcp,addr=b:2", "B": "2"}},
		{"joined lines", "A=one \\\n  two\nB=2", map[string]string{"A": "one   two", "B": "2"}},
		{"backslashes", `A=a\ ` + "\n" + `B="a\"b\c"` + "\n" + `C='\n'`, map[string]string{"A": "a ", "B": `a"b\c`, "C": `\n`}},
		{"the last one counts", "A=1\nA=2", map[string]string{"A": "2"}},
		{"equals in the value", "A=type=tcp,addr=a:1", map[string]string{"A": "type=tcp,addr=a:1"}},
		{"no value", "A=1\nexport\n", nil},
		{"no name", "=1", nil},
		{"a command", "export A=1", nil},
		{"quote without an end", "A=\"1\nB=2", nil},
	} {
		got, err := parseEnvironment(row.text)
		if (err != nil) != (row.want == nil) || err == nil && !maps.Equal(got, row.want) {
			t.Errorf("%s: %q, %v, want %q", row.name, got, err, row.want)
		}
	}
}
