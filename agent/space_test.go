package agent

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"deploytools/registry/wire"
)

// What surely does not fit is not begun: nothing is fetched, the message says how
// much is needed, and when there is room it goes on by itself.
func TestRoomIsLookedForBeforeAnythingIsWritten(t *testing.T) {
	for what, test := range map[string]struct {
		layer func(l *wire.Layer)
		want  string
	}{
		"to unpack": {func(l *wire.Layer) { l.Unpacked = 1 << 60 }, "revision 2 of web needs 1048576.0 TiB, "},
		"to fetch":  {func(l *wire.Layer) { l.Size = 1 << 60 }, "revision 2 of web needs 1048576.0 TiB, "},
		"files":     {func(l *wire.Layer) { l.Entries = 1 << 40 }, "revision 2 of web needs "},
	} {
		bubble(t, func(t *testing.T, h *host) {
			h.src.put("v1", one("1"))
			h.want("v1", nil)
			c := h.src.put("v2", one("2"))
			fetched := len(h.src.offsets)
			test.layer(&c.Layers[0])
			var statuses []string
			h.o.Observe.Notify = func(s string) { statuses = append(statuses, s) }
			stop := h.serve()
			pass(10 * time.Minute)
			r := h.agent.Record()
			if h.live() != "v1" || r.State != Fetching || len(r.Marks) > 0 || len(h.src.offsets) != fetched {
				t.Errorf("%s: %q is live, in %s with marks %v after %d fetches\n%s", what, h.live(), r.State, r.Marks, len(h.src.offsets)-fetched, h.logged)
			}
			if s := statuses[len(statuses)-1]; !strings.Contains(s, test.want) || !strings.Contains(s, " free: no space left on device") {
				t.Errorf("%s: the status is %q, want %q", what, s, test.want)
			}
			if n := h.lines("WARN", "no room in"); n != 1 {
				t.Errorf("%s: %d lines in the log, want 1", what, n)
			}
			stop()
			h.src.put("v3", one("3")) // which fits
			h.want("v3", nil)
		})
	}
}

func TestRoomForRealFiles(t *testing.T) {
	needsRoot(t)
	for what, options := range map[string]string{"bytes": "size=3500k", "inodes": "size=64m,nr_inodes=40"} {
		h := newHost(t, newFakeRegistry())
		h.dir = t.TempDir()
		h.o.Dir, h.o.Poll = h.dir, Poll{Interval: time.Millisecond}
		must(unix.Mount("none", h.dir, "tmpfs", 0, options))
		t.Cleanup(func() { unix.Unmount(h.dir, unix.MNT_DETACH) })
		h.src.put("v1", one("1"))
		h.want("v1", nil)
		many := files{}
		for i := range 50 {
			many["f"+strings.Repeat("x", i)] = strings.Repeat("0123456789", 4000)
		}
		c := h.src.put("v2", archive(many))
		c.Layers[0].Unpacked, c.Layers[0].Entries = 50*40_000, 50
		err := h.run()
		if want := map[string]string{"bytes": "needs 2.0 MiB, ", "inodes": "needs 50 inodes, "}[what]; !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: Run = %v, want %q", what, err, want)
		}
		must(unix.Mount("none", h.dir, "tmpfs", unix.MS_REMOUNT, "size=64m,nr_inodes=400"))
		h.want("v2", nil)
	}
}

// Layers whose files the new root shares were counted as if they were written.
func TestRoomOfWhatIsShared(t *testing.T) {
	for _, shared := range []bool{true, false} {
		bubble(t, func(t *testing.T, h *host) {
			h.putOver("v1", base, files{"v": "1"})
			h.want("v1", nil)
			c := h.putOver("v2", base, files{"v": "2"})
			h.src.set(func() {
				c.Layers[1].Unpacked, c.Layers[1].Entries = 1<<60, 1<<40
				c.Seal()
			})
			if shared {
				h.want("v2", nil)
				return
			}
			h.o.Link = nil
			err := h.run()
			if err == nil || !strings.Contains(err.Error(), " (with layers that are live already: their files are written again), ") {
				t.Errorf("%q is live after %v", h.live(), err)
			}
		})
	}
}

// Small files take more than fits can know. It is tried again when there is more room,
// and not with each wait.
func TestDiskIsNotFilledAgainAndAgain(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.small("size=4m")
		h.src.put("v1", one("1"))
		h.want("v1", nil)
		many := files{}
		for i := range 2000 {
			many[fmt.Sprint("f", i)] = "x"
		}
		c := h.src.put("v2", archive(many))
		c.Layers[0].Entries, c.Layers[0].Unpacked = 1, 1 // as if it were known to be less
		stop := h.serve()
		pass(30 * time.Minute)
		root := h.agent.Record().Deployment.New.Dir
		if n := h.lines("WARN", "step not done"); n != 2 || !strings.Contains(h.agent.Status().Blocks[0].Text, "MiB with which it filled the disk") {
			t.Errorf("%d times not done, %+v\n%s", n, h.agent.Status().Blocks, h.logged)
		}
		pass(10 * time.Minute)
		if again := h.agent.Record().Deployment.New.Dir; again != root {
			t.Errorf("it was tried in %s, and in %s with no more room", root, again)
		}
		_, err := h.agent.RunOnce(t.Context())
		must(err)
		pass(time.Minute)
		if again := h.agent.Record().Deployment.New.Dir; again == root {
			t.Error("it was not tried for a person")
		} else {
			root = again
		}
		pass(time.Hour + time.Minute)
		if again := h.agent.Record().Deployment.New.Dir; again == root {
			t.Error("an hour later it was not tried again")
		}
		must(unix.Mount("none", h.dir, "tmpfs", unix.MS_REMOUNT, "size=64m"))
		pass(10 * time.Minute)
		if r := h.agent.Record(); r.Live.Configuration.Revision != 2 {
			t.Errorf("with room revision %d is live\n%s", r.Live.Configuration.Revision, h.logged)
		}
		stop()
	})
}
