package console

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// splits holds lines that Split takes, and their words. A shell, which expands
// nothing in them, must agree.
var splits = []struct {
	line string
	want []string
}{
	{"", nil},
	{"  \t ", nil},
	{"showconf -name project1", []string{"showconf", "-name", "project1"}},
	{"\ta  b\t\tc ", []string{"a", "b", "c"}},
	{`a 'b c' d`, []string{"a", "b c", "d"}},
	{`a "b c" d`, []string{"a", "b c", "d"}},
	{`a b\ c d`, []string{"a", "b c", "d"}},
	{`-name="project1" -x='y'`, []string{"-name=project1", "-x=y"}},
	{`'' ""`, []string{"", ""}},
	{`''a""`, []string{"a"}},
	{`a'b'"c"\d`, []string{"abcd"}},
	{`'\'`, []string{`\`}},
	{`'a"b$c;d|e&f<g>h(i)j` + "`k" + `'`, []string{`a"b$c;d|e&f<g>h(i)j` + "`k"}},
	{`"a;b|c&d<e>f(g)h'i"`, []string{`a;b|c&d<e>f(g)h'i`}},
	{`"\$\` + "`" + `\"\\ \a\;"`, []string{"$`\"\\ \\a\\;"}},
	{`\;\|\&\<\>\(\)\$\` + "`" + `\'\"\\\#\a`, []string{";|&<>()$`'\"\\#a"}},
	{"'line\nend'", []string{"line\nend"}},
	{"\"line\nend\"", []string{"line\nend"}},
	{"a#b a=b -- -", []string{"a#b", "a=b", "--", "-"}},
	{"häß \x01 \x7f \xff", []string{"häß", "\x01", "\x7f", "\xff"}},
	{"{a,b} !a ^a %a @a :a ]a", []string{"{a,b}", "!a", "^a", "%a", "@a", ":a", "]a"}},
}

func TestSplit(t *testing.T) {
	for _, test := range splits {
		if got, err := Split(test.line); err != nil || !slices.Equal(got, test.want) {
			t.Errorf("Split(%q) = %q, %v, want %q", test.line, got, err, test.want)
		}
	}
	// What a shell would expand, Split keeps as it stands.
	for _, line := range []string{"*", "?", "[a]", "~", "~/x", "#x", "a~b"} {
		if got, err := Split(line); err != nil || !slices.Equal(got, []string{line}) {
			t.Errorf("Split(%q) = %q, %v, want the line itself", line, got, err)
		}
	}
}

func TestSplitAgreesWithTheShell(t *testing.T) {
	var lines, want strings.Builder
	add := func(line string, words []string) {
		lines.WriteString(`printf '%s|' ` + line + "; echo .\n")
		want.WriteString(strings.Join(words, "|") + "|.\n")
	}
	for _, test := range splits {
		add(test.line, test.want)
		if len(test.want) > 0 {
			add(Join(test.want), test.want)
		}
	}
	out, err := exec.CommandContext(t.Context(), "sh", "-c", lines.String()).Output()
	if err != nil || string(out) != want.String() {
		t.Errorf("sh says (%v)\n%swant\n%s", err, out, want.String())
	}
}

func TestSplitRefusesWhatAShellWouldActUpon(t *testing.T) {
	for _, c := range ";&|<>()$`" {
		for _, line := range []string{"a" + string(c) + "b", string(c), "a " + string(c), "''" + string(c) + "x"} {
			got, err := Split(line)
			if err == nil || !strings.Contains(err.Error(), "unquoted '"+string(c)+"'") {
				t.Errorf("Split(%q) = %q, %v, want an error that names %q", line, got, err, c)
			}
		}
	}
	for line, want := range map[string]string{
		`"$HOME"`:                          `'$' in double quotes`,
		"\"`id`\"":                         "'`' in double quotes",
		"a\nb":                             "one line",
		"a\r":                              "one line",
		"a\\\nb":                           "one line",
		"\"a\\\nb\"":                       "one line",
		`'a`:                               "unmatched single quote",
		`"a`:                               "unmatched double quote",
		`"a\`:                              "unmatched double quote",
		`"a\"`:                             "unmatched double quote",
		`a\`:                               "nothing follows",
		strings.Repeat("a", MaxLine+1):     "longer than 16384",
		`changeconf -version v10;nonsense`: `unquoted ';'`, // dropped in silence once
	} {
		if got, err := Split(line); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Split(%.40q) = %q, %v, want an error about %q", line, got, err, want)
		}
	}
}

func TestJoinIsReadable(t *testing.T) {
	words := []string{"addver", "-name=code", "v1:2~a", "two words", "it's", "", "a,b/c@d%e+f"}
	const want = `addver -name=code 'v1:2~a' 'two words' 'it'\''s' '' a,b/c@d%e+f`
	if got := Join(words); got != want {
		t.Errorf("Join(%q) = %s, want %s", words, got, want)
	}
}

// A line of any kind costs milliseconds at most: nothing grows with its square.
func TestSplitIsQuick(t *testing.T) {
	start := time.Now()
	for _, part := range []string{"a", "a ", "''", `""`, `\a`, "'", `"`, `\`, ";", `"\`, "a'b'", "-"} {
		line := strings.Repeat(part, MaxLine/len(part))
		words, err := Split(line)
		if err == nil {
			if got, err := Split(Join(words)); len(Join(words)) <= MaxLine && (err != nil || !slices.Equal(got, words)) {
				t.Errorf("Split(Join(Split(%q...))): %v", part, err)
			}
		}
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("12 lines took %v", d)
	}
}

func FuzzSplit(f *testing.F) {
	for _, test := range splits {
		f.Add(test.line)
	}
	f.Add(`"$x`)
	f.Add("a\\\nb")
	f.Fuzz(func(t *testing.T, s string) {
		words, err := Split(s)
		if err == nil {
			if line := Join(words); len(line) <= MaxLine {
				if got, err := Split(line); err != nil || !slices.Equal(got, words) {
					t.Errorf("Split(Join(%q)) = %q, %v", words, got, err)
				}
			}
		}
		// Any list of words goes through, too.
		list := strings.Split(s, "\x00")
		if line := Join(list); len(line) <= MaxLine {
			if got, err := Split(line); err != nil || !slices.Equal(got, list) {
				t.Errorf("Split(Join(%q)) = %q, %v", list, got, err)
			}
		}
	})
}
