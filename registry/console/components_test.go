package console

import (
	"strings"
	"testing"

	"deploytools/registry"
)

func TestAddverTellsOnceThatACheckWaits(t *testing.T) {
	var b strings.Builder
	tell := checkProgress(&b)
	for _, p := range []registry.CheckProgress{{Done: 1, Total: 9, Waiting: true}, {Done: 1, Total: 9, Waiting: true}, {Done: 5, Total: 9, Waiting: false}, {Done: 5, Total: 9, Waiting: true}, {Done: 9, Total: 9, Waiting: false}} {
		tell(p)
	}
	const waits = "checking the archive: waiting for memory that other checks have; it goes on by itself\n"
	if want := waits + "checking the archive: 5 of 9 bytes\n" + waits + "checking the archive: 9 of 9 bytes\n"; b.String() != want {
		t.Errorf("told %q, want %q", b.String(), want)
	}
}
