package console

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"strings"
	syncatomic "sync/atomic"
	"testing"
	"time"

	"deploytools/layers/digest"
	"deploytools/layers/manifest"
	"deploytools/registry"
	"deploytools/registry/enginetest"
	"deploytools/registry/wire"
)

// desk is a registry in memory, and one person at its console.
type desk struct {
	t              testing.TB
	meta           registry.Meta
	session        Session
	blobs          registry.Blobs
	stdout, stderr bytes.Buffer
	minutes        syncatomic.Int64 // since its clock began
}

// newDesk returns an empty registry and an admin. Its clock begins at 18:00 and
// goes on by a minute with each line that runs.
func newDesk(t testing.TB) *desk {
	t.Helper()
	d := &desk{t: t, meta: enginetest.NewMeta(enginetest.MetaOptions{Rerun: 2})}
	start := time.Date(2026, 11, 21, 18, 0, 0, 0, time.UTC)
	blobs, spool := enginetest.NewBlobs()
	d.blobs = blobs
	r := registry.New(registry.Options{
		Meta: d.meta, Blobs: blobs, Spool: datedSpool{spool, start}, Check: check,
		Now: func() time.Time { return start.Add(time.Duration(d.minutes.Load()) * time.Minute) },
	})
	t.Cleanup(r.Close)
	d.session = Session{
		Registry: r, Stdin: strings.NewReader(""), Stdout: &d.stdout, Stderr: &d.stderr,
		Caller: registry.Caller{User: "ann", Role: registry.Admin, Fingerprint: "SHA256:abc", Comment: "ann@desk"},
		Daemon: &fakeDaemon{},
		Build:  wire.Build{Version: "v1.2.3", Commit: "0123456789ab", Go: "go1.26.5", Format: wire.FormatVersion},
	}
	return d
}

// datedSpool has uploads of one time: the engine's is not the desk's.
type datedSpool struct {
	registry.Spool
	written time.Time
}

func (s datedSpool) List(ctx context.Context) iter.Seq2[registry.UploadInfo, error] {
	return func(yield func(registry.UploadInfo, error) bool) {
		for u, err := range s.Spool.List(ctx) {
			u.ModTime = s.written
			if !yield(u, err) {
				return
			}
		}
	}
}

// check takes any content for an archive with one file of this content, but
// refuses what begins with "bad", and takes a manifest for an archive of what it
// lists.
func check(_ context.Context, r io.Reader, _ func(int64) error) (registry.Archive, error) {
	content, err := io.ReadAll(r)
	if err != nil {
		return registry.Archive{}, err
	}
	a := registry.Archive{Size: int64(len(content)), Unpacked: int64(len(content)), Entries: 1}
	if bytes.HasPrefix(content, []byte("bad")) {
		return a, fmt.Errorf("entry \"../x\": outside the root: %w", registry.ErrRefused)
	}
	m, err := manifest.Decode(bytes.NewReader(content))
	if err != nil {
		m = manifest.Manifest{{Path: "file", Type: manifest.File, Mode: 0o644, Size: a.Size, Digest: digest.Of(content)}}
	}
	a.Manifest = m.All()
	return a, nil
}

// upload uploads content, waits for the verdict and returns its digest.
func (d *desk) upload(content string) digest.Digest {
	d.t.Helper()
	in, err := d.session.Registry.Receive(d.t.Context(), d.session.Caller, "/upload")
	if err != nil {
		d.t.Fatal(err)
	}
	if _, err := in.WriteAt([]byte(content), 0); err != nil {
		d.t.Fatal(err)
	}
	u, err := in.Finish(d.t.Context())
	if err != nil {
		d.t.Fatal(err)
	}
	if _, err := d.session.Registry.Verdict(d.t.Context(), u.ID, nil); err != nil {
		d.t.Fatal(err)
	}
	return u.Digest
}

// addver uploads content of its own and makes it component:version.
func (d *desk) addver(component, version string) {
	d.t.Helper()
	d.must(fmt.Sprintf("addver -name %s -version %s -hash %s", component, version, d.upload(component+" "+version)))
}

// run runs one line and returns what it left.
func (d *desk) run(line string) (stdout, stderr string, status wire.Status) {
	d.t.Helper()
	d.minutes.Add(1)
	d.stdout.Reset()
	d.stderr.Reset()
	status = Exec(d.t.Context(), &d.session, line)
	return d.stdout.String(), d.stderr.String(), status
}

// must runs one line, which succeeds, and returns what it printed.
func (d *desk) must(line string) string {
	d.t.Helper()
	stdout, stderr, status := d.run(line)
	if status != wire.OK {
		d.t.Fatalf("%s: exit status %s, stderr %q", line, status, stderr)
	}
	return stdout
}

// walk prepares what upstream's documents walk through, and a little more:
// project1 of code:v01 and config:v01, newer versions of both, and a component
// that nothing uses.
func (d *desk) walk() *desk {
	d.t.Helper()
	for _, v := range []string{"code:v00", "code:v01", "config:v01", "config:v02", "assets:v01"} {
		component, version, _ := strings.Cut(v, ":")
		d.addver(component, version)
	}
	d.must("addconf -name project1 -layer code:v01 -layer config:v01")
	return d
}

// examples prepares what the examples of the table need.
func (d *desk) examples() *desk {
	d.t.Helper()
	d.walk()
	d.must("changeconf -name project1 -component code -version v00")
	d.must("changeconf -name project1 -component code -version v01")
	d.report("web1", nil)
	d.addver("old", "v01")
	d.must("delver -name old -version v01")
	d.minutes.Add(2 * 24 * 60) // gc finds something
	d.upload("")
	return d
}

// report has the agent of a host tell that it runs project1 as it is now, but for
// what change, which may be nil, changes.
func (d *desk) report(host string, change func(*wire.Report)) {
	d.t.Helper()
	rev, err := d.session.Registry.Configuration(d.t.Context(), "project1")
	if err != nil {
		d.t.Fatal(err)
	}
	now := wire.ReportedRevision{Revision: rev.Revision, Digest: rev.Digest}
	tag := fmt.Sprintf("t%d", d.minutes.Add(1))
	at := d.session.Registry.Now()
	r := wire.Report{
		Tag: tag, Configuration: "project1", Instance: "3f9c2ab4", Program: "v1.2.3", PollSeconds: 30, Sent: at,
		State: "Idle", Wanted: &now, Running: &wire.ReportedRoot{ReportedRevision: now, Root: "roots/000001-0", Since: at.Add(-time.Minute), Verification: "verified"},
		Deployment: &wire.ReportedDeployment{ID: "000001-0", ReportedRevision: now, Started: at.Add(-2 * time.Minute), Ended: at.Add(-time.Minute)},
		Output:     "hook says: done\n",
	}
	if change != nil {
		change(&r)
	}
	caller := registry.Caller{User: "deploy-agent", Role: registry.Agent, Host: host, Fingerprint: "SHA256:agent", Comment: "agent of " + host}
	if err := d.session.Registry.Report(d.t.Context(), caller, r); err != nil {
		d.t.Fatal(err)
	}
}

// state returns all that the registry holds, as its commands show it.
func (d *desk) state() string {
	d.t.Helper()
	was, minutes := d.session.Caller, d.minutes.Load()
	defer func() {
		d.session.Caller = was
		d.minutes.Store(minutes) // looking takes no time
	}()
	d.session.Caller.Role = registry.Admin
	var b strings.Builder
	for _, list := range [][2]string{{"components", "showcomp"}, {"configurations", "history"}} {
		for name := range strings.Lines(d.must(list[0])) {
			b.WriteString(d.must(list[1] + " -json -name " + strings.TrimSpace(name)))
		}
	}
	for name := range strings.Lines(d.must("configurations")) {
		b.WriteString(d.must("showconf -json -name " + strings.TrimSpace(name)))
	}
	hosts, err := d.session.Registry.Hosts(d.t.Context(), "", "", nil)
	if err != nil {
		d.t.Fatal(err)
	}
	for _, h := range hosts {
		fmt.Fprintln(&b, h.Name, h.Configuration, h.Received)
	}
	b.WriteString(d.must("uploads -json"))
	b.WriteString(d.must("gc -dry-run -json"))
	if f, ok := d.session.Daemon.(*fakeDaemon); ok {
		fmt.Fprint(&b, f.cut)
	}
	return b.String()
}
