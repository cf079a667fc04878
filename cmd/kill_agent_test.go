package cmd_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"deploytools/agent"
)

// ways are the ways through the machine, by the content of the new version.
var ways = map[string][]agent.State{
	"good": {agent.Fetching, agent.Unpacking, agent.Checking, agent.Switching, agent.Hooking, agent.Verifying, agent.Committing, agent.Idle},
	"hook": {agent.Fetching, agent.Unpacking, agent.Checking, agent.Switching, agent.Hooking,
		agent.Restoring, agent.Rehooking, agent.Reverifying, agent.Discarding, agent.Idle},
	"check": {agent.Verifying, agent.Restoring}, // the rest is as above
}

// TestKillAgentInEveryState kills the real agent in each state of the machine,
// once before the step and once at the first write that follows, for versions
// that are good, whose hook fails, or whose check fails, on first and on later
// deployments. The next agent ends it as if nothing had happened.
func TestKillAgentInEveryState(t *testing.T) {
	t.Parallel()
	eachDeployment(t, func(h *host, old, way string) {
		for _, state := range ways[way] {
			for _, point := range []string{"", ".writes"} {
				if state == agent.Idle && point != "" {
					continue // there is nothing left to write
				}
				t.Run(fmt.Sprintf("%s/%s%s", h.name, state, point), func(t *testing.T) {
					t.Parallel()
					h.copy(t).killedAndBack(t, way, old, string(state)+point)
				})
			}
		}
	})
}

// eachDeployment calls fn with a host for each way, once for a first deployment
// and once for a later one, which an old version serves before.
func eachDeployment(t *testing.T, fn func(h *host, old, way string)) {
	t.Helper()
	s := startSite(t)
	for name, files := range versions {
		s.publish(t, "code", name, files)
	}
	template := &host{s: s, dir: t.TempDir()}
	template.write(t)
	// Each way has configurations of its own: they change once, for all cases.
	for way := range ways {
		first, later := template.copy(t), template.copy(t)
		first.name, later.name = "first-"+way, "later-"+way
		s.deployctl(t, "addconf", "-name", first.name, "-layer", "code:"+way)
		s.deployctl(t, "addconf", "-name", later.name, "-layer", "code:old")
		if out, err := later.run(""); err != nil {
			t.Fatalf("deploying the old version: %v\n%s", err, out)
		}
		s.deployctl(t, "changeconf", "-name", later.name, "-component", "code", "-version", way)
		fn(first, "", way)
		fn(later, "old", way)
	}
}

// versions are the layers of the component code: enough files that a tree can
// be incomplete.
var versions = versionsOf(30, "file-%02d")

// versionsOf returns versions of n files with names of the format: one to begin
// with, one that is good, and two that fail.
func versionsOf(n int, format string) map[string]map[string]string {
	out := map[string]map[string]string{"old": {}, "good": {}, "hook": {"fail-hook": ""}, "check": {"fail-check": ""}}
	for name, files := range out {
		files["version"] = name
		for i := range n {
			files[fmt.Sprintf(format, i)] = fmt.Sprintf("%s %d\n", name, i)
		}
	}
	return out
}

// A host is a directory that an agent works in.
type host struct {
	s    *site
	dir  string
	name string   // of the configuration
	more []string // flags
	verb []string // of the first run under a fault: what a person says; none: the agent deploys
	open bool     // other users may come to its directory

	fixed    string                       // where the agent sees dir, in a mount namespace of its own; "": at dir
	versions map[string]map[string]string // nil: versions
}

// seen returns the path of dir as the agent has it.
func (h *host) seen() string {
	if h.fixed != "" {
		return h.fixed
	}
	return h.dir
}

// enter has the command see the host at its fixed path.
func (h *host) enter(cmd *exec.Cmd) {
	if h.fixed == "" {
		return
	}
	const script = `mount --rbind "$1" "$2" && cd "$2" && shift 2 && exec "$@"`
	cmd.Args = slices.Concat([]string{"sh", "-c", script, "sh", h.dir, h.fixed, cmd.Path}, cmd.Args[1:])
	cmd.Path = "/bin/sh"
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
}

// write makes the host's programs.
func (h *host) write(t *testing.T) {
	t.Helper()
	for name, text := range map[string]string{
		"hook.sh":  "#!/bin/sh\necho \"$DEPLOY_ACTION $(cat \"$NEWROOT/version\")\" >>calls\n! [ -e \"$NEWROOT/fail-hook\" ]\n",
		"check.sh": "#!/bin/sh\n! [ -e fail-check ]\n",
		"told.sh":  "#!/bin/sh\necho \"$DEPLOY_EVENT $DEPLOY_NAME\" >>told\n",
	} {
		if err := os.WriteFile(filepath.Join(h.dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// copy returns a host that has gone through the same.
func (h *host) copy(t *testing.T) *host {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "host")
	if out, err := exec.Command("cp", "-a", h.dir, dir).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v: %s", err, out)
	}
	if h.open {
		do(t, "chmod", "0711", filepath.Dir(dir), filepath.Dir(filepath.Dir(dir)))
	}
	return &host{s: h.s, dir: dir, name: h.name, more: h.more, verb: h.verb, open: h.open, fixed: h.fixed, versions: h.versions}
}

// run runs the agent until nothing is left to do, or it dies.
func (h *host) run(dieWhen string) (log string, err error) {
	cmd := h.agent(dieWhen)
	h.enter(cmd)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (h *host) agent(dieWhen string) *exec.Cmd {
	total := "20s"
	if strings.HasSuffix(h.name, "-check") {
		total = "1s" // that it fails takes as long
	}
	cmd := exec.Command("deploy-agent", "-name", h.name, "-once", "-script", "./hook.sh", "-notify", "./told.sh", "-verify-total", total,
		"-verify", "type=exec,arg="+filepath.Join(h.seen(), "check.sh"))
	cmd.Args = append(cmd.Args, h.more...)
	cmd.Dir = h.dir
	cmd.Env = append(h.s.env(), "TMPDIR="+h.seen(), "DEPLOY_AGENT_DIR="+h.seen()+"/agent", "DEPLOY_AGENT_STATE="+h.seen()+"/state.json", dieAt+"="+dieWhen)
	return cmd
}

// killedAndBack is one case. old is the version that serves before, if any.
func (h *host) killedAndBack(t *testing.T, way, old, dieWhen string) {
	log, err := h.run(dieWhen)
	late := strings.HasSuffix(dieWhen, ".writes") // where the kill can come after the end
	if !killed(err) && !late {
		t.Fatalf("the agent ended with %v and was not killed\n%s", err, log)
	}
	// I1: whatever happened, `current` names a whole root: the one that the
	// state says, unless the state's step had begun.
	switch got := h.serves(t); {
	case got != old && got != way:
		t.Errorf("after the kill %q serves", got)
	case !late && (got == way) != switched(agent.State(dieWhen), way == "good"):
		t.Errorf("after the kill %q serves\n%s", got, log)
	}
	want := way
	if way != "good" {
		want = old
	}
	again, err := h.run("")
	log += "--- again\n" + again
	if way == "good" {
		if err != nil {
			t.Errorf("the second agent ends with %v\n%s", err, log)
		}
	} else if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 9 {
		t.Errorf("the second agent ends with %v, want exit status 9\n%s", err, log)
	}
	if got := h.serves(t); got != want {
		t.Errorf("in the end %q serves, want %q\n%s", got, want, log)
	}
	h.checkCalls(t, way, old, log)
	h.checkRecord(t, log)
	h.checkTold(t, way != "good", log)
}

// checkTold: a person was told of what was rolled back, at least once.
func (h *host) checkTold(t *testing.T, rolledBack bool, log string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(h.dir, "told"))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil || strings.Contains(string(b), "rolled-back "+h.name+"\n") != rolledBack {
		t.Errorf("told %q, %v; rolled back: %t\n%s", b, err, rolledBack, log)
	}
}

// switched reports whether `current` names the new root when a state begins.
func switched(s agent.State, good bool) bool {
	return slices.Contains([]agent.State{agent.Hooking, agent.Verifying, agent.Committing, agent.Restoring}, s) || s == agent.Idle && good
}

// checkCalls: the supervisor outlives the agent, so no hook runs twice.
func (h *host) checkCalls(t *testing.T, way, old, log string) {
	t.Helper()
	var want []string
	if old != "" {
		want = append(want, "deploy "+old)
	}
	want = append(want, "deploy "+way)
	if old != "" && way != "good" {
		want = append(want, "rollback "+old)
	}
	b, err := os.ReadFile(filepath.Join(h.dir, "calls"))
	if err != nil {
		t.Error(err)
	}
	if got := strings.Split(strings.TrimSpace(string(b)), "\n"); !slices.Equal(got, want) {
		t.Errorf("hooks run: %q, want %q\n%s", got, want, log)
	}
}

// checkRecord: the machine is idle, and no unfinished root is left.
func (h *host) checkRecord(t *testing.T, log string) {
	t.Helper()
	var journal struct {
		Body struct {
			State agent.State
			Last  struct{ ID string }
		}
	}
	b, err := os.ReadFile(filepath.Join(h.dir, "agent/journal.json"))
	if err == nil {
		err = json.Unmarshal(b, &journal)
	}
	if err != nil || journal.Body.State != agent.Idle {
		t.Errorf("journal.json: state %q, %v\n%s", journal.Body.State, err, log)
	}
	h.checkEvidence(t, journal.Body.Last.ID, log)
	left, err := filepath.Glob(filepath.Join(h.dir, "agent/roots/.*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left in roots: %q, %v\n%s", left, err, log)
	}
}

// checkEvidence: the deployment that ended last has its evidence, whole, and so
// has each earlier one.
func (h *host) checkEvidence(t *testing.T, last, log string) {
	t.Helper()
	d := agent.OpenDeployments(filepath.Join(h.dir, "agent"))
	ids, err := d.IDs()
	if err != nil || !slices.Contains(ids, last) {
		t.Errorf("deployments %q, %v: %q is not among them\n%s", ids, err, last, log)
	}
	for _, id := range ids {
		e, err := d.Evidence(id)
		if err == nil && (e.Deployment.ID != id || e.Outcome == agent.UnderWay) {
			err = fmt.Errorf("it is about %s, %s", e.Deployment.ID, e.Outcome)
		}
		if err == nil {
			_, err = os.Stat(filepath.Join(h.dir, "agent/deployments", id, "evidence.json"))
		}
		if err == nil {
			err = d.WriteTar(id, io.Discard)
		}
		if err != nil {
			t.Errorf("%v\n%s", err, log)
		}
	}
}

// serves returns the version that `current` names, or nothing. Every byte of it
// has to be there, and nothing else.
func (h *host) serves(t *testing.T) string {
	t.Helper()
	link, err := os.Readlink(filepath.Join(h.dir, "agent/current"))
	if errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Dir(link) != "roots" || strings.HasPrefix(filepath.Base(link), ".") {
		t.Errorf("current is %q", link)
	}
	dir := filepath.Join(h.dir, "agent", link)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = string(b)
	}
	name, all := files["version"], versions
	if h.versions != nil {
		all = h.versions
	}
	if !maps.Equal(files, all[name]) {
		t.Errorf("current is %q, which is no whole version: %q", link, slices.Sorted(maps.Keys(files)))
	}
	return name
}
