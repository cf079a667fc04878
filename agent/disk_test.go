package agent

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"deploytools/atomic"
	"deploytools/layers/digest"
	"deploytools/registry/wire"
)

// Without the record, the roots' documents and `current` say what was going on.
func TestLostRecordAtEveryPoint(t *testing.T) {
	damage := map[string]func(file string){
		"removed":   func(file string) { os.Remove(file) },
		"empty":     func(file string) { must(os.WriteFile(file, nil, 0o600)) },
		"cut":       func(file string) { must(os.Truncate(file, 100)) },
		"one bit":   func(file string) { flip(file) },
		"not ours":  func(file string) { must(os.WriteFile(file, []byte("{}\n"), 0o600)) },
		"old state": func(file string) { must(os.WriteFile(file, []byte(`{"Format":1,"Body":{}}`), 0o600)) },
	}
	for _, s := range scenarios() {
		if s.name != "good" && s.name != "verification fails" {
			continue
		}
		for name, do := range damage {
			if name != "removed" && !s.later {
				continue
			}
			synctest.Test(t, func(t *testing.T) {
				points, hosts := s.prepare(t).killed(memoryDir(t))
				for i, k := range hosts {
					if strings.HasSuffix(points[i], " deploy") || strings.HasSuffix(points[i], "rollback") {
						continue // the hook's result is lost with the deployment's name
					}
					do(k.dir + "/journal.json")
					if err := k.run(); !errors.Is(err, s.want) {
						t.Errorf("%s at %q: Run = %v, want %v\n%s", name, points[i], err, s.want, k.logged)
					}
					if k.live() != s.live() {
						t.Errorf("%s at %q: %q is live, want %q\n%s", name, points[i], k.live(), s.live(), k.logged)
					}
					k.invariants()
					if t.Failed() {
						return
					}
				}
			})
		}
	}
}

func flip(file string) {
	b, err := os.ReadFile(file)
	must(err)
	b[len(b)/2] ^= 1
	must(os.WriteFile(file, b, 0o600))
}

func TestNewerRecordIsLeftAlone(t *testing.T) {
	for _, file := range []string{"journal.json", "roots/000001-" + one1().Short() + ".json"} {
		bubble(t, func(t *testing.T, h *host) {
			h.src.put("v1", one("1"))
			h.want("v1", nil)
			newer := fmt.Appendf(nil, `{"Format":%d,"Anything":"else"}`, format+1)
			if file != "journal.json" {
				must(os.Remove(h.dir + "/journal.json"))
			}
			must(os.WriteFile(h.dir+"/"+file, newer, 0o600))
			var said string
			h.o.Observe.Notify = func(s string) { said = s }
			h.src.put("v2", one("2"))
			polls := h.src.polls
			if err := h.run(); !errors.Is(err, errNewer) {
				t.Errorf("%s: Run = %v", file, err)
			}
			stop := h.serve()
			pass(time.Hour)
			s := h.status()
			if w := s.Why(func(verb string) string { return verb }); s.State != "" || !s.Unable || !strings.HasPrefix(w.Says[0], "The host runs what `current` names, roots/000001-") {
				t.Errorf("%s: state %q, %+v", file, s.State, w)
			}
			stop()
			b, _ := os.ReadFile(h.dir + "/" + file)
			if !bytes.Equal(b, newer) || h.src.polls != polls || !strings.Contains(said, fmt.Sprintf("format %d, known is %d", format+1, format)) {
				t.Errorf("%s: now %q, %d polls more, status %q", file, b, h.src.polls-polls, said)
			}
		})
	}
}

func one1() digest.Digest {
	return wire.ContentHash([]wire.Layer{{Hash: digest.Of(one("1"))}})
}

// The record cannot be written from Verifying on: the way back does not need it.
func TestWayBackWithoutRecord(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.src.put("v1", one("1"))
		h.want("v1", nil)
		h.src.put("v2", with(failVerify))
		journal, aside := h.dir+"/journal.json", h.dir+"/aside"
		h.seam = func(p string) {
			if p == "effect of Verifying" {
				must(os.Rename(journal, aside))
				must(os.Mkdir(journal, 0o700)) // nothing replaces a directory
			}
		}
		if err := h.run(); !errors.Is(err, atomic.ErrOccupied) {
			t.Errorf("Run = %v", err)
		}
		link, _ := os.Readlink(h.dir + "/current")
		if s := h.agent.Record().State; s != Discarding || link != h.agent.Record().Live.Dir || h.runs("rollback") != 1 {
			t.Errorf("in %s, `current` names %s, %d rollbacks", s, link, h.runs("rollback"))
		}
		h.seam = func(string) {}
		must(os.Remove(journal))
		must(os.Rename(aside, journal)) // as it was in Verifying
		h.want("v1", ErrRolledBack)
		r := h.agent.Record()
		if len(r.Marks) != 1 || h.runs("deploy") != 2 || !strings.Contains(r.Last.Reason, "rollback had begun") {
			t.Errorf("marks %v, %d deploys, want 2 in all; reason %q", r.Marks, h.runs("deploy"), r.Last.Reason)
		}
	})
}

// What cannot be remembered is not begun.
func TestUnwritableRecordAfterTheSwitchGoesBack(t *testing.T) {
	for _, s := range []State{Switching, Hooking, Verifying} {
		bubble(t, func(t *testing.T, h *host) {
			h.src.put("v1", one("1"))
			h.want("v1", nil)
			h.src.put("v2", one("2"))
			journal := h.dir + "/journal.json"
			h.seam = func(p string) {
				switch p {
				case "effect of " + string(s):
					must(os.Remove(journal))
					must(os.Mkdir(journal, 0o700))
				case "effect of Restoring":
					must(os.Remove(journal))
				}
			}
			h.want("v1", ErrRolledBack)
			if s == Switching && h.runs("deploy")+h.runs("rollback") != 1 {
				t.Errorf("calls %v, want none but that of v1", h.calls)
			}
			if link, _ := os.Readlink(h.dir + "/current"); link != h.agent.Record().Live.Dir {
				t.Errorf("failed after %s: `current` names %s", s, link)
			}
		})
	}
}

// Where no hook has run, what served goes on serving, verified or not.
func TestSwitchWithoutHookGoesBackToWhatServed(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.src.put("v1", one("1"))
		h.want("v1", nil)
		h.env = func() bool { return true }
		h.src.put("v2", one("2"))
		h.want("v2", nil) // unverified: a hook that fails would lead back to v1
		h.src.put("v3", one("3"))
		journal := h.dir + "/journal.json"
		h.seam = func(p string) {
			switch p {
			case "effect of Switching":
				must(os.Remove(journal))
				must(os.Mkdir(journal, 0o700))
			case "effect of Restoring":
				must(os.Remove(journal))
			}
		}
		h.want("v2", ErrRolledBack)
		if h.runs("rollback") > 0 {
			t.Errorf("calls %v", h.calls)
		}
	})
}

func TestDyingInAStateEnds(t *testing.T) {
	for point, want := range map[string]string{"filled": "", "before deploy": "", "effect of Verifying": ""} {
		bubble(t, func(t *testing.T, h *host) {
			h.src.put("v1", one("1"))
			for range maxTries {
				points, hosts := h.killed(memoryDir(t))
				died := h
				for i, p := range points {
					if strings.HasSuffix(p, " "+point) {
						died = hosts[i]
						break
					}
				}
				if died == h {
					t.Fatalf("%q was not reached: %q", point, points)
				}
				h = died
			}
			h.want(want, ErrRolledBack)
			if got := h.agent.Record().Last.Reason; got != "the agent ended 3 times in this state" {
				t.Errorf("dying at %q: reason %q", point, got)
			}
		})
	}
}

func TestRebootResumesAtTheHook(t *testing.T) {
	for _, test := range []struct{ at, next State }{{Verifying, Hooking}, {Reverifying, Rehooking}, {Hooking, Verifying}, {Checking, Switching}} {
		bubble(t, func(t *testing.T, h *host) {
			h.src.put("v1", one("1"))
			h.want("v1", nil)
			h.src.put("v2", with(failVerify))
			points, hosts := h.killed(memoryDir(t))
			for i, p := range points {
				if !strings.HasSuffix(p, "entered "+string(test.at)) {
					continue
				}
				k := hosts[i]
				r, err := k.new().load()
				must(err)
				r.Boot = "another"
				b, err := encode(r)
				must(err)
				must(os.WriteFile(k.dir+"/journal.json", b, 0o600))
				var entered []State
				k.o.Observe.Enter = func(s State) { entered = append(entered, s) }
				k.want("v1", ErrRolledBack)
				if entered[0] != test.next {
					t.Errorf("after a reboot in %s: %v, want to begin with %s", test.at, entered, test.next)
				}
			}
		})
	}
}

func TestSecondAgentIsToldWhoIsTheFirst(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		stop := h.serve()
		synctest.Wait()
		h.o.Mode.Once = true
		err := h.copiedOptions().Run(t.Context())
		held, ok := errors.AsType[*atomic.LockedError](err)
		if !ok || held.PID != os.Getpid() {
			t.Errorf("Run = %v", err)
		}
		stop()
		f, err := os.Open(h.dir) // as the original tool set's agent
		must(err)
		defer f.Close()
		must(unix.Flock(int(f.Fd()), unix.LOCK_EX))
		if err := h.run(); !errors.Is(err, syscall.EWOULDBLOCK) {
			t.Errorf("with the original agent: Run = %v", err)
		}
	})
}

// copiedOptions makes another agent on the same directory.
func (h *host) copiedOptions() *Agent {
	a, err := New(h.o)
	must(err)
	return a
}

func TestFullDiskStaysAndLeavesNoTree(t *testing.T) {
	h := newHost(t, newFakeRegistry())
	h.o.Poll = Poll{Interval: time.Millisecond, MaxWait: time.Millisecond}
	h.small("size=3500k")
	h.src.put("v1", one("1"))
	h.want("v1", nil)
	h.src.put("v2", archive(files{"big": strings.Repeat("0123456789", 200_000)}))
	if err := h.run(); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("Run = %v, want ENOSPC\n%s", err, h.logged)
	}
	left, _ := filepath.Glob(h.dir + "/roots/.*.partial")
	if r := h.agent.Record(); r.State != Unpacking || len(r.Marks) > 0 || len(left) > 0 {
		t.Errorf("in %s with marks %v, left %q", r.State, r.Marks, left)
	}
	must(unix.Mount("none", h.dir, "tmpfs", unix.MS_REMOUNT, "size=12m"))
	h.want("v2", nil)

	// Full from the switch on: the reserve and the prepared link lead back.
	h.src.put("v3", with(failHook))
	filler := h.dir + "/filler"
	h.seam = func(p string) {
		if p == "effect of Hooking" {
			fillUp(filler)
		}
		if p == "effect of Reverifying" {
			must(os.Remove(filler))
		}
	}
	h.want("v2", ErrRolledBack)
	if h.lines("ERROR", "record not written") > 0 {
		t.Errorf("the reserve was not used:\n%s", h.logged)
	}
}

func fillUp(file string) {
	f, err := os.Create(file)
	must(err)
	defer f.Close()
	for block := make([]byte, 4096); err == nil; {
		_, err = f.Write(block)
	}
}

func TestRecordIsMadeAnewInADirectoryOfAnyName(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.dir += "/a[b]*?"
		h.o.Dir = h.dir
		must(os.Mkdir(h.dir, 0o755))
		h.src.put("v1", one("1"))
		h.want("v1", nil)
		must(os.Remove(h.dir + "/journal.json"))
		h.want("v1", nil)
	})
}

func TestPersonIsObeyedOnAFullDisk(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.small("size=12m")
		h.versions(3)
		filler := h.dir + "/filler"
		h.seam = func(p string) {
			switch p {
			case "entered Checking": // the service goes on writing
				must(os.WriteFile(h.dir+"/logs", make([]byte, reservePart/4), 0o600))
			case "before deploy": // whose output and result have to go somewhere
				must(os.WriteFile(h.dir+"/printed", make([]byte, reservePart/2), 0o600))
				must(os.Remove(h.dir + "/printed"))
			}
		}
		stop := h.serve()
		pass(time.Minute)
		back := func() error {
			outcome := h.rollback("")
			pass(time.Minute)
			return (<-outcome).Err
		}
		for _, test := range []struct {
			do   func() error
			left int // bytes
			live string
		}{
			{func() error { return h.agent.Hold(t.Context(), "why", Until{}) }, 0, "v3"},
			{func() error { return h.agent.Resume(t.Context()) }, 0, "v3"},
			{func() error { return h.agent.Retry(t.Context()) }, 0, "v3"},
			{back, 0, "v2"},
			{back, 12 << 10, "v3"}, // enough for the record
		} {
			pass(time.Minute)
			if _, err := os.Lstat(h.dir + "/" + reserve); err != nil {
				t.Fatal(err)
			}
			must(os.WriteFile(h.dir+"/left", make([]byte, test.left), 0o600))
			fillUp(filler)
			must(os.Remove(h.dir + "/left"))
			if s := h.status(); len(s.Blocks) == 0 || s.Blocks[len(s.Blocks)-1].Kind != BlockDisk {
				t.Errorf("blocks: %v", s.Blocks)
			}
			if err := test.do(); err != nil || h.live() != test.live {
				t.Errorf("%v, %q is live, want %q", err, h.live(), test.live)
			}
			must(errors.Join(os.Remove(filler), os.RemoveAll(h.dir+"/logs")))
			if s := h.status(); len(s.Blocks) > 0 && s.Blocks[len(s.Blocks)-1].Kind == BlockDisk {
				t.Errorf("blocks with room: %v", s.Blocks)
			}
		}
		stop()
		h.invariants()
	})
}

// Whoever fills the disk goes on with it, and takes each part of the reserve that he can:
// after a hold there is enough for a rollback, and the reserve is whole again once there is
// room, also while a version waits for more.
func TestPersonIsObeyedWhileTheDiskIsFilled(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.small("size=20m")
		h.versions(2)
		c := h.src.put("v3", one("3"))
		h.src.set(func() {
			c.Layers[0].Unpacked = 1 << 30
			c.Seal()
		})
		stop := h.serve()
		pass(time.Minute)
		filler := h.dir + "/filler"
		fillUp(filler)
		must(h.agent.Hold(t.Context(), "why", Until{}))
		h.seam = func(p string) {
			if strings.HasPrefix(p, "entered ") {
				fillUp(filler)
			}
		}
		fillUp(filler)
		outcome := h.rollback("1")
		pass(time.Minute)
		select {
		case o := <-outcome:
			if o.Err != nil || h.live() != "v1" {
				t.Errorf("%v, %q is live\n%s", o.Err, h.live(), h.logged)
			}
		default:
			t.Fatalf("it waits: %v\n%s", h.status().Blocks, h.logged)
		}
		h.seam = func(string) {}
		must(os.Remove(filler))
		must(h.agent.Resume(t.Context()))
		c = h.src.put("v5", one("5"))
		h.src.set(func() {
			c.Layers[0].Unpacked = 1 << 30
			c.Seal()
		})
		pass(time.Minute)
		if r := h.agent.Record(); r.State != Fetching {
			t.Fatalf("in %s", r.State)
		}
		must(os.Truncate(h.dir+"/"+reserve, reservePart))
		pass(time.Hour)
		if got := h.agent.reserved(); got != reserveSize || h.live() != "v1" {
			t.Errorf("%d bytes are in reserve, %q is live", got, h.live())
		}
		stop()
	})
}

// What nobody asked for leaves the reserve to the way back.
func TestReserveIsNotForPolls(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.small("size=4m")
		h.versions(1)
		stop := h.serve()
		fillUp(h.dir + "/filler")
		h.src.put("v2", one("2"))
		pass(time.Hour)
		if _, err := os.Lstat(h.dir + "/" + reserve); err != nil {
			t.Error(err)
		}
		if n := h.lines("WARN", "step not done"); n != 1 {
			t.Errorf("%d lines say that a full disk is full, want 1\n%s", n, h.logged)
		}
		must(os.Remove(h.dir + "/filler"))
		pass(time.Hour)
		if h.live() != "v2" {
			t.Errorf("%q is live, want v2\n%s", h.live(), h.logged)
		}
		stop()
	})
}

// small puts the agent's directory on a tmpfs.
func (h *host) small(options string) {
	needsRoot(h.T)
	h.dir = h.TempDir()
	h.o.Dir = h.dir
	must(unix.Mount("none", h.dir, "tmpfs", 0, options))
	h.Cleanup(func() { unix.Unmount(h.dir, unix.MNT_DETACH) })
}

func TestTheSameLackIsSaidOnce(t *testing.T) {
	h := newHost(t, newFakeRegistry())
	a := h.new()
	for _, file := range []string{"a", "b", "c"} {
		a.sayError("step", "step not done", fmt.Errorf("cannot write %s: %w", file, unix.ENOSPC))
	}
	if n := h.lines("WARN", "step not done"); n != 1 {
		t.Errorf("%d lines, want 1\n%s", n, h.logged)
	}
	a.sayError("step", "step not done", fmt.Errorf("cannot open c: %w", unix.EMFILE))
	if n := h.lines("WARN", "step not done"); n != 2 {
		t.Errorf("%d lines, want 2\n%s", n, h.logged)
	}
}
