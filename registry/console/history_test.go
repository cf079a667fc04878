package console

import (
	"strings"
	"testing"

	"deploytools/registry/wire"
)

// story gives project1 the revisions that the tests below look at.
func (d *desk) story() *desk {
	d.t.Helper()
	d.walk()                                                              // 1
	d.must("changeconf -name project1 -layer code:v00 -layer config:v02") // 2
	d.must("addconf project1 -replace config:v02 code:v00 assets:v01")    // 3
	d.must("addconf project1 -replace code:v01 assets:v01")               // 4
	d.must("delconf -name project1 -force")                               // 5
	d.must("rollback -name project1 -to 4")                               // 6
	return d
}

func TestHistory(t *testing.T) {
	d := newDesk(t).story()
	const want = "6   2026-11-21T18:11:00Z   ann@desk   rolled back to revision 4\n" +
		"5   2026-11-21T18:10:00Z   ann@desk   deleted\n" +
		"4   2026-11-21T18:09:00Z   ann@desk   replaced\n" +
		"3   2026-11-21T18:08:00Z   ann@desk   replaced\n" +
		"2   2026-11-21T18:07:00Z   ann@desk   code v01 -> v00, config v01 -> v02\n" +
		"1   2026-11-21T18:06:00Z   ann@desk   created\n"
	if got := d.must("history -name project1"); squeeze(got) != squeeze(want) {
		t.Errorf("history: got\n%s\nwant\n%s", got, want)
	}
}

// squeeze makes runs of spaces one.
func squeeze(s string) string {
	for strings.Contains(s, "  ") {
		s = strings.ReplaceAll(s, "  ", " ")
	}
	return s
}

func TestDiffconf(t *testing.T) {
	d := newDesk(t).story()
	for _, test := range []struct{ flags, want string }{
		{"-to 2", "code changed v01 -> v00\nconfig changed v01 -> v02\n"},
		{"-from 2 -to 1", "code changed v00 -> v01\nconfig changed v02 -> v01\n"},
		{"-to 3", "assets added v01\n- reordered\n"},
		{"-to 4", "config removed v02\ncode changed v00 -> v01\n"},
		{"-to 1", "code added v01\nconfig added v01\n"},
		{"-to 5", "code removed v01\nassets removed v01\n"},
		{"", "code added v01\nassets added v01\n"},
		{"-from 4", ""},
		{"-from 3 -to 3", ""},
	} {
		if got := squeeze(d.must("diffconf -name project1 " + test.flags)); got != test.want {
			t.Errorf("diffconf %s: got\n%s\nwant\n%s", test.flags, got, test.want)
		}
	}
	for line, want := range map[string]string{
		"diffconf -name project1 -to 7":   "error: configuration \"project1\" has no revision 7\nhint: history -name project1 lists them\n",
		"diffconf -name project1 -from 9": "error: configuration \"project1\" has no revision 9\nhint: history -name project1 lists them\n",
		"diffconf -name nope":             "error: configuration \"nope\" not found\nhint: see 'configurations'\n",
	} {
		if stdout, stderr, status := d.run(line); stdout != "" || stderr != want || status != wire.NotFound {
			t.Errorf("%s: stdout %q, stderr %q, exit status %s", line, stdout, stderr, status)
		}
	}
}

func TestDiffconfShowsOtherContent(t *testing.T) {
	d := newDesk(t).walk()
	d.must("changeconf -name project1 -component code -version v00")
	d.must("delver -name code -version v01 -force -note test")
	hash := d.upload("other").String()
	d.must("addver -name code -version v01 -hash " + hash)
	d.must("changeconf -name project1 -component code -version v01")
	if got, want := d.must("diffconf -name project1 -from 1"), "code   content   v01\n"; got != want {
		t.Errorf("diffconf: got %q, want %q", got, want)
	}
	if got := d.must("diffconf -name project1 -from 1 -json"); !strings.Contains(got, `"to_digest":"`+hash+`"`) {
		t.Errorf("diffconf -json: got %s", got)
	}
}

func TestRollbackTwiceIsForward(t *testing.T) {
	d := newDesk(t).walk()
	first := d.must("showconf -name project1")
	d.must("bumpconf -name project1 -component config")
	second := d.must("showconf -name project1")
	for i, want := range []string{first, second, first} {
		d.must("rollback -name project1")
		if got := d.must("showconf -name project1"); got != want {
			t.Errorf("rollback %d: got\n%s\nwant\n%s", i+1, got, want)
		}
	}
}

// The name stands behind the flags as well as behind -name, but once.
func TestNameAlone(t *testing.T) {
	d := newDesk(t).examples()
	for alone, want := range map[string]string{
		"showconf project1": "showconf -name project1", "history -json project1": "history -json -name project1",
		"diffconf project1 -to 2": "diffconf -name project1 -to 2", "showcomp code -v": "showcomp -name code -v",
	} {
		if got, want := d.must(alone), d.must(want); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", alone, got, want)
		}
	}
	for _, line := range []string{"showconf -name project1 project1", "history project1 more", "diffconf project1 1", "showcomp code config"} {
		stdout, stderr, status := d.run(line)
		if stdout != "" || !strings.HasPrefix(stderr, "error: unexpected argument ") || status != wire.Usage {
			t.Errorf("%s: stdout %q, stderr %q, exit status %s", line, stdout, stderr, status)
		}
	}
}
