package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Somebody deletes the directory of an agent that runs: it went on in what was not
// there, no verb reached it, and the next agent worked beside it.
func TestAgentEndsWhereItsDirectoryGoes(t *testing.T) {
	for name, act := range map[string]func(dir string) error{
		"deleted": os.RemoveAll,
		"emptied": func(dir string) error { return os.RemoveAll(dir + "/roots") },
		"replaced": func(dir string) error {
			must(os.Rename(dir, dir+".old"))
			return os.CopyFS(dir, os.DirFS(dir+".old")) // a copy from a backup
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, h *host) {
				h.versions(1)
				h.o.Mode.Once = false
				a := h.new()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				ended := make(chan error, 1)
				go func() { ended <- a.Run(ctx) }()
				synctest.Wait()
				must(act(h.dir))
				pass(time.Hour)
				cancel()
				if err := <-ended; err == nil || !strings.Contains(err.Error(), "was deleted or replaced") {
					t.Errorf("Run = %v, want it to end since the directory is gone", err)
				}
				h.o.Mode.Once, h.o.Mode.Retry = true, true
				h.src.put("v2", one("2"))
				h.want("v2", nil)
			})
		})
	}
}

// Each try fills a root of another name: a disk that refuses it all night was told
// once for each.
func TestTriesOfOneFaultAreToldOnce(t *testing.T) {
	h := newHost(t, newFakeRegistry())
	h.versions(1)
	a := h.agent
	for _, dir := range []string{"roots/000002-aa", "roots/000003-aa", "roots/000004-aa"} {
		a.rec.Deployment = &Deployment{New: Root{Dir: dir}}
		a.sayError("step", "step not done", fmt.Errorf("cannot stage %s: no space", h.dir+"/"+dir))
	}
	if n := h.lines("WARN", "step not done"); n != 1 {
		t.Errorf("told %d times, want once\n%s", n, h.logged)
	}
	a.sayError("step", "step not done", errors.New("cannot stage: read-only"))
	if n := h.lines("WARN", "step not done"); n != 2 {
		t.Errorf("told %d times after another fault, want twice\n%s", n, h.logged)
	}
}
