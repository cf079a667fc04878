package agent

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"deploytools/registry/wire"
	"deploytools/verify/spec"
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

// The registry is away, so no poll has set a hold for the link: resume puts it back
// all the same, and leaves one that names another root of ours to the next poll.
func TestResumeMovesCurrentBackUnseen(t *testing.T) {
	for _, ours := range []bool{false, true} {
		bubble(t, func(t *testing.T, h *host) {
			h.versions(2)
			link := "/tmp"
			if ours {
				link = h.agent.Record().Back.Dir
			}
			want := map[bool]string{false: h.agent.Record().Live.Dir, true: link}[ours]
			h.src.set(func() { h.src.down = wire.ErrUnreachable })
			stop := h.serve()
			pass(time.Minute)
			must(os.Remove(h.dir + "/current"))
			must(os.Symlink(link, h.dir+"/current"))
			must(h.agent.Resume(t.Context()))
			if got, _ := os.Readlink(h.dir + "/current"); got != want {
				t.Errorf("from %s `current` is %q, want %q", link, got, want)
			}
			h.src.set(func() { h.src.down = nil })
			pass(time.Hour)
			stop()
			if r := h.agent.Record(); r.Live.Dir != want || (r.Hold != nil) != ours {
				t.Errorf("%s is live, want %s; hold %v", r.Live.Dir, want, r.Hold)
			}
		})
	}
}

func TestHoldOfTheRegistry(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.src.put("v1", one("1"))
		h.want("v1", nil)
		var statuses []string
		h.o.Observe.Notify = func(s string) { statuses = append(statuses, s) }
		stop := h.serve()
		pass(time.Minute)
		until := time.Now().Add(-time.Hour) // by our clock it is over: the registry's counts
		h.src.set(func() { h.src.hold = &wire.Hold{Reason: "sale,\nask\x1b ann", Until: until} })
		pass(time.Hour)
		h.src.put("v2", one("2"))
		pass(time.Hour)
		want := "sale, ask  ann, until " + until.UTC().Format(time.RFC3339)
		if got := statuses[len(statuses)-1]; got != "web: Idle, revision 1 verified, held by the registry: "+want {
			t.Errorf("the status is %q", got)
		}
		if h.live() != "v1" || h.lines("WARN", "held by the registry") != 1 || h.agent.Record().Hold != nil {
			t.Errorf("%q is live, hold on record %v\n%s", h.live(), h.agent.Record().Hold, h.logged)
		}
		must(h.agent.Resume(t.Context())) // which ends our own holds only
		pass(time.Minute)
		if h.live() != "v1" {
			t.Errorf("%q is live after Resume on the host", h.live())
		}
		h.src.set(func() { h.src.hold = nil })
		pass(time.Minute)
		if h.live() != "v2" || h.lines("INFO", "hold of the registry ended") != 1 {
			t.Errorf("%q is live after the hold\n%s", h.live(), h.logged)
		}
		stop()
	})
}

// What was begun goes on: a host is not left half way.
func TestHoldOfTheRegistryStopsNoDeployment(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.o.Verify.Soak = time.Hour
		h.src.put("v1", one("1"))
		stop := h.serve()
		pass(30 * time.Minute)
		h.src.set(func() { h.src.hold = &wire.Hold{Reason: "sale"} })
		pass(2 * time.Hour)
		stop()
		if h.live() != "v1" {
			t.Errorf("%q is live\n%s", h.live(), h.logged)
		}
	})
}

func TestOnceTellsTheHoldOfTheRegistry(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.src.put("v1", one("1"))
		h.src.hold = &wire.Hold{Reason: "sale"}
		h.want("", ErrRegistryHolds) // a first deployment, too
		h.src.hold = nil
		h.want("v1", nil)
		h.src.hold = &wire.Hold{Reason: "sale"}
		h.want("v1", nil) // nothing is kept from it
		h.src.put("v2", one("2"))
		h.want("v1", ErrRegistryHolds)
		h.src.now.Hold = h.src.hold // as configs/NAME.json has it
		h.src.hold = nil
		h.want("v2", nil)
		if c := h.agent.Record().Live.Configuration; c.Hold != nil {
			t.Errorf("the record keeps the hold %+v", c.Hold)
		}
	})
}

// No hook was run for it, and it was told to be verified, since it was deployed.
func TestRootThatCurrentWasMovedToIsUnverified(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.o.Checks.Every, h.o.Checks.Inspect = 10*time.Minute, 24*time.Hour
		h.versions(2)
		old := h.agent.Record().Back
		stop := h.serve()
		defer stop()
		pass(time.Hour)
		h.calls = nil
		must(os.Remove(h.dir + "/current"))
		must(os.Symlink(old.Dir, h.dir+"/current"))
		must(os.WriteFile(h.dir+"/serving", []byte(filepath.Base(old.Dir)), 0o644)) // as if its checks saw no difference
		moved := time.Now()
		pass(time.Hour)
		s, told := h.status(), h.agent.report(heard{}).Running
		if live := s.Live; live.Root != old.Dir || live.Verification != Unverified || live.Committed.Before(moved) || len(h.calls) > 0 {
			t.Errorf("live: %+v, hooks run: %v", live, h.calls)
		}
		if told.Verification != string(Unverified) || told.Since.Before(moved) {
			t.Errorf("the registry is told %+v", told)
		}
		if s.Watched == nil || s.Watched.Compared.Before(moved) {
			t.Errorf("not compared with its manifest: %+v", s.Watched)
		}
		why := s.Why(func(v string) string { return v })
		if says, does := strings.Join(why.Says, " "), strings.Join(why.Do, "\n"); !strings.Contains(says, old.Dir+`", and no hook was run`) ||
			does != "resume ends it\nrepair deploys what is live once more, with the hook and the checks" {
			t.Errorf("why: %q, %q", says, does)
		}
		if r, err := h.agent.committed(old.Dir); err != nil || r.Verification != Verified || !r.Committed.Equal(old.Committed) {
			t.Errorf("the root's document has %+v, %v", r, err)
		}
		_, err := h.agent.RepairAwaited(t.Context())
		must(err)
		pass(time.Minute)
		if r := h.agent.Record(); r.Live.Verification != Verified || h.live() != "v1" || r.Hold == nil || r.Hold.Reason != rolledBackReason {
			t.Errorf("repaired: live %+v, hold %+v", r.Live, r.Hold)
		}
		<-h.rollback("2")
		<-h.rollback(old.Dir)
		if live := h.agent.Record().Live; live.Dir != old.Dir || live.Verification != Verified {
			t.Errorf("rolled back to it: %+v", live)
		}
	})
}

// A look with the checks of a later revision runs no hook either.
func TestRelookAtARootThatCurrentWasMovedTo(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.versions(2)
		old := h.agent.Record().Back
		stop := h.serve()
		defer stop()
		pass(time.Hour)
		must(os.Remove(h.dir + "/current"))
		must(os.Symlink(old.Dir, h.dir+"/current"))
		must(os.WriteFile(h.dir+"/serving", []byte(filepath.Base(old.Dir)), 0o644))
		pass(time.Hour)
		c := *old.Configuration
		c.Verify = &spec.Spec{Checks: []spec.Check{tcpAt("mail", "conf:1")}}
		h.src.announce(&c)
		pass(time.Hour)
		if r := h.agent.Record(); r.Live.Dir != old.Dir || r.Live.Configuration.Revision != 3 || r.Live.Verification != Unverified || !r.Seen().Failing.IsZero() {
			t.Errorf("live: %+v, %+v", r.Live, r.Seen())
		}
	})
}

// The hold of a rollback was hidden behind one that a person set besides, and
// resume ended both without a word.
func TestStatusNamesBothHolds(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.versions(2)
		stop := h.serve()
		h.rollback("")
		pass(time.Minute)
		must(h.agent.Hold(t.Context(), "freeze", Until{After: time.Hour}))
		s := h.status()
		why := s.Why(func(v string) string { return v })
		if got := s.Holds(); len(got) != 2 || got[0] != "freeze" || got[1] != rolledBackReason {
			t.Errorf("holds %q", got)
		}
		if says := strings.Join(why.Says, " "); !strings.Contains(says, "Besides, hold: "+rolledBackReason) || why.Do[0] != "resume ends both holds" {
			t.Errorf("why: %q, %q", says, why.Do)
		}
		h.src.set(func() { h.src.hold = &wire.Hold{Reason: "freeze there"} })
		pass(time.Hour / 2)
		s = h.status()
		if does := s.Why(func(v string) string { return v }).Do; !slices.Contains(does, "deployctl resume -name web ends the hold of the registry") {
			t.Errorf("held by the registry besides, do: %q", does)
		}
		must(h.agent.Resume(t.Context()))
		if got := h.logged.String(); !strings.Contains(got, "hold ended by a person") || !strings.Contains(got, "; "+rolledBackReason) {
			t.Errorf("the log says nothing of both:\n%s", got)
		}
		stop()
	})
}

// A registry that was restored from a backup counts from there: its next revisions
// had numbers that a hold took for old ones.
func TestHoldOfARollbackWhereTheRegistryWentBack(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.versions(4)
		stop := h.serve()
		synctest.Wait()
		<-h.rollback("")
		pass(time.Hour)
		h.src.set(func() { h.src.history = 0 })
		h.src.put("v5", one("5")) // revision 1, as of the backup
		pass(time.Hour)
		if h.live() != "v3" {
			t.Errorf("%q is live after the registry was restored, want v3", h.live())
		}
		h.src.put("v6", one("6")) // revision 2
		pass(time.Hour)
		stop()
		if r := h.agent.Record(); h.live() != "v6" || r.Hold != nil {
			t.Errorf("%q is live after a later revision, want v6; hold %+v", h.live(), r.Hold)
		}
		h.invariants()
	})
}

// What failed at revision 3 was not tried again at revision 2 of a registry that had
// lost that one, though a person had made it since.
func TestMarkWhereTheRegistryWentBack(t *testing.T) {
	h := newHost(t, newFakeRegistry())
	h.versions(2)
	failing := *h.src.put("v3", with(failHook))
	h.want("v2", ErrRolledBack)
	h.src.set(func() { h.src.history = 0 })
	h.src.put("v2", one("2")) // revision 1, as of the backup
	h.want("v2", nil)
	before := h.runs("deploy")
	h.src.announce(&failing) // revision 2
	for range 2 {
		h.want("v2", ErrRolledBack)
	}
	if n := h.runs("deploy") - before; n != 1 {
		t.Errorf("the hook ran %d times, want once: a later revision is a person asking", n)
	}
}
