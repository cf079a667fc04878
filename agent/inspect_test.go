package agent

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// `current` was deleted, and check found nothing wrong: it looked at nothing.
func TestInspectWithoutCurrent(t *testing.T) {
	h := newHost(t, newFakeRegistry())
	h.versions(2)
	must(os.Remove(h.dir + "/current"))
	for _, all := range []bool{false, true} {
		found, err := Inspect(t.Context(), h.dir, Inspection{All: all})
		if err != nil || found.Whole() || len(found.Damaged) != 1 || found.Damaged[0].Name != "current" || !found.Roots[len(found.Roots)-1].Live {
			t.Errorf("all %t: %+v, %v, want `current` named, and the live root looked at", all, found, err)
		}
	}
	empty, err := Inspect(t.Context(), t.TempDir(), Inspection{})
	must(err)
	if b, err := json.Marshal(empty); err != nil || !strings.Contains(string(b), `"roots":[]`) || !empty.Whole() {
		t.Errorf("of a directory without an agent: %s, %v", b, err)
	}
}
