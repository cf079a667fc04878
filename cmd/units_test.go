package cmd_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"deploytools/registry/wire"
)

// A wrong setting was started again every few seconds, for ever.
func TestUnitsDoNotRestartWhatIsUsedWrongly(t *testing.T) {
	units, err := filepath.Glob("../deploy/*.service")
	if err != nil || len(units) != 3 {
		t.Fatalf("units: %q, %v, want 3", units, err)
	}
	for _, unit := range units {
		b, err := os.ReadFile(unit)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range []string{"Restart=on-failure", "StartLimitIntervalSec=0", "RestartPreventExitStatus=" + wire.Usage.String()} {
			if !strings.Contains(string(b), "\n"+line+"\n") {
				t.Errorf("%s: has no line %s", unit, line)
			}
		}
	}
}

// A hook outlives the agent that it restarts, and its supervisor takes back an
// agent that does not get ready: docs/self-update.md.
func TestUnitsOfAgentsLeaveTheHookAlone(t *testing.T) {
	units, err := filepath.Glob("../deploy/deploy-agent*.service")
	if err != nil || len(units) != 2 {
		t.Fatalf("units: %q, %v, want 2", units, err)
	}
	for _, unit := range units {
		b, err := os.ReadFile(unit)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range []string{"Type=notify", "KillMode=process", "Restart=on-failure"} {
			if !strings.Contains(string(b), "\n"+line+"\n") {
				t.Errorf("%s: has no line %s", unit, line)
			}
		}
	}
}
