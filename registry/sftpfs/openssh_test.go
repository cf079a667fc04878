package sftpfs

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"deploytools/layers/digest"
)

// clients runs OpenSSH's own programs, with this test's program as the server
// at the other end of a pipe: see TestMain.
type clients struct {
	t        *testing.T
	registry string   // directory of the registry
	home     string   // directory with the user's files
	env      []string // more of it
}

func newClients(t *testing.T) clients {
	c := clients{t: t, registry: t.TempDir(), home: t.TempDir()}
	for name, content := range map[string]string{"web.tar.gz": "content", "big": strings.Repeat("0123456789abcdef", 100_000), "with space": "x"} {
		if err := os.WriteFile(filepath.Join(c.home, name), []byte(content), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// run runs a client, and expects its status to be 0, or not if fails is set.
func (c clients) run(fails bool, stdin string, argv ...string) (stdout, stderr string) {
	c.t.Helper()
	self, err := os.Executable()
	if err != nil {
		c.t.Fatal(err)
	}
	cmd := exec.CommandContext(c.t.Context(), argv[0], append([]string{"-D", self}, argv[1:]...)...)
	cmd.Dir, cmd.Stdin = c.home, strings.NewReader(stdin)
	cmd.Env = append(os.Environ(), append(c.env, "SFTPFS_TEST_SERVE="+c.registry, "GORACE=atexit_sleep_ms=0")...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); (err != nil) != fails {
		c.t.Errorf("%q with %q: %v\n%s%s", argv, stdin, err, &out, &errs)
	}
	return out.String(), errs.String()
}

func (c clients) batch(fails bool, lines ...string) (stdout, stderr string) {
	c.t.Helper()
	return c.run(fails, strings.Join(lines, "\n")+"\n", "sftp", "-b", "-")
}

func stored(name, content string) string {
	return fmt.Sprintf("stored %s %d bytes %s\n", digest.Of([]byte(content)), len(content), name)
}

func TestOpenSSHUploads(t *testing.T) { // U-04, B-31
	big := strings.Repeat("0123456789abcdef", 100_000)
	for name, test := range map[string]struct {
		argv  []string
		stdin string
		want  string
	}{
		"sftp put":              {[]string{"sftp"}, "put web.tar.gz\n", stored("web.tar.gz", "content")},
		"sftp put -p":           {[]string{"sftp"}, "put -p web.tar.gz\n", stored("web.tar.gz", "content")},
		"sftp put name":         {[]string{"sftp", "-b", "-"}, "put web.tar.gz other\nput web.tar.gz other\n", stored("other", "content")},
		"sftp put big":          {[]string{"sftp", "-b", "-"}, "put -p big\n", stored("big", big)},
		"sftp put slow":         {[]string{"sftp", "-R", "1", "-B", "1000", "-b", "-"}, "put web.tar.gz\n", stored("web.tar.gz", "content")},
		"scp":                   {[]string{"scp", "web.tar.gz", "host:"}, "", stored("web.tar.gz", "content")},
		"scp name":              {[]string{"scp", "web.tar.gz", "host:code"}, "", stored("code", "content")},
		"scp -p":                {[]string{"scp", "-p", "big", "host:"}, "", stored("big", big)},
		"scp path":              {[]string{"scp", "web.tar.gz", "host:/code"}, "", stored("code", "content")},
		"scp directory":         {[]string{"scp", "web.tar.gz", "host:/incoming/"}, "", stored("incoming", "content")},
		"scp several":           {[]string{"scp", "web.tar.gz", "big", "host:"}, "", stored("web.tar.gz", "content") + stored("big", big)},
		"scp with a space":      {[]string{"scp", "with space", "host:"}, "", stored("with space", "x")},
		"scp makes a directory": {[]string{"scp", "web.tar.gz", "big", "host:one"}, "", stored("web.tar.gz", "content") + stored("big", big)},
		"scp over the same":     {[]string{"scp", "web.tar.gz", "big", "web.tar.gz", "host:"}, "", stored("web.tar.gz", "content") + stored("big", big)},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClients(t)
			_, stderr := c.run(test.want == "", test.stdin, test.argv...)
			for line := range strings.Lines(test.want) {
				if !strings.Contains(stderr, line) {
					t.Errorf("the user sees %q, want %q", stderr, line)
				}
			}
			if strings.Contains(stderr, "error") || test.want != "" && strings.Contains(stderr, "denied") {
				t.Errorf("the user sees %q", stderr)
			}
		})
	}
}

func TestOpenSSHLooksAndRemoves(t *testing.T) {
	c := newClients(t)
	c.run(false, "", "scp", "web.tar.gz", "big", "host:")
	stdout, _ := c.batch(false, "ls -1", "ls -l web.tar.gz", "get web.tar.gz.sha256", "get big back", "rm web.tar.gz", "ls -1")
	if !strings.Contains(stdout, "\nbig\nby-hash\nconfigs\nfiles\nweb.tar.gz\n") || !strings.HasSuffix(stdout, "\nbig\nby-hash\nconfigs\nfiles\n") {
		t.Errorf("sftp prints\n%s", stdout)
	}
	for name, want := range map[string]string{
		"web.tar.gz.sha256": digest.Of([]byte("content")).String() + "  web.tar.gz\n", "back": strings.Repeat("0123456789abcdef", 100_000),
	} {
		if got, err := os.ReadFile(filepath.Join(c.home, name)); string(got) != want || err != nil {
			t.Errorf("%s has %d bytes, %v, want %d", name, len(got), err, len(want))
		}
	}
	if out, err := exec.CommandContext(t.Context(), "sh", "-c", "cd '"+c.home+"' && sha256sum -c web.tar.gz.sha256").CombinedOutput(); err != nil {
		t.Errorf("sha256sum -c: %v\n%s", err, out)
	}
	c.batch(true, "rm web.tar.gz")
	c.batch(true, "get web.tar.gz")
	c.batch(true, "put web.tar.gz files/x")
}

func TestOpenSSHReadsAsAgent(t *testing.T) {
	c := newClients(t)
	r, stop, err := onDisk(c.registry)
	if err != nil {
		t.Fatal(err)
	}
	stock(t, r)
	rev, err := r.Configuration(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	text, err := rev.Encode()
	if err != nil {
		t.Fatal(err)
	}
	stop()
	c.env = []string{"SFTPFS_TEST_AGENT=1"}
	c.batch(false, "get configs/web.json", "get "+rev.Layers[0].File+" layer")
	for name, want := range map[string]string{"web.json": string(text), "layer": "code v2"} {
		if got, err := os.ReadFile(filepath.Join(c.home, name)); string(got) != want || err != nil {
			t.Errorf("%s holds %q, %v, want %q", name, got, err, want)
		}
	}
	for _, line := range []string{"put big", "rm configs/web.json", "mkdir x", "get configs/nope.json", "ls configs/nope.json", "rename configs/web.json configs/x", "chmod 777 files"} {
		if _, stderr := c.batch(true, line); stderr == "" {
			t.Errorf("%s: sftp says nothing", line)
		}
	}
}
