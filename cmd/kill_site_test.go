package cmd_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// startSite returns a site whose registry runs, with these flags.
func startSite(t *testing.T, flags ...string) *site {
	t.Helper()
	s, err := newSite(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	if err := s.startRegistry(nil, flags...); err != nil {
		t.Fatal(err)
	}
	return s
}

// command returns a program, ours or OpenSSH's, in the site.
func (s *site) command(name string, args ...string) *exec.Cmd {
	path := filepath.Join(binDir, name)
	if _, err := os.Stat(path); err != nil {
		path = name
	}
	cmd := exec.Command(path, args...)
	cmd.Dir, cmd.Env = s.dir, s.env()
	return cmd
}

// deployctl runs a command that has to succeed.
func (s *site) deployctl(t *testing.T, args ...string) {
	t.Helper()
	if out, err := s.command("deployctl", args...).CombinedOutput(); err != nil {
		t.Fatalf("deployctl %q: %v: %s", args, err, out)
	}
}

// publish adds a version with these files.
func (s *site) publish(t *testing.T, component, version string, files map[string]string) {
	t.Helper()
	file := s.file(component + "-" + version + ".tar.gz")
	if err := os.WriteFile(file, archiveOf(files, nil), 0o600); err != nil {
		t.Fatal(err)
	}
	s.deployctl(t, "addver", "-name", component, "-version", version, "-file", file)
}
