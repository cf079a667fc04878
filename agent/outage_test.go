package agent

import (
	"fmt"
	"testing"
	"time"

	"deploytools/registry/wire"
)

// After a night without a registry the agents waited for up to five minutes more.
func TestOnePollAfterAnOutageTheHostHasWhatIsWanted(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.src.put("v1", one("1"))
		h.want("v1", nil)
		h.o.Poll = Poll{Interval: 10 * time.Second}
		stop := h.serve()
		pass(time.Minute)
		for n := range 20 { // wherever in its waits the outage ends
			h.src.set(func() { h.src.down = wire.ErrUnreachable })
			pass(time.Hour + time.Duration(n)*time.Second)
			version := fmt.Sprint(n + 2)
			h.src.put("v"+version, one(version))
			h.src.set(func() { h.src.down = nil })
			pass(10 * time.Second)
			if h.live() != "v"+version {
				t.Fatalf("outage %d: %q is live one poll after it, want v%s", n, h.live(), version)
			}
		}
		stop()
		if n := h.lines("INFO", "registry reached again"); n != 20 || h.lines("INFO", "duration_ms=36") < 5 {
			t.Errorf("said %d times that the registry answers again, want 20, and after how long\n%s", n, h.logged)
		}
	})
}
