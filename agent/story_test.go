package agent

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// lastLine returns the last line of the log with this message, without its time.
func (h *host) lastLine(message string) string {
	last := ""
	for line := range strings.Lines(h.logged.String()) {
		if strings.Contains(line, " msg="+message) || strings.Contains(line, fmt.Sprintf(" msg=%q", message)) {
			_, last, _ = strings.Cut(strings.TrimSpace(line), " ")
		}
	}
	return last
}

// Whoever read the log could not tell what was deployed, nor whether anything
// had looked at it.
func TestLogTellsHowEachDeploymentEnded(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		says := func(message, want string) {
			t.Helper()
			if got := h.lastLine(message); got != want {
				t.Errorf("log says\n%s\nwant\n%s", got, want)
			}
		}
		h.src.put("v1", one("1"))
		h.want("v1", nil)
		v1 := h.agent.Record().Live.Dir
		says("agent started", `level=INFO msg="agent started" configuration=web dir=`+h.o.Dir+` state=Idle root=none`)
		says("configuration deployed", `level=INFO msg="configuration deployed" configuration=web revision=1 root=`+v1+` verification=verified`)

		h.src.put("v2", with(failVerify))
		h.want("v1", ErrRolledBack)
		says("agent started", `level=INFO msg="agent started" configuration=web dir=`+h.o.Dir+` state=Idle revision=1 root=`+v1+` verification=verified`)
		reason := h.agent.Record().Last.Reason
		says("configuration rolled back", fmt.Sprintf(`level=ERROR msg="configuration rolled back" configuration=web revision=2 root=%s error=%q`, v1, reason))
		last := h.agent.Record().Last
		until := last.Started.Add(2 * time.Minute).Format(time.RFC3339)
		says("checks do not pass yet", fmt.Sprintf(`level=WARN msg="checks do not pass yet" configuration=web root=%s until=%s error=%q`,
			last.New.Dir, until, strings.TrimPrefix(reason, "verification failed: ")))

		if r := h.agent.Record().Last.Checks; r == nil || len(r.Failed()) == 0 {
			t.Errorf("the evidence of a failed verification has the findings %+v", r)
		}

		h.o.Mode.DryRun = true
		h.src.put("v3", one("3"))
		h.want("v1", nil)
		says("dry run done", `level=INFO msg="dry run done" configuration=web revision=3`)
		if n := h.lines("", "step failed"); n != 1 {
			t.Errorf("%d failed steps, want that of v2 only", n)
		}
		h.o.Mode.DryRun = false

		h.o.Verify.Checks = nil
		h.src.put("v4", one("4"))
		h.want("v4", nil)
		says("configuration deployed", `level=INFO msg="configuration deployed" configuration=web revision=4 root=`+h.agent.Record().Live.Dir+` verification=unverified`)
	})
}

// The log kept the reason of the first second, which is often that nothing
// listens yet.
func TestLogTellsEachReasonForWhichChecksDoNotPass(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.patience = time.Minute
		starting := time.Now().Add(10 * time.Second)
		h.env = func() bool { return time.Now().Before(starting) }
		h.src.put("v1", with(failVerify))
		h.want("", ErrRolledBack)
		if n, first := h.lines("WARN", "checks do not pass yet"), h.lines("WARN", "dial: environment"); n != 2 || first != 1 {
			t.Errorf("warned %d times, %d times of the first reason, want once for each of two\n%s", n, first, h.logged)
		}
	})
}

func TestLogTellsThatTheEnvironmentFailed(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.src.put("v1", one("1"))
		h.want("v1", nil)
		h.env = func() bool { return true }
		h.src.put("v2", one("2"))
		h.want("v2", nil)
		if got := h.lastLine("configuration deployed"); !strings.HasSuffix(got, " verification="+string(Environment)) {
			t.Errorf("log says %s", got)
		}
	})
}

func TestLogTellsWhatWasWithdrawn(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.src.put("v1", one("1"))
		h.want("v1", nil)
		v1 := h.agent.Record().Live.Dir
		h.o.Verify.Soak = time.Hour
		stop := h.serve()
		pass(time.Minute)
		h.src.put("v2", one("2"))
		pass(10 * time.Minute)
		h.src.put("v3", one("3"))
		pass(10 * time.Minute)
		stop()
		want := `level=INFO msg="configuration withdrawn" configuration=web revision=2 root=` + v1 +
			` error="the registry has another configuration, revision 3"`
		if got := h.lastLine("configuration withdrawn"); got != want {
			t.Errorf("log says\n%s\nwant\n%s", got, want)
		}
	})
}

func TestOneLineHasNoControlCharacters(t *testing.T) {
	if got := oneLine("a\x1b[1m\nb\u009b2Jc\u0085d\x7fé"); got != "a [1m b 2Jc d é" {
		t.Errorf("oneLine = %q", got)
	}
}
