package console

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"deploytools/registry"
	"deploytools/registry/wire"
)

// entries returns what is on record.
func (d *desk) entries() []entry {
	d.t.Helper()
	was := d.session.Caller
	defer func() { d.session.Caller = was }()
	d.session.Caller.Role = registry.Admin
	var out []entry
	for line := range strings.Lines(d.must("audit -json")) {
		var e entry
		line = strings.Replace(line, `"schema":1,`, "", 1)
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			d.t.Fatal(err)
		}
		out = append(out, e)
	}
	return out
}

// Each command that changes something is on record once, with its words and who
// gave them; no other command is.
func TestEveryCommandThatChangesIsOnRecord(t *testing.T) {
	d := newDesk(t).examples()
	d.session.Caller.Remote = "192.0.2.7"
	for _, c := range Commands() {
		for _, example := range c.Examples {
			before := len(d.entries())
			d.must(example)
			after := d.entries()
			want := 0
			if c.Mutates {
				want = 1
			}
			if len(after)-before != want {
				t.Errorf("%s: made %d entries, want %d", example, len(after)-before, want)
				continue
			}
			if want == 0 {
				continue
			}
			words, _ := Split(example)
			e := after[len(after)-1]
			if Join(e.Command) != Join(words) || e.Status != wire.OK || e.Result == "" || e.Name == "" ||
				e.User != "ann" || e.Comment != "ann@desk" || e.Key != "SHA256:abc" || e.Remote != "192.0.2.7" || e.Role != "admin" {
				t.Errorf("%s: is on record as %+v", example, e)
			}
		}
	}
}

// What a key may not do is on record, of every command.
func TestEveryRefusalIsOnRecord(t *testing.T) {
	d := newDesk(t).examples()
	d.session.Caller.Role = registry.NoRole
	for _, c := range Commands() {
		before := len(d.entries())
		d.run(c.Examples[0])
		after := d.entries()
		if e := after[len(after)-1]; len(after) != before+1 || e.Status != wire.Denied || e.Command[0] != c.Name || !strings.HasPrefix(e.Result, c.Name+" needs the role ") {
			t.Errorf("%s: made %d entries, the last %+v", c.Examples[0], len(after)-before, e)
		}
	}
}

// So is a command that would change something and failed, whatever it was about;
// what only reads is not.
func TestEveryFailureIsOnRecord(t *testing.T) {
	d := newDesk(t).walk()
	for _, test := range []struct {
		line, name, result string
		status             wire.Status
	}{
		{"changeconf -name nope -component code -version v01", "nope", `configuration "nope" not found`, wire.NotFound},
		{"addconf project1 code:v01", "project1", `configuration "project1" already exists`, wire.Conflict},
		{"delcomp -name code", "code", noForce, wire.Usage},
		{"delver -name code -version v01", "code", `version is used by configuration "project1"`, wire.Conflict},
		{"resume nope", "nope", `configuration "nope" not found`, wire.NotFound},
		{"showconf -name nope", "", "", wire.NotFound},
		{"addver -name code -version v9 -hash " + strings.Repeat("ab", 32), "", "", wire.NotFound}, // deployctl asks so
		{"changeconf -name nope -component code -version v01 -dry-run", "", "", wire.NotFound},
	} {
		before := len(d.entries())
		if _, _, status := d.run(test.line); status != test.status {
			t.Fatalf("%s: exit status %s, want %s", test.line, status, test.status)
		}
		after := d.entries()
		if test.result == "" {
			if len(after) != before {
				t.Errorf("%s: is on record as %+v", test.line, after[before:])
			}
			continue
		}
		if e := after[len(after)-1]; len(after) != before+1 || e.Name != test.name || e.Result != test.result || e.Status != test.status {
			t.Errorf("%s: made %d entries, the last %+v", test.line, len(after)-before, e)
		}
	}
}

// Every command that changes something has a dry run, which changes nothing and
// says what the command would do.
func TestEveryChangeHasADryRun(t *testing.T) {
	d := newDesk(t).examples()
	for _, c := range Commands() {
		if !c.Mutates {
			continue
		}
		for _, example := range c.Examples {
			before, entries := d.state(), len(d.entries())
			stdout := d.must(example + " -dry-run")
			what, ok := strings.CutPrefix(stdout, "dry run, nothing was changed: ")
			var asJSON struct {
				DryRun bool `json:"dry_run"`
			}
			if err := json.Unmarshal([]byte(d.must(example+" -dry-run -json")), &asJSON); err != nil || !asJSON.DryRun || !ok {
				t.Errorf("%s -dry-run: printed %q; as JSON it is a dry run: %t, %v", example, stdout, asJSON.DryRun, err)
			}
			if d.state() != before || len(d.entries()) != entries {
				t.Errorf("%s -dry-run changed something", example)
			}
			d.must(example)
			after := d.entries()
			result := after[len(after)-1].Result
			switch c.Name {
			case "delcomp": // which may take several steps
				result = strings.Replace(result, "1 of", "all of", 1)
			case "hold": // the clock goes on
				result, _, _ = strings.Cut(result, ", until ")
			}
			if !strings.HasPrefix(what, result) {
				t.Errorf("%s -dry-run: said %q, and done was %q", example, what, result)
			}
		}
	}
}

func TestExpect(t *testing.T) {
	d := newDesk(t).walk()
	d.must("changeconf -name project1 -component code -version v00")
	before := d.state()
	for _, line := range []string{
		"addconf project1 code:v01 -replace", "changeconf -name project1 -component code -version v01", "bumpconf -name project1 -component code",
		"rollback -name project1", "delconf -name project1 -force", "hold project1 -reason x", "resume project1",
	} {
		const want = "error: configuration \"project1\" is at revision 2, not at 1\nhint: history -name project1 shows what changed meanwhile\n"
		if stdout, stderr, status := d.run(line + " -expect 1"); status != wire.Conflict || stdout != "" || stderr != want {
			t.Errorf("%s -expect 1: exit status %s, stdout %q, stderr %q", line, status, stdout, stderr)
		}
	}
	if d.state() != before {
		t.Error("something was changed")
	}
	d.must("bumpconf -name project1 -component code -expect 2")
}

func TestNotesAreShown(t *testing.T) {
	d := newDesk(t).walk()
	d.must("addver -name code -version v02 -hash " + d.upload("x").String() + " -meta commit=1f3a9c7 -meta ci='build 812' -note 'logins work again'")
	d.must("bumpconf -name project1 -component code -note 'as planned'")
	if got, want := d.must("history -name project1"), "   code v01 -> v02   as planned\n"; !strings.Contains(got, want) {
		t.Errorf("history: got\n%s\nwant in it %q", got, want)
	}
	if got, want := d.must("showconf -name project1 -v"), "\nNote:\tas planned\n\n"; !strings.Contains(got, want) {
		t.Errorf("showconf -v: got\n%s\nwant in it %q", got, want)
	}
	const want = "   ann@desk   ci=build 812 commit=1f3a9c7   logins work again\n"
	if got := d.must("showcomp -name code -v"); !strings.HasSuffix(got, want) {
		t.Errorf("showcomp -v: got\n%s\nwant at its end %q", got, want)
	}
	if got := d.must("showcomp -name code"); strings.Contains(got, "logins") {
		t.Errorf("showcomp: got\n%s", got)
	}
	for _, meta := range []string{"commit", "=x", "a=1 -meta a=2", "'a b=1'", "a=$'\\n'", "a='" + strings.Repeat("x", 2000) + "'"} {
		if _, stderr, status := d.run("addver -name code -version v03 -hash " + strings.Repeat("ab", 32) + " -meta " + meta); status != wire.Usage {
			t.Errorf("-meta %s: exit status %s, stderr %q", meta, status, stderr)
		}
	}
}

func TestShowconfDigests(t *testing.T) {
	d := newDesk(t).walk()
	const want = "code     v01   2026-11-21T18:02:00Z   3c3137ea0058194f51fd0ffad6283ba5eb1d4eadca1e9ab2a1bb2f286bbcc954\n" +
		"config   v01   2026-11-21T18:03:00Z   a9a6dd6c1cfcb974b01d4ce9a38f82fce62010e9e0d91b6bae64210f7e8da8b9\n"
	if got := d.must("showconf -name project1 -digests"); got != want {
		t.Errorf("showconf -digests: got\n%s\nwant\n%s", got, want)
	}
}

func TestHoldIsShown(t *testing.T) {
	d := newDesk(t).walk()
	d.must("hold project1 -reason 'database migration' -until 2h")
	if got, want := d.must("showconf -name project1 -v"), "\nHeld:\tdatabase migration, until 2026-11-21T20:07:00Z\n\n"; !strings.Contains(got, want) {
		t.Errorf("showconf -v: got\n%s\nwant in it %q", got, want)
	}
	_, stderr, status := d.run("bumpconf -name project1 -component config")
	if want := "note: project1 is held: database migration, until 2026-11-21T20:07:00Z; agents start nothing new\n"; stderr != want || status != wire.OK {
		t.Errorf("bumpconf: exit status %s, stderr %q, want %q", status, stderr, want)
	}
	for line, stdout := range map[string]string{
		"showconf project1": d.must("showconf -name project1 -v"), "configurations": "project1\n",
	} {
		got, stderr, status := d.run(line)
		if want := "note: project1 is held: database migration, until 2026-11-21T20:07:00Z; agents start nothing new\n"; stderr != want || status != wire.OK || !strings.HasSuffix(stdout, got) {
			t.Errorf("%s: exit status %s, stdout %q, stderr %q, want %q", line, status, got, stderr, want)
		}
	}
	if _, stderr, _ := d.run("showconf project1 -json"); stderr != "" {
		t.Errorf("showconf -json: stderr %q", stderr)
	}
	if got, want := d.must("configurations -json"), `"names":["project1"],"held":{"project1":{"reason":"database migration","until":"2026-11-21T20:07:00Z"}}}`; !strings.Contains(got, want) {
		t.Errorf("configurations -json: got %s, want in it %s", got, want)
	}
	d.minutes.Add(120)
	if got := d.must("showconf -name project1 -v"); strings.Contains(got, "Held") {
		t.Errorf("showconf -v when the hold is over: got\n%s", got)
	}
	d.must("hold -name project1 -reason sale")
	d.must("resume project1")
	if got := d.must("showconf -name project1 -v"); strings.Contains(got, "Held") {
		t.Errorf("showconf -v after resume: got\n%s", got)
	}
	for line, want := range map[string]string{
		"hold project1":                              "error: a hold should have a reason\nhint: give -reason TEXT: agents show it\n",
		"hold -reason x":                             "error: -name should be set\nhint: see 'help hold'\n",
		"hold project1 project2 -reason x":           "error: unexpected argument \"project2\"\nhint: see 'help hold'\n",
		"hold project1 -reason x -until soon":        "error: -until \"soon\": should be a time such as 2026-01-31 18:30, in UTC, or 2026-01-31T18:30:00+01:00, or a duration such as 90m or 2d\nhint: see 'help hold'\n",
		"hold project1 -reason x -until 2026-11-21":  "error: the hold would have ended at 2026-11-21T00:00:00Z already\nhint: see 'help hold'\n",
		"hold project1 -until 2h -reason 'a\x1bb'":   "error: reason should be one line of text\nhint: see 'help hold'\n",
		"delver -name code -version v01 -force":      "error: -force needs -note, which says why\nhint: see 'help delver'\n",
		"audit -seen 1:ab":                           "error: -seen goes with -verify\nhint: see 'help audit'\n",
		"audit -verify -seen x":                      "error: -seen \"x\": should be number:hash\nhint: see 'help audit'\n",
		"audit -since yesterday":                     "error: -since \"yesterday\": should be a time such as 2026-01-31 18:30, in UTC, or 2026-01-31T18:30:00+01:00, or a duration such as 90m or 2d\nhint: see 'help audit'\n",
		"audit -n -1":                                "error: -n cannot be negative\nhint: see 'help audit'\n",
		"rollback -name project1 -note 'a\u202eb'":   "error: note should be one line of text\nhint: see 'help rollback'\n",
		"addver -name a -version b -hash c -meta =1": "error: hash should be a hex representation of content sha256 sum, 64 chars long\nhint: see 'help addver'\n",
	} {
		if stdout, stderr, status := d.run(line); stdout != "" || stderr != want || status != wire.Usage {
			t.Errorf("%s: exit status %s, stdout %q, stderr %q, want %q", line, status, stdout, stderr, want)
		}
	}
}

func TestMoment(t *testing.T) {
	now := time.Date(2026, 11, 21, 18, 0, 0, 0, time.UTC)
	for text, want := range map[string]string{
		"": "0001-01-01T00:00:00Z", "2026-01-31": "2026-01-31T00:00:00Z", "2026-01-31 18:30": "2026-01-31T18:30:00Z",
		"2026-01-31 18:30:59": "2026-01-31T18:30:59Z", "2026-01-31T18:30:00+02:00": "2026-01-31T16:30:00Z",
		"90m": "2026-11-21T19:30:00Z", "2d": "2026-11-23T18:00:00Z", "0": "2026-11-21T18:00:00Z",
	} {
		if got, err := Moment("until", text, now, 1); err != nil || timeText(got) != want {
			t.Errorf("Moment(%q) = %s, %v, want %s", text, timeText(got), err, want)
		}
	}
	if got, err := Moment("since", "90m", now, -1); err != nil || timeText(got) != "2026-11-21T16:30:00Z" {
		t.Errorf("Moment(90m ago) = %s, %v", timeText(got), err)
	}
	for _, text := range []string{"-1h", "1", "x", "d", "1.5d", "-2d", "99999999d", "2026-13-01", "18:30"} {
		if got, err := Moment("until", text, now, 1); err == nil {
			t.Errorf("Moment(%q) = %s", text, timeText(got))
		}
	}
}

func TestAuditText(t *testing.T) {
	d := newDesk(t).walk()
	d.session.Caller.Remote = "192.0.2.7"
	d.must("changeconf -name project1 -component code -version v00 -note 'v01 loses sessions'")
	d.session.Caller = registry.Caller{User: "eve", Role: registry.Viewer, Fingerprint: "SHA256:eve", Remote: "198.51.100.9"}
	d.run("delconf -name project1 -force")
	d.session.Caller.Role = registry.Admin
	const want = "12   2026-11-21T18:07:00Z   ann (ann@desk)   SHA256:abc   192.0.2.7   changeconf -name project1 -component code -version v00 -note 'v01 loses sessions'   done: revision 2: code v01 -> v00   note: v01 loses sessions\n" +
		"13   2026-11-21T18:08:00Z   eve   SHA256:eve   198.51.100.9   delconf -name project1 -force   refused, 5: delconf needs the role admin, your key has viewer\n"
	if got := d.must("audit -n 2"); got != want {
		t.Errorf("audit: got\n%s\nwant\n%s", got, want)
	}
	if got := d.must("audit -user eve -until 2026-11-21 -json"); got != "" {
		t.Errorf("audit of nothing: got %q", got)
	}
}

func TestAuditVerify(t *testing.T) {
	d := newDesk(t)
	if got := d.must("audit -verify"); got != "the audit log has no entries\n" {
		t.Errorf("audit -verify: got %q", got)
	}
	d.walk()
	got := d.must("audit -verify")
	seen, ok := strings.CutPrefix(strings.TrimSuffix(got, "\n"), "entries 1 to 11 are as they were written\nkeep this elsewhere, for -seen: ")
	if !ok {
		t.Fatalf("audit -verify: got %q", got)
	}
	d.must("bumpconf -name project1 -component config")
	d.must("audit -verify -seen " + seen)
	if _, stderr, status := d.run("audit -verify -seen 5" + seen[2:]); status != wire.Failed || !strings.Contains(stderr, "error: audit log is broken: entry 5 has the hash ") {
		t.Errorf("audit -verify -seen of another log: exit status %s, stderr %q", status, stderr)
	}
	if _, stderr, status := d.run("audit -verify -seen 99" + seen[2:]); status != wire.NotFound || stderr != "error: the audit log has no entry 99\n" {
		t.Errorf("audit -verify -seen of no entry: exit status %s, stderr %q", status, stderr)
	}
	err := d.meta.Update(t.Context(), func(tx registry.Tx) error {
		key := fmt.Sprintf("audit/%016x", 3)
		b, err := tx.Get(key)
		if err == nil {
			err = tx.Put(key, []byte(strings.Replace(string(b), "ann", "eve", 1)))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	const want = "error: audit log is broken: entry 3 of 1 to 12: it is not the one that entry 4 was written after\n"
	if stdout, stderr, status := d.run("audit -verify"); status != wire.Failed || stdout != "" || stderr != want {
		t.Errorf("audit -verify: exit status %s, stdout %q, stderr %q, want %q", status, stdout, stderr, want)
	}
}
