package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"deploytools/atomic"
	"deploytools/layers/digest"
	"deploytools/registry/wire"
)

// names lists a directory of the host, hidden names as well.
func (h *host) names(dir string) []string {
	entries, err := os.ReadDir(h.dir + "/" + dir)
	must(err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestKeptRoots(t *testing.T) {
	for keep, want := range map[int][]string{1: {"000005", "000006"}, 2: {"000004", "000005", "000006"}, 0: {"000003", "000004", "000005", "000006"}} {
		bubble(t, func(t *testing.T, h *host) {
			h.o.Keep.Roots = keep
			for i := range 6 {
				h.src.put(fmt.Sprint("v", i), one(fmt.Sprint(i)))
				h.want(fmt.Sprint("v", i), nil)
			}
			var have []string
			for _, name := range h.names("roots") {
				id, _, _ := strings.Cut(name, "-")
				have = append(have, id)
			}
			var three []string // the root and two documents
			for _, id := range want {
				three = append(three, id, id, id)
			}
			slices.Sort(have)
			if !slices.Equal(have, three) {
				t.Errorf("Keep %d: %q, want the roots %q", keep, h.names("roots"), want)
			}
		})
	}
}

// A full disk has a collection run while a deployment is under way.
func TestCollectionTouchesNothingThatIsNeeded(t *testing.T) {
	root := func(n int) *Root {
		c := &wire.Configuration{Layers: []wire.Layer{{Hash: digest.Of([]byte{byte(n)})}}}
		return &Root{Dir: fmt.Sprintf("roots/%06d-0123456789ab", n), Configuration: c, Committed: time.Unix(int64(n), 0)}
	}
	h := newHost(t, newFakeRegistry())
	r := &Record{Live: root(5), Back: root(1), Deployment: &Deployment{New: *root(9), From: root(6), Back: root(2)}}
	old := []*Root{root(3), root(4), root(1), root(2), root(5), root(6)}
	old[0].Committed = time.Time{}
	for keep, want := range map[int][]int{1: {1, 2, 5, 6, 9}, 2: {1, 2, 4, 5, 6, 9}, 9: {1, 2, 4, 5, 6, 9}} {
		h.o.Keep.Roots = keep
		n := h.new().needed(r, old)
		for i := range 10 {
			dir, layer := n.roots[filepath.Base(root(i).Dir)] != "", n.layers[digest.Of([]byte{byte(i)})] != ""
			if needed := slices.Contains(want, i); dir != needed || layer != needed {
				t.Errorf("Keep %d: root %d is needed: %t, its layer: %t, want %t", keep, i, dir, layer, needed)
			}
		}
	}
}

// A failed root goes, and what is live and its predecessor stay.
func TestFailedRootIsCollectedLaterByADaemon(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.o.Keep = Keep{Roots: 1, Delay: time.Minute}
		for _, v := range []string{"1", "2"} {
			h.src.put("v"+v, one(v))
			h.want("v"+v, nil)
		}
		must(os.MkdirAll(h.dir+"/roots/.000009-0123456789ab.partial/a/b", 0o755))
		must(os.WriteFile(h.dir+"/roots/mine", nil, 0o644))
		must(os.WriteFile(h.dir+"/roots/000008-0123456789ab.json", nil, 0o600))
		h.src.put("v3", with(failHook))
		stop := h.serve()
		pass(35 * time.Second)
		if n := len(h.names("roots")); n != 3*3+3 {
			t.Errorf("before the delay is over %q are left, want all", h.names("roots"))
		}
		pass(5 * time.Minute)
		stop()
		var dirs []string
		for _, name := range h.names("roots") {
			if !strings.Contains(name, ".") {
				dirs = append(dirs, name)
			}
		}
		want := []string{filepath.Base(h.agent.Record().Back.Dir), filepath.Base(h.agent.Record().Live.Dir), "mine"}
		if len(h.names("roots")) != 7 || !slices.Equal(dirs, want) {
			t.Errorf("left %q, want %q with the documents of two", h.names("roots"), want)
		}
		h.invariants()
	})
}

func TestCacheKeepsWhatKeptRootsHave(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.o.Keep = Keep{Roots: 1, CacheAge: time.Hour}
		var layers []string
		for i := range 3 {
			c := h.src.put(fmt.Sprint("v", i), one(fmt.Sprint(i)))
			layers = append(layers, c.Layers[0].Hash.String())
			h.want(fmt.Sprint("v", i), nil)
		}
		for _, name := range []string{"temp-123", "." + layers[0] + ".partial", "notes"} {
			must(os.WriteFile(h.dir+"/cache/"+name, nil, 0o600))
		}
		if n := len(h.names("cache")); n != 6 {
			t.Errorf("%d files in the cache, want 6: none is old", n)
		}
		files, _ := os.ReadDir(h.dir + "/cache")
		for _, f := range files {
			old := time.Now().Add(-2 * time.Hour)
			must(os.Chtimes(h.dir+"/cache/"+f.Name(), old, old))
		}
		h.want("v2", nil)
		want := []string{layers[1], layers[2], "notes"}
		slices.Sort(want)
		if got := h.names("cache"); !slices.Equal(got, want) {
			t.Errorf("left %q, want %q", got, want)
		}
	})
}

// Deleting is paced, can be stopped, and hides a root before it touches it.
func TestCollectionIsPacedAndCanBeStopped(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		many := files{}
		for i := range 10 * batch {
			many[fmt.Sprintf("d%d/f%d", i%7, i)] = ""
		}
		h.o.Keep.Roots = 1
		h.src.put("v1", archive(many))
		h.want("v1", nil)
		doomed := filepath.Base(h.agent.Record().Live.Dir)
		must(os.Chmod(h.dir+"/roots/"+doomed+"/d1", 0o500))
		for i := range 2 {
			h.src.put(fmt.Sprint("n", i), one(fmt.Sprint(i)))
			h.o.Observe.Enter = nil
			if i == 1 {
				ctx, cancel := context.WithCancel(t.Context())
				a := h.new()
				a.o.Mode.Once = false
				done := make(chan error, 1)
				go func() { done <- a.Run(ctx) }()
				pass(50 * time.Second) // of the delay of one minute
				for slices.Contains(h.names("roots"), doomed) {
					pass(batchPause / 2)
				}
				cancel()
				<-done
			} else {
				h.want("n0", nil)
			}
		}
		hidden, _ := filepath.Glob(h.dir + "/roots/." + doomed + ".partial/d*/*")
		if len(hidden) == 0 || len(hidden) == 10*batch {
			t.Errorf("stopped in the middle, %d files are left", len(hidden))
		}
		started := time.Now()
		must(h.new().collectAll(t.Context(), h.readRecord(), func(string) {}))
		if took := time.Since(started); took < 5*batchPause || len(h.names("roots")) != 6 {
			t.Errorf("went on for %v, %q are left", took, h.names("roots"))
		}
	})
}

func (h *host) readRecord() *Record {
	r, err := h.agent.load()
	must(err)
	return r
}

func TestCollectionFollowsNoLink(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	must(os.WriteFile(outside+"/f", nil, 0o600))
	must(os.Mkdir(dir+"/tree", 0o755))
	must(os.Symlink(outside, dir+"/tree/link"))
	p := &pace{ctx: t.Context()}
	if err := p.removeTree(dir, "tree"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(outside + "/f"); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(dir + "/tree"); !os.IsNotExist(err) {
		t.Errorf("the tree is left: %v", err)
	}
}

// A collection that fails does not make a deployment fail.
func TestFailingCollectionHindersNothing(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.o.Keep.Roots = 1
		for i := range 4 {
			h.src.put(fmt.Sprint("v", i), one(fmt.Sprint(i)))
			h.seam = func(p string) {
				if p == "entered Idle" && i == 3 {
					must(os.Rename(h.dir+"/cache", h.dir+"/away"))
					must(os.WriteFile(h.dir+"/cache", nil, 0o600))
				}
			}
			h.want(fmt.Sprint("v", i), nil)
		}
		if h.lines("WARN", "collection not finished") != 1 {
			t.Errorf("not said:\n%s", h.logged)
		}
	})
}

func TestLockIsReleased(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.src.put("v1", one("1"))
		h.want("v1", nil)
		l, err := atomic.Acquire(h.dir + "/lock")
		if errors.Is(err, atomic.ErrLocked) {
			t.Fatal(err)
		}
		must(l.Release())
	})
}

// A killed agent seems to hold its lock for a moment: a program that it was
// about to start has a copy of the descriptor until it is executed.
func TestLockOfTheDeadIsWaitedFor(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.src.put("v1", one("1"))
		l, err := atomic.Acquire(h.dir + "/lock")
		must(err)
		time.AfterFunc(lockPatience/2, func() { must(l.Release()) })
		h.want("v1", nil)
	})
}

func TestSecondAgentIsRefusedSoon(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		l, err := atomic.Acquire(h.dir + "/lock")
		must(err)
		start := time.Now()
		if err := h.run(); !errors.Is(err, atomic.ErrLocked) || time.Since(start) >= time.Second {
			t.Errorf("Run = %v after %v, want ErrLocked within a second", err, time.Since(start))
		}
		must(l.Release())
	})
}

// The record and the document of the live root are lost: it is no root that
// the agent knows, but it serves.
func TestCollectionLeavesWhatCurrentNames(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		for _, v := range []string{"1", "2"} {
			h.src.put("v"+v, one(v))
			h.want("v"+v, nil)
		}
		dir := h.agent.Record().Live.Dir
		must(os.Truncate(h.dir+"/journal.json", 0))
		must(os.Truncate(h.dir+"/"+dir+".json", 0))
		stop := h.serve()
		pass(3 * time.Hour)
		stop()
		if _, err := os.Stat(h.dir + "/current/."); err != nil {
			t.Errorf("`current` names a root that was collected: %v\n%s", err, h.logged)
		}
	})
}
