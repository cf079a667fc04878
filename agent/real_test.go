package agent

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"deploytools/verify"
	"deploytools/verify/spec"
)

// These tests run real scripts under the real supervisor and look at a real
// server, in real time.

// realHost returns a host whose server answers with the id that the script has
// made live.
func realHost(t *testing.T, script string) *host {
	h := newHost(t, newFakeRegistry())
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeFile(w, r, h.dir+"/id")
	}))
	t.Cleanup(server.Close)
	h.o.Hook.Script = h.dir + "/deploy.sh"
	h.o.Hook.Timeout = time.Minute
	h.o.Poll = Poll{Interval: time.Millisecond, MaxWait: time.Millisecond}
	h.o.Verify = spec.Spec{Total: 900 * time.Millisecond,
		Checks: []spec.Check{{Type: spec.HTTP, URL: server.URL, Body: "{newid}"}}}
	h.script("deploy.sh", script)
	return h
}

func (h *host) script(name, text string) {
	must(os.WriteFile(h.dir+"/"+name, []byte("#!/bin/sh\ncd \"$(dirname \"$DEPLOY_CURRENT\")\" || exit 9\n"+text), 0o755))
}

// runReal is one Run of a new agent with nothing faked but the registry.
func (h *host) runReal(ctx context.Context) error {
	a := h.new()
	a.hooks = &hookRunner{log: a.log()}
	a.look = looks{once: verify.Once, run: verify.RunTelling, soak: verify.Soak}
	return a.Run(ctx)
}

const makeLive = `
echo "$DEPLOY_ACTION $LAYER_0_VERSION $DEPLOY_ATTEMPT" >> calls
echo "this is $DEPLOY_ACTION"
test ! -e "$NEWROOT/fail-verify" && echo "$NEWID" > id
test ! -e "$NEWROOT/fail-hook"
`

func (h *host) calledAs() string {
	b, _ := os.ReadFile(h.dir + "/calls")
	return strings.ReplaceAll(strings.TrimSpace(string(b)), "\n", ", ")
}

func TestRealHookAndChecks(t *testing.T) {
	h := realHost(t, makeLive)
	for _, step := range []struct {
		version string
		layer   []byte
		live    string
		want    error
	}{
		{"v0", with(failHook), "", ErrRolledBack},
		{"v1", one("1"), "v1", nil},
		{"v2", with(failHook), "v1", ErrRolledBack},
		{"v3", with(failVerify), "v1", ErrRolledBack},
		{"v4", one("4"), "v4", nil},
	} {
		h.src.put(step.version, step.layer)
		if err := h.runReal(t.Context()); !errors.Is(err, step.want) {
			t.Fatalf("%s: Run = %v, want %v\n%s", step.version, err, step.want, h.logged)
		}
		if h.live() != step.live {
			t.Errorf("%s: %q is live, want %q", step.version, h.live(), step.live)
		}
	}
	want := "deploy v0 1, deploy v1 1, deploy v2 1, rollback v1 1, deploy v3 1, rollback v1 1, deploy v4 1"
	if got := h.calledAs(); got != want {
		t.Errorf("the script was called as %q, want %q", got, want)
	}
	if h.lines("INFO", "this is rollback") != 2 {
		t.Errorf("the script's output is not in the log\n%s", h.logged)
	}
	out, err := os.ReadFile(h.dir + "/deployments/" + h.agent.Record().Last.ID + "/deploy.output")
	if string(out) != "this is deploy\n" {
		t.Errorf("evidence of the output: %q, %v", out, err)
	}
	if r := h.agent.Record().Live; r.Verification != Verified {
		t.Errorf("v4 is %s", r.Verification)
	}
}

// A stop of the agent ends no hook, and the next agent takes its result.
func TestRealHookOutlivesTheAgent(t *testing.T) {
	h := realHost(t, "echo started > began; read x < go; "+makeLive)
	must(unix.Mkfifo(h.dir+"/go", 0o600))
	must(unix.Mkfifo(h.dir+"/began", 0o600))
	h.src.put("v1", one("1"))
	if err := h.stoppedInHook(); !errors.Is(err, context.Canceled) {
		t.Errorf("Run = %v", err)
	}
	if s := h.agent.Record().State; s != Hooking {
		t.Errorf("stopped in %s, want Hooking", s)
	}
	taken := make(chan struct{})
	go func() {
		defer close(taken)
		must(os.WriteFile(h.dir+"/go", []byte("go\n"), 0o600)) // waits for the script to read
	}()
	if err := h.runReal(t.Context()); err != nil {
		t.Errorf("Run = %v\n%s", err, h.logged)
	}
	<-taken
	if got := h.calledAs(); got != "deploy v1 1" || h.live() != "v1" {
		t.Errorf("the script was called as %q, %q is live", got, h.live())
	}
}

func TestRealHookPastItsDeadlineIsRolledBack(t *testing.T) {
	h := realHost(t, makeLive)
	h.src.put("v1", one("1"))
	if err := h.runReal(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.script("deploy.sh", `test "$DEPLOY_ACTION" = rollback || exec sleep 1000`+makeLive)
	h.o.Hook.Timeout = 300 * time.Millisecond
	h.src.put("v2", one("2"))
	if err := h.runReal(t.Context()); !errors.Is(err, ErrRolledBack) || !strings.Contains(err.Error(), "not done after 300ms") {
		t.Errorf("Run = %v\n%s", err, h.logged)
	}
	if h.live() != "v1" {
		t.Errorf("%q is live", h.live())
	}
}

func TestRealCheckScript(t *testing.T) {
	h := realHost(t, makeLive)
	h.o.Hook.CheckScript = h.dir + "/check.sh"
	h.script("check.sh", "test -e ready || exit 75\ntest ! -e \"$NEWROOT/fail-check\"\n")
	h.src.put("v1", one("1"))
	if err := h.runReal(t.Context()); err == nil || h.agent.Record().State != Checking || h.calledAs() != "" {
		t.Errorf("not now: Run = %v in %s", err, h.agent.Record().State)
	}
	must(os.WriteFile(h.dir+"/ready", nil, 0o600))
	if err := h.runReal(t.Context()); err != nil || h.live() != "v1" {
		t.Errorf("Run = %v, %q is live", err, h.live())
	}
	h.src.put("v2", with(failCheck))
	if err := h.runReal(t.Context()); !errors.Is(err, ErrRolledBack) || h.live() != "v1" || h.calledAs() != "deploy v1 1" {
		t.Errorf("Run = %v, %q is live, called as %q", err, h.live(), h.calledAs())
	}
}

func TestEvidenceOfTheOutputIsCapped(t *testing.T) {
	h := realHost(t, "head -c 3000000 /dev/zero; "+makeLive)
	h.src.put("v1", one("1"))
	if err := h.runReal(t.Context()); err != nil {
		t.Fatalf("Run = %v\n%s", err, h.logged)
	}
	info, err := os.Stat(h.dir + "/deployments/" + h.agent.Record().Last.ID + "/deploy.output")
	if err != nil || info.Size() > hookEvidence+100 || info.Size() < hookEvidence {
		t.Errorf("evidence: %v, %v", info, err)
	}
}

// Nothing was run for NEWROOT, so nothing has to be run to go back: the same
// program could not be started for that either.
func TestHookThatCannotBeStartedLeavesTheOldRootServing(t *testing.T) {
	h := realHost(t, makeLive)
	h.o.Verify.Checks = nil
	h.src.put("v1", one("1"))
	if err := h.runReal(t.Context()); err != nil {
		t.Fatalf("Run = %v\n%s", err, h.logged)
	}
	h.o.Observe.Enter = func(s State) {
		if s == Hooking { // after it was looked at
			must(os.Chmod(h.o.Hook.Script, 0o644))
		}
	}
	h.src.put("v2", one("2"))
	if err := h.runReal(t.Context()); !errors.Is(err, ErrRolledBack) || !strings.Contains(err.Error(), "chmod +x") {
		t.Errorf("Run = %v, want rolled back", err)
	}
	h.src.put("v3", one("3"))
	if err := h.runReal(t.Context()); err == nil || errors.Is(err, ErrRolledBack) || h.agent.Record().State != Checking {
		t.Errorf("Run = %v in %s, want to wait in Checking", err, h.agent.Record().State)
	}
	if link, _ := os.Readlink(h.dir + "/current"); h.live() != "v1" || link != h.agent.Record().Live.Dir {
		t.Errorf("%q is live, `current` names %q", h.live(), link)
	}
	if got := h.calledAs(); got != "deploy v1 1" {
		t.Errorf("the script was called as %q", got)
	}
}

// The hook of NEWROOT, which an agent has left, and that of OLDROOT do not run
// beside each other, whatever has begun the way back.
func TestRealWayBackWaitsForTheHook(t *testing.T) {
	for name, goBack := range map[string]func(h *host, old string){
		"moved by hand": func(h *host, old string) {
			must(os.Remove(h.dir + "/current"))
			must(os.Symlink(old, h.dir+"/current"))
		},
		"too many tries": func(h *host, _ string) {
			h.agent.rec.Tries = maxTries
			must(h.agent.save())
		},
	} {
		h := realHost(t, `test ! -e running || echo beside >> calls
if test $DEPLOY_ACTION$LAYER_0_VERSION = deployv2; then touch running; echo started > began; sleep 0.5; fi
`+makeLive+"rm -f running\n")
		h.src.put("v1", one("1"))
		must(h.runReal(t.Context()))
		must(unix.Mkfifo(h.dir+"/began", 0o600))
		h.src.put("v2", one("2"))
		h.stoppedInHook()
		goBack(h, h.agent.Record().Live.Dir)
		err := h.runReal(t.Context())
		if got := h.calledAs(); !errors.Is(err, ErrRolledBack) || got != "deploy v1 1, deploy v2 1, rollback v1 1" {
			t.Errorf("%s: Run = %v, the script was called as %q", name, err, got)
		}
	}
}

// stoppedInHook runs an agent until the script writes "started" into the fifo
// began, stops it there, and returns how it ended.
func (h *host) stoppedInHook() error {
	h.Helper()
	ctx, cancel := context.WithCancel(h.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- h.runReal(ctx) }()
	if b, err := os.ReadFile(h.dir + "/began"); string(b) != "started\n" { // waits for the script
		h.Fatalf("%q, %v", b, err)
	}
	cancel()
	return <-ended
}
