package cmd_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"deploytools/agent"
)

// guardWait is how long the agents of these tests wait for another one.
const guardWait = 4

// TestAgentDeploysItself has an agent deploy the configuration that holds its own
// program: the unit starts it through `current`, and the hook restarts the unit.
// A program that works commits the deployment; one that does not is taken back
// by the supervisor that the old one has left.
func TestAgentDeploysItself(t *testing.T) {
	t.Parallel()
	s := startSite(t)
	ours := s.impatientAgent(t)
	// A later release, whose records ours does not know.
	later := s.buildAgent(t, "later", map[string][2]string{"record.go": {"const format = 2", "const format = 3"}})
	sleeper := []byte("#!/bin/sh\nexec sleep 1000\n")
	for version, program := range map[string][]byte{
		"ours": ours, "new": ours, "later": later,
		"text":    []byte("exit 0\n"),            // is no program
		"failing": []byte("#!/bin/sh\nexit 1\n"), // ends at once
		"silent":  sleeper,                       // never gets ready
	} {
		s.publishProgram(t, version, program)
	}
	for _, test := range []struct{ name, from, to, log string }{
		{"a new program", "ours", "new", ""},
		{"no program", "ours", "text", ""},
		{"a program that ends", "ours", "failing", ""},
		{"a program that does not get ready", "ours", "silent", ""},
		{"an older program", "later", "ours", "format 3, known is 2: written by a newer version"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := s.selfHost(t, strings.ReplaceAll(test.name, " ", "-"), test.from)
			h.manage(t)
			old := h.runs(t)
			s.deployctl(t, "changeconf", "-name", h.name, "-component", "agent", "-version", test.to)
			if test.to == "new" {
				h.committed(t, old)
			} else {
				h.takenBack(t, test.from, test.to, old)
			}
			if !strings.Contains(h.log(), test.log) {
				t.Errorf("the log does not say %q\n%s", test.log, h.log())
			}
			h.guardsGone(t)
		})
	}
}

// impatientAgent returns an agent that waits less, and has it in the site's file ours.
func (s *site) impatientAgent(t *testing.T) []byte {
	t.Helper()
	impatient.Do(func() { impatient.program = s.buildAgent(t, "ours", nil) })
	if err := os.WriteFile(s.file("ours"), impatient.program, 0o755); err != nil {
		t.Fatal(err)
	}
	return impatient.program
}

// impatient is built once.
var impatient struct {
	sync.Once
	program []byte
}

// buildAgent builds an agent that waits less; edits replace a text of a file of
// package agent.
func (s *site) buildAgent(t *testing.T, name string, edits map[string][2]string) []byte {
	t.Helper()
	all := map[string][2]string{"guard.go": {"guardWait = time.Minute ", fmt.Sprintf("guardWait = %d * time.Second ", guardWait)}}
	for file, edit := range edits {
		all[file] = edit
	}
	replace := map[string]string{}
	for file, edit := range all {
		path, err := filepath.Abs("../agent/" + file)
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil || strings.Count(string(b), edit[0]) != 1 {
			t.Fatalf("%s: %v, or not once %q", path, err, edit[0])
		}
		replace[path] = s.file(name + "-" + file)
		if err := os.WriteFile(replace[path], []byte(strings.Replace(string(b), edit[0], edit[1], 1)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.file(name+".json"), overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	out := s.file(name)
	cmd := exec.Command("go", "build", "-buildvcs=false", "-ldflags=-s -w", "-overlay", s.file(name+".json"), "-o", out, "./deploy-agent")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	program, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return program
}

// publishProgram adds a version of the component agent.
func (s *site) publishProgram(t *testing.T, version string, program []byte) {
	t.Helper()
	dir := s.file("tree-" + version)
	if err := os.MkdirAll(dir+"/bin", 0o755); err != nil {
		t.Fatal(err)
	}
	for file, content := range map[string][]byte{"bin/deploy-agent": program, "version": []byte(version)} {
		if err := os.WriteFile(filepath.Join(dir, file), content, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s.deployctl(t, "pack", "-o", dir+".tar.gz", dir)
	s.deployctl(t, "addver", "-name", "agent", "-version", version, "-file", dir+".tar.gz")
}

// selfHost is a host whose agent runs from the root that it has deployed.
type selfHost struct{ host }

// selfHost returns a host on which the version is live, with no agent that runs.
func (s *site) selfHost(t *testing.T, name, version string) *selfHost {
	t.Helper()
	h := &selfHost{host: host{s: s, dir: t.TempDir(), name: name}}
	s.deployctl(t, "addconf", "-name", name, "-layer", "agent:"+version)
	first := h.service(s.file(version), "-once", "-script", "")
	if err := first.Run(); err != nil {
		t.Fatalf("deploying the first agent: %v\n%s", err, h.log())
	}
	if err := os.WriteFile(h.file("hook.sh"), []byte(restartHook), 0o755); err != nil {
		t.Fatal(err)
	}
	return h
}

// restartHook restarts the unit of the manager whose socket the file orders names.
// It says so where another hook runs beside it.
const restartHook = `#!/bin/sh
exec 9>running
flock --nonblock 9 || echo beside another >>calls
echo "$DEPLOY_ACTION $(cat "$NEWROOT/version")" >>calls
exec managerctl "$(cat orders)"
`

// manage starts the agent's unit.
func (h *selfHost) manage(t *testing.T) {
	t.Helper()
	m := manage(t, func() *exec.Cmd { return h.service(h.file("agent/current/bin/deploy-agent"), "-script", "./hook.sh") })
	if err := os.WriteFile(h.file("orders"), []byte(m.socket()), 0o600); err != nil {
		t.Fatal(err)
	}
}

// service is the agent's command; its output goes to the end of the log.
func (h *selfHost) service(program string, args ...string) *exec.Cmd {
	out, err := os.OpenFile(h.file("log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		panic(err)
	}
	cmd := exec.Command(program, append(args, "-name", h.name)...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = h.dir, out, out
	cmd.Env = append(h.s.env(), "DEPLOY_AGENT_DIR="+h.file("agent"), "DEPLOY_AGENT_STATE="+h.file("state.json"))
	return cmd
}

func (h *selfHost) log() string {
	b, _ := os.ReadFile(h.file("log"))
	return string(b)
}

// programs returns the roots of which processes run, by process id.
func (h *selfHost) programs() map[string]string {
	all := map[string]string{}
	links, _ := filepath.Glob("/proc/[0-9]*/exe") // no error: the pattern is sound
	for _, link := range links {
		exe, _ := os.Readlink(link)
		if rest, ok := strings.CutPrefix(exe, h.file("agent/roots")+"/"); ok {
			root, _, _ := strings.Cut(rest, "/")
			all[filepath.Base(filepath.Dir(link))] = root
		}
	}
	return all
}

// runs returns the root from which the one agent runs, when there is one.
func (h *selfHost) runs(t *testing.T) (root string) {
	t.Helper()
	err := poll(func() (bool, error) {
		all := h.programs()
		for _, root = range all {
			return len(all) == 1, nil
		}
		return false, nil
	})
	if err != nil {
		t.Fatalf("agents that run: %v, %v\n%s", h.programs(), err, h.log())
	}
	return root
}

// rest waits until the machine has closed the deployment number n.
func (h *selfHost) rest(t *testing.T, n uint64) (r agent.Record) {
	t.Helper()
	err := poll(func() (bool, error) {
		var journal struct{ Body agent.Record }
		b, err := os.ReadFile(h.file("agent/journal.json"))
		if err == nil {
			err = json.Unmarshal(b, &journal)
		}
		r = journal.Body
		return err == nil && r.State == agent.Idle && r.Last != nil && strings.HasPrefix(r.Last.ID, fmt.Sprintf("%06d-", n)), err
	})
	if err != nil {
		t.Fatalf("in %s: %v\n%s", r.State, err, h.log())
	}
	return r
}

func (h *selfHost) committed(t *testing.T, old string) {
	t.Helper()
	r := h.rest(t, 2)
	if r.Last.Verdict != "" || h.runs(t) != filepath.Base(r.Live.Dir) || h.runs(t) == old {
		t.Errorf("verdict %q, %q runs, live is %s\n%s", r.Last.Verdict, h.runs(t), r.Live.Dir, h.log())
	}
	h.wantCalls(t, "deploy new")
}

func (h *selfHost) takenBack(t *testing.T, from, to, old string) {
	t.Helper()
	r := h.rest(t, 2)
	want := fmt.Sprintf("no agent went on within %ds after the hook", guardWait)
	if r.Last.Verdict != agent.Bad || !strings.Contains(r.Last.Reason, want) || len(r.Marks) != 1 {
		t.Errorf("verdict %q: %s, marks %v\n%s", r.Last.Verdict, r.Last.Reason, r.Marks, h.log())
	}
	if link, err := os.Readlink(h.file("agent/current")); err != nil || filepath.Base(link) != old || h.runs(t) != old {
		t.Errorf("`current` is %q, %v, %q runs, want %q\n%s", link, err, h.runs(t), old, h.log())
	}
	h.wantCalls(t, "deploy "+to+"\nrollback "+from)
}

func (h *selfHost) wantCalls(t *testing.T, want string) {
	t.Helper()
	if b, err := os.ReadFile(h.file("calls")); err != nil || strings.TrimSpace(string(b)) != want {
		t.Errorf("hooks run: %q, %v, want %q\n%s", b, err, want, h.log())
	}
}

// guardsGone: one agent is all that is left.
func (h *selfHost) guardsGone(t *testing.T) {
	t.Helper()
	h.runs(t)
}
