package console

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"deploytools/registry"
	"deploytools/registry/wire"
)

// failing has revision 2 of project1 fail on web2, and revision 3, with the layers
// of revision 1, run everywhere.
func (d *desk) failing() *desk {
	d.t.Helper()
	d.walk()
	d.must("changeconf -name project1 -component code -version v00")
	rev, err := d.session.Registry.Configuration(d.t.Context(), "project1")
	if err != nil {
		d.t.Fatal(err)
	}
	d.must("rollback -name project1")
	d.report("web1", nil)
	d.report("web2", func(r *wire.Report) { // its clock is two hours ahead
		r.Sent = r.Sent.Add(2 * time.Hour)
		r.Failures = []wire.ReportedFailure{{ReportedRevision: wire.ReportedRevision{Revision: 2, Digest: rev.Digest},
			At: r.Sent.Add(-4 * time.Minute), Reason: "verification failed: wrong-cert"}}
	})
	d.report("web3", func(r *wire.Report) {
		r.Running.Revision, r.Deployment.ReportedRevision = 1, wire.ReportedRevision{Revision: 2, Digest: rev.Digest}
		r.Deployment.Verdict, r.Deployment.Reason = "bad", "hook"
	})
	d.report("web4", func(r *wire.Report) { // it failed there once, and runs
		r.Running.Digest, r.Deployment.Digest, r.Deployment.Verdict = rev.Digest, rev.Digest, "bad"
	})
	return d
}

// A person who went back to what had failed elsewhere learned so when it failed again.
func TestWhatFailedOnHostsIsWarnedOf(t *testing.T) {
	for _, line := range []string{
		"rollback -name project1", "rollback -name project1 -to 2", "rollback -name project1 -dry-run", "changeconf -name project1 -component code -version v00",
		"addconf -name project1 -replace -layer code:v00 -layer config:v01",
	} {
		d := newDesk(t).failing()
		stdout, stderr, status := d.run(line)
		want := "warning: this failed on web2 as revision 2, at 2026-11-21T18:06:00Z, and is tried there once more: verification failed: wrong-cert\n" +
			"warning: this failed on web3 as revision 2, at 2026-11-21T18:10:00Z, and is tried there once more: hook\n"
		if status != wire.OK || stderr != want || stdout == "" {
			t.Errorf("%s: exit status %s, stdout %q, stderr\n%s want\n%s", line, status, stdout, stderr, want)
		}
	}
	for _, line := range []string{"rollback -name project1 -to 1", "changeconf -name project1 -component config -version v02"} {
		d := newDesk(t).failing()
		if _, stderr, status := d.run(line); status != wire.OK || stderr != "" {
			t.Errorf("%s, which failed nowhere: exit status %s, stderr %q", line, status, stderr)
		}
	}
}

func TestWhatFailedOnHostsAsJSON(t *testing.T) {
	d := newDesk(t).failing()
	stdout, stderr, _ := d.run("rollback -name project1 -json")
	if stderr != "" {
		t.Errorf("stderr %q beside JSON", stderr)
	}
	golden(t, "failed.json", stdout)
}

func TestWhatFailedOnManyHostsIsShort(t *testing.T) {
	d := newDesk(t).walk()
	rev, err := d.session.Registry.Configuration(d.t.Context(), "project1")
	if err != nil {
		t.Fatal(err)
	}
	for n := range 12 {
		d.report(fmt.Sprintf("web%02d", n), func(r *wire.Report) {
			r.Running, r.Deployment = nil, nil
			r.Failures = []wire.ReportedFailure{{ReportedRevision: wire.ReportedRevision{Revision: 1, Digest: rev.Digest}, At: r.Sent}}
		})
	}
	d.must("changeconf -name project1 -component code -version v00")
	d.session.Caller.Role = registry.Operator
	_, stderr, _ := d.run("rollback -name project1")
	if strings.Count(stderr, "\n") != 11 || !strings.HasSuffix(stderr, "\nwarning: and on 2 more hosts\n") {
		t.Errorf("stderr %q", stderr)
	}
}

// Whoever builds on what failed on some hosts learns on which; who takes it back for
// them knows.
func TestWhereTheRevisionBeforeFailed(t *testing.T) {
	build := func() *desk {
		d := newDesk(t).walk()
		first, err := d.session.Registry.Configuration(d.t.Context(), "project1")
		if err != nil {
			t.Fatal(err)
		}
		d.must("changeconf project1 code:v00")
		bad := func(r *wire.Report) {
			r.Running.ReportedRevision = wire.ReportedRevision{Revision: 1, Digest: first.Digest}
			r.Deployment.Verdict, r.Deployment.Reason = "bad", "hook"
		}
		d.report("web1", bad)
		d.report("web2", nil)
		d.report("web3", bad)
		return d
	}
	for line, want := range map[string]string{
		"changeconf project1 config:v02":          "note: revision 2, which this replaces, failed on 2 of 3 hosts: web1, web3\n",
		"changeconf project1 config:v02 -dry-run": "note: revision 2, which this replaces, failed on 2 of 3 hosts: web1, web3\n",
		"rollback project1":                       "",
		"changeconf project1 code:v01":            "",
		"changeconf project1 config:v02 -json":    "",
	} {
		stdout, stderr, status := build().run(line)
		if status != wire.OK || stderr != want {
			t.Errorf("%s: exit status %s, stderr %q, want %q", line, status, stderr, want)
		}
		const rows = `"replaces_failed_on":[{"host":"web1","instance":"3f9c2ab4","revision":2,"at":"2026-11-21T18:07:00Z","reason":"hook"},{"host":"web3",`
		if strings.HasSuffix(line, "-json") && !strings.Contains(stdout, rows) {
			t.Errorf("%s: %s", line, stdout)
		}
	}
}
