package cmd_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"deploytools/agent"
	"deploytools/registry/wire"
)

// TestCrashMatrixSelfUpdate lets a fault happen at each system call of an agent that
// deploys its own program, of the agent that its hook starts, and of their children:
// all of them are killed, as by a power cut, or only the process that makes the call,
// or the call fails. Then the service manager starts what is installed, as often as
// it takes. A program that works is live in the end, and one that does not is taken
// back. So is one that works if its hook fails by the fault: a call fails, or the new
// agent is killed before it is ready.
func TestCrashMatrixSelfUpdate(t *testing.T) {
	t.Parallel()
	s := startSite(t)
	ours := s.impatientAgent(t)
	programs := map[string][]byte{"ours": ours, "good": ours, "failing": []byte("#!/bin/sh\nexit 1\n"), "silent": []byte("#!/bin/sh\nexec sleep 1000\n")}
	for version, program := range programs {
		s.publishProgram(t, version, program)
	}
	const most = 240 // a usual run does not count
	ways := []string{"good", "failing", "silent"}
	kinds := []fault{{name: "kill", every: most}, {name: "kill of one", args: []string{"-one"}, every: most},
		{name: "EIO once", args: []string{"-err", "EIO"}, every: most}}
	sampled := everyPoint() != 1
	if turn := commit() / most; sampled {
		ways, kinds = ways[turn%3:turn%3+1], kinds[turn/3%3:turn/3%3+1]
	}
	for _, way := range ways {
		h := s.selfHost(t, "self-"+way, "ours")
		s.deployctl(t, "changeconf", "-name", h.name, "-component", "agent", "-version", way)
		points := most
		if !sampled {
			points = (&strickenSelf{before: h, way: way}).countPoints(t)
		}
		for _, f := range kinds {
			for n := range f.sample(t, points) {
				t.Run(fmt.Sprintf("%s/%s/%d", f.name, way, n), func(t *testing.T) {
					t.Parallel()
					(&strickenSelf{fault: f, before: h, way: way}).at(t, n)
				})
			}
		}
	}
}

// strickenSelf is a deployment of the agent's own program that a fault happens to.
type strickenSelf struct {
	fault
	before *selfHost // each case works on a copy
	way    string
}

// countPoints deploys without a fault and returns how many points that has.
func (c *strickenSelf) countPoints(t *testing.T) int {
	t.Helper()
	h := c.copy(t)
	h.settle(t, h.boot(t, "-log", h.file("points")))
	b, err := os.ReadFile(h.file("points"))
	points := bytes.Count(b, []byte("\n"))
	if err != nil || points < 50 {
		t.Fatalf("only %d points: nothing would be tested: %v: %s", points, err, b)
	}
	return points
}

// at lets the fault happen at the nth point.
func (c *strickenSelf) at(t *testing.T, n int) {
	t.Helper()
	h := c.copy(t)
	unit := h.boot(t, append([]string{"-n", strconv.Itoa(n)}, c.args...)...)
	settled := h.settle(t, unit)
	if c.args == nil { // a power cut, if the point was reached
		h.wholeRoot(t, n)
		settled = h.settle(t, h.boot(t))
	}
	if !settled {
		t.Errorf("%s, point %d: not at rest: programs %v, record %+v\n%s", c.name, n, h.programs(), h.record(), h.log())
		return
	}
	c.check(t, h, n)
}

// check: what works is live, and what does not is not.
func (c *strickenSelf) check(t *testing.T, h *selfHost, n int) {
	t.Helper()
	r, want, lastCall := h.record(), "good", "deploy good"
	back := c.way != "good" || c.args != nil && r.Last.Verdict == agent.Bad
	if back {
		want, lastCall = "ours", "rollback ours"
	}
	if got := h.wholeRoot(t, n); got != want || (len(r.Marks) == 1) != back || (r.Last.Verdict == agent.Bad) != back {
		t.Errorf("%s, point %d: %q is live, verdict %q %s, marks %v, want %q\n%s", c.name, n, got, r.Last.Verdict, r.Last.Reason, r.Marks, want, h.log())
	}
	// What a kill has left goes with the next collection.
	if ended := status(h.service(h.file("agent/current/bin/deploy-agent"), "-once", "-script", "").Run()); (ended == wire.OK) == back {
		t.Errorf("%s, point %d: the next run ends with %d\n%s", c.name, n, ended, h.log())
	}
	h.checkRecord(t, h.log())
	if found := h.inspect(t, agent.Inspection{All: true}); !found.Whole() {
		t.Errorf("%s, point %d: left is %+v\n%s", c.name, n, found.Roots, h.log())
	}
	b, err := os.ReadFile(h.file("calls"))
	calls := strings.Split(strings.TrimSpace(string(b)), "\n")
	if slices.Contains(calls, "beside another") || calls[len(calls)-1] != lastCall {
		t.Errorf("%s, point %d: hooks run: %q, %v\n%s", c.name, n, calls, err, h.log())
	}
}

// copy returns a host that has gone through the same, with a unit of its own.
func (c *strickenSelf) copy(t *testing.T) *selfHost {
	t.Helper()
	h := &selfHost{*c.before.host.copy(t)}
	dir, err := os.MkdirTemp("", "unit-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.WriteFile(h.file("orders"), []byte(dir+"/orders"), 0o600); err != nil {
		t.Fatal(err)
	}
	return h
}

// boot starts a manager of the agent's unit, under crashat if that has arguments.
func (h *selfHost) boot(t *testing.T, crashArgs ...string) (unit *exec.Cmd) {
	t.Helper()
	orders, err := os.ReadFile(h.file("orders"))
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(string(orders)) // of the boot before
	unit = h.service("unitd", filepath.Dir(string(orders)), h.file("agent/current/bin/deploy-agent"), h.file("agent/.back/bin/deploy-agent"),
		"-script", "./hook.sh")
	if len(crashArgs) > 0 {
		program, err := crashat()
		if err != nil {
			t.Fatal(err)
		}
		unit.Args = slices.Concat([]string{program, "-match", h.file("agent")}, crashArgs, []string{"--"}, unit.Args)
		unit.Path = program
	}
	if err := unit.Start(); err != nil {
		t.Fatal(err)
	}
	return unit
}

// settle waits until nothing is left to do, or the manager is killed, and ends it.
func (h *selfHost) settle(t *testing.T, unit *exec.Cmd) (atRest bool) {
	t.Helper()
	ended := make(chan struct{})
	go func() { unit.Wait(); close(ended) }()
	poll(func() (bool, error) {
		select {
		case <-ended:
			return true, nil
		default:
		}
		atRest = h.atRest()
		return atRest, nil
	})
	unit.Process.Signal(syscall.SIGTERM)
	<-ended
	return atRest
}

// atRest: the new revision is decided, and the one agent is that of the live root.
func (h *selfHost) atRest() bool {
	r := h.record()
	if r.State != agent.Idle || r.Last == nil || r.Last.New.Configuration.Revision != 2 {
		return false
	}
	link, err := os.Readlink(h.file("agent/current"))
	all := h.programs()
	for _, root := range all {
		return err == nil && len(all) == 1 && root == filepath.Base(link)
	}
	return false
}

// record returns the agent's record, as far as it can be read.
func (h *selfHost) record() agent.Record {
	var journal struct{ Body agent.Record }
	b, err := os.ReadFile(h.file("agent/journal.json"))
	if err == nil {
		json.Unmarshal(b, &journal)
	}
	return journal.Body
}

// wholeRoot returns the version that `current` names, whose program is all there.
func (h *selfHost) wholeRoot(t *testing.T, n int) string {
	t.Helper()
	version, err := os.ReadFile(h.file("agent/current/version"))
	if err != nil {
		t.Errorf("point %d: no root is live: %v\n%s", n, err, h.log())
		return ""
	}
	want, err := os.ReadFile(h.s.file("tree-" + string(version) + "/bin/deploy-agent"))
	got, err2 := os.ReadFile(h.file("agent/current/bin/deploy-agent"))
	if err != nil || err2 != nil || !bytes.Equal(got, want) {
		t.Errorf("point %d: the program of %q has %d bytes, want %d: %v, %v", n, version, len(got), len(want), err, err2)
	}
	return string(version)
}
