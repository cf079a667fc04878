package agent

import (
	"fmt"
	"testing"
	"time"

	"deploytools/registry/wire"
)

// A report says what failed here, whatever was deployed since, and no more of it than
// the registry takes.
func TestReportsSayWhatFailedBefore(t *testing.T) {
	listening(t, func(t *testing.T, h *host, l *listener) {
		stop := h.serve()
		h.src.put("v1", one("1"))
		pass(time.Hour)
		for n := range 10 {
			h.src.put(fmt.Sprint("bad", n), archive(files{"v": fmt.Sprint(n), failHook: ""}))
			pass(time.Hour)
		}
		h.src.put("v2", one("2"))
		pass(time.Hour)
		got := l.last().Failures
		if len(got) != wire.MaxFailures || got[len(got)-1].Revision != 11 || got[0].Revision != 4 || got[0].Reason == "" || got[0].At.IsZero() || got[0].Digest.IsZero() {
			t.Fatalf("failures %+v, want those of revisions 4 to 11", got)
		}
		must(h.agent.Retry(t.Context()))
		pass(time.Hour)
		if got := l.last().Failures; got != nil {
			t.Errorf("failures %+v after a retry, want none", got)
		}
		stop()
	})
}
