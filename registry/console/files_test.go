package console

import (
	"strings"
	"testing"

	"deploytools/layers/digest"
	"deploytools/layers/manifest"
	"deploytools/registry/wire"
)

// tree adds a version that holds these files.
func (d *desk) tree(version string, m manifest.Manifest) {
	d.t.Helper()
	var b strings.Builder
	if err := m.Encode(&b); err != nil {
		d.t.Fatal(err)
	}
	d.must("addver -name code -version " + version + " -hash " + d.upload(b.String()).String())
}

var (
	hello, bye = digest.Of([]byte("hello")), digest.Of([]byte("bye"))
	oldTree    = manifest.Manifest{
		{Path: "bin", Type: manifest.Dir, Mode: 0o755},
		{Path: "bin/run", Type: manifest.File, Mode: 0o644, Size: 5, Digest: hello},
		{Path: "etc/a b\x1b", Type: manifest.File, Mode: 0o600, UID: 1000, GID: 33, Size: 5, Digest: hello},
		{Path: "gone", Type: manifest.File, Mode: 0o644, Size: 5, Digest: hello},
		{Path: "lock", Type: manifest.Symlink, Mode: 0o777, Target: "../run/lock"},
		{Path: "same", Type: manifest.File, Mode: 0o644, Size: 5, Digest: hello},
		{Path: "turns", Type: manifest.File, Mode: 0o644, Size: 5, Digest: hello},
	}
	newTree = manifest.Manifest{
		{Path: "bin", Type: manifest.Dir, Mode: 0o755},
		{Path: "bin/run", Type: manifest.File, Mode: 0o755, Size: 5, Digest: hello},
		{Path: "come", Type: manifest.Dir, Mode: 0o700},
		{Path: "etc/a b\x1b", Type: manifest.File, Mode: 0o600, UID: 1000, GID: 34, Size: 3, Digest: bye},
		{Path: "lock", Type: manifest.Symlink, Mode: 0o777, Target: "/run/my lock"},
		{Path: "same", Type: manifest.File, Mode: 0o644, Size: 5, Digest: hello},
		{Path: "turns", Type: manifest.Symlink, Mode: 0o777, Target: "same"},
	}
)

func TestFiles(t *testing.T) {
	d := newDesk(t)
	d.tree("v1", oldTree)
	const want = "directory   0755   0:0                0   bin\n" +
		"file        0644   0:0                5   bin/run\n" +
		"file        0600   1000:33            5   etc/a%20b%1B\n" +
		"file        0644   0:0                5   gone\n" +
		"symlink     0777   0:0                0   lock -> ../run/lock\n" +
		"file        0644   0:0                5   same\n" +
		"file        0644   0:0                5   turns\n"
	for _, line := range []string{"files code:v1", "files -name code -version v1"} {
		if got := d.must(line); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", line, got, want)
		}
	}
	if got := d.must("files code:v1 -v"); !strings.Contains(got, "5   "+hello.String()+"   gone\n") || !strings.Contains(got, "0   -"+strings.Repeat(" ", 66)+"bin\n") {
		t.Errorf("files -v: got\n%s", got)
	}
	for line, want := range map[string]wire.Status{
		"files": wire.Usage, "files code": wire.Usage, "files -name code": wire.Usage, "files code:v1 code:v1": wire.Usage,
		"files -name code -version v1 code:v1": wire.Usage, "files code:v9": wire.NotFound, "files nope:v1": wire.NotFound,
	} {
		if stdout, stderr, status := d.run(line); status != want || stdout != "" || stderr == "" {
			t.Errorf("%s: exit status %s, stdout %q, stderr %q, want %s", line, status, stdout, stderr, want)
		}
	}
}

func TestDiffNamesWhatChanged(t *testing.T) {
	d := newDesk(t).walk()
	d.tree("v1", oldTree)
	d.tree("v2", newTree)
	const want = "code   changed   bin/run   mode 0644 -> 0755\n" +
		"code   added     come\n" +
		"code   changed   etc/a%20b%1B   owner 1000:33 -> 1000:34, size 5 -> 3, content 2cf24dba5fb0 -> b49f425a7e1f\n" +
		"code   removed   gone\n" +
		"code   changed   lock   target ../run/lock -> /run/my%20lock\n" +
		"code   changed   turns   type file -> symlink, mode 0644 -> 0777, size 5 -> 0, content 2cf24dba5fb0 -> -, target - -> same\n"
	if got := d.must("diff code:v1 code:v2"); got != want {
		t.Errorf("diff: got\n%s\nwant\n%s", got, want)
	}
	if got := d.must("diff code:v2 code:v2"); got != "" {
		t.Errorf("diff of one version: got\n%s", got)
	}

	// Of a configuration, each layer that differs.
	d.must("changeconf -name project1 -component code -version v1")
	d.must("addconf project1 code:v2 assets:v01 -replace")
	changed := "assets   added     file\n"
	if got := d.must("diff -name project1"); got != "code"+strings.TrimPrefix(want, "code")+"config   removed   file\n"+changed {
		t.Errorf("diff -name: got\n%s", got)
	}
	if got, want := d.must("diff -name project1 -from 3 -to 1"), "assets   removed   file\n"; !strings.Contains(got, want) || !strings.Contains(got, "config   added     file\n") {
		t.Errorf("diff -name -from 3 -to 1: got\n%s\nwant in it %q", got, want)
	}
	d.must("addconf project1 assets:v01 code:v2 -replace")
	if stdout, stderr, _ := d.run("diff -name project1"); stdout != "" || stderr != "note: the layers are in another order, so that other files may win\n" {
		t.Errorf("diff of another order: stdout %q, stderr %q", stdout, stderr)
	}
}

func TestDiffUsage(t *testing.T) {
	d := newDesk(t).walk()
	for line, want := range map[string]wire.Status{
		"diff": wire.Usage, "diff code:v00": wire.Usage, "diff code v00": wire.Usage, "diff code:v00 code:v01 code:v00": wire.Usage,
		"diff -name project1 code:v00 code:v01": wire.Usage, "diff code:v00 code:v01 -from 1": wire.Usage,
		"diff code:v00 code:v09": wire.NotFound, "diff -name nope": wire.NotFound, "diff -name project1 -to 9": wire.NotFound,
	} {
		if stdout, stderr, status := d.run(line); status != want || stdout != "" || stderr == "" {
			t.Errorf("%s: exit status %s, stdout %q, stderr %q, want %s", line, status, stdout, stderr, want)
		}
	}
}
