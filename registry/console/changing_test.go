package console

import (
	"testing"

	"deploytools/registry"
	"deploytools/registry/wire"
)

// A name behind the command does what the same name behind -name does.
func TestNamesWithoutTheirFlag(t *testing.T) {
	for _, test := range []struct{ flag, word string }{
		{"changeconf -name project1 -component code -version v00", "changeconf project1 code:v00"},
		{"changeconf -name project1 -layer code:v00 -layer config:v02", "changeconf -layer code:v00 project1 config:v02"},
		{"changeconf -name project1 -layer code:v00", "changeconf -name project1 code:v00"},
		{"changeconf -name project1 -component code -version v00", "changeconf project1 -component code -version v00"},
		{"bumpconf -name project1 -component config", "bumpconf project1 config"},
		{"bumpconf -name project1 -component config", "bumpconf -component config project1"},
		{"bumpconf -name project1 -component config", "bumpconf config -name project1"},
		{"rollback -name project1 -to 1", "rollback project1 -to 1"},
		{"rollback -name project1", "rollback project1"},
		{"delconf -name project1 -force", "delconf project1 -force"},
		{"delcomp -name assets -force", "delcomp assets -force"},
	} {
		by := func(line string) (printed, state string) {
			d := newDesk(t).walk()
			d.must("changeconf -name project1 -component code -version v00")
			d.must("changeconf -name project1 -component code -version v01")
			return d.must(line), d.must("configurations") + d.must("components") + d.must("history project1")
		}
		printed, state := by(test.flag)
		if gotPrinted, got := by(test.word); gotPrinted != printed || got != state {
			t.Errorf("%s: printed %q and left\n%s\nwant %q and\n%s", test.word, gotPrinted, got, printed, state)
		}
	}
}

// What is refused is on record under its name, whichever way that was given, so
// that -name of audit finds it.
func TestRefusedNamesWithoutTheirFlagAreOnRecord(t *testing.T) {
	d := newDesk(t).walk()
	for role, line := range map[registry.Role]string{registry.Viewer: "rollback project1", registry.Admin: "changeconf project1 code:v77"} {
		d.session.Caller.Role = role
		if _, stderr, status := d.run(line); status == wire.OK {
			t.Errorf("%s as %s: exit status 0, %s", line, role, stderr)
		}
		all := d.entries()
		if last := all[len(all)-1]; Join(last.Command) != line || last.Name != "project1" {
			t.Errorf("%s as %s: on record is %+v, want it about project1", line, role, last)
		}
	}
}
