//go:build systemd

package systemd

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestAgentDeploysItself does what docs/self-update.md says, block by block.
func TestAgentDeploysItself(t *testing.T) {
	t.Parallel()
	const name = "agent"
	unit := unitOf(name)
	steps := blocks(read("docs/self-update.md"), "## Setting it up")
	if len(steps) != 6 {
		t.Fatalf("docs/self-update.md: %d blocks, want 6", len(steps))
	}
	for i := range steps {
		steps[i] = outdent(steps[i], "   ")
	}
	dir := t.TempDir()
	if err := os.Symlink("/deploytest/bin", dir+"/bin"); err != nil {
		t.Fatal(err)
	}
	shell(t, dir, steps[0])
	write(t, "/etc/deploy-agent/agent.environment", steps[1], 0o644)
	write(t, "/etc/deploy-agent/agent-check.sh", steps[2], 0o755)
	write(t, "/etc/deploy-agent/agent.sh", steps[3], 0o755)
	run(t, "systemctl", "enable", "deploy-agent@agent")
	shell(t, dir, steps[4])
	dropIn(t, unit, strings.Replace(steps[5], "TimeoutStartSec=60s", "TimeoutStartSec=5s", 1))
	run(t, "systemctl", "start", unit)
	awaitLive(t, name, "v1")
	old := property(t, unit, "MainPID")

	program := read("/deploytest/bin/deploy-agent")
	publish(t, name, "v2", map[string]string{"bin/deploy-agent": program, "version": "2"})
	change(t, name, "v2")
	awaitLive(t, name, "v2")
	if now := property(t, unit, "MainPID"); now == old {
		t.Errorf("process %s still runs", now)
	}
	if s := statusOf(name); s.Live.Verification != "verified" {
		t.Errorf("live root is %s", s.Live.Verification)
	}

	bads := []struct {
		version, start string
		alone          bool // its supervisor is killed
	}{{"ends", "exit 1", false}, {"silent", "exec sleep 1000", false}, {"ends-alone", "exit 1", true}, {"silent-alone", "exec sleep 1000", true}}
	for i, bad := range bads {
		publish(t, name, bad.version, map[string]string{"bin/deploy-agent": "#!/bin/sh\n[ \"$1\" != -version ] || exit 0\n" + bad.start + "\n"})
		change(t, name, bad.version)
		if bad.alone {
			await(t, unit, time.Minute, "supervisor of "+bad.version+" killed", func() bool { return killSupervisor(name) })
		}
		await(t, unit, 2*time.Minute, bad.version+" taken back", func() bool { return len(statusOf(name).Failed) == i+1 })
		awaitLive(t, name, "v2")
		if reason := statusOf(name).Last.Reason; !strings.HasPrefix(reason, "no agent went on within 1m0s after the hook") {
			t.Errorf("%s was taken back: %s", bad.version, reason)
		}
		if state := property(t, unit, "ActiveState"); state != "active" {
			t.Errorf("unit is %s", state)
		}
	}
}

// killSupervisor kills whoever supervises the hook of the newest deployment, or stands
// guard after it.
func killSupervisor(name string) bool {
	all, _ := filepath.Glob("/var/lib/deploy-agent/" + name + "/deployments/0*") // no error: the pattern is sound
	b, err := os.ReadFile(slices.Max(all) + "/deploy.attempt.json")
	var attempt struct{ Supervisor int }
	if err != nil || json.Unmarshal(b, &attempt) != nil {
		return false
	}
	return statusOf(name).State == "Hooking" && syscall.Kill(attempt.Supervisor, syscall.SIGKILL) == nil
}

func shell(t *testing.T, dir, script string) {
	t.Helper()
	cmd := exec.Command("bash", "-euc", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s\n%s", err, script, out)
	}
}
