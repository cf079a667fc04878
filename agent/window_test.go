package agent

import (
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"deploytools/layers/digest"
	"deploytools/registry/wire"
)

func TestParseWindowRefuses(t *testing.T) {
	for _, text := range []string{
		"", "Mon", "Mon-Fri", "22:00", "22:00-", "-04:00", "22-04", "2:00-04:00", "22:60-23:00", "24:00-01:00", "00:00-24:01", "22:00-22:00",
		"Mon-Foo 22:00-04:00", "Mon, 22:00-04:00", "Mo 22:00-04:00", "Mon Tue 22:00-04:00", "22:00-04:00 Atlantis/Poseidonis", "22:00-04:00 UTC x",
	} {
		if w, err := ParseWindow(text); err == nil {
			t.Errorf("ParseWindow(%q) = %v, want an error", text, w)
		}
	}
}

func TestWindowWithoutAnEndIsSaid(t *testing.T) {
	_, err := ParseWindow("Mon-Fri 09:00")
	if err == nil || err.Error() != "09:00 has no end: should be such as 09:00-04:00" {
		t.Errorf("%v", err)
	}
}

func TestWindowIsOpen(t *testing.T) {
	at := func(text string) time.Time {
		when, err := time.Parse("2006-01-02 15:04:05 -0700", text)
		if err != nil {
			t.Fatal(err)
		}
		return when
	}
	for _, row := range []struct {
		window, at string
		open       bool
		next       string // after at
	}{
		{"22:00-04:00 UTC", "2026-11-23 22:00:00 +0000", true, "2026-11-23 22:01:00 +0000"},
		{"22:00-04:00 UTC", "2026-11-23 21:59:59 +0000", false, "2026-11-23 22:00:00 +0000"},
		{"22:00-04:00 UTC", "2026-11-24 03:59:59 +0000", true, "2026-11-24 22:00:00 +0000"},
		{"22:00-04:00 UTC", "2026-11-24 04:00:00 +0000", false, "2026-11-24 22:00:00 +0000"},
		// The days are those on which it begins: Friday night is Saturday morning too.
		{"Mon-Fri 22:00-04:00 UTC", "2026-11-28 03:00:00 +0000", true, "2026-11-28 03:01:00 +0000"},
		{"Mon-Fri 22:00-04:00 UTC", "2026-11-28 22:00:00 +0000", false, "2026-11-30 22:00:00 +0000"},
		{"Mon-Fri 22:00-04:00 UTC", "2026-11-23 03:00:00 +0000", false, "2026-11-23 22:00:00 +0000"},
		{"sat,SUN 00:00-24:00 UTC", "2026-11-29 23:59:59 +0000", true, "2026-12-05 00:00:00 +0000"},
		{"Sat-Mon 10:00-11:00 UTC", "2026-11-23 10:30:00 +0000", true, "2026-11-23 10:31:00 +0000"},
		{"Sat-Mon 10:00-11:00 UTC", "2026-11-24 10:30:00 +0000", false, "2026-11-28 10:00:00 +0000"},
		{"Mon,Wed-Thu 10:00-11:00 UTC", "2026-11-24 10:30:00 +0000", false, "2026-11-25 10:00:00 +0000"},
		// Another place.
		{"10:00-11:00 Asia/Kolkata", "2026-11-24 04:30:00 +0000", true, "2026-11-24 04:31:00 +0000"},
		// The clock is put on from 02:00 to 03:00: the end stays where the wall says.
		{"22:00-04:00 Europe/Berlin", "2027-03-28 03:30:00 +0200", true, "2027-03-28 03:31:00 +0200"},
		{"22:00-04:00 Europe/Berlin", "2027-03-28 04:00:00 +0200", false, "2027-03-28 22:00:00 +0200"},
		{"Sun 02:00-03:00 Europe/Berlin", "2027-03-28 01:59:00 +0100", false, "2027-04-04 02:00:00 +0200"},
		{"Sun 02:30-03:30 Europe/Berlin", "2027-03-28 01:59:00 +0100", false, "2027-03-28 03:00:00 +0200"},
		// It is put back from 03:00 to 02:00: what comes twice is open twice.
		{"02:00-03:00 Europe/Berlin", "2026-10-25 02:30:00 +0200", true, "2026-10-25 02:31:00 +0200"},
		{"02:00-03:00 Europe/Berlin", "2026-10-25 02:59:00 +0200", true, "2026-10-25 02:00:00 +0100"},
		{"02:00-03:00 Europe/Berlin", "2026-10-25 02:30:00 +0100", true, "2026-10-25 02:31:00 +0100"},
		{"02:00-03:00 Europe/Berlin", "2026-10-25 03:00:00 +0100", false, "2026-10-26 02:00:00 +0100"},
	} {
		w, err := ParseWindow(row.window)
		if err != nil {
			t.Errorf("ParseWindow(%q): %v", row.window, err)
			continue
		}
		if got := w.open(at(row.at)); got != row.open {
			t.Errorf("%s at %s: open %t", row.window, row.at, got)
		}
		if got := (windows{w}).next(at(row.at)); !got.Equal(at(row.next)) {
			t.Errorf("%s after %s: opens at %v, want %s", row.window, row.at, got, row.next)
		}
	}
	if w := (windows{}); !w.open(at("2026-11-24 10:30:00 +0000")) {
		t.Error("no window is not open")
	}
}

// windowed runs what happens on a host whose window is from 22:00 to 04:00, from
// midnight of a Saturday on.
func windowed(t *testing.T, during func(h *host, src *fakeRegistry, status func() string)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		src := newFakeRegistry()
		h := newHost(t, src)
		w, err := ParseWindow("22:00-04:00 UTC")
		if err != nil {
			t.Fatal(err)
		}
		h.o.Window = []Window{w}
		var mu sync.Mutex
		var last string
		h.o.Observe.Notify = func(s string) {
			mu.Lock()
			defer mu.Unlock()
			last = s
		}
		src.put("v1", archive(files{"version": "1"}))
		defer h.serve()()
		during(h, src, func() string {
			mu.Lock()
			defer mu.Unlock()
			return last
		})
		pass(time.Second)
		h.invariants()
	})
}

func (h *host) wantLive(version string) {
	h.Helper()
	if got := h.live(); got != version {
		h.Errorf("at %s: %q is live, want %q\n%s", time.Now().UTC().Format("15:04:05"), got, version, h.logged)
	}
}

func TestNothingNewBeginsOutsideOfTheWindow(t *testing.T) {
	var ran *host
	windowed(t, func(h *host, src *fakeRegistry, status func() string) {
		pass(time.Minute)
		h.wantLive("v1")
		pass(10 * time.Hour)
		src.put("v2", archive(files{"version": "2"}))
		pass(time.Minute)
		if want := "revision 2 waits: outside of the window until Sat 2000-01-01 22:00 UTC"; !strings.Contains(status(), want) {
			t.Errorf("status %q, want %q in it", status(), want)
		}
		for _, b := range h.agent.Status().Blocks {
			if b.Kind == BlockWindow && (b.Text != "revision 2 waits: outside of the window" || b.Until.IsZero()) {
				t.Errorf("%+v: the time should be told once", b)
			}
		}
		pass(11*time.Hour + 57*time.Minute)
		h.wantLive("v1")
		pass(3 * time.Minute)
		h.wantLive("v2")
		if strings.Contains(status(), "waits") {
			t.Errorf("status %q, with nothing that waits", status())
		}
		ran = h
	})
	if n := ran.lines("INFO", "waits for its window"); n != 1 {
		t.Errorf("said %d times that it waits", n)
	}
}

func TestPersonDoesNotWaitForTheWindow(t *testing.T) {
	windowed(t, func(h *host, src *fakeRegistry, _ func() string) {
		pass(10 * time.Hour)
		src.put("v2", archive(files{"version": "2"}))
		pass(time.Minute)
		h.wantLive("v1")
		h.hooks.exit = func(map[string]string) int { // nobody asked for this one
			src.put("v3", archive(files{"version": "3"}))
			return 0
		}
		if err := h.agent.Retry(h.Context()); err != nil {
			t.Fatal(err)
		}
		pass(2 * time.Minute)
		h.hooks.exit = nil
		h.wantLive("v2")
		h.rollback("")
		pass(time.Minute)
		h.wantLive("v1")
	})
}

func TestWayBackDoesNotWaitForTheWindow(t *testing.T) {
	windowed(t, func(h *host, src *fakeRegistry, _ func() string) {
		first := src.now
		pass(time.Hour)
		src.put("v2", archive(files{"version": "2"}))
		pass(time.Hour)
		h.wantLive("v2")
		pass(10 * time.Hour)
		again := *first
		src.announce(&again)
		pass(time.Minute)
		h.wantLive("v1")
	})
}

func TestRollbackGoesOnWhenTheWindowCloses(t *testing.T) {
	windowed(t, func(h *host, src *fakeRegistry, _ func() string) {
		pass(3*time.Hour + 59*time.Minute)
		h.patience = 20 * time.Minute
		src.put("v2", archive(files{"version": "2", failVerify: ""}))
		pass(10 * time.Minute)
		if s := h.agent.Record().State; s != Verifying {
			t.Errorf("ten minutes later: %s, want Verifying", s)
		}
		pass(30 * time.Minute)
		h.wantLive("v1")
		if s := h.agent.Record().State; s != Idle {
			t.Errorf("forty minutes later: %s, want Idle", s)
		}
	})
}

func TestWhatTouchedNothingWaitsForTheNextWindow(t *testing.T) {
	windowed(t, func(h *host, src *fakeRegistry, status func() string) {
		pass(3*time.Hour + 50*time.Minute)
		var later atomic.Bool
		later.Store(true)
		src.fetch = func(digest.Digest, int64, io.Writer) error {
			if later.Load() {
				return wire.ErrUnreachable
			}
			src.fetch = nil
			return wire.ErrUnreachable
		}
		src.put("v2", archive(files{"version": "2"}))
		pass(20 * time.Minute)
		later.Store(false)
		pass(10 * time.Minute)
		if s := h.agent.Record().State; s != Checking || !strings.Contains(status(), "waiting: outside of the window until Sat 2000-01-01 22:00 UTC") {
			t.Errorf("state %s, status %q: want it to wait in Checking", s, status())
		}
		h.wantLive("v1")
		pass(18 * time.Hour)
		h.wantLive("v2")
	})
}

func TestOnceSaysThatItIsOutsideOfTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newFakeRegistry()
		h := newHost(t, src)
		w, err := ParseWindow("22:00-04:00 UTC")
		if err != nil {
			t.Fatal(err)
		}
		h.o.Window = []Window{w}
		src.put("v1", archive(files{"version": "1"}))
		pass(5 * time.Hour)
		h.want("", ErrOutside)
		h.o.Mode.Retry = true
		h.want("v1", nil)
		h.o.Mode.Retry = false
		h.want("v1", nil) // nothing new
	})
}
