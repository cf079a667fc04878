package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	syncatomic "sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"deploytools/verify"
	"deploytools/verify/spec"
)

// logbook is a log that may be read while an agent writes it.
type logbook struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logbook) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b.Reset()
}

// host is a directory with what runs on it. The agents on it are killed by
// looking at copies of the directory, made while they run.
type host struct {
	*testing.T
	dir      string
	src      *fakeRegistry
	o        Options
	hooks    *fakeHooks
	up       func() time.Duration          // since the boot; nil: of the real host
	env      func() bool                   // the environment fails: no look passes
	onLook   func(spec.Spec)               // is told of each look; nil: nobody is
	notAfter syncatomic.Pointer[time.Time] // what checks see of certificates
	patience time.Duration                 // with checks that fail, after the hook
	calls    []map[string]string
	logged   *logbook
	users    map[string]string // of roots, by their names
	seam     func(point string)
	agent    *Agent
}

// memoryDir is t.TempDir on a file system whose syncs cost nothing, if there is
// one: the tests kill processes, not disks.
func memoryDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "agent-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func newHost(t *testing.T, src *fakeRegistry) *host {
	h := &host{T: t, dir: memoryDir(t), src: src, logged: new(logbook)}
	t.Cleanup(h.namesItself)
	h.seam = func(string) {}
	h.hooks = &fakeHooks{h: h}
	h.o = Options{Name: "web", Dir: h.dir, Source: src, Mode: Mode{Once: true},
		Hook:   Hook{Script: "./deploy.sh"},
		Verify: spec.Spec{Checks: []spec.Check{{Type: spec.TCP, Addr: "127.0.0.1:1"}}}}
	return h
}

// namesItself looks whether each line of the log says once which configuration it is about:
// several may share a log.
func (h *host) namesItself() {
	for line := range strings.Lines(h.logged.String()) {
		if strings.Count(line, " configuration=") != 1 {
			h.Errorf("which configuration is not said once: %s", line)
		}
	}
}

// copied returns a host on a copy of the directory as it is now.
func (h *host) copied(to string) *host {
	must(os.CopyFS(to, os.DirFS(h.dir)))
	c := newHost(h.T, h.src)
	c.dir, c.o = to, h.o
	c.o.Dir = to
	c.hooks.exit, c.patience = h.hooks.exit, h.patience
	return c
}

// new makes the next agent on the host.
func (h *host) new() *Agent {
	h.Helper()
	o := h.o
	if o.Observe.Log == nil {
		o.Observe.Log = slog.New(slog.NewTextHandler(h.logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	enter := o.Observe.Enter
	o.Observe.Enter = func(s State) {
		if enter != nil {
			enter(s)
		}
		h.seam("entered " + string(s))
	}
	a, err := New(o)
	if err != nil {
		h.Fatal(err)
	}
	a.hooks = h.hooks
	a.look = looks{once: h.look, soak: h.soak, run: h.keepLooking}
	a.users = func(context.Context, string, []string) (map[string]string, error) { return h.users, nil }
	a.crash = func(point string) { h.seam(point) }
	if h.up != nil {
		a.uptime = h.up
	}
	h.agent = a
	return a
}

// run is one Run of a new agent.
func (h *host) run() error {
	h.Helper()
	return h.new().Run(h.Context())
}

func (h *host) look(ctx context.Context, s spec.Spec, v verify.Vars) verify.Report {
	r := verify.Report{OK: true}
	if h.onLook != nil {
		h.onLook(s)
	}
	for _, c := range s.WithDefaults().Checks {
		f := verify.Finding{Check: c.Name, Type: c.Type, Target: c.Target(), OK: true}
		if at := h.notAfter.Load(); at != nil {
			f.NotAfter = *at
		}
		serving, _ := os.ReadFile(h.dir + "/serving")
		switch {
		case ctx.Err() != nil:
			f.OK, f.Kind = false, verify.Cancelled
		case h.env != nil && h.env():
			f.OK, f.Kind, f.Detail = false, verify.Dial, "environment"
		case string(serving) != filepath.Base(v.NewRoot) && h.o.Hook.Script != "":
			f.OK, f.Kind, f.Detail = false, verify.Expect, fmt.Sprintf("%q serves", serving)
		case has(v.NewRoot, failVerify) == 1:
			f.OK, f.Kind, f.Detail = false, verify.Body, failVerify
		}
		r.OK = r.OK && f.OK
		r.Findings = append(r.Findings, f)
	}
	r.Verified = r.OK && len(r.Findings) > 0
	return r
}

// keepLooking looks every second until all checks pass or the patience is over.
func (h *host) keepLooking(ctx context.Context, s spec.Spec, v verify.Vars, missed func([]verify.Finding)) verify.Report {
	for end := time.Now().Add(h.patience); ; sleep(ctx, time.Second) {
		r := h.look(ctx, s, v)
		if missed != nil && !r.OK && ctx.Err() == nil {
			missed(r.Failed())
		}
		if r.OK || ctx.Err() != nil || !time.Now().Before(end) {
			return r
		}
	}
}

func (h *host) soak(ctx context.Context, s spec.Spec, v verify.Vars) verify.Report {
	h.seam("soaking")
	sleep(ctx, s.Soak)
	return h.look(ctx, s, v)
}

// live returns the version that is live, or "" on an empty host.
func (h *host) live() string {
	if r := h.agent.Record(); r.Live != nil {
		return r.Live.Configuration.Layers[0].Version
	}
	return ""
}

// runs counts the calls of the programs with this value of DEPLOY_ACTION.
func (h *host) runs(action string) int {
	n := 0
	for _, env := range h.calls {
		if env["DEPLOY_PHASE"] != "check" && env["DEPLOY_ACTION"] == action {
			n++
		}
	}
	return n
}

// want runs the agent and asserts how it ends, what is live, and the invariants.
func (h *host) want(live string, wantErr error) {
	h.Helper()
	if err := h.run(); !errors.Is(err, wantErr) {
		h.Fatalf("Run = %v, want %v\n%s", err, wantErr, h.logged)
	}
	if got := h.live(); got != live {
		h.Errorf("%q is live, want %q\n%s", got, live, h.logged)
	}
	h.invariants()
}

// serve runs a new agent in the background of a synctest bubble, as a daemon.
func (h *host) serve() (stop func()) {
	h.o.Mode.Once = false
	a := h.new()
	ctx, cancel := context.WithCancel(h.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	return func() {
		h.Helper()
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			h.Errorf("Run = %v, want to be cancelled", err)
		}
		h.o.Mode.Once = true
	}
}

// rollback has a person roll back.
func (h *host) rollback(to string) <-chan Result {
	h.Helper()
	_, outcome, err := h.agent.Rollback(h.Context(), to)
	if err != nil {
		h.Fatalf("Rollback(%q) = %v", to, err)
	}
	return outcome
}

// pass lets fake time pass, and everything that comes due in it.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// lines counts the log's lines of the level with this text in them.
func (h *host) lines(level, text string) int {
	n := 0
	for line := range strings.Lines(h.logged.String()) {
		if strings.Contains(line, "level="+level) && strings.Contains(line, text) {
			n++
		}
	}
	return n
}

// bubble is a test in fake time, with a host and its registry.
func bubble(t *testing.T, f func(t *testing.T, h *host)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, newHost(t, newFakeRegistry())) })
}

// needsRoot skips the test for whoever is not root. CI is, and fails.
func needsRoot(t testing.TB) {
	t.Helper()
	switch {
	case os.Geteuid() == 0:
	case os.Getenv("CI") != "":
		t.Fatal("CI should run this as root")
	default:
		t.Skip("needs root")
	}
}
