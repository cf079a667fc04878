package agentcmd

import (
	"strings"
	"testing"
	"time"

	"deploytools/agent"
)

// While a new root is looked at the old one was shown as if it were in use.
func TestStatusSaysWhatCurrentNames(t *testing.T) {
	at := time.Date(2026, 11, 1, 2, 3, 4, 0, time.UTC)
	s := statusResult{Status: agent.Status{
		Name: "web", Dir: "/srv/web", State: agent.Verifying, Since: at, Current: "roots/000003-x",
		Live:    &agent.Shown{Root: "roots/000002-x", Revision: 2, Gone: true},
		Under:   &agent.Deployed{ID: "000003-x", Revision: 3, Root: "roots/000003-x", Started: at},
		Missing: &agent.Lacking{Checks: "tcp refused", Until: at.Add(time.Hour)},
	}}
	for current, want := range map[string]string{
		"roots/000003-x": ", in Verifying; `current` names its root\n",
		"roots/000002-x": ", in Verifying\n",
	} {
		s.Current = current
		var b strings.Builder
		if err := s.Text(&b); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{want, "roots/000002-x, which is gone\n", "failing        tcp refused, tried until 2026-11-01T03:03:04Z\n"} {
			if !strings.Contains(b.String(), want) {
				t.Errorf("no %q in\n%s", want, &b)
			}
		}
	}
}
