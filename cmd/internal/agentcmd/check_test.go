package agentcmd

import (
	"testing"

	"deploytools/agent"
)

func TestCheckAdvisesWhatFits(t *testing.T) {
	const (
		repair = "repair! deploys what is live again"
		older  = "nothing has to be done about an older root: rollback! passes over it where a whole one is kept, and it is collected in its time"
		cached = "a cached layer is fetched again when it is needed, and may be deleted"
	)
	live, old := agent.Condition{Root: "roots/2", Live: true}, agent.Condition{Root: "roots/1"}
	bad := func(c agent.Condition) agent.Condition {
		c.Modified = 1
		return c
	}
	for name, test := range map[string]struct {
		found agent.Integrity
		want  string
	}{
		"live root":            {agent.Integrity{Roots: []agent.Condition{old, bad(live)}}, repair},
		"older root":           {agent.Integrity{Roots: []agent.Condition{bad(old), live}}, older},
		"cached layer":         {agent.Integrity{Roots: []agent.Condition{live}, Damaged: []agent.Damage{{Name: "cache/01"}}}, cached},
		"all":                  {agent.Integrity{Roots: []agent.Condition{bad(old), bad(live)}, Damaged: []agent.Damage{{Name: "cache/01"}}}, repair + "; " + older + "; " + cached},
		"document of the live": {agent.Integrity{Roots: []agent.Condition{live}, Damaged: []agent.Damage{{Name: "roots/2.json"}}}, repair},
		"index of an older":    {agent.Integrity{Roots: []agent.Condition{live}, Damaged: []agent.Damage{{Name: "roots/1.index"}}}, older},
		"the link":             {agent.Integrity{Roots: []agent.Condition{live}, Damaged: []agent.Damage{{Name: "current"}}}, repair},
		"the record": {agent.Integrity{Roots: []agent.Condition{live}, Damaged: []agent.Damage{{Name: "journal.json"}}},
			"the agent makes a damaged record anew when it is started again"},
		"published file": {agent.Integrity{Roots: []agent.Condition{live}, Files: []agent.PublishedFile{{Path: "/etc/x", Differs: "modified"}}},
			"leave a published file, or repair! puts back what was published, and keeps the other version"},
	} {
		if got := mends(&test.found, func(verb string) string { return verb + "!" }); got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}
