package agentcmd

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// The file that is written first has another name each time: what is wrong is said once.
func TestAMetricsFileThatCannotBeWrittenIsSaidOnce(t *testing.T) {
	var logged bytes.Buffer
	path := filepath.Join(t.TempDir(), "nowhere", "agent.prom")
	f := &textfile{path: path, all: prometheus.NewRegistry(), log: slog.New(slog.NewTextHandler(&logged, nil))}
	for range 3 {
		f.write()
	}
	if s := logged.String(); strings.Count(s, "metrics file not written") != 1 || !strings.Contains(s, path+": no such file") {
		t.Errorf("logged: %s", s)
	}
	if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	f.write()
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}
