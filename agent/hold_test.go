package agent

import (
	"os"
	"testing"
	"time"
)

func TestDocumentsOfOtherRootsDoNotHinderAHold(t *testing.T) {
	for _, text := range []string{"", `{"Format":9}`} {
		bubble(t, func(t *testing.T, h *host) {
			h.src.put("v1", one("1"))
			h.want("v1", nil)
			old := h.agent.Record().Live.Dir
			h.src.put("v2", one("2"))
			h.want("v2", nil)
			must(os.WriteFile(h.dir+"/"+old+".json", []byte(text), 0o600))
			must(os.Remove(h.dir + "/current"))
			h.want("v2", ErrHeld)
			h.src.put("v3", one("3"))
			if err := h.run(); h.live() != "v3" {
				t.Errorf("%q is live after %v\n%s", h.live(), err, h.logged)
			}
		})
	}
}

// A person ends the hold: the agent does not set the same one again.
func TestResumeMovesCurrentBack(t *testing.T) {
	for _, link := range []string{"", "../elsewhere"} {
		bubble(t, func(t *testing.T, h *host) {
			h.src.put("v1", one("1"))
			h.want("v1", nil)
			must(os.Remove(h.dir + "/current"))
			if link != "" {
				must(os.Symlink(link, h.dir+"/current"))
			}
			stop := h.serve()
			pass(time.Minute)
			if h.agent.Record().Hold == nil {
				t.Fatal("there is no hold")
			}
			must(h.agent.Resume(t.Context()))
			pass(time.Minute)
			stop()
			r := h.agent.Record()
			if got, _ := os.Readlink(h.dir + "/current"); got != r.Live.Dir || r.Hold != nil {
				t.Errorf("from %q `current` is %q, want %q; hold %+v", link, got, r.Live.Dir, r.Hold)
			}
			h.invariants()
		})
	}
}
