package registry_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"deploytools/layers/digest"
	"deploytools/registry"
	"deploytools/registry/enginetest"
	"deploytools/registry/wire"
)

// agentOf is the caller that the agent of a host is.
func agentOf(host string) registry.Caller {
	return registry.Caller{User: "deploy-agent", Role: registry.Agent, Host: host, Fingerprint: "SHA256:a/b+c", Comment: "agent"}
}

// told is what an agent of w says that runs the newest revision of name.
func (w *world) told(t *testing.T, r *registry.Registry, name, tag string) wire.Report {
	t.Helper()
	rev, err := r.Configuration(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	now := wire.ReportedRevision{Revision: rev.Revision, Digest: rev.Digest}
	return wire.Report{
		Tag: tag, Configuration: name, Instance: "i1", State: "Idle", Sent: w.clock.now(), PollSeconds: 30, Wanted: &now,
		Running:    &wire.ReportedRoot{ReportedRevision: now, Root: "roots/1", Since: w.clock.now().Add(-time.Hour), Verification: "verified"},
		Deployment: &wire.ReportedDeployment{ID: "000001-0", ReportedRevision: now, Started: w.clock.now(), Ended: w.clock.now()},
		Output:     "hello\n",
	}
}

func tell(t *testing.T, r *registry.Registry, c registry.Caller, told wire.Report) {
	t.Helper()
	if err := r.Report(t.Context(), c, told); err != nil {
		t.Fatalf("Report(%s of %s) = %v", told.Configuration, c.HostName(), err)
	}
}

// has returns the tag that the registry says it has.
func has(t *testing.T, r *registry.Registry, c registry.Caller, name, instance string) string {
	t.Helper()
	reply, err := r.Poll(t.Context(), c, wire.PollRequest{Names: []string{name}, Instance: instance})
	if err != nil {
		t.Fatal(err)
	}
	if reply.Configurations[0].Reported == nil {
		return "takes none"
	}
	return *reply.Configurations[0].Reported
}

func hosts(t *testing.T, r *registry.Registry, scope registry.Scope, name string, recent ...registry.Sighting) []registry.Host {
	t.Helper()
	all, err := r.Hosts(t.Context(), scope, name, recent)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// stand shows where hosts stand, a word each.
func stand(all []registry.Host) string {
	var out []string
	for _, h := range all {
		out = append(out, fmt.Sprintf("%s/%s/%s:%s", h.Name, h.Configuration, h.Instance, h.Standing()))
	}
	return strings.Join(out, " ")
}

// writes counts the Updates of a Meta.
type writes struct {
	registry.Meta
	n *int
}

func (w writes) Update(ctx context.Context, fn func(registry.Tx) error) error {
	*w.n++
	return w.Meta.Update(ctx, fn)
}

func TestTheNewestReportCounts(t *testing.T) {
	w, r := stocked(t)
	configure(t, r, "web", "code:v1")
	web1 := agentOf("web1")
	if got := has(t, r, web1, "web", "i1"); got != "" {
		t.Errorf("before the first report it has %q", got)
	}
	first := w.told(t, r, "web", "t1")
	tell(t, r, web1, first)
	if got := has(t, r, web1, "web", "i1") + " " + has(t, r, web1, "web", "i2") + " " + has(t, r, agentOf("web2"), "web", "i1"); got != "t1  " {
		t.Errorf("it has %q", got)
	}
	if got := stand(hosts(t, r, "", "")); got != "web1/web/i1:same" {
		t.Errorf("the host stands as %s", got)
	}
	change(t, r, "web", "code:v2")
	if h := hosts(t, r, "", "")[0]; h.Standing() != registry.Behind || !h.Differs() || h.Wanted.Revision != 2 || h.Report.Running.Revision != 1 {
		t.Errorf("after a change it stands as %s: %+v", h.Standing(), h)
	}
	w.clock.advance(time.Hour)
	second := w.told(t, r, "web", "t2")
	second.Sent = time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC) // a host that lost its clock
	second.Running.Since = second.Sent.Add(-time.Minute)
	tell(t, r, web1, second)
	h := hosts(t, r, "", "")[0]
	if h.Standing() != registry.Same || !h.Received.Equal(w.clock.now()) || !h.Seen.Equal(w.clock.now()) || !h.Told(h.Report.Running.Since).Equal(w.clock.now().Add(-time.Minute)) {
		t.Errorf("%s, received %s, since %s", h.Standing(), h.Received, h.Told(h.Report.Running.Since))
	}
	if late := h.Told(h.Report.Sent.Add(time.Hour)); late.After(w.clock.now()) {
		t.Errorf("a time of the future is told as %s", late)
	}
	if h.Fingerprint != web1.Fingerprint || h.Comment != "agent" || h.Report.Output != "" {
		t.Errorf("%+v", h)
	}
}

func TestTheSameReportCostsNoWrite(t *testing.T) {
	w, r := stocked(t)
	configure(t, r, "web", "code:v1")
	told := w.told(t, r, "web", "t1")
	n := 0
	o := w.options()
	o.Meta = writes{w.meta, &n}
	r = start(t, o)
	for range 5 {
		tell(t, r, agentOf("web1"), told)
		has(t, r, agentOf("web1"), "web", "i1")
	}
	if n != 1 {
		t.Errorf("%d updates for five times the same report", n)
	}
	var all []registry.Sighting
	for i := range 5000 {
		all = append(all, registry.Sighting{Host: fmt.Sprintf("host%d", i), Configuration: "web", Instance: "i", At: w.clock.now()})
	}
	n = 0
	if err := r.Seen(t.Context(), all); err != nil || n != 1 {
		t.Errorf("5000 sightings: %v, %d updates", err, n)
	}
	if got := len(hosts(t, r, "", "")); got != 5001 {
		t.Errorf("%d hosts are known", got)
	}
}

func TestWhoMayReport(t *testing.T) {
	w, r := stocked(t)
	configure(t, r, "web", "code:v1")
	told := w.told(t, r, "web", "t1")
	narrow := agentOf("web1")
	narrow.Configs = "db"
	wantKind(t, "Report of another's configuration", r.Report(t.Context(), narrow, told), registry.ErrDenied)
	wantKind(t, "Report of an operator", r.Report(t.Context(), caller, told), registry.ErrDenied)
	told.Configuration = "never"
	wantKind(t, "Report about nothing", r.Report(t.Context(), agentOf("web1"), told), registry.ErrNotFound)
	if got := hosts(t, r, "", ""); len(got) != 0 {
		t.Errorf("there are hosts: %s", stand(got))
	}
	if got := has(t, r, caller, "web", ""); got != "takes none" {
		t.Errorf("an operator is told of the report %q", got)
	}
	// One that was deleted runs on its hosts all the same.
	told = w.told(t, r, "web", "t1")
	if err := deleteConfiguration(t.Context(), r, "web"); err != nil {
		t.Fatal(err)
	}
	tell(t, r, agentOf("web1"), told)
	if got := hosts(t, r, "", ""); stand(got) != "web1/web/i1:unwanted" || got[0].Differs() {
		t.Errorf("of a deleted configuration: %s", stand(got))
	}
}

// Hosts of one name or one key are told apart, and none speaks for another.
func TestHostsOfOneName(t *testing.T) {
	w, r := stocked(t)
	configure(t, r, "web", "code:v1")
	configure(t, r, "db", "code:v1")
	told := w.told(t, r, "web", "t1")
	unnamed := agentOf("")
	tell(t, r, agentOf("web1"), told)
	tell(t, r, unnamed, told)
	told.Instance, told.Tag = "i2", "t2"
	tell(t, r, agentOf("web1"), told)
	other := w.told(t, r, "db", "t3")
	other.Instance = ""
	tell(t, r, agentOf("web1"), other)
	want := "web1/db/:same SHA256:a/b+c/web/i1:same web1/web/i1:same web1/web/i2:same"
	if got := stand(hosts(t, r, "", "")); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got := stand(hosts(t, r, "db", "")) + " " + stand(hosts(t, r, "", "db")) + stand(hosts(t, r, "db", "web")); got != "web1/db/:same web1/db/:same" {
		t.Errorf("with a scope, and with a name: %s", got)
	}
	_, err := r.HookOutput(t.Context(), caller, "web1", "web", "")
	wantKind(t, "HookOutput of two", err, registry.ErrConflict)
	for _, host := range []string{"web1", unnamed.Fingerprint} {
		if out, err := r.HookOutput(t.Context(), caller, host, "web", "i1"); err != nil || out.Text != "hello\n" || out.Deployment != "000001-0" {
			t.Errorf("HookOutput of %s = %+v, %v", host, out, err)
		}
	}
	narrow := caller
	narrow.Configs = "db"
	_, err = r.HookOutput(t.Context(), narrow, "web1", "web", "i1")
	wantKind(t, "HookOutput outside of the scope", err, registry.ErrDenied)
	w.wantSound(t)
}

// A host that was listed under its key's fingerprint moves to the name that the key
// is given, and leaves nothing behind.
func TestAHostMovesToItsName(t *testing.T) {
	w, r := stocked(t)
	configure(t, r, "web", "code:v1")
	configure(t, r, "db", "code:v1")
	unnamed, named := agentOf(""), agentOf("web1")
	told := w.told(t, r, "web", "t1")
	twin := told
	twin.Instance = "i10"
	tell(t, r, unnamed, twin)
	tell(t, r, unnamed, told)
	tell(t, r, unnamed, w.told(t, r, "db", "t1"))
	var seen []registry.Sighting
	for _, instance := range []string{"i1", "i10"} {
		seen = append(seen, registry.Sighting{Host: unnamed.Fingerprint, Configuration: "web", Instance: instance, At: w.clock.now()})
	}
	// At first it did not say which one it is.
	seen = append(seen, registry.Sighting{Host: unnamed.Fingerprint, Configuration: "db", At: w.clock.now()})
	if err := r.Seen(t.Context(), seen); err != nil {
		t.Fatal(err)
	}
	other := agentOf("web2")
	other.Fingerprint = "SHA256:other"
	tell(t, r, other, told)
	if got := len(hosts(t, r, "", "web")); got != 3 {
		t.Errorf("%d hosts while it has no name", got)
	}
	tell(t, r, named, told)
	const want = "SHA256:a/b+c/db/i1:same SHA256:a/b+c/web/i10:same web1/web/i1:same web2/web/i1:same"
	if got := stand(hosts(t, r, "", "")); got != want {
		t.Errorf("named: %s, want %s", got, want)
	}
	tell(t, r, named, w.told(t, r, "db", "t1"))
	if got := stand(hosts(t, r, "", "db")); got != "web1/db/i1:same" {
		t.Errorf("named: %s of db", got)
	}
	if _, err := r.Forget(t.Context(), act, "web1", "", ""); err != nil {
		t.Fatal(err)
	}
	if got := stand(hosts(t, r, "", "web")); got != "SHA256:a/b+c/web/i10:same web2/web/i1:same" {
		t.Errorf("forgotten: %s", got)
	}
	_, err := r.HookOutput(t.Context(), caller, unnamed.Fingerprint, "web", "i1")
	wantKind(t, "HookOutput by the fingerprint", err, registry.ErrNotFound)
	w.wantSound(t)
}

// A key cannot fill the registry: of one host so many agents are remembered, and
// those go first of which nothing was heard for long.
func TestOneKeyCannotFillTheRegistry(t *testing.T) {
	w, r := stocked(t)
	configure(t, r, "web", "code:v1")
	told := w.told(t, r, "web", "t1")
	tell(t, r, agentOf("web2"), told)
	var seen []registry.Sighting
	for i := range 260 {
		w.clock.advance(time.Second)
		told.Instance = fmt.Sprintf("i%d", i)
		tell(t, r, agentOf("web1"), told)
		seen = append(seen, registry.Sighting{Host: "web1", Configuration: "web", Instance: told.Instance, At: w.clock.now()})
	}
	if err := r.Seen(t.Context(), seen); err != nil {
		t.Fatal(err)
	}
	all := hosts(t, r, "", "")
	names := stand(all)
	if len(all) != 251 || strings.Contains(names, "web1/web/i9:") || !strings.Contains(names, "web1/web/i10:") || !strings.Contains(names, "web1/web/i259:") || !strings.Contains(names, "web2/") {
		t.Errorf("%d agents are remembered: %.200s", len(all), names)
	}
	w.wantSound(t)
}

func TestSightings(t *testing.T) {
	w, r := stocked(t)
	configure(t, r, "web", "code:v1")
	see := func(host, instance string, at time.Time) registry.Sighting {
		return registry.Sighting{Host: host, Configuration: "web", Instance: instance, At: at}
	}
	old := w.clock.now().Add(-time.Hour)
	if err := r.Seen(t.Context(), []registry.Sighting{see("a", "", w.clock.now()), see("b", "i", old), see("gone", "", w.clock.now().Add(-91*24*time.Hour))}); err != nil {
		t.Fatal(err)
	}
	if err := r.Seen(t.Context(), []registry.Sighting{see("a", "", old)}); err != nil {
		t.Fatal(err)
	}
	all := hosts(t, r, "", "", see("b", "i", w.clock.now().Add(-time.Minute)), see("c", "", w.clock.now()))
	if stand(all) != "a/web/:unknown b/web/i:unknown c/web/:unknown" || !all[0].Seen.Equal(w.clock.now()) || !all[1].Seen.Equal(w.clock.now().Add(-time.Minute)) {
		t.Errorf("%s: %+v", stand(all), all)
	}
	// An agent of before, which was replaced by one that says which it is.
	all = hosts(t, r, "", "", see("a", "i", w.clock.now().Add(time.Second)))
	if stand(all) != "a/web/i:unknown b/web/i:unknown" {
		t.Errorf("%s", stand(all))
	}
	all = hosts(t, r, "", "")
	for _, test := range []struct {
		poll  int64
		after time.Duration
	}{{30, 7 * time.Minute}, {3600, 185 * time.Minute}, {0, 25 * time.Hour}, {1 << 40, 25 * time.Hour}} {
		h := all[0]
		h.Report = &wire.Report{PollSeconds: test.poll}
		if h.Silent(h.Seen.Add(test.after-time.Minute)) || !h.Silent(h.Seen.Add(test.after+time.Minute)) {
			t.Errorf("polls each %d s: not silent after about %v", test.poll, test.after)
		}
	}
	if h := all[0]; h.Silent(h.Seen.Add(14*time.Minute)) || !h.Silent(h.Seen.Add(16*time.Minute)) {
		t.Error("one that never reported is not silent after 15 minutes")
	}
}

func TestForgetIsOnRecord(t *testing.T) {
	w, r := stocked(t)
	configure(t, r, "web", "code:v1")
	configure(t, r, "db", "code:v1")
	web, db := w.told(t, r, "web", "t1"), w.told(t, r, "db", "t1")
	for i := range 70 {
		web.Instance = fmt.Sprintf("i%d", i)
		tell(t, r, agentOf("web1"), web)
	}
	tell(t, r, agentOf("web1"), db)
	tell(t, r, agentOf("web10"), db)
	if err := r.Seen(t.Context(), []registry.Sighting{{Host: "web1", Configuration: "web", Instance: "seen", At: w.clock.now()}, {Host: "web1", Configuration: "db", At: w.clock.now()}}); err != nil {
		t.Fatal(err)
	}
	dry := act
	dry.DryRun = true
	before := w.records(t)
	if what, err := r.Forget(t.Context(), dry, "web1", "", ""); err != nil || what != "forgot 73 records of agents" || fmt.Sprint(w.records(t)) != fmt.Sprint(before) {
		t.Errorf("dry run: %q, %v", what, err)
	}
	narrow := act
	narrow.Caller.Configs = "web"
	_, err := r.Forget(t.Context(), narrow, "web1", "db", "")
	wantKind(t, "Forget outside of the scope", err, registry.ErrDenied)
	if _, err := r.Forget(t.Context(), act, "web1", "web", "i7"); err != nil {
		t.Fatal(err)
	}
	entries := len(audit(t, r, registry.AuditFilter{}))
	if _, err := r.Forget(t.Context(), narrow, "web1", "", ""); err != nil {
		t.Fatal(err)
	}
	made := audit(t, r, registry.AuditFilter{})[entries:]
	if len(made) != 3 || made[0].Result != "forgot 30 of 70 records of agents" || made[2].Result != "forgot 10 records of agents" || made[0].Name != "web1" {
		t.Errorf("on record: %+v", made)
	}
	if got := stand(hosts(t, r, "", "")); got != "web1/db/i1:same web10/db/i1:same" {
		t.Errorf("left: %s", got)
	}
	if got := has(t, r, agentOf("web1"), "web", "i0"); got != "" {
		t.Errorf("an agent that was forgotten is told that %q is known", got)
	}
	_, err = r.Forget(t.Context(), act, "web1", "web", "")
	wantKind(t, "Forget again", err, registry.ErrNotFound)
	w.wantSound(t)
}

// A backup knows the hosts, but not what their hooks printed: agents tell that
// anew to a registry that was restored.
func TestBackupKnowsTheHosts(t *testing.T) {
	w, r := stocked(t)
	configure(t, r, "web", "code:v1")
	tell(t, r, agentOf("web1"), w.told(t, r, "web", "t1"))
	if err := r.Seen(t.Context(), []registry.Sighting{{Host: "web2", Configuration: "web", At: w.clock.now()}}); err != nil {
		t.Fatal(err)
	}
	restored, got, err := restore(t.Context(), bytes.NewReader(w.backup(t)))
	if err != nil || len(got.Faults) > 0 {
		t.Fatalf("Restore: %+v, %v", got.Faults, err)
	}
	restored.clock.set(w.clock.now())
	r = restored.open(t)
	if got := stand(hosts(t, r, "", "")); got != "web1/web/i1:same web2/web/:unknown" {
		t.Errorf("after Restore: %s", got)
	}
	if got := has(t, r, agentOf("web1"), "web", "i1"); got != "" {
		t.Errorf("the agent is told that %q is known", got)
	}
	tell(t, r, agentOf("web1"), restored.told(t, r, "web", "t1"))
	if out, err := r.HookOutput(t.Context(), caller, "web1", "web", ""); err != nil || out.Text != "hello\n" {
		t.Errorf("HookOutput = %+v, %v", out, err)
	}
}

func TestFsckOfReports(t *testing.T) {
	w, r := stocked(t)
	configure(t, r, "web", "code:v1")
	tell(t, r, agentOf("web1"), w.told(t, r, "web", "t1"))
	if err := r.Seen(t.Context(), []registry.Sighting{{Host: "web1", Configuration: "web", Instance: "i1", At: w.clock.now()}}); err != nil {
		t.Fatal(err)
	}
	w.wantSound(t)
	garbled, other := "{", `{"Configuration":"db","Instance":"i1"}`
	n := 0
	for key := range w.records(t) {
		group, _, _ := strings.Cut(key, "/")
		changes := []*string{&garbled}
		switch group {
		case "report":
			changes = append(changes, &other, nil) // the others are of no report then
		case "output", "told", "seen":
		default:
			continue
		}
		n++
		old := w.records(t)[key]
		for _, value := range changes {
			w.set(t, key, value)
			if len(w.faults(t, false)) == 0 {
				t.Errorf("%s was changed, and Fsck finds nothing", key)
			}
			w.set(t, key, &old)
		}
		text := old
		w.set(t, group+"/nonsense", &text)
		if group != "seen" && len(w.faults(t, false)) == 0 {
			t.Errorf("%s/nonsense is there, and Fsck finds nothing", group)
		}
		w.set(t, group+"/nonsense", nil)
	}
	if n != 4 {
		t.Errorf("%d records of reports", n)
	}
}

// What 5,000 hosts cost: the registry shows them in moments, and a poll does not
// depend on their number.
func BenchmarkHosts(b *testing.B) {
	meta := enginetest.NewMeta(enginetest.MetaOptions{})
	blobs, spool := enginetest.NewBlobs()
	r := registry.New(registry.Options{Meta: meta, Blobs: blobs, Spool: spool, Check: check})
	defer r.Close()
	err := meta.Update(b.Context(), func(tx registry.Tx) error { return tx.Put("config/web", []byte(`{"Name":"web","Revision":1}`)) })
	if err != nil {
		b.Fatal(err)
	}
	now := wire.ReportedRevision{Revision: 1, Digest: digest.Of(nil)}
	for i := range 5000 {
		told := wire.Report{Tag: "t", Configuration: "web", State: "Idle", Sent: time.Now(), Running: &wire.ReportedRoot{ReportedRevision: now}, Output: strings.Repeat("x", 4096)}
		if err := r.Report(b.Context(), agentOf(fmt.Sprintf("host%d", i)), told); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("poll", func(b *testing.B) {
		for b.Loop() {
			if _, err := r.Poll(b.Context(), agentOf("host7"), wire.PollRequest{Names: []string{"web"}}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("hosts", func(b *testing.B) {
		for b.Loop() {
			if all, err := r.Hosts(b.Context(), "", "", nil); err != nil || len(all) != 5000 {
				b.Fatal(len(all), err)
			}
		}
	})
}
