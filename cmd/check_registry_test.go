package cmd_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"deploytools/layers/digest"
)

// checkRegistry checks everything that a registry tells of itself, by OpenSSH's
// clients, and returns the version that the configuration has.
func (s *site) checkRegistry(t *testing.T, when string, known []string) string {
	t.Helper()
	var component struct {
		Versions []struct{ Version, Digest string }
	}
	s.ask(t, &component, "showcomp", "-name", "code", "-json")
	have := map[string]string{}
	for _, v := range component.Versions {
		have[v.Version] = v.Digest
		b, err := os.ReadFile(s.file("registry/files/" + v.Digest))
		if err != nil || digest.Of(b).String() != v.Digest {
			t.Errorf("%s: content of %s: %d bytes, %v", when, v.Version, len(b), err)
		}
	}
	for _, v := range known {
		if have[v] == "" {
			t.Errorf("%s: version %s is lost", when, v)
		}
	}
	var checked struct{ Faults []any }
	if s.ask(t, &checked, "fsck", "-read-data", "-json"); len(checked.Faults) > 0 {
		t.Errorf("%s: fsck finds %v", when, checked.Faults)
	}
	var history struct {
		Revisions []struct {
			Layers []struct{ Version, Digest string }
		}
	}
	s.ask(t, &history, "history", "-name", "web", "-json")
	for i, r := range history.Revisions {
		if len(r.Layers) != 1 || have[r.Layers[0].Version] != r.Layers[0].Digest {
			t.Errorf("%s: row %d of the history names %v, which is no version", when, i, r.Layers)
		}
	}
	return s.fetch(t, when)
}

// ask runs a command whose answer is JSON.
func (s *site) ask(t *testing.T, answer any, args ...string) {
	t.Helper()
	out, err := s.command("ssh", append([]string{"reg"}, args...)...).Output()
	if err == nil {
		err = json.Unmarshal(out, answer)
	}
	if err != nil {
		t.Fatalf("%q: %v: %s", args, err, s.tail("registry.log"))
	}
}

// fetch gets what an agent would, and returns the version.
func (s *site) fetch(t *testing.T, when string) string {
	t.Helper()
	dir := t.TempDir()
	get := func(name string) []byte {
		to := filepath.Join(dir, filepath.Base(name))
		if out, err := s.command("sftp", "-q", "deploy-agent@reg:"+name, to).CombinedOutput(); err != nil {
			t.Fatalf("%s: sftp get %s: %v: %s", when, name, err, out)
		}
		b, err := os.ReadFile(to)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var c struct {
		Layers []struct{ Version, File, Hash string }
	}
	if err := json.Unmarshal(get("configs/web.json"), &c); err != nil || len(c.Layers) != 1 {
		t.Fatalf("%s: %d layers, %v", when, len(c.Layers), err)
	}
	l := c.Layers[0]
	if got := digest.Of(get(l.File)).String(); got != l.Hash {
		t.Errorf("%s: %s has the digest %s", when, l.File, got)
	}
	return l.Version
}
