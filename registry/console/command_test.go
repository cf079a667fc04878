package console

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"deploytools/registry"
	"deploytools/registry/wire"
)

func TestTableIsWellFormed(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range Commands() {
		if seen[c.Name] {
			t.Errorf("%s: there are two", c.Name)
		}
		seen[c.Name] = true
		if err := c.Page().Check(); err != nil {
			t.Error(err)
		}
		if err := CheckFlags(c.flagSet(c.New())); err != nil {
			t.Errorf("%s: %v", c.Name, err)
		}
		if c.Role < registry.Viewer || c.Mutates && c.Role < registry.Publisher {
			t.Errorf("%s: the role %s may run it", c.Name, c.Role)
		}
		if len(c.Examples) == 0 {
			t.Errorf("%s: has no example", c.Name)
		}
	}
}

// Every example of the table runs, in its order, and those of commands that
// change something do change something.
func TestExamplesRun(t *testing.T) {
	d := newDesk(t).examples()
	before := d.state()
	for _, c := range Commands() {
		for _, example := range c.Examples {
			d.must(example)
			after := d.state()
			want := c.Mutates && !strings.Contains(example, "-dry-run")
			if changed := after != before; changed != want {
				t.Errorf("%s: changed something: %t, want %t", example, changed, want)
			}
			before = after
		}
	}
}

func TestTooSmallARoleChangesNothing(t *testing.T) {
	d := newDesk(t).examples()
	before := d.state()
	for _, c := range everyCommand() {
		for _, role := range []registry.Role{registry.Agent, registry.NoRole, registry.Viewer, registry.Publisher, registry.Operator} {
			if role >= c.Role {
				continue
			}
			for _, example := range c.Examples {
				example = strings.TrimSuffix(example, " -json")
				d.session.Caller.Role = role
				stdout, stderr, status := d.run(example)
				want := fmt.Sprintf("error: %s needs the role %s, your key has %s\n", c.Name, c.Role, role)
				if stdout != "" || stderr != want || status != wire.Denied {
					t.Errorf("%s as %s: stdout %q, stderr %q, exit status %s, want %q, 5", example, role, stdout, stderr, status, want)
				}
				if after := d.state(); after != before {
					t.Errorf("%s as %s changed something", example, role)
				}
			}
		}
	}
}

// Each command does what its own role allows: a greater one is never needed.
func TestLeastRoleIsEnough(t *testing.T) {
	d := newDesk(t).examples()
	for _, c := range everyCommand() {
		for _, example := range c.Examples {
			d.session.Caller.Role = c.Role
			d.must(example)
		}
	}
}

func TestUsage(t *testing.T) {
	d := newDesk(t).walk()
	before := d.state()
	for _, test := range []struct{ line, want string }{
		{"showconf -nmae project1", `error: unknown flag "-nmae", the nearest is -name` + "\nhint: see 'help showconf'\n"},
		{"showconf", "error: -name should be set\nhint: see 'help showconf'\n"},
		{"showconf -name", "error: flag -name needs a value\nhint: see 'help showconf'\n"},
		{"showconf -name project1 project2", `error: unexpected argument "project2"` + "\nhint: see 'help showconf'\n"},
		{"rollback project1 1", `error: unexpected argument "1"` + "\nhint: if it is a revision: -to 1\n"},
		{"rollback project1 one", `error: unexpected argument "one"` + "\nhint: see 'help rollback'\n"},
		{"delconf -name project1 project1 -force", `error: unexpected argument "project1"` + "\nhint: see 'help delconf'\n"},
		{"delver code -version v00", `error: unexpected argument "code"` + "\nhint: if it is a name: -name code\n"},
		{"delver code:v01", `error: unexpected argument "code:v01"` + "\nhint: see 'help delver'\n"},
		{"status project1 -wait -timeout 5", `error: bad value "5" of flag -timeout: should be a time such as 30s, 10m or 2h` + "\nhint: see 'help status'\n"},
		{"rollback -name project1 -to soon", `error: bad value "soon" of flag -to: should be a number such as 3, and none below 0` + "\nhint: see 'help rollback'\n"},
		{"rollback -name project1 -to -1", `error: bad value "-1" of flag -to: should be a number such as 3, and none below 0` + "\nhint: see 'help rollback'\n"},
		{"changeconf -name project1 -component code", "error: -component and -version go together\nhint: see 'help changeconf'\n"},
		{"changeconf -name project1 -version v01", "error: -component and -version go together\nhint: see 'help changeconf'\n"},
		{"changeconf -name project1 -layer code", `error: layer "code" should be COMPONENT:VERSION or COMPONENT@sha256:DIGEST` + "\nhint: see 'help changeconf'\n"},
		{"changeconf -name project1 -layer code:v01 -component code -version v00", `error: duplicate component "code"` + "\nhint: see 'help changeconf'\n"},
		{"delver -name code", "error: name and version should both be set\nhint: see 'help delver'\n"},
		{"help addver addconf", "error: help explains one command at a time\nhint: see 'help help'\n"},
		{"components; delconf -name project1 -force", "error: unquoted ';': there is no shell here, quote it or leave it out\n"},
		{"components 'x", "error: unmatched single quote\n"},
	} {
		stdout, stderr, status := d.run(test.line)
		if stdout != "" || stderr != test.want || status != wire.Usage {
			t.Errorf("%s: stdout %q, stderr %q, exit status %s, want %q, 2", test.line, stdout, stderr, status, test.want)
		}
	}
	if status := Run(t.Context(), &d.session, nil); status != wire.Usage {
		t.Errorf("no words: exit status %s, want 2", status)
	}
	if stdout, stderr, status := d.run("  \t"); stdout+stderr != "" || status != wire.OK {
		t.Errorf("an empty line: stdout %q, stderr %q, exit status %s", stdout, stderr, status)
	}
	if after := d.state(); after != before {
		t.Error("a wrong command line changed something")
	}
}

func TestFlagsHaveOneDashOrTwo(t *testing.T) {
	d := newDesk(t).walk()
	want := d.must("showconf -name project1 -v")
	for _, line := range []string{
		"showconf -name=project1 -verbose", "showconf --name project1 --verbose", "showconf --name=project1 -v=true",
		`showconf -v -name "project1"`, `'showconf' -v -name=proj'ect'1`,
	} {
		if got := d.must(line); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", line, got, want)
		}
	}
}

func TestHelp(t *testing.T) {
	d := newDesk(t)
	for _, c := range Commands() {
		want := d.must("help " + c.Name)
		for _, ask := range []string{" -h", " -help", " --help", " -json -h", " -name x -h"} {
			if got, stderr, status := d.run(c.Name + ask); !strings.Contains(ask, "name") && (got != want || status != wire.OK) {
				t.Errorf("%s%s: exit status %s, stderr %q, got\n%s\nwant\n%s", c.Name, ask, status, stderr, got, want)
			}
		}
	}
	golden(t, "help.txt", d.must("help"))
	golden(t, "help-addconf.txt", d.must("help addconf"))
}

// A name that breaks the rule is refused in a text that no terminal acts upon.
func TestNoControlCharacterIsEchoed(t *testing.T) {
	d := newDesk(t).walk()
	hash := d.upload("content").String()
	before := d.state()
	const evil = "x\x1b[31m\x07\x00\n\u009b\u202e\xff\u2028"
	for _, words := range [][]string{
		{evil}, {"help", evil}, {"help", "-" + evil}, {"showcomp", evil}, {"showcomp", "-name", evil}, {"showconf", "-name", evil},
		{"addver", "-name", evil, "-version", "v1", "-hash", hash}, {"addver", "-name", "code", "-version", evil, "-hash", hash},
		{"addver", "-name", "code", "-version", "v1", "-hash", evil}, {"addconf", "-name", evil, "-layer", "code:v01"},
		{"addconf", "-name", "p", "-layer", evil}, {"addconf", "-name", "p", "-layer", "code:" + evil}, {"addconf", evil, "code:v01"},
		{"changeconf", "-name", "project1", "-component", evil, "-version", evil}, {"bumpconf", "-name", "project1", "-component", evil},
		{"rollback", "-name", evil}, {"rollback", "-name", "project1", "-to", evil}, {"history", "-name", evil},
		{"delver", "-name", evil, "-version", evil}, {"delcomp", "-name", evil, "-force"}, {"delconf", "-name", evil, "-force=" + evil},
	} {
		for _, more := range [][]string{nil, {"-json"}} {
			stdout, stderr, status := d.run(Join(append(words, more...)))
			if status == wire.OK || stdout != "" {
				t.Errorf("%q: exit status %s, stdout %q", words, status, stdout)
			}
			text := strings.ReplaceAll(stderr, "\n", "")
			if strings.ContainsFunc(text, func(r rune) bool { return r == unicode.ReplacementChar || !unicode.IsPrint(r) }) || strings.Count(stderr, "\n") > 2 {
				t.Errorf("%q: stderr %q", words, stderr)
			}
		}
	}
	if after := d.state(); after != before {
		t.Error("a name that breaks the rule changed something")
	}
}

// Errors and hints are cleaned as a whole, whatever an engine put into them, and
// so is the comment of a key.
func TestNothingIsShownRaw(t *testing.T) {
	const evil = "x\x1b[31m\x7f\u009b\u202e\xff"
	raw := func(s string) bool {
		return !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r != '\n' && r != '\t' && !unicode.IsPrint(r) })
	}
	d := newDesk(t)
	d.session.Caller.Comment = evil
	d.addver("code", "v01")
	d.must("addconf p code:v01")
	for _, line := range []string{"showcomp -name code", "showconf -name p -v", "history -name p", "uploads"} {
		for _, line := range []string{line, line + " -json"} {
			if got := d.must(line); raw(got) {
				t.Errorf("%s: printed %q", line, got)
			}
		}
	}
	for _, asJSON := range []bool{false, true} {
		d.stderr.Reset()
		d.session.json = asJSON
		d.session.report(&registry.Error{Kind: registry.ErrDenied, Text: evil, Hint: evil})
		if got := d.stderr.String(); raw(got) || strings.Count(got, "x1b[31m") != 2 {
			t.Errorf("report: printed %q", got)
		}
	}
}

// What a client may name freely is shown, but cleaned.
func TestUploadsShowWhatClientsSay(t *testing.T) {
	d := newDesk(t)
	d.session.Caller.User = "eve\x1b[2J"
	in, err := d.session.Registry.Receive(t.Context(), d.session.Caller, "a\n\x1b]0;x\u202egpj.tar.gz")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.WriteAt([]byte("so far"), 0); err != nil {
		t.Fatal(err)
	}
	if got, want := d.must("uploads"), `-   6   2026-11-21T18:00:00Z   eve\x1b[2J   receiving   a\n\x1b]0;x\u202egpj.tar.gz`+"\n"; got != want {
		t.Errorf("uploads: got %q, want %q", got, want)
	}
	if err := in.Abort(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestRefusedArchive(t *testing.T) {
	d := newDesk(t)
	hash := d.upload("bad").String()
	_, stderr, status := d.run("addver -name code -version v1 -hash " + hash)
	if status != wire.Failed || !strings.HasPrefix(stderr, `error: layer code:v1: entry "../x": outside the root: not an acceptable layer`+"\nhint: ") {
		t.Errorf("addver: exit status %s, stderr %q", status, stderr)
	}
	if got := d.must("uploads"); !strings.Contains(got, `   refused   /upload   entry "../x": outside the root`) {
		t.Errorf("uploads: got %q", got)
	}
}

func TestAddverAgain(t *testing.T) {
	d := newDesk(t)
	line := "addver -name code -version v1 -hash " + strings.ToUpper(d.upload("content").String())
	d.must(line)
	if stdout, stderr, status := d.run(line); stdout != "" || status != wire.OK || stderr != "note: version v1 of code exists already, with the same content\n" {
		t.Errorf("again: exit status %s, stdout %q, stderr %q", status, stdout, stderr)
	}
	if stdout, stderr, status := d.run(line + " -must-be-new"); stdout != "" || status != wire.Conflict || !strings.HasPrefix(stderr, `error: version "v1" already exists`+"\n") {
		t.Errorf("again, -must-be-new: exit status %s, stdout %q, stderr %q", status, stdout, stderr)
	}
	d.must(strings.Replace(line, "-version v1", "-version v2", 1)) // without another upload
}

// The line that a change prints takes it back, whatever the change was.
func TestPrintedLineRollsBack(t *testing.T) {
	d := newDesk(t).walk()
	showconf := func() string { return d.must("showconf -name project1") }
	for _, test := range []struct{ line, want string }{
		{"bumpconf -name project1 -component config", `changeconf -name="project1" -component="config" -version="v01"`},
		{"changeconf -name project1 -layer code:v00 -layer config:v02", `changeconf -name="project1" -layer="code:v01" -layer="config:v01"`},
		{"bumpconf -name project1 -component config -component code", `changeconf -name="project1" -component="config" -version="v01"`},
		{"addconf -name project1 -replace -layer config:v01 -layer code:v01", `rollback -name="project1" -to=7`},
		{"addconf project1 -replace code:v01", `rollback -name="project1" -to=9`},
		{"addconf project1 -replace config:v02 code:v00", `rollback -name="project1" -to=11`},
		{"changeconf -name project1 -component code -version v00", `changeconf -name="project1" -component="code" -version="v01"`},
	} {
		before := showconf()
		got, ok := strings.CutPrefix(d.must(test.line), "to roll back run:\n\t")
		if got = strings.TrimSuffix(got, "\n"); !ok || got != test.want {
			t.Errorf("%s: the way back is %q, want %q", test.line, got, test.want)
			continue
		}
		if showconf() == before {
			t.Errorf("%s: changed nothing", test.line)
		}
		d.must(got)
		if after := showconf(); after != before {
			t.Errorf("%s, then %s: got\n%s\nwant\n%s", test.line, got, after, before)
		}
	}
}

func TestAddconfPositional(t *testing.T) {
	d := newDesk(t).walk()
	want := d.must("showconf -name project1")
	for i, line := range []string{"addconf p0 code:v01 config:v01", "addconf -name p1 code:v01 config:v01", "addconf p2 -layer code:v01 config:v01"} {
		if got := d.must(line); got != "" {
			t.Errorf("%s: printed %q", line, got)
		}
		if got := d.must(fmt.Sprintf("showconf -name p%d", i)); got != want {
			t.Errorf("%s: made\n%s\nwant\n%s", line, got, want)
		}
	}
}

// Every command prints one JSON object under -json, or one for each row, and errors are one on
// stderr. Keys may be added to the golden file, never renamed.
func TestJSON(t *testing.T) {
	d := newDesk(t).examples()
	var b strings.Builder
	for _, c := range Commands() {
		for _, example := range c.Examples {
			if c.Raw {
				continue // refuses it: see TestBackup
			}
			line := strings.TrimSuffix(example, " -json") + " -json"
			got := d.must(line)
			for row := range strings.Lines(got) {
				var v struct{ Schema int }
				if err := json.Unmarshal([]byte(row), &v); err != nil || v.Schema != 1 || !strings.HasSuffix(row, "\n") {
					t.Errorf("%s: printed %q: schema %d, %v", line, row, v.Schema, err)
				}
			}
			if n := strings.Count(got, "\n"); n != 1 && !c.Rows || n == 0 {
				t.Errorf("%s: printed %d objects", line, n)
			}
			fmt.Fprintf(&b, "> %s\n%s", line, withoutIDs(t, d, got))
		}
	}
	for _, line := range []string{
		"showconf -name nope -json", "showconf -json -name", "nonsense -json", "showconf --json -nmae x", "showcomp -name a:b --json", "showconf -json=true -name <&>",
	} {
		stdout, stderr, status := d.run(line)
		if strings.Contains(line, "<") {
			stdout, stderr, status = d.run(`showconf -json=true -name '<&>'`)
		}
		var v struct{ Schema, Status int }
		if err := json.Unmarshal([]byte(stderr), &v); err != nil || v.Schema != 1 || v.Status != int(status) || stdout != "" {
			t.Errorf("%s: exit status %s, stdout %q, stderr %q, %v", line, status, stdout, stderr, err)
		}
		fmt.Fprintf(&b, "> %s\n%s", line, stderr)
	}
	golden(t, "json.txt", b.String())
	for _, line := range []string{"showconf -name -json", "showconf -name nope -json=false"} {
		if _, stderr, _ := d.run(line); !strings.HasPrefix(stderr, "error: ") {
			t.Errorf("%s: stderr %q, want text", line, stderr)
		}
	}
}

// withoutIDs hides what differs each time: the names of uploads.
func withoutIDs(t *testing.T, d *desk, s string) string {
	uploads, err := d.session.Registry.Uploads(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range uploads {
		s = strings.ReplaceAll(s, u.ID, "ID")
	}
	return s
}
