package console

import (
	"strings"
	"testing"

	"deploytools/registry/wire"
)

// What the original tool set printed, byte for byte: scripts read it.
func TestOriginalOutput(t *testing.T) {
	d := newDesk(t)
	d.addver("config", "v01")
	d.addver("code", "v01")
	d.addver("code", "v02")
	d.must("addconf -name project1 -layer code:v01 -layer config:v01")
	for _, test := range []struct{ line, want string }{
		{"components", "code\nconfig\n"},
		{"showcomp -name code", "2026-11-21T18:02:00Z   v01   \n2026-11-21T18:03:00Z   v02   \n"},
		{"configurations", "project1\n"},
		{"showconf -name project1", "code     v01   2026-11-21T18:02:00Z   \nconfig   v01   2026-11-21T18:01:00Z   \n"},
		{"showconf -name project1 -v", "Name:\tproject1\nMtime:\t2026-11-21T18:04:00Z\n" +
			"Hash:\t90e8badf08992c1f1e90b970ce711efac93a5a28f8a593402700f900d19d9489\n\n" +
			"code     v01   2026-11-21T18:02:00Z   \nconfig   v01   2026-11-21T18:01:00Z   \n"},
		{"bumpconf -name project1 -component code", "to roll back run:\n\tchangeconf -name=\"project1\" -component=\"code\" -version=\"v01\"\n"},
		{"bumpconf -name project1 -component code", ""},
		{"changeconf -name project1 -component code -version v01", "to roll back run:\n\tchangeconf -name=\"project1\" -component=\"code\" -version=\"v02\"\n"},
		{"delver -name code -version v02 -force -note test", ""}, // a rollback may need it
		{"delconf -name project1 -force", ""},
		{"delcomp -name code -force", ""},
		{"components", "config\n"},
		{"configurations", ""},
	} {
		if got := d.must(test.line); got != test.want {
			t.Errorf("%s: got\n%s\nwant\n%s", test.line, got, test.want)
		}
	}
}

// The texts of the original tool set, and our exit statuses for them.
func TestOriginalErrors(t *testing.T) {
	d := newDesk(t).walk()
	hash := strings.Repeat("ab", 32)
	other := d.upload("something else").String()
	before := d.state()
	for _, test := range []struct {
		line, want string
		status     wire.Status
	}{
		{"addver -name code -version v10 -hash " + hash, "no uploaded file with given hash found", wire.NotFound},
		{"addver -name code -version v01 -hash " + other, `version "v01" already exists`, wire.Conflict},
		{"addver -name code -version v10", "name, version and hash should all be set", wire.Usage},
		{"addver -name a:b -version v10 -hash " + hash, "name cannot contain : symbol", wire.Usage},
		{"addver -name code -version v10 -hash abcd", "hash should be a hex representation of content sha256 sum, 64 chars long", wire.Usage},
		{"addver -name code -version v10 -hash " + strings.Repeat("x", 64), "hash should be a hex representation of content sha256 sum, 64 chars long", wire.Usage},
		{"addconf -name a/b -layer code:v01", "name cannot contain / symbol", wire.Usage},
		{"addconf -name p", "configuration should have at least one layer", wire.Usage},
		{"addconf -name p -layer code:v01 -layer code:v00", `duplicate component "code"`, wire.Usage},
		{"addconf -name p -layer code:zz", `no version "zz" for component "code" found`, wire.NotFound},
		{"changeconf -name project1 -component code -version zz", `no version "zz" for component "code" found`, wire.NotFound},
		{"changeconf -name project1", "nothing to do", wire.Usage},
		{"changeconf -name project1 -component assets -version v01", `configuration has no layer for component "assets"`, wire.NotFound},
		{"changeconf -name nope -component code -version v01", `configuration "nope" not found`, wire.NotFound},
		{"bumpconf -name project1", "nothing to do", wire.Usage},
		{"bumpconf -name nope -component code", `configuration "nope" not found`, wire.NotFound},
		{"bumpconf -name project1 -component x", `no versions for component "x" found`, wire.NotFound},
		{"bumpconf -name project1 -component assets", `configuration has no layer for component "assets"`, wire.NotFound},
		{"showconf -name nope", `configuration "nope" not found`, wire.NotFound},
		{"showcomp -name zzz", `"zzz" component not found`, wire.NotFound}, // silence and success once
		{"delver -name code -version zz", `no version "zz" for component "code" found`, wire.NotFound},
		{"delver -name code -version v01", `version is used by configuration "project1"`, wire.Conflict},
		{"delcomp -name code -force", `component is used by configuration "project1"`, wire.Conflict},
		{"delcomp -name zzz -force", `no component "zzz" found`, wire.NotFound},
		{"delcomp -name assets", "Run command with -force flag to confirm removal", wire.Usage},
		{"delconf -name project1", "Run command with -force flag to confirm removal", wire.Usage},
		{"delconf -name zzz -force", `"zzz" configuration not found`, wire.NotFound},
		{"nonsense", "Unknown command, supported commands are: " + strings.Join(names(), " "), wire.Usage},
	} {
		stdout, stderr, status := d.run(test.line)
		first, _, _ := strings.Cut(stderr, "\n")
		if stdout != "" || first != "error: "+test.want || status != test.status {
			t.Errorf("%s: stdout %q, stderr %q, exit status %s, want %q, %s", test.line, stdout, stderr, status, test.want, test.status)
		}
	}
	if after := d.state(); after != before {
		t.Errorf("commands that failed left\n%s\nwant\n%s", after, before)
	}
}

func TestUnknownCommandListsEveryOne(t *testing.T) {
	d := newDesk(t)
	_, stderr, _ := d.run("help")
	list := d.must("help")
	_, unknown, _ := d.run("advder")
	for _, c := range Commands() {
		if !strings.Contains(list, c.Name+" ") || !strings.Contains(unknown, " "+c.Name) {
			t.Errorf("%s is missing in\n%s\n%s%s", c.Name, list, unknown, stderr)
		}
	}
	if !strings.Contains(unknown, "hint: \"advder\" is no command, the nearest is addver\n") {
		t.Errorf("advder: stderr %q names no nearest command", unknown)
	}
}
