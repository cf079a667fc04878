package agentcmd

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"deploytools/agent"
)

func TestDoctorReadsTheFilesOfTheUnit(t *testing.T) {
	etc := t.TempDir()
	for _, file := range []string{"environment", "web.environment", "api.environment"} {
		if err := os.WriteFile(filepath.Join(etc, file), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for dir, want := range map[string][]string{
		agent.UnitDir + "/web": {etc + "/environment", etc + "/web.environment"},
		agent.UnitDir + "/db":  {etc + "/environment"},
		"/srv/web":             nil,
	} {
		if got := unitFiles(etc, dir); !slices.Equal(got, want) {
			t.Errorf("unitFiles(%q) = %q, want %q", dir, got, want)
		}
	}
}
