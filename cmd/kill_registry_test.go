package cmd_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"deploytools/layers/digest"
)

// TestKillRegistryAtEveryWrite kills the registry at the first, second, third...
// thing that it does to its files while a version is uploaded and added, and
// while a configuration is changed. After the next start what was acknowledged
// is there, and what is there is whole.
func TestKillRegistryAtEveryWrite(t *testing.T) {
	t.Parallel()
	s := startSite(t)
	s.publish(t, "code", "v0", map[string]string{"version": "v0"})
	s.deployctl(t, "addconf", "-name", "web", "-layer", "code:v0")
	m := &memories{s: s, versions: []string{"v0"}, live: "v0"}
	s.kill("registry")
	for i, act := range []func(*testing.T, int) bool{m.addver, m.changeconf} {
		n, survived := 0, 0
		for survived < 2 { // two events in quick succession may count as one
			n++
			if m.killedAt(t, n, act) {
				survived++
			} else {
				survived = 0
			}
		}
		if n < 4 {
			t.Errorf("act %d was killed %d times only: nothing was tested", i, n-2)
		}
		t.Logf("act %d was killed up to event %d", i, n-2)
	}
}

// memories are what an operator knows of a registry.
type memories struct {
	s        *site
	versions []string // that were acknowledged
	live     string   // the version that the configuration had last
	asked    string   // the one that it may have got since
}

// killedAt runs act on a registry that dies at the nth event, and reports
// whether that did not happen. Then it checks what is left.
func (m *memories) killedAt(t *testing.T, n int, act func(*testing.T, int) bool) bool {
	t.Helper()
	s := m.s
	when := fmt.Sprintf("%s=%d %s %s %s", dieAt, n, s.file("registry"), s.file("registry/uploads"), s.file("registry/files"))
	survived := false
	if err := s.startRegistry([]string{when}, keepAll...); err == nil {
		survived = act(t, n) && s.command("deployctl", "components").Run() == nil
	}
	s.kill("registry")
	if err := s.startRegistry(nil, keepAll...); err != nil {
		t.Fatalf("killed at event %d: %v", n, err)
	}
	got := s.checkRegistry(t, n, m.versions)
	if got != m.live && got != m.asked {
		t.Errorf("killed at event %d: the configuration has %s, want %s or %s", n, got, m.live, m.asked)
	}
	m.live, m.asked = got, ""
	s.kill("registry")
	return survived
}

// keepAll keeps the registry from removing old versions: they are what is
// looked for.
var keepAll = []string{"-maxver", "0"}

func (m *memories) addver(t *testing.T, n int) bool {
	version := fmt.Sprintf("v%d", n)
	file := m.s.file(version + ".tar.gz")
	if err := os.WriteFile(file, archiveOf(map[string]string{"version": version}, nil), 0o600); err != nil {
		t.Fatal(err)
	}
	if m.s.command("deployctl", "addver", "-name", "code", "-version", version, "-file", file).Run() != nil {
		return false
	}
	m.versions = append(m.versions, version)
	return true
}

// changeconf makes three changes: each is only a few writes.
func (m *memories) changeconf(_ *testing.T, n int) bool {
	for i := range 3 {
		m.asked = m.versions[(n+i)%3]
		if m.s.command("deployctl", "changeconf", "-name", "web", "-component", "code", "-version", m.asked).Run() != nil {
			return false
		}
		m.live = m.asked
	}
	return true
}

// checkRegistry checks everything that a registry tells of itself, by OpenSSH's
// clients, and returns the version that the configuration has.
func (s *site) checkRegistry(t *testing.T, n int, known []string) string {
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
			t.Errorf("killed at event %d: content of %s: %d bytes, %v", n, v.Version, len(b), err)
		}
	}
	for _, v := range known {
		if have[v] == "" {
			t.Errorf("killed at event %d: version %s is lost", n, v)
		}
	}
	var history struct {
		Revisions []struct {
			Layers []struct{ Version, Digest string }
		}
	}
	s.ask(t, &history, "history", "-name", "web", "-json")
	for i, r := range history.Revisions {
		if len(r.Layers) != 1 || have[r.Layers[0].Version] != r.Layers[0].Digest {
			t.Errorf("killed at event %d: row %d of the history names %v, which is no version", n, i, r.Layers)
		}
	}
	return s.fetch(t, n)
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
func (s *site) fetch(t *testing.T, n int) string {
	t.Helper()
	dir := t.TempDir()
	get := func(name string) []byte {
		to := filepath.Join(dir, filepath.Base(name))
		if out, err := s.command("sftp", "-q", "deploy-agent@reg:"+name, to).CombinedOutput(); err != nil {
			t.Fatalf("killed at event %d: sftp get %s: %v: %s", n, name, err, out)
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
		t.Fatalf("killed at event %d: %d layers, %v", n, len(c.Layers), err)
	}
	l := c.Layers[0]
	if got := digest.Of(get(l.File)).String(); got != l.Hash {
		t.Errorf("killed at event %d: %s has the digest %s", n, l.File, got)
	}
	return l.Version
}
