package console

import (
	"strings"
	"testing"
	"time"

	"deploytools/layers/digest"
	"deploytools/registry"
	"deploytools/registry/wire"
)

// fleet has a host of each standing: revision 2 of project1 is wanted.
func (d *desk) fleet() *desk {
	d.t.Helper()
	d.walk()
	rev, err := d.session.Registry.Configuration(d.t.Context(), "project1")
	if err != nil {
		d.t.Fatal(err)
	}
	old := wire.ReportedRevision{Revision: 1, Digest: rev.Digest}
	d.must("changeconf -name project1 -component code -version v00")
	behind := func(r *wire.Report) { r.Running.ReportedRevision, r.Deployment.ReportedRevision = old, old }
	bad := func(r *wire.Report) {
		r.Running.ReportedRevision, r.Running.Verification = old, "unverified"
		r.Deployment.Verdict, r.Deployment.Reason = "bad", `"hook" call failure: exit status 1`
	}
	for _, h := range []struct {
		name   string
		change func(*wire.Report)
	}{
		{"a-same", nil},
		{"b-deploys", func(r *wire.Report) { behind(r); r.State, r.Deployment.Ended = "Hooking", time.Time{} }},
		{"c-behind", behind},
		{"d-back", bad},
		{"e-held", func(r *wire.Report) { behind(r); r.Hold = "rolled back by hand" }},
		{"f-moved", func(r *wire.Report) { r.Moved, r.Hold = "elsewhere", "`current` was moved by hand" }},
		{"g-broken", func(r *wire.Report) { bad(r); r.State, r.Deployment.Broken = "Broken", "exit status 2" }},
		{"h-first", func(r *wire.Report) { r.Running, r.Deployment, r.Error = nil, nil, "no space left on device" }},
		{"SHA256:i/+", func(r *wire.Report) {
			r.Instance, r.Sent, r.Running.Since = "", r.Sent.Add(2*time.Hour), r.Running.Since.Add(2*time.Hour)
		}},
	} {
		d.report(h.name, h.change)
	}
	recent := d.session.Registry.Now()
	d.session.Daemon = &fakeDaemon{seen: []registry.Sighting{
		{Host: "j-polls", Configuration: "project1", At: recent}, {Host: "a-same", Configuration: "project1", Instance: "3f9c2ab4", At: recent},
		{Host: "a-same", Configuration: "other", Instance: "3f9c2ab4", At: recent},
	}}
	d.minutes.Add(3)
	return d
}

func TestStatusOfEveryStanding(t *testing.T) {
	d := newDesk(t).fleet()
	stdout, stderr, status := d.run("status project1")
	if status != wire.Failed || stderr != "error: 8 of 10 hosts do not run what is wanted\nhint: see 'log d-back project1' for what its hook printed\n" {
		t.Errorf("exit status %s, stderr %q", status, stderr)
	}
	tables := stdout + d.must("hosts")
	golden(t, "status.txt", tables)
	if strings.Contains(tables, " \n") {
		t.Errorf("blanks at the ends of lines:\n%s", tables)
	}
	stdout, stderr, status = d.run("status -json")
	if status != wire.Failed || !strings.Contains(stdout, `"differing":8,"silent":7`) || !strings.Contains(stderr, `"status":1`) {
		t.Errorf("status -json: exit status %s, stderr %q, stdout %s", status, stderr, stdout)
	}
}

func TestStatusIsZeroWhereAllIsAsWanted(t *testing.T) {
	d := newDesk(t).walk()
	if stdout, stderr, status := d.run("status project1"); stdout != "" || status != wire.OK || stderr != "note: no agent has polled for it yet\n" {
		t.Errorf("without hosts: %q, %q, %s", stdout, stderr, status)
	}
	d.report("web1", nil)
	if stdout, stderr, status := d.run("status"); status != wire.OK || stderr != "" || !strings.Contains(stdout, "same   wants 1, has 1   2026-11-21T18:") {
		t.Errorf("%q, %q, %s", stdout, stderr, status)
	}
	d.must("changeconf -name project1 -component code -version v00")
	if _, _, status := d.run("status -name project1"); status != wire.Failed {
		t.Errorf("after a change: exit status %s", status)
	}
	d.must("delconf -name project1 -force")
	if stdout, _, status := d.run("status project1"); status != wire.OK || !strings.Contains(stdout, "unwanted") {
		t.Errorf("of a configuration that was deleted: %q, %s", stdout, status)
	}
	if _, _, status := d.run("status nope"); status != wire.NotFound {
		t.Errorf("of no configuration: exit status %s", status)
	}
}

func TestHostsAsJSON(t *testing.T) {
	d := newDesk(t).fleet()
	want := `"host":"a-same","instance":"3f9c2ab4","key_fingerprint":"SHA256:agent","comment":"agent of a-same","seen":"2026-11-21T18:16:00Z","silent":false,` +
		`"agent_version":"v1.2.3","clock_ahead_seconds":0,"configurations":[{"name":"other","standing":"unwanted"},{"name":"project1","standing":"same"}]}`
	if out := d.must("hosts -json"); !strings.Contains(out, want) {
		t.Errorf("hosts -json: %s", out)
	}
}

func TestLogOfAHost(t *testing.T) {
	d := newDesk(t).walk()
	d.report("web1", func(r *wire.Report) { r.Output, r.Cut = "one\n\ttwo", true })
	if stdout, stderr, status := d.run("log web1 project1"); stdout != "one\n\ttwo\n" || stderr != "note: this is only the end of it\n" || status != wire.OK {
		t.Errorf("log: %q, %q, %s", stdout, stderr, status)
	}
	if out := d.must("log -host web1 -name project1 -json"); !strings.Contains(out, `"deployment":"000001-0"`) || !strings.Contains(out, `"cut":true,"output":"one\n\ttwo"`) {
		t.Errorf("log -json: %s", out)
	}
	d.report("web1", func(r *wire.Report) { r.Instance, r.Output = "b", "" })
	for line, want := range map[string]wire.Status{
		"log web1 project1": wire.Conflict, "log web1 project1 -instance b": wire.OK, "log web2 project1": wire.NotFound, "log web1 other": wire.NotFound,
		"log web1": wire.Usage, "log": wire.Usage, "log web1 project1 more": wire.Usage,
	} {
		if _, stderr, status := d.run(line); status != want {
			t.Errorf("%s: exit status %s, stderr %q, want %s", line, status, stderr, want)
		}
	}
	d.must("addconf other code:v01")
	d.report("web1", func(r *wire.Report) { r.Configuration = "other" })
	const unnamed = "error: -name should be set, or the configuration stand behind the host\nhint: see 'log web1 NAME', with one of: other, project1\n"
	if _, stderr, status := d.run("log web1"); status != wire.Usage || stderr != unnamed {
		t.Errorf("without a configuration: exit status %s, stderr %q", status, stderr)
	}
	for line, want := range map[string]string{"log project1 web1": "hint: see 'log web1 project1': the host comes first\n", "log web2 project1": "hint: see 'hosts'\n",
		"log web1 projetc1": "hint: see 'log web1 NAME', with one of: other, project1\n"} {
		if _, stderr, status := d.run(line); status != wire.NotFound || !strings.HasSuffix(stderr, want) {
			t.Errorf("%s: exit status %s, stderr %q, want %q", line, status, stderr, want)
		}
	}
}

// A host that was repaired after a failure reports what failed with the output of the
// repair: status pointed there.
func TestLogOfAnotherDeploymentThanFailed(t *testing.T) {
	d := newDesk(t).walk()
	d.report("web1", func(r *wire.Report) {
		r.Running.Digest = digest.Of([]byte("older"))
		r.Deployment.ID, r.Deployment.Verdict, r.Deployment.Reason = "", "bad", "exit status 7"
	})
	const host = "on web1 'deploy-agent history -name project1' lists the deployments, and 'deploy-agent log -name project1 ID' shows what the hook of one printed\n"
	if _, stderr, _ := d.run("status project1"); stderr != "error: 1 of 1 hosts do not run what is wanted\nhint: "+host {
		t.Errorf("status: %q", stderr)
	}
	if stdout, stderr, _ := d.run("log web1 project1"); stdout != "hook says: done\n" || stderr != "note: this is of another deployment than the one that failed; "+host {
		t.Errorf("log: %q, %q", stdout, stderr)
	}
}

// What failed hid that somebody holds the host besides.
func TestStatusOfAHostThatFailedAndIsHeld(t *testing.T) {
	d := newDesk(t).walk()
	for state, want := range map[string]string{"Idle": "rolled back", "Broken": "broken"} {
		d.report("web1", func(r *wire.Report) {
			r.Running.Digest = digest.Of([]byte("older"))
			r.State, r.Deployment.Verdict, r.Deployment.Reason, r.Hold = state, "bad", "exit status 7", "ask ann"
		})
		if stdout, _, _ := d.run("status project1"); !strings.Contains(stdout, want) || !strings.HasSuffix(stdout, "exit status 7; held on the host: ask ann\n") {
			t.Errorf("%s: %s", state, stdout)
		}
	}
}

func TestForget(t *testing.T) {
	d := newDesk(t).fleet()
	before := d.state()
	if out := d.must("forget f-moved -dry-run"); out != "dry run, nothing was changed: forgot 1 records of agents\n" || d.state() != before {
		t.Errorf("dry run: %q", out)
	}
	d.must("forget f-moved -note 'its disk died'")
	if out := d.must("hosts"); strings.Contains(out, "f-moved") {
		t.Errorf("it is still there:\n%s", out)
	}
	e := d.entries()
	if last := e[len(e)-1]; last.Name != "f-moved" || last.Result != "forgot 1 records of agents" || last.Note != "its disk died" {
		t.Errorf("on record: %+v", last)
	}
	for line, want := range map[string]wire.Status{"forget f-moved": wire.NotFound, "forget": wire.Usage, "forget a b": wire.Usage, "forget -host a-same -instance none": wire.NotFound} {
		if _, stderr, status := d.run(line); status != want {
			t.Errorf("%s: exit status %s, stderr %q, want %s", line, status, stderr, want)
		}
	}
}

func TestStatusSaysThatTheRollbackFailedAsWell(t *testing.T) {
	d := newDesk(t).walk()
	d.report("web1", func(r *wire.Report) {
		r.Running.Digest = digest.Of([]byte("older"))
		r.Deployment.Verdict, r.Deployment.Reason, r.Deployment.Broken = "bad", "exit status 1", "exit status 2"
	})
	want := "exit status 1; the rollback failed as well: exit status 2"
	if stdout, _, _ := d.run("status project1"); !strings.Contains(stdout, want) {
		t.Errorf("%s", stdout)
	}
	// Of a revision that is not wanted, as of a repair or a rollback on the host.
	d.report("web1", func(r *wire.Report) {
		r.Deployment.Digest, r.Deployment.Revision = digest.Of([]byte("older")), 1
		r.Deployment.Verdict, r.Deployment.Reason, r.Deployment.Broken = "bad", "exit status 1", "exit status 2"
	})
	if stdout, _, status := d.run("status project1"); status != wire.OK || !strings.Contains(stdout, "same") || !strings.Contains(stdout, "revision 1 failed: "+want) {
		t.Errorf("exit status %s\n%s", status, stdout)
	}
}

// Hosts are counted, however many configurations each has.
func TestStatusCountsHostsOnce(t *testing.T) {
	d := newDesk(t).walk()
	d.must("addconf other code:v01")
	also := func(r *wire.Report) { r.Configuration = "other" }
	failing := func(r *wire.Report) { r.Failing = "site: refused" }
	d.report("web1", nil)
	d.report("web1", also)
	d.report("web2", nil)
	d.report("web2", func(r *wire.Report) { r.Instance = "another" })
	d.report("web1", failing)
	if _, stderr, _ := d.run("status project1"); stderr != "error: 1 of 3 hosts run what is wanted, and it fails its checks\n" {
		t.Errorf("that fails its checks: %q", stderr)
	}
	if _, stderr, _ := d.run("status"); stderr != "error: 1 of 3 hosts do not run what is wanted\n" {
		t.Errorf("one of two configurations of a host: %q", stderr)
	}
	d.must("changeconf project1 code:v00")
	if stdout, stderr, _ := d.run("status"); stderr != "error: 3 of 3 hosts do not run what is wanted\n" {
		t.Errorf("both configurations of a host: %q\n%s", stderr, stdout)
	}
}
