package console

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

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
				began := time.Now()
				stdout, stderr, status := d.run(test.line)
				if took := time.Since(began).Truncate(time.Second); took != test.took || status != test.status || !strings.Contains(stdout, "web1") {
					t.Errorf("after %v: %s, %q", took, status, stdout)
				}
				if told := strings.Count(stderr, "note: waiting: 1 deploying\n"); (told == 1) != (test.took > 0 && name != "JSON comes without it") || told > 1 {
					t.Errorf("told %d times: %q", told, stderr)
				}
				synctest.Wait()
				time.Sleep(time.Minute) // the report has come
			})
		})
	}
}
