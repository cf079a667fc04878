package agent

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"deploytools/layers/digest"
	"deploytools/registry/wire"
	"deploytools/verify/spec"
)

// An agent that starts before the first deployment has nothing to complain of.
func TestQuietFirstRun(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		stop := h.serve()
		pass(time.Hour)
		stop()
		if n := h.lines("WARN", "") + h.lines("ERROR", ""); n > 0 {
			t.Errorf("%d complaints\n%s", n, h.logged)
		}
		if n := h.lines("INFO", "configuration not there"); n != 1 {
			t.Errorf("said %d times that there is no configuration, want once", n)
		}
	})
}

func TestDeletedConfigurationLeavesTheHostAsItIs(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.src.put("v1", one("1"))
		h.want("v1", nil)
		h.src.now = nil
		stop := h.serve()
		pass(time.Hour)
		stop()
		if h.live() != "v1" || len(h.calls) != 1 || h.lines("INFO", "configuration not there") != 1 {
			t.Errorf("%q is live after %d calls\n%s", h.live(), len(h.calls), h.logged)
		}
		h.invariants()
	})
}

func TestGarbageIsSaidOncePerChange(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.src.put("v1", one("1"))
		h.want("v1", nil)
		h.logged.Reset()
		c := h.src.put("v2", one("2"))
		c.Hash = digest.Of(nil) // does not follow from its layers
		stop := h.serve()
		pass(time.Hour)
		if n := h.lines("WARN", "not a valid configuration"); n != 1 || h.lines("DEBUG", "not a valid configuration") < 5 {
			t.Errorf("warned %d times, want once\n%s", n, h.logged)
		}
		h.src.set(func() { c.Name = "other" })
		pass(time.Hour)
		if n := h.lines("WARN", "not a valid configuration"); n != 2 {
			t.Errorf("warned %d times, want once more\n%s", n, h.logged)
		}
		h.src.put("v2", one("2"))
		pass(time.Hour)
		stop()
		if h.live() != "v2" {
			t.Errorf("%q is live", h.live())
		}
	})
}

func TestConfigurationThatWasNotAnnouncedIsRefused(t *testing.T) {
	for name, change := range map[string]func(*wire.Configuration){
		"name":     func(c *wire.Configuration) { c.Name = "other" },
		"revision": func(c *wire.Configuration) { c.Revision++ },
		"layers":   func(c *wire.Configuration) { c.Layers[0].Version = "v9"; c.Seal() },
	} {
		bubble(t, func(t *testing.T, h *host) {
			h.src.put("v1", one("1"))
			h.o.Source = &liar{h.src, change}
			if err := h.run(); err == nil || h.live() != "" {
				t.Errorf("another %s: Run = %v, %q is live", name, err, h.live())
			}
		})
	}
}

// liar announces one configuration and hands out another.
type liar struct {
	*fakeRegistry
	change func(*wire.Configuration)
}

func (l *liar) Configuration(ctx context.Context, name string) (*wire.Configuration, error) {
	c, err := l.fakeRegistry.Configuration(ctx, name)
	other := *c
	other.Layers = slices.Clone(c.Layers)
	l.change(&other)
	return &other, err
}

func TestRelabelledConfigurationRunsNoHook(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.o.StateFile = h.dir + "/state.json"
		h.src.put("v1", one("1"))
		h.want("v1", nil)
		root := h.agent.Record().Live.Dir
		h.src.put("v1.0.0", one("1"))
		h.want("v1.0.0", nil)
		b, _ := os.ReadFile(h.o.StateFile)
		if len(h.calls) != 1 || h.agent.Record().Live.Dir != root || !strings.Contains(string(b), `"v1.0.0"`) {
			t.Errorf("%d calls, root %s, state file %s", len(h.calls), h.agent.Record().Live.Dir, b)
		}
		must(os.Remove(h.dir + "/journal.json"))
		h.want("v1.0.0", nil)
		h.src.put("v1.0.0", one("1")) // a new revision of the same
		h.want("v1.0.0", nil)
		if r := h.agent.Record(); len(h.calls) != 1 || r.Live.Configuration.Revision != 3 {
			t.Errorf("%d calls, revision %d", len(h.calls), r.Live.Configuration.Revision)
		}
	})
}

func TestDamagedStateFileIsWrittenAnew(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.o.StateFile = h.dir + "/state.json"
		c := h.src.put("v1", one("1"))
		want, err := c.Encode()
		must(err)
		for _, damage := range []string{"", "{", "{}"} {
			must(os.WriteFile(h.o.StateFile, []byte(damage), 0o600))
			h.want("v1", nil)
			b, _ := os.ReadFile(h.o.StateFile)
			info, _ := os.Stat(h.o.StateFile)
			if string(b) != string(want) || info.Mode().Perm() != 0o644 {
				t.Errorf("from %q: %q, mode %v", damage, b, info.Mode())
			}
		}
		// One that cannot be written hinders nothing, and is said once.
		must(os.Remove(h.o.StateFile))
		must(os.Mkdir(h.o.StateFile, 0o755))
		h.src.put("v2", one("2"))
		stop := h.serve()
		pass(time.Hour)
		stop()
		if h.live() != "v2" || h.lines("WARN", "state file or evidence not written") != 1 {
			t.Errorf("%q is live\n%s", h.live(), h.logged)
		}
	})
}

// Two agents that were given one state file wrote it in turn.
func TestStateFileOfAnotherConfigurationIsLeftAlone(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.o.StateFile = h.dir + "/state.json"
		other := *h.src.put("v1", one("1"))
		other.Name = "other"
		other.Seal()
		b, err := other.Encode()
		must(err)
		must(os.WriteFile(h.o.StateFile, b, 0o644))
		stop := h.serve()
		pass(time.Hour)
		stop()
		if got, err := os.ReadFile(h.o.StateFile); err != nil || !bytes.Equal(got, b) {
			t.Errorf("state file is %q, %v, want as it was", got, err)
		}
		says := "state.json is of configuration \\\"other\\\", not \\\"web\\\""
		if n := h.lines("WARN", says); h.live() != "v1" || n != 2 || h.lines("WARN", "state file not used") != 1 {
			t.Errorf("%q is live, said %d times, want at the start and when it should be written\n%s", h.live(), n, h.logged)
		}
		must(os.Remove(h.o.StateFile))
		h.want("v1", nil)
		if _, err := os.Stat(h.o.StateFile); err != nil {
			t.Error(err)
		}
	})
}

func TestCurrentMovedByHandHoldsUntilTheNextRevision(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.src.put("v1", one("1"))
		h.want("v1", nil)
		v1 := h.agent.Record().Live.Dir
		h.src.put("v2", one("2"))
		h.want("v2", nil)
		for name, c := range map[string]struct{ link, live string }{
			"a committed root": {v1, "v1"}, "somewhere": {"../elsewhere", "v2"}, "nothing": {"", "v2"},
		} {
			k := h.copied(memoryDir(t))
			must(os.Remove(k.dir + "/current"))
			if c.link != "" {
				must(os.Symlink(c.link, k.dir+"/current"))
			}
			for range 3 {
				k.want(c.live, ErrHeld)
			}
			if n := k.lines("WARN", "current moved by hand"); n != 1 || len(k.calls) > 0 {
				t.Errorf("%s: warned %d times, calls %v", name, n, k.calls)
			}
			if link, _ := os.Readlink(k.dir + "/current"); link != c.link {
				t.Errorf("%s: `current` names %q, want it left at %q", name, link, c.link)
			}
			h.src.put("v3", one("3"))
			k.want("v3", nil)
			if k.agent.Record().Hold != nil {
				t.Errorf("%s: hold %v", name, k.agent.Record().Hold)
			}
			h.src.put("v2", one("2")) // for the next one
		}
	})
}

func TestHoldsOfPeople(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.src.put("v1", one("1"))
		h.want("v1", nil)
		stop := h.serve()
		pass(time.Minute)
		must(h.agent.Hold(t.Context(), "release freeze", Until{}))
		h.src.put("v2", one("2"))
		pass(time.Hour)
		if r := h.agent.Record(); h.live() != "v1" || r.Hold == nil || r.Hold.Reason != "release freeze" || h.lines("INFO", "msg=held") != 1 {
			t.Errorf("%q is live, hold %v\n%s", h.live(), r.Hold, h.logged)
		}
		must(h.agent.Resume(t.Context()))
		pass(time.Second) // it polls at once
		if h.live() != "v2" {
			t.Errorf("%q is live after Resume", h.live())
		}
		h.src.put("v3", one("3"))
		must(h.agent.Wake(t.Context()))
		pass(time.Second)
		if h.live() != "v3" {
			t.Errorf("%q is live after Wake", h.live())
		}
		stop()
	})
}

func TestRollbackByHand(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.o.Verify.Soak = time.Minute
		h.src.put("v1", one("1"))
		h.want("v1", nil)
		root := h.agent.Record().Live.Dir
		c := h.src.put("v2", one("2"))
		h.src.set(func() { delete(h.src.blobs, c.Layers[0].Hash) })
		stop := h.serve()
		pass(time.Minute)
		outcome := h.rollback("") // of a deployment that cannot go on
		pass(time.Minute)
		if out := <-outcome; out.Err != nil || out.Deployment.Verdict != Superseded || h.live() != "v1" || len(h.calls) != 1 {
			t.Errorf("in a deployment: %+v, %q is live after %d calls", out, h.live(), len(h.calls))
		}
		must(h.agent.Resume(t.Context()))
		h.src.set(func() { h.src.blobs[c.Layers[0].Hash] = one("2") })
		pass(time.Hour)
		h.src.set(func() { h.src.down = wire.ErrUnreachable })
		h.rollback("")
		pass(2 * time.Minute)
		last := h.calls[len(h.calls)-1]
		if h.live() != "v1" || h.agent.Record().Live.Dir != root || last["DEPLOY_ACTION"] != "rollback" || last["NEWROOT"] != h.dir+"/"+root {
			t.Errorf("%q is live in %s, the hook was told %v\n%s", h.live(), h.agent.Record().Live.Dir, last, h.logged)
		}
		h.src.set(func() { h.src.down = nil })
		pass(time.Hour)
		if h.live() != "v1" || h.agent.Record().Hold == nil {
			t.Errorf("%q is live, hold %v", h.live(), h.agent.Record().Hold)
		}
		h.rollback("") // forward again
		pass(time.Hour)
		if h.live() != "v2" {
			t.Errorf("%q is live after two rollbacks", h.live())
		}
		h.src.put("v3", one("3"))
		pass(time.Hour)
		stop()
		if h.live() != "v3" || h.agent.Record().Hold != nil {
			t.Errorf("%q is live, hold %v", h.live(), h.agent.Record().Hold)
		}
		h.invariants()
	})
}

// What was unpacked by the original tool set serves: it is not deployed again.
func TestMovedOverFromTheOriginal(t *testing.T) {
	for name, spoil := range map[string]func(dir, hash string){
		"complete":       func(string, string) {},
		"without .ok":    func(dir, hash string) { must(os.Remove(dir + "/unpacked/" + hash + ".ok")) },
		"without a tree": func(dir, hash string) { must(os.RemoveAll(dir + "/unpacked/" + hash)) },
		"empty state":    func(dir, hash string) { must(os.WriteFile(dir+"/state.json", nil, 0o644)) },
	} {
		bubble(t, func(t *testing.T, h *host) {
			c := h.src.put("v1", one("1"))
			old := *c
			old.Revision, old.Digest = 0, digest.Digest{}
			b, err := old.Encode()
			must(err)
			hash := c.Hash.String()
			h.o.StateFile = h.dir + "/state.json"
			must(os.WriteFile(h.o.StateFile, b, 0o644))
			must(os.MkdirAll(h.dir+"/unpacked/"+hash, 0o755))
			must(os.WriteFile(h.dir+"/unpacked/"+hash+".ok", nil, 0o640))
			must(os.WriteFile(h.dir+"/serving", []byte(hash), 0o600))
			spoil(h.dir, hash)
			h.want("v1", nil)
			r := h.agent.Record()
			if name != "complete" {
				if len(h.calls) != 1 || r.Live.Verification != Verified {
					t.Errorf("%s: %d calls, live %v", name, len(h.calls), r.Live)
				}
				return
			}
			link, _ := os.Readlink(h.dir + "/current")
			if len(h.calls) != 0 || link != "unpacked/"+hash || r.Live.Verification != Unverified || r.Live.Configuration.Revision != 1 {
				t.Errorf("%d calls, `current` names %s, live %+v", len(h.calls), link, r.Live)
			}
			h.src.put("v2", with(failHook))
			h.want("v1", ErrRolledBack)
			if got := h.calls[0]["OLDROOT"]; got != h.dir+"/unpacked/"+hash {
				t.Errorf("OLDROOT=%s", got)
			}
			must(os.Remove(h.dir + "/journal.json"))
			h.want("v1", ErrRolledBack)
		})
	}
}

func TestStalledTransferIsCutAndASlowOneIsNot(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		layer := one("1")
		h.src.put("v1", layer)
		h.o.Source = &slow{h.src, layer, 59 * time.Second}
		if err := h.run(); err != nil {
			t.Errorf("a byte every 59 s: Run = %v", err)
		}
		h.src.put("v2", one("2"))
		h.o.Source = &slow{h.src, one("2"), 61 * time.Second}
		started := time.Now()
		if err := h.run(); !errors.Is(err, wire.ErrUnreachable) || time.Since(started) > 2*time.Minute {
			t.Errorf("a byte every 61 s: Run = %v after %v", err, time.Since(started))
		}
	})
}

// slow sends a byte and waits.
type slow struct {
	*fakeRegistry
	layer []byte
	pause time.Duration
}

func (s *slow) Fetch(ctx context.Context, _ digest.Digest, offset int64, w io.Writer) error {
	for _, b := range s.layer[offset:] {
		if err := sleep(ctx, s.pause); err != nil {
			return err
		}
		if _, err := w.Write([]byte{b}); err != nil {
			return err
		}
	}
	return nil
}

func TestOptionsAreChecked(t *testing.T) {
	good := Options{Name: "web", Dir: t.TempDir(), Source: newFakeRegistry()}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(o *Options){
		"name":     func(o *Options) { o.Name = "../x" },
		"dir":      func(o *Options) { o.Dir = "" },
		"source":   func(o *Options) { o.Source = nil },
		"interval": func(o *Options) { o.Poll.Interval = -1 },
		"keep":     func(o *Options) { o.Keep.Roots = -1 },
		"checks":   func(o *Options) { o.Verify = spec.Spec{Checks: []spec.Check{{Type: "magic"}}} },
	} {
		o := good
		spoil(&o)
		if _, err := New(o); err == nil {
			t.Errorf("a bad %s is accepted", name)
		}
	}
}

func TestDirectoryOfAnotherConfigurationIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.src.put("v1", one("1"))
		h.want("v1", nil)
		h.o.Name = "other"
		if err := h.run(); err == nil || !strings.Contains(err.Error(), `belongs to configuration "web"`) {
			t.Errorf("Run = %v", err)
		}
	})
}

func TestWaits(t *testing.T) {
	b := newBackoff(Poll{Interval: 30 * time.Second, MaxWait: 5 * time.Minute, Seed: 1}, "web")
	bound := time.Second
	for n := range 100 {
		if w := b.next(); w < bound/10 || w > bound {
			t.Errorf("wait %d is %v, want %v to %v", n, w, bound/10, bound)
		}
		bound = min(2*bound, 5*time.Minute)
	}
	b.reset()
	if w := b.next(); w > time.Second {
		t.Errorf("after a success the wait is %v", w)
	}
	seen := map[time.Duration]bool{}
	for host := range uint64(100) {
		b := newBackoff(Poll{Interval: 30 * time.Second, Seed: host + 1}, "web")
		first := b.spread()
		seen[first.Round(100*time.Millisecond)] = true
		if next := b.poll(); first > 4*time.Second || next < 30*time.Second || next > 34*time.Second {
			t.Errorf("host %d: first poll after %v, then after %v", host, first, next)
		}
	}
	if len(seen) < 25 {
		t.Errorf("100 hosts have %d first polls, 0.1 s apart", len(seen))
	}
	x, y := newBackoff(Poll{Interval: time.Hour}, "a"), newBackoff(Poll{Interval: time.Hour}, "b")
	if x.spread() == y.spread() {
		t.Error("two configurations on one host poll at the same time")
	}
}
