package agent

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"deploytools/layers/digest"
	"deploytools/registry/wire"
)

// A person is at work beside the agent: it says so and holds, leaves `current` as
// it is for as long as nothing new comes, and a later revision ends the hold.
func TestDrift(t *testing.T) {
	relink := func(h *host, to string) {
		must(os.Remove(h.dir + "/current"))
		must(os.Symlink(to, h.dir+"/current"))
	}
	for how, test := range map[string]struct {
		do     func(h *host, one, two string)
		live   string
		reason string
		waits  string // with the next revision; "": it is deployed
	}{
		"missing":           {func(h *host, _, _ string) { must(os.Remove(h.dir + "/current")) }, "v2", "`current` was deleted by hand", ""},
		"dangling":          {func(h *host, _, _ string) { relink(h, "roots/nowhere") }, "v2", `moved by hand to "roots/nowhere"`, ""},
		"elsewhere":         {func(h *host, _, _ string) { relink(h, "/tmp") }, "v2", `moved by hand to "/tmp"`, ""},
		"to an older root":  {func(h *host, one, _ string) { relink(h, "roots/"+filepath.Base(one)) }, "v1", `moved by hand to "roots/000001`, ""},
		"absolute":          {func(h *host, one, _ string) { relink(h, one) }, "v2", `moved by hand to "/`, ""},
		"live root deleted": {func(h *host, _, two string) { must(os.RemoveAll(two)) }, "v2", "the live root roots/000002", ""},
		"all roots deleted": {func(h *host, one, two string) { must(os.RemoveAll(two)); must(os.RemoveAll(one)) }, "v2", "is gone", ""},
		"a directory": {func(h *host, _, _ string) {
			must(os.Remove(h.dir + "/current"))
			must(os.Mkdir(h.dir+"/current", 0o755))
		}, "v2", "`current` was replaced by hand, by a directory or a file", "current is no link: move it away"},
		"a file": {func(h *host, _, _ string) {
			must(os.Remove(h.dir + "/current"))
			must(os.WriteFile(h.dir+"/current", nil, 0o644))
		}, "v2", "`current` was replaced by hand, by a directory or a file", "current is no link: move it away"},
	} {
		bubble(t, func(t *testing.T, h *host) {
			one, two := twoRoots(h)
			stop := h.serve()
			pass(time.Minute)
			test.do(h, one, two)
			link, _ := os.Readlink(h.dir + "/current")
			h.calls = nil
			pass(3 * time.Hour)
			now, _ := os.Readlink(h.dir + "/current")
			r := h.agent.Record()
			if now != link || len(h.calls) > 0 || h.live() != test.live {
				t.Errorf("%s: `current` was %q and is %q; calls %v; %q is live, want %q", how, link, now, h.calls, h.live(), test.live)
			}
			if r.Hold == nil || !strings.Contains(r.Hold.Reason, test.reason) {
				t.Errorf("%s: hold %+v, want %q", how, r.Hold, test.reason)
			}
			if n := h.lines("WARN", "moved by hand") + h.lines("ERROR", "live root is gone"); n != 1 {
				t.Errorf("%s: said %d times\n%s", how, n, h.logged)
			}
			h.src.put("v3", archive(files{"etc/motd": "3"}))
			pass(10 * time.Minute)
			stop()
			switch {
			case test.waits == "" && h.live() != "v3":
				t.Errorf("%s: %q is live after a later revision\n%s", how, h.live(), h.logged)
			case test.waits != "" && (h.live() != test.live || !strings.Contains(h.logged.String(), test.waits)):
				t.Errorf("%s: %q is live, does not say %q\n%s", how, h.live(), test.waits, h.logged)
			}
		})
	}
}

// A later revision that is not deployed at once ends the hold when it is, and is not held
// in its turn.
func TestALaterRevisionThatWaitsEndsTheHoldOfAMovedLink(t *testing.T) {
	for _, how := range []string{"held by the registry", "configuration not fetched", "overtaken while it is fetched", "failing", "standing"} {
		bubble(t, func(t *testing.T, h *host) {
			h.src.put("v1", one("1"))
			h.want("v1", nil)
			unstable := &unstable{fakeRegistry: h.src}
			h.o.Source = unstable
			stop := h.serve()
			if how == "standing" {
				pass(time.Minute)
				must(h.agent.Hold(t.Context(), "sale", Until{}))
			}
			must(os.Remove(h.dir + "/current"))
			pass(10 * time.Minute)
			want := "v2"
			switch how {
			case "held by the registry":
				h.src.set(func() { h.src.hold = &wire.Hold{Reason: "sale"} })
				h.src.put("v2", one("2"))
				pass(10 * time.Minute)
				h.src.set(func() { h.src.hold = nil })
			case "configuration not fetched":
				h.src.set(func() { unstable.fails = 3 })
				h.src.put("v2", one("2"))
			case "overtaken while it is fetched":
				h.src.set(func() { h.src.fetch = func(digest.Digest, int64, io.Writer) error { return wire.ErrUnreachable } })
				h.src.put("v2", one("2"))
				pass(10 * time.Minute)
				h.src.put("v3", one("3"))
				h.src.set(func() { h.src.fetch = nil })
				want = "v3"
			case "failing":
				h.src.put("v2", with(failVerify))
				pass(10 * time.Minute)
				if h.live() != "v1" || h.agent.Record().Hold != nil {
					t.Errorf("%s: %q is live, hold %+v", how, h.live(), h.agent.Record().Hold)
				}
				h.src.put("v3", one("3"))
				want = "v3"
			case "standing":
				h.src.put("v2", one("2"))
				pass(10 * time.Minute)
				if h.agent.Record().Live.Configuration.Revision != 1 {
					t.Errorf("%s: a hold of a person was passed", how)
				}
				must(h.agent.Resume(t.Context()))
			}
			pass(time.Hour)
			stop()
			if h.live() != want || h.agent.Record().Hold != nil {
				t.Errorf("%s: %q is live, want %s; hold %+v\n%s", how, h.live(), want, h.agent.Record().Hold, h.logged)
			}
		})
	}
}

// unstable fails to yield configurations.
type unstable struct {
	*fakeRegistry
	fails int
}

func (u *unstable) Configuration(ctx context.Context, name string) (*wire.Configuration, error) {
	u.mu.Lock()
	fails := u.fails > 0
	u.fails--
	u.mu.Unlock()
	if fails {
		return nil, wire.ErrUnreachable
	}
	return u.fakeRegistry.Configuration(ctx, name)
}

// A later revision with the same layers puts no link back: so that hold goes on.
func TestTheSameLayersEndNoHoldOfAMovedLink(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.src.put("v1", one("1"))
		h.want("v1", nil)
		stop := h.serve()
		must(os.Remove(h.dir + "/current"))
		pass(10 * time.Minute)
		h.src.put("v1", one("1"))
		pass(10 * time.Minute)
		r := h.agent.Record()
		if r.Live.Configuration.Revision != 2 || r.Hold == nil || r.Hold.Revision != 2 {
			t.Errorf("revision %d is live, hold %+v", r.Live.Configuration.Revision, r.Hold)
		}
		h.src.put("v2", one("2"))
		pass(10 * time.Minute)
		stop()
		if h.live() != "v2" || h.agent.Record().Hold != nil {
			t.Errorf("%q is live, hold %+v", h.live(), h.agent.Record().Hold)
		}
	})
}

// A link that was there before the agent is not its own, and resume cannot put it back.
func TestAForeignLinkIsMovedAway(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		must(os.Symlink("/tmp", h.dir+"/current"))
		h.src.put("v1", one("1"))
		stop := h.serve()
		pass(10 * time.Minute)
		s := h.status()
		if w := s.Why(func(verb string) string { return verb }); w.Cause != Cause(BlockHold) || len(w.Do) != 1 || !strings.HasPrefix(w.Do[0], "move `current` away") {
			t.Errorf("why: %+v", w)
		}
		must(os.Remove(h.dir + "/current"))
		pass(10 * time.Minute)
		stop()
		if h.live() != "v1" || h.agent.Record().Hold != nil {
			t.Errorf("%q is live, hold %+v\n%s", h.live(), h.agent.Record().Hold, h.logged)
		}
	})
}

// A repair that waits for what is in the place of `current` to be moved away goes on then.
func TestARepairGoesOnOnceItsPlaceIsFree(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.src.put("v1", one("1"))
		h.want("v1", nil)
		must(os.Remove(h.dir + "/current"))
		must(os.Mkdir(h.dir+"/current", 0o755))
		stop := h.serve()
		pass(10 * time.Minute)
		_, err := h.agent.RepairAwaited(t.Context())
		must(err)
		pass(time.Minute)
		must(os.Remove(h.dir + "/current"))
		pass(time.Hour)
		stop()
		r := h.agent.Record()
		link, _ := os.Readlink(h.dir + "/current")
		if r.Live.Dir != link || !strings.HasPrefix(link, "roots/000002-") || r.Hold != nil {
			t.Errorf("`current` names %q, %s is live, hold %+v\n%s", link, r.Live.Dir, r.Hold, h.logged)
		}
	})
}

// Every root was deleted under the agent: what comes then is good or bad, and
// where it is bad nothing is left to go back to.
func TestRepairOfADeletedRoot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, newFakeRegistry())
		one, two := twoRoots(h)
		must(os.RemoveAll(one))
		must(os.RemoveAll(two))
		h.run()
		h.o.Mode.Repair = true
		if err := h.run(); err != nil {
			t.Errorf("Run = %v\n%s", err, h.logged)
		}
		h.liveIsWhole("v2", "repaired")
	})
}

// A newer revision would be held, not deployed, while `current` is not in its place.
func TestRepairOfAMovedLinkIsNotOvertaken(t *testing.T) {
	for _, moved := range []bool{false, true} {
		bubble(t, func(t *testing.T, h *host) {
			h.src.put("v1", archive(files{"etc/motd": "1"}))
			h.want("v1", nil)
			old := h.agent.Record().Live
			must(os.Remove(h.agent.layerFile(old.Configuration.Layers[0].Hash)))
			if moved {
				must(os.Remove(h.dir + "/current"))
			}
			h.src.set(func() { h.src.down = errors.New("away") })
			stop := h.serve()
			pass(time.Minute)
			_, err := h.agent.RepairAwaited(t.Context())
			must(err)
			pass(time.Minute)
			h.src.put("v2", archive(files{"etc/motd": "2"}))
			h.src.set(func() { h.src.down = nil })
			pass(5 * time.Minute)
			stop()
			// The link is back by the repair; so v2 is deployed then, as any.
			if b, err := os.ReadFile(h.dir + "/current/etc/motd"); err != nil || string(b) != "2" {
				t.Errorf("moved: %v: current has %q, %v\n%s", moved, b, err, h.logged)
			}
			h.invariants()
		})
	}
}

// The host seems well to its registry else.
func TestReportOfADeletedRoot(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.src.put("v1", archive(files{"etc/motd": "1"}))
		h.want("v1", nil)
		root := h.agent.Record().Live.Dir
		if got := h.agent.report(heard{}).Moved; got != "" {
			t.Errorf("before: moved to %q", got)
		}
		must(os.RemoveAll(h.dir + "/" + root))
		if got := h.agent.report(heard{}).Moved; got != root+", which is gone" {
			t.Errorf("moved to %q", got)
		}
	})
}

// Whatever the clock says, the root that was committed last is the newest.
func TestClockThatJumpsChangesNoOrder(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.o.Keep.Roots = 1
		for i, v := range []string{"1", "2", "3"} {
			h.src.put("v"+v, archive(files{"etc/motd": v}))
			h.want("v"+v, nil)
			// As if the clock had gone back a year before each deployment.
			file := h.dir + "/" + h.agent.Record().Live.Dir + ".json"
			r, err := readRoot(file)
			must(err)
			r.Committed = time.Now().AddDate(-i, 0, 0)
			b, err := encode(r)
			must(err)
			must(os.WriteFile(file, b, 0o600))
		}
		roots, err := h.agent.roots()
		must(err)
		if len(roots) != 2 || roots[1].Configuration.Layers[0].Version != "v3" {
			t.Errorf("in order %v, want v3 last", roots)
		}
		must(os.Remove(h.dir + "/journal.json"))
		must(os.Remove(h.dir + "/current"))
		must(os.Symlink(roots[1].Dir, h.dir+"/current"))
		h.want("v3", nil)
		if back := h.agent.Record().Back; back == nil || back.Configuration.Layers[0].Version != "v2" {
			t.Errorf("the rollback target is %v, want v2", back)
		}
	})
}

// A hold that a person has set keeps its reason when `current` is moved, before or
// after; and its end does not take back what a person made live.
func TestHoldAndDriftTogether(t *testing.T) {
	for name, act := range map[string]func(move, hold func()){
		"hold first": func(move, hold func()) { hold(); move() },
		"move first": func(move, hold func()) { move(); hold() },
	} {
		for _, foreign := range []bool{false, true} {
			bubble(t, func(t *testing.T, h *host) {
				epoch := time.Now()
				h.up = func() time.Duration { return time.Since(epoch) }
				h.versions(2)
				link := h.agent.Record().Back.Dir
				if foreign {
					link = "/tmp"
				}
				stop := h.serve()
				pass(time.Minute)
				act(func() {
					must(os.Remove(h.dir + "/current"))
					must(os.Symlink(link, h.dir+"/current"))
					pass(time.Minute)
				}, func() {
					must(h.agent.Hold(t.Context(), "sale", Until{After: time.Hour}))
					pass(time.Minute)
				})
				if hold := h.agent.Record().Hold; hold == nil || !strings.HasPrefix(hold.Reason, "sale") || hold.Until.IsZero() {
					t.Errorf("%s: hold %v", name, hold)
				}
				pass(2 * time.Hour)
				stop()
				now, _ := os.Readlink(h.dir + "/current")
				if hold := h.agent.Record().Hold; now != link || hold == nil || hold.Standing {
					t.Errorf("%s: `current` was %s and is %s, hold %v", name, link, now, hold)
				}
			})
		}
	}
}

// The hold stayed after a repair where `current` had been deleted, and for as long as
// the registry was away.
func TestRepairEndsTheHoldOfAMovedLink(t *testing.T) {
	drift := map[string]func(h *host){
		"deleted": func(h *host) { must(os.Remove(h.dir + "/current")) },
		"moved":   func(h *host) { must(os.Remove(h.dir + "/current")); must(os.Symlink("/tmp", h.dir+"/current")) },
		"gone":    func(h *host) { must(os.RemoveAll(h.dir + "/" + h.agent.Record().Live.Dir)) },
	}
	for name, test := range map[string]struct {
		before func(h *host)
		reason string // of the hold that is left; "": there is none
	}{
		"not held":       {func(*host) {}, ""},
		"held":           {func(h *host) { must(h.agent.Hold(h.Context(), "sale", Until{})) }, "sale"},
		"rolled back":    {func(h *host) { <-h.rollback("") }, rolledBackReason},
		"both, the link": {func(h *host) { <-h.rollback(""); must(h.agent.Hold(h.Context(), "sale", Until{})) }, "sale; " + rolledBackReason},
	} {
		for how, act := range drift {
			bubble(t, func(t *testing.T, h *host) {
				h.versions(2)
				stop := h.serve()
				pass(time.Minute)
				test.before(h)
				live := h.live()
				pass(time.Minute)
				act(h)
				pass(time.Minute)
				if h.agent.Record().Hold == nil {
					t.Fatalf("%s, %s: there is no hold", name, how)
				}
				h.src.set(func() { h.src.down = errors.New("away") })
				out, err := h.agent.RepairAwaited(t.Context())
				must(err)
				if out := <-out; out.Err != nil {
					t.Errorf("%s, %s: repair: %v\n%s", name, how, out.Err, h.logged)
				}
				reason := func() string {
					if hold := h.agent.Record().Hold; hold != nil {
						return hold.all()
					}
					return ""
				}
				if got := reason(); got != test.reason {
					t.Errorf("%s, %s: held after the repair: %q, want %q", name, how, got, test.reason)
				}
				h.src.set(func() { h.src.down = nil })
				pass(time.Hour)
				stop()
				if got := reason(); got != test.reason || h.live() != live {
					t.Errorf("%s, %s: held later: %q, want %q; %q is live, want %q", name, how, got, test.reason, h.live(), live)
				}
				h.invariants()
			})
		}
	}
}

// `current` was moved to what may serve, and the live root is gone: resume does not
// leave the host with a link to nothing.
func TestResumeLeavesTheLinkWhereTheLiveRootIsGone(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.versions(1)
		stop := h.serve()
		pass(time.Minute)
		must(os.Remove(h.dir + "/current"))
		must(os.Symlink("/tmp", h.dir+"/current"))
		must(os.RemoveAll(h.dir + "/" + h.agent.Record().Live.Dir))
		pass(time.Minute)
		must(h.agent.Resume(t.Context()))
		pass(time.Minute)
		stop()
		if link, _ := os.Readlink(h.dir + "/current"); link != "/tmp" {
			t.Errorf("`current` names %q", link)
		}
	})
}

// A comparison took whatever `current` named for the live root.
func TestInspectLooksAtTheLiveRootWhereverTheLinkIs(t *testing.T) {
	for link, want := range map[string]string{
		"":                        "current: no such file or directory",
		"/etc":                    `current: names "/etc", which is no root of this agent`,
		"../roots/000001-nothing": `current: names "../roots/000001-nothing", which is no root of this agent`,
	} {
		bubble(t, func(t *testing.T, h *host) {
			h.versions(2)
			must(os.Remove(h.dir + "/current"))
			if link != "" {
				must(os.Symlink(link, h.dir+"/current"))
			}
			for _, all := range []bool{false, true} {
				found, err := Inspect(t.Context(), h.dir, Inspection{All: all})
				must(err)
				var text strings.Builder
				must(found.Text(&text))
				if !strings.Contains(text.String(), h.agent.Record().Live.Dir+" (live): whole\n") || !strings.Contains(text.String(), want+"\n") || found.Whole() {
					t.Errorf("%q, all %t: found\n%s", link, all, text.String())
				}
			}
		})
	}
}
