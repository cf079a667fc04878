package agent

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite docs/state-machine.md")

// reach returns the states that can be reached from first, without the done
// arrows of cut.
func reach(first State, cut ...State) map[State]bool {
	seen := map[State]bool{}
	var visit func(State)
	visit = func(s State) {
		if seen[s] {
			return
		}
		seen[s] = true
		done := true
		for _, c := range cut {
			done = done && c != s
		}
		if done {
			visit(machine[s].done)
		}
		visit(machine[s].failed)
	}
	visit(first)
	return seen
}

func TestEveryStateIsReachableAndKnown(t *testing.T) {
	seen := reach(Idle)
	for _, s := range order {
		if !seen[s] {
			t.Errorf("%s is not reachable from Idle", s)
		}
		if m := machine[s]; m.step == nil || m.about == "" {
			t.Errorf("%s has no step or no description", s)
		}
		if !reach(s)[Idle] {
			t.Errorf("Idle is not reachable from %s", s)
		}
	}
	if len(order) != len(machine) || len(seen) != len(machine) {
		t.Errorf("%d states in order, %d in the machine, %d reachable", len(order), len(machine), len(seen))
	}
}

// Nothing comes to rest after a switch but through a look from outside.
func TestNoRestAfterSwitchWithoutVerification(t *testing.T) {
	seen := reach(Switching, Verifying, Reverifying, Broken)
	for _, s := range []State{Idle, Committing, Discarding} {
		if seen[s] {
			t.Errorf("%s can be reached from Switching without passing a verification", s)
		}
	}
	if !seen[Broken] || !seen[Verifying] || !seen[Reverifying] {
		t.Errorf("the graph was not walked: %v", seen)
	}
}

// A state is either one in which errors wait, or one in which they are definite.
func TestEveryErrorLeadsSomewhere(t *testing.T) {
	for _, s := range order {
		if !s.patient() && machine[s].failed == s {
			t.Errorf("%s: a definite error would lead back to it at once", s)
		}
		if s.preparing() && machine[s].failed != Discarding {
			t.Errorf("%s: touched nothing, but fails to %s", s, machine[s].failed)
		}
		if s.counted() && machine[s].failed == s {
			t.Errorf("%s: dying in it has no end", s)
		}
	}
}

func TestDocsStateMachine(t *testing.T) {
	const path = "../docs/state-machine.md"
	want := drawMachine()
	got, err := os.ReadFile(path)
	if err == nil && string(got) == want {
		return
	}
	if !*update || os.Getenv("CI") != "" {
		t.Fatalf("%s is out of date (%v): run `go test ./agent -run Docs -update`", path, err)
	}
	if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

// drawMachine draws the machine from its table.
func drawMachine() string {
	var b strings.Builder
	b.WriteString("# The agent's machine\n\nDrawn from the table in agent/machine.go: run `go test ./agent -run Docs -update`.\n\n```mermaid\nstateDiagram-v2\n    [*] --> Idle\n")
	for _, s := range order {
		m := machine[s]
		fmt.Fprintf(&b, "    %s --> %s: done\n", s, m.done)
		if m.failed != s {
			fmt.Fprintf(&b, "    %s --> %s: failed\n", s, m.failed)
		}
	}
	b.WriteString("```\n\n| state | what it does | done | failed | an error | tries are counted |\n|---|---|---|---|---|---|\n")
	for _, s := range order {
		m := machine[s]
		kind, counted := "takes the failed arrow, at the latest after three tries", "no"
		if s.patient() {
			kind = "waits and tries again"
			if m.failed != s {
				kind += "; takes the failed arrow if it is definite"
			}
		}
		if s.counted() {
			counted = "yes"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", s, m.about, m.done, m.failed, kind, counted)
	}
	fmt.Fprintf(&b, `
Taking an arrow is one durable write of the record (journal.json); what happens next is announced there first.

- *Counted*: a process that dies %d times in the state takes the failed arrow.
- *Definite*: a layer with the right digest that breaks a rule for layers, the check script, the hook, the checks. All else is tried again, after
  waits that grow to -poll's limit, and marks nothing, as long as the link has not moved: from then on what keeps failing, such as a disk that
  is full, is the version's fault as far as the host can tell, and goes back.
- Between Fetching and Checking the registry is polled before each further try, in Verifying all the time, and at once
  on a HUP: another configuration ends the deployment.
- After a reboot Verifying goes on at Hooking, and Reverifying at Rehooking: what the hook had started is gone.
- Where no hook was run, Rehooking and Reverifying have nothing to do and are done at once. On a first deployment Restoring removes `+"`current`"+`, and
  Rehooking runs the remove script.
`, maxTries)
	return b.String()
}
