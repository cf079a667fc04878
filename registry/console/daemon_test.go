package console

import (
	"slices"
	"strings"
	"testing"
	"time"

	"deploytools/registry"
	"deploytools/registry/wire"
)

// fakeDaemon has an agent and an operator connected, and counts nothing.
type fakeDaemon struct {
	cut  []uint64
	by   registry.Caller
	seen []registry.Sighting
}

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func (f *fakeDaemon) Stats() Stats {
	return Stats{
		Started: noon, Waiting: 3, Operators: 1, Agents: 1, Sessions: 1, Files: 2, Accepted: 100, Polls: 4711, Received: 1 << 40, Sent: 5,
		Refused: map[string]int64{"timeout": 7, "crowded": 0},
		Commands: []CommandStats{
			{Name: "components", Status: wire.OK, Calls: 12, Took: time.Second}, {Name: "unknown", Status: wire.Usage, Calls: 1},
		},
	}
}

func (f *fakeDaemon) Sightings() []registry.Sighting { return f.seen }

func (f *fakeDaemon) Unsee(drop func(registry.Sighting) bool) {
	f.seen = slices.DeleteFunc(f.seen, drop)
}

func (f *fakeDaemon) Connections() []Connection {
	return []Connection{
		{
			ID: 7, Caller: registry.Caller{User: "deploy-agent", Role: registry.Agent, Fingerprint: "SHA256:agent", Comment: "key of\x1b[2J"}, Instance: "3f9c2ab4",
			Remote: "192.0.2.1:4242", Since: noon, Idle: 90 * time.Second, Received: 1000, Sent: 2000,
		},
		{
			ID: 9, Caller: registry.Caller{User: "eve\x07", Role: registry.Viewer, Fingerprint: "SHA256:eve"},
			Remote: "[2001:db8::1]:5", Since: noon.Add(time.Hour), Doing: []string{"console", "history -name web"},
		},
	}
}

func (f *fakeDaemon) Disconnect(id uint64, by registry.Caller) bool {
	f.cut, f.by = append(f.cut, id), by
	return id == 7
}

func TestStatsAndSessionsAsText(t *testing.T) {
	d := newDesk(t).walk()
	d.upload("more")
	golden(t, "stats.txt", d.must("stats")+d.must("sessions"))
	all := d.must("stats") + d.must("sessions") + d.must("stats -json") + d.must("sessions -json")
	if strings.ContainsAny(all, "\x1b\x07") {
		t.Errorf("control characters of clients are shown: %q", all)
	}
}

func TestStatsSayThatNothingCanBeStored(t *testing.T) {
	r := statsResult{Storing: false}
	var b strings.Builder
	if err := r.Text(&b); err != nil || !strings.Contains(b.String(), "read-only") {
		t.Errorf("Text = %q, %v", b.String(), err)
	}
}

func TestStatsSayHowManyChecksWait(t *testing.T) {
	var b strings.Builder
	err := statsResult{Storing: true, Checks: 3, ChecksWaiting: 2}.Text(&b)
	if err != nil || !strings.Contains(b.String(), "3 of uploads go on, 2 wait for memory") {
		t.Errorf("Text = %q, %v", b.String(), err)
	}
}

func TestDisconnect(t *testing.T) {
	d := newDesk(t)
	f := &fakeDaemon{}
	d.session.Daemon = f
	if got := d.must("disconnect 7"); got != "" || len(f.cut) != 1 || f.cut[0] != 7 || f.by != d.session.Caller {
		t.Errorf("disconnect 7: printed %q, cut %v, by %v", got, f.cut, f.by)
	}
	f.cut = nil
	if got := d.must("disconnect 7 -dry-run"); f.cut != nil || !strings.Contains(got, "connection 7") {
		t.Errorf("disconnect 7 -dry-run: printed %q, cut %v", got, f.cut)
	}
	for line, want := range map[string]wire.Status{
		"disconnect 8": wire.NotFound, "disconnect": wire.Usage, "disconnect x": wire.Usage, "disconnect 7 9": wire.Usage, "disconnect -1": wire.Usage,
	} {
		f.cut = nil
		_, stderr, status := d.run(line)
		if status != want || f.cut != nil || !strings.Contains(stderr, "sessions") && want == wire.NotFound {
			t.Errorf("%s: exit status %s, stderr %q, cut %v", line, status, stderr, f.cut)
		}
	}
	if line, _, _ := Complete(t.Context(), &d.session, "disconnect 9", len("disconnect 9")); line != "disconnect 9 " {
		t.Errorf("Complete = %q", line)
	}
}

func TestWithoutADaemonThereIsNothingToLookAt(t *testing.T) {
	d := newDesk(t)
	d.session.Daemon = nil
	for _, line := range []string{"stats", "sessions", "disconnect 7"} {
		if stdout, stderr, status := d.run(line); status != wire.Usage || stdout != "" {
			t.Errorf("%s: exit status %s, stdout %q, stderr %q", line, status, stdout, stderr)
		}
	}
}
