package wire

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// Scripts test for these numbers: they never change.
func TestStatuses(t *testing.T) {
	var b strings.Builder
	var last Status = -1
	for _, row := range Statuses {
		if row.Status <= last || row.Status > 125 || row.Meaning == "" {
			t.Errorf("status %s: out of order, not for a program, or without a meaning", row.Status)
		}
		last = row.Status
		fmt.Fprintf(&b, "%s %s\n", row.Status, row.Meaning)
	}
	golden(t, "statuses.txt", []byte(b.String()))
	for i, s := range []Status{OK, Failed, Usage, NotFound, Conflict, Denied, GateRefused, Unreachable, Untrusted, RolledBack, Broken, NotNow} {
		if want := []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 75}[i]; int(s) != want || Statuses[i].Status != s {
			t.Errorf("status %d is %s", want, s)
		}
	}
}

func TestBuild(t *testing.T) {
	var got []string
	for _, b := range []Build{
		{Version: "v1.2.3", Commit: "abc", Time: "2026-11-21T00:00:00Z", Go: "go1.26.5", Format: FormatVersion},
		{Version: "v1.2.3", Commit: "abc", Dirty: true, Go: "go1.26.5", Format: 1},
		{Version: "(devel)", Go: "go1.26.5", Format: 1},
	} {
		got = append(got, b.String())
	}
	want := []string{
		"v1.2.3, commit abc of 2026-11-21T00:00:00Z, go1.26.5, wire format 1",
		"v1.2.3, commit abc with changes, go1.26.5, wire format 1",
		"(devel), go1.26.5, wire format 1",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
