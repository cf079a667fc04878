package agentcmd

import (
	"os"
	"path/filepath"
	"testing"
)

func TestTheUnitOfADirectory(t *testing.T) {
	etc := t.TempDir()
	for _, test := range []struct {
		settings, dir, name, unit string
		shared                    bool
	}{
		{"", "/var/lib/deploy-agent/web", "web", "deploy-agent@web", false},
		{"DEPLOY_AGENT_NAME=\"web\napi\"\n", "/var/lib/deploy-agent/web", "web", "deploy-agent", true},
		{"DEPLOY_AGENT_NAME=\"web2\napi\"\n", "/var/lib/deploy-agent/web", "web", "deploy-agent@web", false},
		{"DEPLOY_AGENT_NAME=web\n", "/srv/web", "web", "", false},
		{"DEPLOY_AGENT_NAME=web\n", "/var/lib/deploy-agent/web", "", "", false},
	} {
		if err := os.WriteFile(filepath.Join(etc, "environment"), []byte(test.settings), 0o600); err != nil {
			t.Fatal(err)
		}
		if unit, shared := unitOf(etc, test.dir, test.name); unit != test.unit || shared != test.shared {
			t.Errorf("%+v: %q, %t", test, unit, shared)
		}
	}
}
