package agent

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"deploytools/verify"
	"deploytools/verify/spec"
)

// restart is a hook that starts the service of NEWROOT again, unless it is told
// to be a bad one. The service waits for ever.
const restart = `
test -e lazy && exit 0
test -e pid && kill "$(cat pid)"
sh "$DEPLOY_CURRENT/service" "$PWD/never" >/dev/null 2>&1 &
echo $! > pid
read up < up # it has begun
`

// D-04: a hook that succeeds without having restarted anything.
func TestHookThatRestartsNothingIsTakenBack(t *testing.T) {
	h := realHost(t, restart)
	must(unix.Mkfifo(h.dir+"/never", 0o600))
	must(unix.Mkfifo(h.dir+"/up", 0o600))
	t.Cleanup(func() {
		if b, err := os.ReadFile(h.dir + "/pid"); err == nil {
			pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
			unix.Kill(pid, unix.SIGKILL)
		}
	})
	h.o.Verify.Checks = []spec.Check{{Type: spec.Process, PIDFile: h.dir + "/pid"}}
	service := func(text string) []byte {
		return archive(files{"service": "# " + text + "\necho > " + h.dir + "/up\nread x < \"$1\"\n"})
	}

	h.src.put("v1", service("1"))
	if err := h.runReal(t.Context()); err != nil || h.agent.Record().Live.Verification != Verified {
		t.Fatalf("Run = %v\n%s", err, h.logged)
	}
	time.Sleep(50 * time.Millisecond) // the kernel tells when a process began in steps of 10 ms
	must(os.WriteFile(h.dir+"/lazy", nil, 0o600))
	h.src.put("v2", service("2"))
	if err := h.runReal(t.Context()); !errors.Is(err, ErrRolledBack) || h.live() != "v1" {
		t.Errorf("Run = %v, %q is live\n%s", err, h.live(), h.logged)
	}
	last := h.agent.Record().Last
	if last.Checks == nil || last.Checks.Findings[0].Kind != verify.NotRestarted {
		t.Errorf("found %+v, want %q: the service goes through `current`", last.Checks, verify.NotRestarted)
	}
	must(os.Remove(h.dir + "/lazy"))
	h.src.put("v3", service("3"))
	if err := h.runReal(t.Context()); err != nil || h.live() != "v3" || h.agent.Record().Live.Verification != Verified {
		t.Errorf("Run = %v, %q is live\n%s", err, h.live(), h.logged)
	}
}
