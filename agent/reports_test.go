package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"deploytools/layers/digest"
	"deploytools/registry/wire"
	"deploytools/verify/spec"
)

// listener is a registry that takes reports.
type listener struct {
	*fakeRegistry
	got  []wire.Report // what it took, oldest first
	deaf bool          // it loses what is sent
	poll func()        // called in each poll; nil: nothing
	take func() error  // instead of taking one; nil: take it
	has  *string       // what it says that it has; nil: the last of got
}

func (l *listener) Poll(ctx context.Context, name string) (wire.PollState, error) {
	if l.poll != nil {
		l.poll()
	}
	st, err := l.fakeRegistry.Poll(ctx, name)
	l.mu.Lock()
	defer l.mu.Unlock()
	tag := ""
	if n := len(l.got); n > 0 {
		tag = l.got[n-1].Tag
	}
	st.Reported = &tag
	if l.has != nil {
		st.Reported = l.has
	}
	return st, err
}

func (l *listener) Report(r wire.Report) error {
	if l.take != nil {
		return l.take()
	}
	b, err := wire.EncodeReport(r)
	must(err)
	r, err = wire.DecodeReport(b)
	must(err)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down == nil && !l.deaf {
		l.got = append(l.got, r)
	}
	return l.down
}

// last returns the newest report, once the goroutines have done what they can.
func (l *listener) last() wire.Report {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.got) == 0 {
		return wire.Report{}
	}
	return l.got[len(l.got)-1]
}

func (l *listener) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.got)
}

// stories are those of all reports, oldest first.
func (l *listener) stories() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []string
	for _, r := range l.got {
		all = append(all, story(r))
	}
	return strings.Join(all, "; ")
}

// listening is a bubble with a registry that takes reports.
func listening(t *testing.T, f func(t *testing.T, h *host, l *listener)) {
	t.Helper()
	bubble(t, func(t *testing.T, h *host) {
		l := &listener{fakeRegistry: h.src}
		h.o.Source, h.o.Version = l, "v1.2.3"
		f(t, h, l)
	})
}

// story is what a report says of where the host stands.
func story(r wire.Report) string {
	s := r.State
	if r.Running != nil {
		s += fmt.Sprintf(" runs %d %s", r.Running.Revision, r.Running.Verification)
	}
	if r.Wanted != nil {
		s += fmt.Sprintf(" wants %d", r.Wanted.Revision)
	}
	if d := r.Deployment; d != nil {
		s += fmt.Sprintf(" deployed %d %s", d.Revision, d.Verdict)
	}
	return strings.TrimSpace(s)
}

// Each file that finds the disk full was news.
func TestTheSameLackIsNoNews(t *testing.T) {
	r := &reports{wake: make(chan struct{}, 1)}
	for i, test := range []struct {
		err  error
		news bool
		told string
	}{
		{fmt.Errorf("cannot write a: %w", unix.ENOSPC), true, "cannot write a: no space left on device"},
		{fmt.Errorf("cannot write b: %w", unix.ENOSPC), false, "cannot write a: no space left on device"},
		{fmt.Errorf("cannot open c: %w", unix.EMFILE), true, "cannot open c: too many open files"},
		{nil, true, ""},
		{fmt.Errorf("cannot open d: %w", unix.EMFILE), true, "cannot open d: too many open files"},
	} {
		r.met(test.err)
		if got := len(r.wake) == 1; got != test.news || r.heard.trouble != test.told {
			t.Errorf("%d: news %t, told %q, want %t, %q", i, got, r.heard.trouble, test.news, test.told)
		}
		for len(r.wake) > 0 {
			<-r.wake
		}
	}
}

func TestADeploymentIsOneReport(t *testing.T) {
	listening(t, func(t *testing.T, h *host, l *listener) {
		h.src.put("v1", one("1"))
		stop := h.serve()
		pass(time.Hour)
		if got := story(l.last()); got != "Idle runs 1 verified wants 1 deployed 1" || l.count() > 2 {
			t.Errorf("%d reports, the last %q: %s", l.count(), got, l.stories())
		}
		before := l.count()
		h.src.put("v2", archive(files{"v": "2", failHook: ""}))
		pass(time.Hour)
		r := l.last()
		if got := story(r); got != "Idle runs 1 verified wants 2 deployed 2 bad" || l.count() > before+2 {
			t.Errorf("%d reports, the last %q", l.count()-before, got)
		}
		if !strings.Contains(r.Deployment.Reason, "call failure") || r.Program != "v1.2.3" || r.PollSeconds != 34 || r.Boot == "" || r.Previous != nil || r.Sent.IsZero() {
			t.Errorf("%+v", r)
		}
		before = l.count()
		pass(100 * time.Hour)
		if l.count() != before {
			t.Errorf("%d reports of nothing new", l.count()-before)
		}
		stop()
	})
}

func TestALongDeploymentIsToldWhileItRuns(t *testing.T) {
	listening(t, func(t *testing.T, h *host, l *listener) {
		h.src.put("v1", one("1"))
		h.o.Verify.Soak = time.Hour
		stop := h.serve()
		pass(10 * time.Minute)
		if r := l.last(); story(r) != "Verifying wants 1 deployed 1" || !r.Deployment.Ended.IsZero() {
			t.Errorf("in the soak time: %q", story(r))
		}
		pass(time.Hour)
		if got := story(l.last()); got != "Idle runs 1 verified wants 1 deployed 1" {
			t.Errorf("after it: %q", got)
		}
		stop()
	})
}

// Reporting is never in the machine's way.
func TestReportsNeitherDelayNorFailADeployment(t *testing.T) {
	hang := make(chan struct{})
	for name, take := range map[string]func() error{
		"hangs":  func() error { <-hang; return nil },
		"fails":  func() error { return errors.New("no") },
		"panics": func() error { panic("no") },
	} {
		t.Run(name, func(t *testing.T) {
			var took [2]time.Duration
			for i, take := range []func() error{nil, take} {
				listening(t, func(t *testing.T, h *host, l *listener) {
					hang = make(chan struct{})
					l.take = take
					h.o.Verify.Soak = time.Minute
					h.src.put("v1", one("1"))
					begun := time.Now()
					stop := h.serve()
					for n := time.Duration(0); h.agent.Record().Live == nil && n < 1000; n++ {
						pass(time.Second)
					}
					took[i] = time.Since(begun)
					stop()
					close(hang)
					h.invariants()
				})
			}
			if took[0] != took[1] {
				t.Errorf("committed after %v, and after %v without reports", took[1], took[0])
			}
		})
	}
}

func TestARegistryThatKnowsNoReportsIsLeftAlone(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		asked := 0
		h.o.Source = mute{h.src, &asked}
		h.src.put("v1", one("1"))
		stop := h.serve()
		pass(time.Hour)
		stop()
		if h.live() != "v1" || asked > 0 {
			t.Errorf("%q is live, %d reports", h.live(), asked)
		}
	})
}

// mute is a registry of before, over a client of now.
type mute struct {
	*fakeRegistry
	asked *int
}

func (m mute) Report(wire.Report) error { *m.asked++; return nil }

// What happened while the registry, or the agent, was away is told when both
// are back: the newest only.
func TestWhatTheRegistryMissedIsTold(t *testing.T) {
	listening(t, func(t *testing.T, h *host, l *listener) {
		h.src.put("v1", one("1"))
		h.src.put("v2", one("2"))
		stop := h.serve()
		pass(time.Hour)
		h.src.put("v3", one("3"))
		pass(time.Hour)
		before := l.count()
		h.src.set(func() { h.src.down = wire.ErrUnreachable })
		pass(time.Hour)
		h.rollback("")
		pass(time.Hour)
		stop()
		if l.count() != before {
			t.Fatalf("a registry that is away got %d reports", l.count()-before)
		}
		stop = h.serve()
		pass(time.Hour)
		h.src.set(func() { h.src.down = nil })
		pass(time.Hour)
		stop()
		r := l.last()
		if got := story(r); got != "Idle runs 2 verified wants 3 deployed 2" || r.Hold != "rolled back by hand" || r.Previous == nil || r.Previous.Revision != 3 || l.count() > before+3 {
			t.Errorf("%d reports, the last %q, hold %q, previous %+v", l.count()-before, got, r.Hold, r.Previous)
		}
	})
}

// An older agent, which leaves a newer record alone, does not just fall silent.
func TestAnAgentThatKeepsAwaySaysSo(t *testing.T) {
	for _, file := range []string{"journal.json", "roots/000001-" + one1().Short() + ".json"} {
		listening(t, func(t *testing.T, h *host, l *listener) {
			h.src.put("v1", one("1"))
			h.want("v1", nil)
			must(os.Remove(h.dir + "/journal.json"))
			must(os.WriteFile(h.dir+"/"+file, fmt.Appendf(nil, `{"Format":%d}`, format+1), 0o600))
			before := l.count()
			h.src.set(func() { h.src.down = wire.ErrUnreachable })
			stop := h.serve()
			pass(time.Hour)
			if l.count() != before {
				t.Fatalf("a registry that is away got %d reports", l.count()-before)
			}
			h.src.set(func() { h.src.down = nil })
			pass(24 * time.Hour)
			stop()
			r, running := l.last(), file == "journal.json"
			if l.count() != before+1 || r.State != stateUnable || !strings.Contains(r.Hold, errNewer.Error()) || r.PollSeconds == 0 || r.Boot == "" || (r.Running != nil) != running || running && r.Running.Revision != 1 {
				t.Errorf("%s: %d reports, the last %+v, running %+v", file, l.count()-before, r, r.Running)
			}
			if n := strings.Count(h.logged.String(), "level=WARN msg=\"registry not told\""); n != 1 {
				t.Errorf("%s: that the registry is away is said %d times", file, n)
			}
		})
	}
}

// Reports that get lost are sent again, ever more seldom: another host may pretend
// to be this one.
func TestALostReportIsSentAgain(t *testing.T) {
	listening(t, func(t *testing.T, h *host, l *listener) {
		h.src.put("v1", one("1"))
		l.deaf = true
		stop := h.serve()
		pass(time.Hour)
		h.src.set(func() { l.deaf = false })
		pass(2 * time.Hour)
		if l.count() != 1 {
			t.Errorf("it took %d reports", l.count())
		}
		other := "another"
		h.src.set(func() { l.has = &other })
		pass(48 * time.Hour)
		if n := l.count(); n < 20 || n > 60 {
			t.Errorf("%d reports in two days to a registry that never has them", n)
		}
		none := ""
		h.src.set(func() { l.has = &none })
		before := l.count()
		pass(2 * time.Hour)
		if l.count() == before {
			t.Error("a registry that forgot the host is not told")
		}
		stop()
	})
}

func TestOneRunTellsHowItEnded(t *testing.T) {
	listening(t, func(t *testing.T, h *host, l *listener) {
		h.src.put("v1", one("1"))
		polls := 0
		l.poll = func() { polls++ }
		h.want("v1", nil)
		r := l.last()
		if l.count() != 1 || story(r) != "Idle runs 1 verified wants 1 deployed 1" || r.PollSeconds != 0 {
			t.Errorf("%d reports: %+v", l.count(), r)
		}
		if polls < 2 {
			t.Error("the connection ended before the registry surely had the report")
		}
		h.src.down = wire.ErrUnreachable
		begun := time.Now()
		h.want("v1", wire.ErrUnreachable)
		if d := time.Since(begun); d > time.Second {
			t.Errorf("it waited %v for a registry that is away", d)
		}
		h.src.down = nil
		hang := make(chan struct{})
		l.take = func() error { <-hang; return nil }
		h.src.put("v2", one("2"))
		begun = time.Now()
		h.want("v2", nil)
		if d := time.Since(begun); d > lastPatience {
			t.Errorf("it waited %v for a registry that hangs", d)
		}
		close(hang)
	})
}

func TestARevisionThatIsRefusedWithoutADeploymentIsTold(t *testing.T) {
	listening(t, func(t *testing.T, h *host, l *listener) {
		h.src.put("v1", one("1"))
		stop := h.serve()
		pass(time.Hour)
		h.src.verifies(spec.Check{Name: "smoke", Type: spec.Exec, Args: []string{"/bin/true"}})
		pass(time.Hour)
		d := l.last().Deployment
		if got := story(l.last()); got != "Idle runs 1 verified wants 2 deployed 2 bad" || !strings.Contains(d.Reason, `check "smoke" of the configuration`) {
			t.Errorf("told: %s, because of %q", got, d.Reason)
		}
		h.src.verifies()
		pass(time.Hour)
		if got := story(l.last()); got != "Idle runs 3 verified wants 3 deployed 1" {
			t.Errorf("when it is over: %s", got)
		}
		stop()
	})
}

func TestTroubleAndMovesAreTold(t *testing.T) {
	listening(t, func(t *testing.T, h *host, l *listener) {
		h.src.put("v1", one("1"))
		stop := h.serve()
		pass(time.Hour)
		missing := 1000
		h.src.set(func() {
			h.src.fetch = func(digest.Digest, int64, io.Writer) error {
				missing++
				return fmt.Errorf("%d bytes are missing: %w", missing, unix.ENOSPC)
			}
		})
		h.src.put("v2", one("2"))
		before := l.count()
		pass(time.Hour)
		if r := l.last(); !strings.Contains(r.Error, "no space left") || l.count() > before+4 || missing < 1010 {
			t.Errorf("%d reports in %d tries, the last: %q", l.count()-before, missing-1000, r.Error)
		}
		h.src.set(func() { h.src.fetch = nil })
		pass(time.Hour)
		if r := l.last(); r.Error != "" || r.Running.Revision != 2 {
			t.Errorf("when it is over: %q, runs %+v", r.Error, r.Running)
		}
		must(os.Remove(h.dir + "/current"))
		must(os.Symlink("else\x1bwhere", h.dir+"/current"))
		pass(time.Hour)
		if r := l.last(); r.Moved != "else?where" || !strings.Contains(r.Hold, "moved by hand") {
			t.Errorf("moved to %q, hold %q", r.Moved, r.Hold)
		}
		stop()
	})
}

func TestPrintedIsTheEndOfAllOutputs(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string, minute int) {
		must(os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
		at := time.Date(2026, 11, 21, 18, minute, 0, 0, time.UTC)
		must(os.Chtimes(filepath.Join(dir, name), at, at))
	}
	if text, cut := printed(dir); text != "" || cut {
		t.Errorf("of nothing: %q, %t", text, cut)
	}
	write("rollback.output", "back\r\nagain", 3)
	write("deploy.output", "\x1b[31mred\x00\n", 2)
	write("check.output", "", 1)
	write("deploy.status.json", "secret", 4)
	must(os.Symlink("/etc/passwd", filepath.Join(dir, "link.output")))
	must(unix.Mkfifo(filepath.Join(dir, "pipe.output"), 0o600))
	if text, cut := printed(dir); text != "== deploy\n?[31mred?\n== rollback\nback\nagain\n" || cut {
		t.Errorf("%q, %t", text, cut)
	}
	write("deploy.output", strings.Repeat("x", 200<<10)+"end\n", 2)
	text, cut := printed(dir)
	if !cut || len(text) > wire.MaxReportOutput || !strings.HasSuffix(text, "xend\n== rollback\nback\nagain\n") {
		t.Errorf("of more than fits: %d bytes, %t, ending in %q", len(text), cut, text[max(0, len(text)-40):])
	}
	r := wire.Report{Tag: "1", Configuration: "web", State: "Idle", Output: text, Cut: cut}
	b, err := wire.EncodeReport(r)
	must(err)
	if _, err := wire.DecodeReport(b); err != nil || !json.Valid(b) {
		t.Error(err)
	}
}

// Why a host is behind was not told where that is its window.
func TestTheWindowIsReported(t *testing.T) {
	listening(t, func(t *testing.T, h *host, l *listener) {
		w, err := ParseWindow("22:00-04:00 UTC") // it is midnight
		must(err)
		h.o.Window = []Window{w}
		h.src.put("v1", one("1"))
		stop := h.serve()
		pass(5 * time.Hour)
		h.src.put("v2", one("2"))
		pass(time.Minute)
		if got, want := l.last().Error, "revision 2 waits: outside of the window until Sat 2000-01-01 22:00 UTC"; got != want {
			t.Errorf("reported %q, want %q", got, want)
		}
		n := l.count()
		pass(16 * time.Hour)
		if more := l.count() - n; more > 0 {
			t.Errorf("%d reports of the same", more)
		}
		pass(2 * time.Hour)
		if got := l.last(); got.Error != "" || got.Running.Revision != 2 {
			t.Errorf("reported %+v", got)
		}
		stop()
	})
}
