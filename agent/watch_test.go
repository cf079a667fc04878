package agent

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	syncatomic "sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"deploytools/registry/wire"
	"deploytools/verify"
	"deploytools/verify/spec"
)

// watching is a daemon whose live root is looked at every 5 minutes. fail makes
// all looks fail; looks counts them.
func watching(t *testing.T, test func(h *host, fail *syncatomic.Bool, looks *syncatomic.Int64)) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, newFakeRegistry())
		h.o.Checks.Every = 5 * time.Minute
		h.src.put("v1", archive(files{"v": "1"}))
		h.want("v1", nil)
		var fail syncatomic.Bool
		var looks syncatomic.Int64
		h.env = func() bool {
			looks.Add(1)
			return fail.Load()
		}
		test(h, &fail, &looks)
	})
}

func TestTheLiveRootIsWatched(t *testing.T) {
	watching(t, func(h *host, fail *syncatomic.Bool, looks *syncatomic.Int64) {
		stop := h.serve()
		pass(14 * time.Minute)
		if looks.Load() != 2 {
			t.Errorf("%d looks in 14 minutes, want 2", looks.Load())
		}
		if w := h.status().Watched; w != nil {
			t.Errorf("watched: %+v, want nothing to say", w)
		}
		calls, seq := len(h.calls), h.agent.Record().Seq
		fail.Store(true)
		pass(5 * time.Minute)
		began := h.agent.Record().Watch.Failing
		s := h.status()
		if s.Watched == nil || s.Watched.Failing == nil || !strings.Contains(s.Watched.Failing.What, "tcp-1 (tcp 127.0.0.1:1): dial") {
			t.Fatalf("watched: %+v, want it failing", s.Watched)
		}
		why := s.Why(func(verb string) string { return verb })
		if got := strings.Join(why.Says, " "); !strings.Contains(got, "the live root fails its checks") || !why.Newest {
			t.Errorf("why says %q", got)
		}
		if got := h.agent.report(heard{}); !strings.Contains(got.Failing, "dial") || !got.FailingSince.Equal(began) {
			t.Errorf("report: failing %q since %v", got.Failing, got.FailingSince)
		}
		pass(11 * time.Minute)
		if w := h.agent.Record().Watch; !w.Failing.Equal(began) {
			t.Errorf("failing since %v, and after two more looks since %v", began, w.Failing)
		}
		if n := h.lines("ERROR", "live root fails its checks"); n != 1 {
			t.Errorf("said %d times, want once", n)
		}
		if len(h.calls) != calls || h.agent.Record().Seq != seq || h.live() != "v1" {
			t.Error("something was deployed, and nothing may go back by itself")
		}
		stop()

		fail.Store(false) // and another process goes on
		stop = h.serve()
		if h.agent.Record(); h.readRecord().Watch.Failing.IsZero() {
			t.Error("the next process has forgotten since when it fails")
		}
		pass(11 * time.Minute)
		if w := h.status().Watched; w != nil || h.lines("INFO", "passes its checks again") != 1 {
			t.Errorf("after the end of it: %+v, said %d times", w, h.lines("INFO", "passes its checks again"))
		}
		stop()
		h.invariants()
	})
}

// A registry that is away keeps nobody from looking.
func TestTheLiveRootIsWatchedWithoutTheRegistry(t *testing.T) {
	watching(t, func(h *host, fail *syncatomic.Bool, looks *syncatomic.Int64) {
		stop := h.serve()
		pass(time.Second) // what looks reads fail
		h.src.set(func() { h.src.down = wire.ErrUnreachable })
		fail.Store(true)
		pass(6 * time.Minute)
		if h.agent.Record().Watch.Failing.IsZero() {
			t.Error("nobody has looked")
		}
		if next := h.status().Next; next.Sub(now()) > time.Minute {
			t.Errorf("the next poll is shown for %v", next)
		}
		stop()
	})
}

// Without -verify-every nobody looks, and nothing wakes up for it; but what is
// known to fail is looked at until it is over.
func TestNobodyLooksUnasked(t *testing.T) {
	watching(t, func(h *host, fail *syncatomic.Bool, looks *syncatomic.Int64) {
		h.o.Checks.Every = 0
		stop := h.serve()
		pass(time.Hour)
		if looks.Load() != 0 {
			t.Errorf("%d looks in an hour, want none", looks.Load())
		}
		fail.Store(true)
		h.src.verifies(tcpAt("mail", "conf:1"))
		pass(10 * time.Minute)
		if h.agent.Record().Watch.Failing.IsZero() || looks.Load() < 2 {
			t.Errorf("after checks that fail: %+v, %d looks", h.agent.Record().Watch, looks.Load())
		}
		fail.Store(false)
		pass(6 * time.Minute)
		r := h.agent.Record()
		if !r.Watch.Failing.IsZero() || r.Live.Verification != Verified {
			t.Errorf("after checks that pass: %+v, %s", r.Watch, r.Live.Verification)
		}
		looks.Store(0)
		pass(time.Hour)
		if looks.Load() != 0 {
			t.Errorf("%d looks in the hour after that, want none", looks.Load())
		}
		stop()
	})
}

// A person does not wait for a look, and a deployment ends the watch of the root
// that was.
func TestALookIsInNobodysWay(t *testing.T) {
	watching(t, func(h *host, fail *syncatomic.Bool, looks *syncatomic.Int64) {
		fail.Store(true)
		h.o.Baseline = BaselineEnvironment
		h.patience = 30 * time.Second // a look takes so long
		stop := h.serve()
		pass(5*time.Minute + 10*time.Second)
		if err := h.agent.Hold(h.Context(), "freeze", Until{}); err != nil {
			h.Fatal(err)
		}
		if h.agent.Record().Hold == nil {
			h.Error("the hold waits for the look")
		}
		if err := h.agent.Resume(h.Context()); err != nil {
			h.Fatal(err)
		}
		pass(time.Minute)
		if h.agent.Record().Watch.Failing.IsZero() {
			h.Error("the look was lost")
		}
		fail.Store(false)
		h.src.put("v2", archive(files{"v": "2"}))
		pass(5 * time.Minute)
		if w := h.agent.Record().Watch; h.live() != "v2" || w.Root != h.agent.Record().Live.Dir || !w.Failing.IsZero() {
			h.Errorf("%s is live, watched: %+v", h.live(), w)
		}
		stop()
	})
}

func TestCertificatesThatEnd(t *testing.T) {
	at := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	report := func(ends ...time.Time) verify.Report {
		r := verify.Report{OK: true}
		for i, end := range ends {
			r.Findings = append(r.Findings, verify.Finding{Check: "tls-" + string(rune('1'+i)), Type: spec.TLS, Target: "localhost:443", OK: true, NotAfter: end})
		}
		return r
	}
	const day = 24 * time.Hour
	var w Watch
	w.see(report(at.Add(90*day), at.Add(20*day), time.Time{}), nil)
	for _, test := range []struct {
		warn time.Duration
		at   time.Time
		want string
		days int
	}{
		{21 * day, at, "the certificate of tls-2 (tls localhost:443) ends 2026-12-12T12:00:00Z", 20},
		{19 * day, at, "", 20},
		{19 * day, at.Add(day + time.Second), "the certificate of tls-2 (tls localhost:443) ends 2026-12-12T12:00:00Z", 18},
		{0, at.Add(30 * day), "", -10},
		{21 * day, at.Add(20*day + time.Second), "the certificate of tls-2 (tls localhost:443) has ended 2026-12-12T12:00:00Z", -1},
	} {
		if got, days := w.expiring(test.warn, test.at), w.DaysLeft(test.at); got != test.want || days != test.days {
			t.Errorf("%v before the end is soon, at %v: %q, %d days left, want %q, %d", test.warn, test.at, got, days, test.want, test.days)
		}
	}
	w.see(report(time.Time{}), nil) // nothing answered
	if w.Expires.IsZero() {
		t.Error("a look that saw no certificate has forgotten when it ends")
	}
	w.see(report(at.Add(400*day)), []spec.Check{{Warn: 401 * day}})
	if got := w.expiring(0, at); !strings.Contains(got, "of tls-1") {
		t.Errorf("where the check itself wants more: %q", got)
	}
	w.see(report(at.Add(100*day), at.Add(400*day), at.Add(300*day)), []spec.Check{{}, {Warn: 401 * day}, {Warn: 30 * day}})
	if got := w.expiring(21*day, at); !strings.Contains(got, "of tls-2") || w.DaysLeft(at) != 100 {
		t.Errorf("where the check of a later one wants more: %q, %d days left of the first", got, w.DaysLeft(at))
	}
	if got := w.expiring(21*day, at.Add(90*day)); !strings.Contains(got, "of tls-1") {
		t.Errorf("where two end too soon: %q", got)
	}
	w.see(report(at.Add(400*day)), []spec.Check{{}})
	if got := w.expiring(21*day, at); got != "" {
		t.Errorf("after a new certificate: %q", got)
	}
}

func TestPatrolFindsWhatWasModified(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, newFakeRegistry())
		h.o.Checks.Inspect = 24 * time.Hour
		h.src.put("v1", archive(files{"a": "1", "b": "2"}))
		h.want("v1", nil)
		root := h.dir + "/" + h.agent.Record().Live.Dir
		stop := h.serve()
		pass(23 * time.Hour)
		if at := h.agent.Record().Watch.Inspected; !at.IsZero() {
			t.Errorf("compared after %v", at)
		}
		must(os.WriteFile(root+"/added", nil, 0o600))
		pass(2 * time.Hour)
		w := h.agent.Record().Watch
		if w.Inspected.IsZero() || !w.Altered.IsZero() {
			t.Errorf("after a file was added: %+v, want it compared and well", w)
		}
		must(os.WriteFile(root+"/b", []byte("3"), 0o600))
		pass(25 * time.Hour)
		w = h.agent.Record().Watch
		if w.Altered.IsZero() || !strings.Contains(w.Difference, "modified b") || h.lines("ERROR", "live root modified") != 1 {
			t.Errorf("after a file was modified: %+v, said %d times", w, h.lines("ERROR", "live root modified"))
		}
		if got := h.agent.report(heard{}).Modified; !strings.Contains(got, "modified b") {
			t.Errorf("report: %q", got)
		}
		pass(25 * time.Hour)
		if again := h.agent.Record().Watch; !again.Altered.Equal(w.Altered) || h.lines("ERROR", "live root modified") != 1 {
			t.Errorf("a day later: since %v, said %d times", again.Altered, h.lines("ERROR", "live root modified"))
		}
		must(os.WriteFile(root+"/b", []byte("2"), 0o644))
		must(os.Chmod(root+"/b", 0o644))
		pass(25 * time.Hour)
		if w := h.agent.Record().Watch; !w.Altered.IsZero() {
			t.Errorf("after it was mended: %+v", w)
		}
		stop()
	})
}

// Nobody has looked at a root that a person has chosen.
func TestPatrolLooksAtARootThatAPersonHasChosen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, newFakeRegistry())
		h.o.Checks.Inspect = 24 * time.Hour
		h.versions(2)
		stop := h.serve()
		pass(10 * time.Minute)
		must(os.WriteFile(h.dir+"/"+h.agent.Record().Back.Dir+"/v", []byte("x"), 0o644))
		<-h.rollback(filepath.Base(h.agent.Record().Back.Dir))
		pass(10 * time.Minute)
		if w := h.agent.Record().Watch; !strings.Contains(w.Difference, "modified v") {
			t.Errorf("ten minutes after the rollback: %+v\n%s", w, h.logged)
		}
		if w := h.agent.Record().Watch; w.Inspected.IsZero() || h.lines("ERROR", "modified") != 1 {
			t.Errorf("compared at %v, said once more\n%s", w.Inspected, h.logged)
		}
		stop()
	})
}

// It was told when the live root was next compared.
func TestRollbackToAModifiedRootIsToldAtOnce(t *testing.T) {
	for _, to := range []string{"", "1"} {
		bubble(t, func(t *testing.T, h *host) { // without a patrol
			h.versions(2)
			h.src.put("v3", one("3"))
			h.want("v3", nil)
			roots, err := h.agent.roots()
			must(err)
			for _, r := range roots[:2] {
				must(os.Chmod(h.dir+"/"+r.Dir+"/v", 0o600))
			}
			stop := h.serve()
			out := <-h.rollback(to)
			if got := strings.Join(out.Deployment.Shown().Warnings, ""); !strings.Contains(got, "the root is not what was unpacked: modified") {
				t.Errorf("rollback %q warns %q\n%s", to, got, h.logged)
			}
			if s, r := h.agent.Status(), h.agent.report(heard{}); s.Watched == nil || s.Watched.Modified == nil || !strings.Contains(r.Modified, "modified") {
				t.Errorf("rollback %q: watched %+v, told %q", to, s.Watched, r.Modified)
			}
			if n := h.lines("ERROR", "rollback to a modified root"); n != 1 {
				t.Errorf("rollback %q: said %d times\n%s", to, n, h.logged)
			}
			must(h.agent.Resume(t.Context()))
			pass(time.Minute)
			if s := h.agent.Status(); h.live() != "v3" || s.Watched != nil && s.Watched.Modified != nil {
				t.Errorf("after resume %q is live: %+v", h.live(), s.Watched)
			}
			stop()
		})
	}
}

// Who deploys does not wait for a comparison, and what that found of the root
// before is not said of the one that is live.
func TestPatrolGivesWay(t *testing.T) {
	h := newHost(t, newFakeRegistry())
	h.src.put("v1", archive(files{"a": strings.Repeat("x", 1<<20)}))
	h.want("v1", nil)
	a := h.agent
	a.o.Checks.Inspect = time.Nanosecond
	a.onPatrol()
	if a.patrol.cancel == nil {
		t.Fatal("no comparison has begun")
	}
	a.patrol.stop()
	if c, ended := a.patrol.take(); c != nil || ended {
		t.Errorf("after the stop: %v, %v", c, ended)
	}
	before := a.rec.Watch
	a.inspected(&Condition{Root: "roots/000000-000000000000", Modified: 1})
	if a.rec.Watch != before {
		t.Errorf("another root's condition was noted: %+v", a.rec.Watch)
	}
}

// A gentle comparison finds the same and ends with its context.
func TestGentleComparison(t *testing.T) {
	h := newHost(t, newFakeRegistry())
	h.src.put("v1", archive(files{"a": strings.Repeat("x", 4<<20), "b": "2"}))
	h.want("v1", nil)
	must(os.WriteFile(h.dir+"/"+h.agent.Record().Live.Dir+"/b", []byte("3"), 0o600))
	found, err := Inspect(t.Context(), h.dir, Inspection{Gentle: true, Idle: true})
	if err != nil || found.Roots[0].Modified != 1 {
		t.Errorf("Inspect = %+v, %v", found, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Inspect(ctx, h.dir, Inspection{Gentle: true}); err == nil {
		t.Error("Inspect with a cancelled context is no error")
	}
}

func TestAPersonIsNotifiedOfTheLiveRoot(t *testing.T) {
	watching(t, func(h *host, fail *syncatomic.Bool, looks *syncatomic.Int64) {
		h.o.Checks.WarnExpiry = 21 * 24 * time.Hour
		n := newNotified(h)
		stop := n.serve()
		pass(time.Minute)
		n.want("")
		fail.Store(true)
		pass(30 * time.Minute)
		n.want("checks-failing")
		fail.Store(false)
		pass(10 * time.Minute)
		n.want("recovered")
		ends := now().Add(22 * 24 * time.Hour)
		h.notAfter.Store(&ends)
		pass(10 * time.Minute)
		n.want("")
		pass(24 * time.Hour)
		n.want("certificate-expires")
		pass(24 * time.Hour)
		n.want("certificate-expires")
		if s := h.status().Watched; s == nil || s.Expires == nil || !s.Expires.Soon || s.Expires.Days != 19 {
			t.Errorf("status: %+v", s)
		}
		if got := h.agent.report(heard{}).Expiring; !strings.Contains(got, stamp(ends)) {
			t.Errorf("report: %q", got)
		}
		later := ends.Add(90 * 24 * time.Hour)
		h.notAfter.Store(&later)
		pass(10 * time.Minute)
		n.want("recovered")
		stop()
	})
}

// Other checks look at other certificates: one that nobody looks at any more is
// not warned of until the next deployment.
func TestOtherChecksSeeOtherCertificates(t *testing.T) {
	watching(t, func(h *host, fail *syncatomic.Bool, looks *syncatomic.Int64) {
		h.o.Checks.WarnExpiry = 21 * 24 * time.Hour
		stop := h.serve()
		ends := now().Add(24 * time.Hour)
		h.notAfter.Store(&ends)
		pass(6 * time.Minute)
		if s := h.status().Watched; s == nil || s.Expires == nil {
			t.Fatalf("status: %+v, want the certificate", s)
		}
		h.notAfter.Store(nil)
		h.src.verifies(tcpAt("mail", "conf:1"))
		pass(10 * time.Minute)
		if s := h.status().Watched; s != nil && s.Expires != nil {
			t.Errorf("status still has %+v", s.Expires)
		}
		stop()
	})
}

// V-08: where nothing was to be done, nobody looked: an agent that cron starts
// did not notice a service that had drifted away, nor that it was well again.
func TestARunThatChangesNothingLooks(t *testing.T) {
	watching(t, func(h *host, fail *syncatomic.Bool, looks *syncatomic.Int64) {
		h.o.Mode.Once = true
		h.want("v1", nil)
		if looks.Swap(0); h.agent.Record().Live.Verification != Verified {
			t.Fatal("not verified")
		}
		h.want("v1", nil)
		if looks.Load() != 1 || !h.agent.Record().Watch.Failing.IsZero() {
			t.Errorf("%d looks at what is well, want 1; watched: %+v", looks.Load(), h.agent.Record().Watch)
		}
		fail.Store(true)
		h.want("v1", nil)
		if h.agent.Record().Watch.Failing.IsZero() || h.lines("ERROR", "live root fails its checks") != 1 {
			t.Error("a run that changes nothing has not seen what fails")
		}
		h.o.Checks.Every = 0
		fail.Store(false)
		h.want("v1", nil)
		if !h.agent.Record().Watch.Failing.IsZero() {
			t.Error("what failed is well again, and shown as failing")
		}
		looks.Store(0)
		h.want("v1", nil)
		if looks.Load() != 0 {
			t.Errorf("%d looks, where nobody asked for them", looks.Load())
		}
	})
}
