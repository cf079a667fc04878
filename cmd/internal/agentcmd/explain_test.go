package agentcmd

import (
	"fmt"
	"strings"
	"testing"

	"deploytools/agent"
	"deploytools/atomic"
	"deploytools/cmd/internal/cli"
	"deploytools/registry/wire"
)

// Typed beside an agent that runs, -once is refused by its lock.
func TestHintsOfVerbsNameVerbs(t *testing.T) {
	for _, test := range []struct {
		err    error
		status wire.Status
		hint   string
	}{
		{agent.ErrHeld, wire.NotNow, "deploy-agent resume -dir '/srv/the web' ends the hold"},
		{agent.ErrRolledBack, wire.RolledBack, "mend it, then deploy-agent retry -dir '/srv/the web'; "},
		{agent.ErrBroken, wire.Broken, ", then deploy-agent retry -dir '/srv/the web'"},
		{agent.ErrNoRoot, wire.NotFound, "deploy-agent gc -explain -dir '/srv/the web' lists the roots; "},
		{agent.ErrUnderWay, wire.Conflict, "deploy-agent why -dir '/srv/the web' says"},
		{agent.ErrRemoving, wire.Conflict, "deploy-agent resume -dir '/srv/the web' calls it off"},
		{atomic.ErrLocked, wire.Conflict, "to the one that runs there the verbs speak: "},
	} {
		err := explainTo(fmt.Errorf("x: %w", test.err), callIn("/srv/the web"))
		if hint := cli.HintOf(err); cli.StatusOf(err) != test.status || !strings.Contains(hint, test.hint) || strings.Contains(hint, " -once") || strings.Contains(hint, "another -dir") {
			t.Errorf("%v: status %d, hint %q", test.err, cli.StatusOf(err), hint)
		}
	}
}
