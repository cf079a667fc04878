package console

import (
	"slices"
	"strings"
	"testing"

	"deploytools/registry"
	"deploytools/registry/wire"
)

// In the lines here the cursor stands at |.
func TestComplete(t *testing.T) {
	d := newDesk(t).walk()
	d.must("addconf -name project2 -layer code:v01")
	d.must("addconf -name web -layer code:v01")
	d.report("web1", nil)
	empty := d.upload("").String()
	for _, test := range []struct {
		name, line, want string
		candidates       string
	}{
		{name: "command", line: "addv|", want: "addver |"},
		{name: "command behind spaces", line: "  addv|", want: "  addver |"},
		{name: "several commands", line: "show|", want: "showco|", candidates: "showcomp showconf"},
		{name: "exit", line: "ex|", want: "exit |"},
		{name: "every command", line: "|", want: "|", candidates: strings.Join(sorted(names()), " ")},
		{name: "unknown command", line: "nonsense -n|", want: "nonsense -n|"},
		{name: "word that is none", line: "xyz|", want: "xyz|"},
		{name: "flag", line: "showconf -n|", want: "showconf -name |"},
		{name: "every flag", line: "showconf -|", want: "showconf -|", candidates: "-digests -json -name -verbose"},
		{name: "flags behind a value", line: "showconf -name web -|", want: "showconf -name web -|", candidates: "-digests -json -name -verbose"},
		{name: "one name alone", line: "showconf -name web |", want: "showconf -name web -|", candidates: "-digests -json -name -verbose"},
		{name: "name", line: "showconf -name w|", want: "showconf -name web |"},
		{name: "name of which there are several", line: "showconf -name p|", want: "showconf -name project|", candidates: "project1 project2"},
		{name: "name, two dashes", line: "showconf --name w|", want: "showconf --name web |"},
		{name: "name behind an equals sign", line: "showconf -name=w|", want: "showconf -name=web |"},
		{name: "several behind an equals sign", line: "showconf -name=|", want: "showconf -name=|", candidates: "project1 project2 web"},
		{name: "name of a component", line: "showcomp -name con|", want: "showcomp -name config |"},
		{name: "version of the component named", line: "delver -name config -version |", want: "delver -name config -version v0|", candidates: "v01 v02"},
		{name: "version behind equals signs", line: "delver -name=assets -version=|", want: "delver -name=assets -version=v01 |"},
		{name: "version of no component", line: "delver -version |", want: "delver -version |"},
		{name: "component of the configuration", line: "bumpconf -name project2 -component |", want: "bumpconf -name project2 -component code |"},
		{name: "component without a configuration", line: "changeconf -component |", want: "changeconf -component |", candidates: "assets code config"},
		{name: "version of the layer", line: "changeconf -name web -component assets -version |", want: "changeconf -name web -component assets -version v01 |"},
		{name: "layer", line: "changeconf -name web -layer code:|", want: "changeconf -name web -layer code:v0|", candidates: "code:v00 code:v01"},
		{name: "positional layer", line: "addconf new as|", want: "addconf new assets:v01 |"},
		{name: "revision", line: "rollback -name web -to |", want: "rollback -name web -to 1 |"},
		{name: "digest of an upload", line: "addver -hash |", want: "addver -hash " + empty + " |"},
		{name: "command that help explains", line: "help his|", want: "help history |"},
		{name: "name alone", line: "showconf -v w|", want: "showconf -v web |"},
		{name: "component alone", line: "showcomp ass|", want: "showcomp assets |"},
		{name: "flag without a value", line: "bumpconf -dry-run w|", want: "bumpconf -dry-run web |"},
		{name: "name of the one to change", line: "changeconf w|", want: "changeconf web |"},
		{name: "layer behind the name", line: "changeconf web as|", want: "changeconf web assets:v01 |"},
		{name: "layer behind the flag", line: "changeconf -name web as|", want: "changeconf -name web assets:v01 |"},
		{name: "component behind the name", line: "bumpconf project2 |", want: "bumpconf project2 code |"},
		{name: "component by its flag behind the name", line: "bumpconf project2 -component |", want: "bumpconf project2 -component code |"},
		{name: "revision behind the name", line: "rollback web -to |", want: "rollback web -to 1 |"},
		{name: "name of the one to delete", line: "delconf -force w|", want: "delconf -force web |"},
		{name: "component to delete", line: "delcomp ass|", want: "delcomp assets |"},
		{name: "flags, where no word has its place", line: "rollback web |", want: "rollback web -|", candidates: "-dry-run -expect -json -name -note -to"},
		{name: "host", line: "log w|", want: "log web1 |"},
		{name: "configuration behind the host", line: "log web1 |", want: "log web1 project1 |"},
		{name: "configuration behind the host's flag", line: "log -host web1 p|", want: "log -host web1 project1 |"},
		{name: "flags behind both", line: "log web1 project1 |", want: "log web1 project1 -|", candidates: "-host -instance -json -name"},
		{name: "host to forget", line: "forget w|", want: "forget web1 |"},
		{name: "nothing behind it", line: "forget web1 w|", want: "forget web1 w|"},
		{name: "one configuration of it", line: "forget web1 -name w|", want: "forget web1 -name web |"},
		{name: "in the middle", line: "showconf -name w| -v", want: "showconf -name web| -v"},
		{name: "middle of a word", line: "addv|er -name x", want: "addver |er -name x"},
		{name: "quoted", line: `showconf -name "w|`, want: `showconf -name "w|`},
		{name: "quoted to its end", line: `showconf -name "w"|`, want: `showconf -name "w"|`},
		{name: "quoted in the middle", line: `showconf -name 'w'e|`, want: `showconf -name 'w'e|`},
		{name: "escaped space", line: `showconf -name\ |`, want: `showconf -name\ |`},
		{name: "quotes before the word", line: `showconf "-name" w|`, want: `showconf "-name" web |`},
		{name: "backslash", line: `showconf -name w\|`, want: `showconf -name w\|`},
		{name: "backslash alone", line: `showconf \|`, want: `showconf \|`},
		{name: "metacharacter", line: "showconf;w|", want: "showconf;w|"},
	} {
		before, after, _ := strings.Cut(test.line, "|")
		line, pos, candidates := Complete(t.Context(), &d.session, before+after, len(before))
		got := line[:pos] + "|" + line[pos:]
		if got != test.want || strings.Join(candidates, " ") != test.candidates {
			t.Errorf("%s: Complete(%q) = %q, %q, want %q, %q", test.name, test.line, got, candidates, test.want, test.candidates)
		}
	}
}

func sorted(s []string) []string { slices.Sort(s); return s }

func TestCompleteShowsNoNamesToThoseWhoMayNotSeeThem(t *testing.T) {
	d := newDesk(t).walk()
	for role, want := range map[registry.Role]string{registry.NoRole: "", registry.Agent: "", registry.Viewer: "showconf -name project1 "} {
		d.session.Caller.Role = role
		const line = "showconf -name "
		got, _, candidates := Complete(t.Context(), &d.session, line, len(line))
		if want == "" {
			want = line
		}
		if got != want || candidates != nil {
			t.Errorf("as %s: Complete(%q) = %q, %q, want %q", role, line, got, candidates, want)
		}
	}
}

// Other programs ask by a command, and get the answers of Complete.
func TestCompleteCommand(t *testing.T) {
	d := newDesk(t).walk()
	for words, want := range map[string]string{
		"showconf -name p":             "project1",
		"showconf -name=":              "-name=project1",
		"delver -name=code -version=v": "-version=v00 -version=v01",
		"delver -name code -version ":  "v00 v01",
		"changeconf -layer code:":      "code:v00 code:v01",
		"addconf new as":               "assets:v01",
		"help his":                     "history",
		"showc":                        "showcomp showconf",
		"__com":                        "",
		"nonsense -n":                  "",
	} {
		line := Join(append([]string{CompleteName, "--"}, strings.Split(words, " ")...))
		if got := strings.Join(strings.Fields(d.must(line)), " "); got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
	if got, want := d.must("__complete -json -- showconf -name ''"), `{"schema":1,"names":["project1"]}`+"\n"; got != want {
		t.Errorf("with -json: %q, want %q", got, want)
	}
	if _, stderr, status := d.run("__complete"); status != wire.Usage {
		t.Errorf("__complete without a word: status %s, %s", status, stderr)
	}
	if strings.Contains(d.must("help"), CompleteName) {
		t.Errorf("help lists %s", CompleteName)
	}
	d.session.Caller.Role = registry.Agent
	if stdout, _, status := d.run("__complete -- showconf -name ''"); status != wire.Denied || stdout != "" {
		t.Errorf("__complete as an agent: status %s, %q", status, stdout)
	}
}

func FuzzComplete(f *testing.F) {
	for _, line := range []string{"showconf -name w", "addver -=", "- - -", `a\ `, "help -h", "delver -name -version -", "\xff\x00", "showconf -name= -v=", "addconf '", "--"} {
		f.Add(line, len(line))
		f.Add(line, len(line)/2)
	}
	d := newDesk(f).walk()
	f.Fuzz(func(t *testing.T, line string, pos int) {
		if !strings.ContainsAny(line, " =") {
			line = "showconf " + line
		}
		got, newPos, candidates := Complete(t.Context(), &d.session, line, pos)
		if got == line && newPos == pos {
			return
		}
		if newPos < 0 || newPos > len(got) || !strings.HasSuffix(got, line[pos:]) || got[newPos:] != line[pos:] {
			t.Fatalf("Complete(%q, %d) = %q, %d, %q", line, pos, got, newPos, candidates)
		}
		// Words that stood before stay what they were.
		was, _ := Split(line[:pos])
		is, err := Split(got[:newPos])
		if n := max(len(was)-1, 0); err != nil || len(is) < n || !slices.Equal(is[:n], was[:n]) {
			t.Fatalf("Complete(%q, %d) = %q: words %q became %q, %v", line, pos, got, was, is, err)
		}
	})
}
