package console

import (
	"regexp"
	"strings"
	"testing"

	"deploytools/registry"
	"deploytools/registry/wire"
)

var examplesName = regexp.MustCompile(`project\d`)

// Every example of every command, about a configuration of somebody else: it is
// denied, changes nothing of it and shows nothing of it. A command that does not
// say how it keeps to a scope is denied as a whole.
func TestScopeHidesAndKeeps(t *testing.T) {
	for _, c := range everyCommand() {
		for _, example := range append(c.Examples, c.Name) {
			d := newDesk(t).examples()
			for _, name := range []string{"hidden1", "hidden2"} {
				d.must("addconf -name " + name + " -layer code:v01 -layer config:v01")
				d.must("changeconf -name " + name + " -component code -version v00")
			}
			before := d.historyOf("hidden1") + d.historyOf("hidden2")
			d.session.Caller.Configs = "project*,mine"
			line := examplesName.ReplaceAllString(example, "hidden1")
			stdout, stderr, status := d.run(line)
			if strings.Contains(stdout, "hidden") {
				t.Errorf("%s: shows another's configuration:\n%s", line, stdout)
			}
			denied := line != example || c.Reach == AllConfigurations
			if denied != (status == wire.Denied) || denied && stdout != "" {
				t.Errorf("%s: exit status %s, stdout %q, stderr %q, want it denied: %t", line, status, stdout, stderr, denied)
			}
			d.session.Caller.Configs = ""
			if after := d.historyOf("hidden1") + d.historyOf("hidden2"); after != before {
				t.Errorf("%s: changed another's configuration:\n%s", line, after)
			}
		}
	}
}

func (d *desk) historyOf(name string) string { return d.must("history -name " + name + " -json") }

// In its scope a key does what it does without one.
func TestScopeLetsThrough(t *testing.T) {
	free, confined := newDesk(t).examples(), newDesk(t).examples()
	confined.session.Caller.Configs = "project?"
	for _, c := range everyCommand() {
		if c.Reach == AllConfigurations {
			continue
		}
		for _, example := range c.Examples {
			want, got := free.must(example), confined.must(example)
			if got != want && !strings.HasPrefix(example, "uploads") { // they have other names
				t.Errorf("%s: got\n%s\nwant\n%s", example, got, want)
			}
		}
	}
}

// Whether a configuration is there cannot be told from what a key that may not
// see it is told.
func TestScopeTellsNothing(t *testing.T) {
	d := newDesk(t).walk()
	d.must("addconf -name hidden -layer code:v01")
	d.session.Caller.Configs = "project1"
	for _, line := range []string{
		"showconf -name NAME", "history -name NAME", "diffconf -name NAME", "addconf -name NAME -layer code:v01", "addconf NAME code:v01",
		"addconf -replace NAME code:v01", "changeconf -name NAME -layer code:v00", "bumpconf -name NAME -component code", "rollback -name NAME",
		"delconf -name NAME -force", "delconf -name NAME", "showconf -name NAME -json", "history -name NAME -json",
		"showconf NAME", "history NAME -json", "diffconf NAME", "diff -name NAME", "hold NAME -reason x", "changeconf NAME code:v00", "bumpconf NAME code", "rollback NAME", "delconf NAME -force", "hold -name NAME", "resume NAME", "resume -name NAME -dry-run",
	} {
		_, there, status := d.run(strings.ReplaceAll(line, "NAME", "hidden"))
		_, missing, _ := d.run(strings.ReplaceAll(line, "NAME", "nobody"))
		if status != wire.Denied || strings.ReplaceAll(there, "hidden", "nobody") != missing {
			t.Errorf("%s: exit status %s, %q for one that is there, %q for one that is not", line, status, there, missing)
		}
	}
	d.must("addver -name code -version other -hash " + d.upload("other").String())
	d.session.Caller.Configs = ""
	d.must("changeconf -name hidden -component code -version other")
	d.session.Caller.Configs = "project1"
	for _, line := range []string{"files code:other", "diff code:v01 code:other", "diff code:other code:v01 -json"} {
		stdout, stderr, status := d.run(line)
		if stdout != "" || status != wire.Denied || !strings.Contains(stderr, "layer code:other is in no configuration of your key: configs=") {
			t.Errorf("%s: exit status %s, stdout %q, stderr %q", line, status, stdout, stderr)
		}
		d.session.Caller.Configs = ""
		if all := d.entries(); all[len(all)-1].Status != wire.Denied || Join(all[len(all)-1].Command) != line {
			t.Errorf("%s: the last on record is %+v", line, all[len(all)-1])
		}
		d.session.Caller.Configs = "project1"
	}
	if got := d.must("configurations"); got != "project1\n" {
		t.Errorf("configurations: %q", got)
	}
	stdout, stderr, status := d.script("configurations\nshowconf -name hidden\n")
	if stdout != "project1\n" || status != wire.Denied {
		t.Errorf("a script: exit status %s, stdout %q, stderr %q", status, stdout, stderr)
	}
}

// The Tab key looks at what it would suggest from with the same eyes.
func TestScopeOfCompletion(t *testing.T) {
	d := newDesk(t).walk()
	d.must("addconf -name hidden -layer assets:v01")
	d.must("addconf -name hidden -replace -layer code:v01")
	d.session.Caller.Configs = "project*"
	for _, line := range []string{
		"showconf -name ", "showconf -name hid", "bumpconf -name hidden -component ", "rollback -name hidden -to ", "diffconf -name hidden -from ",
		"delver -name code -version ", "changeconf -name hidden -layer ",
		"changeconf hidden ", "bumpconf hidden ", "rollback hidden -to ",
	} {
		done, _, candidates := Complete(t.Context(), &d.session, line, len(line))
		if strings.Contains(done, "hidden ") && !strings.Contains(line, "hidden ") || len(candidates) > 0 {
			t.Errorf("Complete(%q) = %q, %q", line, done, candidates)
		}
		if strings.Contains(line, "hidden") && done != line {
			t.Errorf("Complete(%q) = %q", line, done)
		}
	}
	if got := d.must(CompleteName + " -- showconf -name ''"); got != "project1\n" {
		t.Errorf("another program is told %q", got)
	}
	if done, _, _ := Complete(t.Context(), &d.session, "showconf -name ", 15); done != "showconf -name project1 " {
		t.Errorf("Complete shows %q", done)
	}
}

// A command that somebody forgot to think about is denied to keys with a scope.
func TestZeroReachIsTheCarefulOne(t *testing.T) {
	d := newDesk(t)
	d.session.Caller.Configs = "web"
	err := d.session.allowed(Command{Name: "new", Role: registry.Viewer}, new(versionOp))
	if StatusOf(err) != wire.Denied || err.Error() != `new is for keys that may see every configuration, yours has configs="web"` {
		t.Errorf("allowed = %v, want it denied", err)
	}
}
