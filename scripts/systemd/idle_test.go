//go:build systemd

package systemd

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestIdleAgentSleeps measures an agent with nothing to do, as its unit starts
// it: one poll in 30 s and one sign of life for the watchdog in 20 s.
func TestIdleAgentSleeps(t *testing.T) {
	t.Parallel()
	const name, span = "idle", time.Minute
	publish(t, name, "v1", map[string]string{"index": "v1"})
	configure(t, name, "v1")
	unit := start(t, name, "DEPLOY_AGENT_POLL=30s\nDEPLOY_AGENT_SCRIPT=\n")
	run(t, "systemctl", "reload", unit)
	awaitLive(t, name, "v1")
	pid := property(t, unit, "MainPID")

	before := switches(t, pid)
	time.Sleep(span)
	woken := switches(t, pid) - before
	resident := field(t, "/proc/"+pid+"/status", "VmRSS")
	out, _ := exec.Command("timeout", "-s", "INT", strconv.Itoa(int(span.Seconds())), "strace", "-f", "-c", "-U", "name,calls", "-p", pid).CombinedOutput()
	calls := 0
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] != "total" {
			n, _ := strconv.Atoi(f[1]) // the table's head is no number
			calls += n
		}
	}
	t.Logf("idle for %v: %d voluntary context switches of all threads, %d KiB resident; traced for %v: %d system calls\n%s", span, woken, resident, span, calls, out)
	if woken > 200 || resident > 20<<10 || calls == 0 || calls > 400 {
		t.Errorf("%d switches, %d KiB, %d calls: want at most 200, %d and 400", woken, resident, calls, 20<<10)
	}
}

// switches returns how often the threads of a process have waited.
func switches(t *testing.T, pid string) (n int) {
	t.Helper()
	all, err := filepath.Glob("/proc/" + pid + "/task/*/status")
	if err != nil || len(all) == 0 {
		t.Fatalf("threads of %s: %v", pid, err)
	}
	for _, file := range all {
		n += field(t, file, "voluntary_ctxt_switches")
	}
	return n
}

// field returns a number of a file of lines "NAME: NUMBER".
func field(t *testing.T, file, name string) (n int) {
	t.Helper()
	for line := range strings.Lines(read(file)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			if _, err := fmt.Sscan(rest, &n); err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("%s has no %s", file, name)
	return 0
}
