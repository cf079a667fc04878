package sshd

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"deploytools/registry"
	"deploytools/registry/keys"
	"deploytools/registry/wire"
)

// configured makes the configuration web.
func (d *daemon) configured(t *testing.T) {
	t.Helper()
	r, act := d.o.Registry, registry.Act{Caller: registry.Caller{User: "anna", Role: registry.Admin, Fingerprint: "SHA256:x"}, Command: []string{"test"}}
	in, err := r.Receive(t.Context(), act.Caller, "/upload")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.WriteAt([]byte("code"), 0); err != nil {
		t.Fatal(err)
	}
	u, err := in.Finish(t.Context())
	if err == nil {
		_, err = r.AddVersion(t.Context(), act, registry.NewVersion{Component: "code", Version: "v1", Digest: u.Digest}, nil)
	}
	if err == nil {
		_, err = r.AddConfiguration(t.Context(), act, "web", []registry.LayerRef{{Component: "code", Version: "v1"}}, registry.Checks{}, false)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// tell sends a report, as agents do, and returns what a poll then says that the
// registry has.
func tell(t *testing.T, c *ssh.Client, r wire.Report) string {
	t.Helper()
	payload, err := wire.EncodeReport(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.SendRequest(wire.ReportRequestType, false, payload); err != nil {
		t.Fatal(err)
	}
	return knows(t, c, r.Instance)
}

func knows(t *testing.T, c *ssh.Client, instance string) string {
	t.Helper()
	q := wire.PollRequest{Names: []string{"web"}, Instance: instance}
	payload, err := wire.EncodePoll(q)
	if err != nil {
		t.Fatal(err)
	}
	ok, answer, err := c.SendRequest(wire.PollRequestType, true, payload)
	if !ok || err != nil {
		t.Fatalf("poll = %t, %v", ok, err)
	}
	reply, err := wire.DecodePollReply(answer, q)
	if err != nil || reply.Configurations[0].Reported == nil {
		t.Fatalf("poll = %s, %v", answer, err)
	}
	return *reply.Configurations[0].Reported
}

func report(tag string) wire.Report {
	return wire.Report{Tag: tag, Configuration: "web", Instance: "i", State: "Idle", Sent: time.Now()}
}

func (d *daemon) hosts(t *testing.T) []registry.Host {
	t.Helper()
	all, err := d.o.Registry.Hosts(t.Context(), "", "", d.Sightings())
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// The answer to the next poll tells what came of a report, and nobody has to wait
// for it.
func TestReport(t *testing.T) {
	d := newDaemon(t)
	host1 := parse(t, registry.Agent, "host=host1 "+line(d.agent, "agent of one"))
	d.o.Agents = func() *keys.Set { return host1 }
	d.listen(t)
	d.configured(t)
	c := d.mustDial(t, AgentUser, d.agent)
	if got := knows(t, c, "i"); got != "" {
		t.Errorf("before the first report it has %q", got)
	}
	for _, tag := range []string{"t1", "t2", "t2"} {
		if got := tell(t, c, report(tag)); got != tag {
			t.Errorf("after the report %q it has %q", tag, got)
		}
	}
	hostile := report("t3")
	hostile.Error = "\x1b[2J"
	if got := tell(t, c, hostile); got != "t2" {
		t.Errorf("a report that steers terminals is taken: it has %q", got)
	}
	if l := d.log.wait(t, "report refused"); strings.Contains(fmt.Sprint(l["error"]), "\x1b") {
		t.Errorf("log: %q", l)
	}
	if all := d.hosts(t); len(all) != 1 || all[0].Name != "host1" || all[0].Report.Tag != "t2" || all[0].Comment != "agent of one" {
		t.Errorf("hosts: %+v", all)
	}
	if n := d.Stats().Reports; n != 4 {
		t.Errorf("%d reports are counted", n)
	}
	operator := d.mustDial(t, "anna", d.operator)
	payload, err := wire.EncodeReport(report("t4"))
	if err != nil {
		t.Fatal(err)
	}
	if ok, _, err := operator.SendRequest(wire.ReportRequestType, true, payload); ok || err != nil {
		t.Errorf("an operator's report = %t, %v, want it refused", ok, err)
	}
}

// A key speaks for its own configurations, and trying more is on record.
func TestReportOutsideOfTheScope(t *testing.T) {
	d := newDaemon(t)
	narrow := parse(t, registry.Agent, `host=host1,configs="db" `+line(d.agent, "agent"))
	d.o.Agents = func() *keys.Set { return narrow }
	d.listen(t)
	d.configured(t)
	c := d.mustDial(t, AgentUser, d.agent)
	payload, err := wire.EncodeReport(report("t1"))
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if ok, _, err := c.SendRequest(wire.ReportRequestType, true, payload); ok || err != nil {
			t.Errorf("report = %t, %v, want it refused", ok, err)
		}
	}
	d.log.wait(t, "report refused")
	c.Close()
	d.log.wait(t, "connection closed")
	if all := d.hosts(t); len(all) != 0 {
		t.Errorf("hosts: %+v", all)
	}
	entries := d.recorded(t)
	if len(entries) != 4 || entries[3].Command[0] != "report" || entries[3].Status != wire.Denied {
		t.Errorf("on record: %+v", entries)
	}
}

// A flood of reports is cheap: what is too much is not even read.
func TestAFloodOfReportsIsBounded(t *testing.T) {
	d := newDaemon(t)
	d.listen(t)
	d.configured(t)
	c := d.mustDial(t, AgentUser, d.agent)
	for i := range 3 * reportBurst {
		r := report(fmt.Sprintf("t%d", i))
		r.Output = strings.Repeat("x", wire.MaxReportOutput)
		payload, err := wire.EncodeReport(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := c.SendRequest(wire.ReportRequestType, false, payload); err != nil {
			t.Fatal(err)
		}
	}
	last := knows(t, c, "i")
	n := 0
	if _, err := fmt.Sscanf(last, "t%d", &n); err != nil || n < reportBurst-1 || n > 2*reportBurst {
		t.Errorf("the last one that was taken is %q", last)
	}
	if lines := len(d.log.lines(t, "report refused")); lines > 10 {
		t.Errorf("%d lines in the log", lines)
	}
}

// Who polls was seen, in whichever way: it is stored once a minute, together, and
// when the registry stops.
func TestWhoPollsWasSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDaemon(t)
		d.configured(t)
		p := d.serveInMemory()
		c := d.member(t, p.connect("192.0.2.1:1"), AgentUser, d.agent)
		if all := d.hosts(t); len(all) != 0 {
			t.Errorf("without a poll: %+v", all)
		}
		knows(t, c, "")
		if all := d.hosts(t); len(all) != 1 || all[0].Standing() != registry.Unknown {
			t.Errorf("after a poll: %+v", all)
		}
		stored := func() []registry.Host {
			all, err := d.o.Registry.Hosts(t.Context(), "", "", nil)
			if err != nil {
				t.Fatal(err)
			}
			return all
		}
		if all := stored(); len(all) != 0 {
			t.Errorf("a poll is stored at once: %+v", all)
		}
		first := d.hosts(t)[0].Seen
		time.Sleep(seenEvery)
		synctest.Wait()
		if all := stored(); len(all) != 1 || len(d.Sightings()) != 0 || all[0].Seen.Unix() != first.Unix() {
			t.Errorf("after a minute: %+v, pending %v", all, d.Sightings())
		}
		time.Sleep(10 * time.Second)
		f, err := sftp.NewClient(c)
		if err != nil {
			t.Fatal(err)
		}
		file, err := f.Open("/configs/web.json")
		if err != nil {
			t.Fatal(err)
		}
		file.Close()
		f.Open("/configs/never.json")
		f.Close()
		if all := d.hosts(t); len(all) != 1 || all[0].Seen.Sub(first) < 10*time.Second {
			t.Errorf("after the configuration was read: %+v", all)
		}
		c.Close()
		d.end(t)
		if all := stored(); len(all) != 1 || all[0].Seen.Sub(first) < 9*time.Second {
			t.Errorf("after the end: %+v", all)
		}
	})
}

// A key that is given a name while its agent is connected is heard of under its
// fingerprint no more.
func TestANameTakesThePlaceOfItsFingerprint(t *testing.T) {
	d := newDaemon(t)
	named, other := &conn{s: d.Server}, &conn{s: d.Server}
	for c, instance := range map[*conn]string{named: "a", other: "b"} {
		c.id.caller = registry.Caller{Fingerprint: "SHA256:agent"}
		c.instance.Store(&instance)
		c.note("web")
	}
	named.id.caller.Host = "web1"
	named.note("web")
	names := map[string]bool{}
	for _, one := range d.Sightings() {
		names[one.Host+" "+one.Instance] = true
	}
	if len(names) != 2 || !names["web1 a"] || !names["SHA256:agent b"] {
		t.Errorf("pending: %v", names)
	}
}

func TestUnseeDropsWhatIsPending(t *testing.T) {
	d := newDaemon(t)
	for _, host := range []string{"a", "b"} {
		d.seen.note(registry.Sighting{Host: host, Configuration: "web", At: time.Now()})
	}
	d.Unsee(func(one registry.Sighting) bool { return one.Host == "a" })
	if all := d.Sightings(); len(all) != 1 || all[0].Host != "b" {
		t.Errorf("pending: %+v", all)
	}
}
