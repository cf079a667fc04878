package console

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"deploytools/registry"
	"deploytools/registry/wire"
)

func TestStatusWaits(t *testing.T) {
	under := func(r *wire.Report) { r.State, r.Deployment.Ended, r.Running = "Hooking", time.Time{}, nil }
	bad := func(r *wire.Report) { r.Running, r.Deployment.Verdict = nil, "bad" }
	for name, test := range map[string]struct {
		line   string
		end    func(*wire.Report) // after 3 s
		took   time.Duration
		status wire.Status
	}{
		"until it runs":         {"status project1 -wait", nil, 3 * time.Second, wire.OK},
		"until it has failed":   {"status -wait -name project1", bad, 3 * time.Second, wire.Failed},
		"until the time is up":  {"status project1 -wait -timeout 10s", under, 10 * time.Second, wire.Failed},
		"not where not asked":   {"status project1", nil, 0, wire.Failed},
		"JSON comes without it": {"status project1 -wait -json", nil, 3 * time.Second, wire.OK},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDesk(t).walk()
				d.report("web1", under)
				go func() {
					time.Sleep(3200 * time.Millisecond)
					d.report("web1", test.end)
				}()
				began, timeout := time.Now(), 5*time.Minute
				if strings.Contains(test.line, "-timeout") {
					timeout = test.took
				}
				stdout, stderr, status := d.run(test.line)
				if took := time.Since(began).Truncate(time.Second); took != test.took || status != test.status || !strings.Contains(stdout, "web1") {
					t.Errorf("after %v: %s, %q", took, status, stdout)
				}
				if told := strings.Count(stderr, fmt.Sprintf("note: waiting (-timeout %v): 1 deploying (web1)\n", timeout)); (told == 1) != (test.took > 0 && name != "JSON comes without it") || told > 1 {
					t.Errorf("told %d times: %q", told, stderr)
				}
				if over := strings.Contains(stderr, "note: waited for 10s, and still: 1 deploying (web1)\n"); over != (name == "until the time is up") {
					t.Errorf("that the time is up: %t, %q", over, stderr)
				}
				synctest.Wait()
				time.Sleep(time.Minute) // the report has come
			})
		})
	}
}

func TestPendingNamesWhoIsBehind(t *testing.T) {
	row := func(configuration, host string, s registry.Standing) statusRow {
		return statusRow{Configuration: configuration, Host: host, Standing: s}
	}
	var crowd []statusRow
	for i := range 9 {
		crowd = append(crowd, row("web", fmt.Sprintf("web%d", i), registry.Behind))
	}
	for _, test := range []struct {
		want string
		rows []statusRow
	}{
		{"no agent has polled for it yet", nil},
		{"", []statusRow{row("web", "web1", registry.Same), row("web", "web2", registry.RolledBack)}},
		{"1 same, 1 behind (web2), 1 rolled back", []statusRow{row("web", "web1", registry.Same), row("web", "web2", registry.Behind), row("web", "web3", registry.RolledBack)}},
		{"1 same, 1 behind (web1 of wiki)", []statusRow{row("web", "web1", registry.Same), row("wiki", "web1", registry.Behind)}},
		{"2 held (web1)", []statusRow{row("web", "web1", registry.Held), row("web", "web1", registry.Held)}},
		{"6 behind (web0, web1, web2, web3, web4, web5)", crowd[:6]},
		{"9 behind (web0, web1, web2, web3, web4, and 4 more)", crowd},
	} {
		if got := (&fleetStatus{Hosts: test.rows}).pending(); got != test.want {
			t.Errorf("pending of %v is %q, want %q", test.rows, got, test.want)
		}
	}
}
