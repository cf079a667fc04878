package agent

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"deploytools/layers/digest"
	"deploytools/layers/manifest"
	"deploytools/registry/wire"
	"deploytools/verify"
	"deploytools/verify/spec"
)

// files are the content of a layer, by path.
type files map[string]string

// archive makes a layer.
func archive(f files) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, name := range slices.Sorted(maps.Keys(f)) {
		must(w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(f[name])), Typeflag: tar.TypeReg}))
		_, err := io.WriteString(w, f[name])
		must(err)
	}
	must(w.Close())
	must(z.Close())
	return b.Bytes()
}

// fakeRegistry is a Source. Its fields may be set between runs.
type fakeRegistry struct {
	mu      sync.Mutex
	now     *wire.Configuration // nil: no such configuration
	history uint64
	blobs   map[digest.Digest][]byte
	down    error                                                  // of every call
	fetch   func(d digest.Digest, offset int64, w io.Writer) error // instead of the blob's bytes
	polls   int
	offsets []int64 // asked for
}

func newFakeRegistry() *fakeRegistry {
	return &fakeRegistry{blobs: map[digest.Digest][]byte{}}
}

// put makes a new revision of one layer, under the version's name.
func (r *fakeRegistry) put(version string, layer []byte) *wire.Configuration {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.history++
	d := digest.Of(layer)
	r.blobs[d] = layer
	c := &wire.Configuration{Name: "web", Revision: r.history, Mtime: time.Unix(1e9, 0).UTC(),
		Layers: []wire.Layer{{Name: "code", Version: version, Hash: d, Size: int64(len(layer)), Ctime: time.Unix(1e9, 0).UTC()}}}
	c.Seal()
	r.now = c
	return c
}

func (r *fakeRegistry) fails(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.down = err
}

func (r *fakeRegistry) Poll(_ context.Context, name string) (wire.PollState, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.polls++
	if r.down != nil || r.now == nil {
		return wire.PollState{Name: name}, r.down
	}
	return wire.PollState{Name: name, Revision: r.now.Revision, Digest: r.now.Digest}, nil
}

func (r *fakeRegistry) Configuration(context.Context, string) (*wire.Configuration, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now, r.down
}

func (r *fakeRegistry) Fetch(_ context.Context, d digest.Digest, offset int64, w io.Writer) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.offsets = append(r.offsets, offset)
	if r.down != nil {
		return r.down
	}
	if r.fetch != nil {
		return r.fetch(d, offset, w)
	}
	b, ok := r.blobs[d]
	if !ok {
		return wire.ErrNotFound
	}
	_, err := w.Write(b[offset:])
	return err
}

func (r *fakeRegistry) Close() error { return nil }

// A layer that holds this file makes the program or look of that name fail.
const (
	failCheck  = "fail-check"
	failHook   = "fail-hook"
	failVerify = "fail-verify"
)

// fakeHooks stands for the host's programs under their supervisor: a result is
// kept in the deployment's directory until forget. The script makes NEWROOT
// serve by writing its name to the file serving.
type fakeHooks struct {
	h    *host
	exit func(env map[string]string) int // nil: by the files in NEWROOT
}

func (f *fakeHooks) run(ctx context.Context, c hookCall, onLine func(string)) (hookResult, error) {
	status := c.file("status.json")
	r := hookResult{Path: c.Path, Attempt: 1}
	if b, err := os.ReadFile(status); err == nil {
		must(json.Unmarshal(b, &r))
		return r, nil
	}
	if ctx.Err() != nil {
		return r, context.Cause(ctx)
	}
	env := map[string]string{}
	for _, e := range c.Env {
		name, value, _ := strings.Cut(e, "=")
		env[name] = value
	}
	f.h.calls = append(f.h.calls, env)
	f.h.seam("before " + c.Label)
	r.Exit = f.effect(env)
	f.h.seam("after " + c.Label)
	b, err := json.Marshal(r)
	must(err)
	must(os.WriteFile(status, b, 0o600))
	return r, nil
}

func (f *fakeHooks) effect(env map[string]string) int {
	if f.exit != nil {
		if n := f.exit(env); n != 0 {
			return n
		}
	}
	if env["DEPLOY_PHASE"] == "check" {
		return has(env["NEWROOT"], failCheck)
	}
	// A script that fails has often done half of its work.
	must(os.WriteFile(f.h.dir+"/serving", []byte(filepath.Base(env["NEWROOT"])), 0o600))
	return has(env["NEWROOT"], failHook)
}

func has(root, name string) int {
	if _, err := os.Lstat(filepath.Join(root, name)); root != "" && err == nil {
		return 1
	}
	return 0
}

func (f *fakeHooks) forget(dir, label string) error {
	return os.RemoveAll(filepath.Join(dir, label+".status.json"))
}

// host is a directory with what runs on it. The agents on it are killed by
// looking at copies of the directory, made while they run.
type host struct {
	*testing.T
	dir    string
	src    *fakeRegistry
	o      Options
	hooks  *fakeHooks
	env    func() bool // the environment fails: no look passes
	calls  []map[string]string
	logged *bytes.Buffer
	seam   func(point string)
	agent  *Agent
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
	h := &host{T: t, dir: memoryDir(t), src: src, logged: new(bytes.Buffer)}
	h.seam = func(string) {}
	h.hooks = &fakeHooks{h: h}
	h.o = Options{Name: "web", Dir: h.dir, Source: src, Mode: Mode{Once: true},
		Hook:   Hook{Script: "./deploy.sh"},
		Verify: spec.Spec{Checks: []spec.Check{{Type: spec.TCP, Addr: "127.0.0.1:1"}}}}
	return h
}

// copied returns a host on a copy of the directory as it is now.
func (h *host) copied(to string) *host {
	must(os.CopyFS(to, os.DirFS(h.dir)))
	c := newHost(h.T, h.src)
	c.dir, c.o = to, h.o
	c.o.Dir = to
	c.hooks.exit = h.hooks.exit
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
	a.look = looks{h.look, h.look, h.soak}
	a.crash = func(point string) { h.seam(point) }
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
	for _, c := range s.WithDefaults().Checks {
		f := verify.Finding{Check: c.Name, Type: c.Type, Target: c.Target(), OK: true}
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

// invariants asserts what must be true of a host whose agent came to rest.
func (h *host) invariants() {
	h.Helper()
	r, err := h.agent.load()
	if err != nil || r == nil {
		h.Fatalf("no record: %v", err)
	}
	if r.State != Idle && r.State != Broken {
		h.Errorf("I2: came to rest in %s", r.State)
	}
	link, err := h.agent.link()
	must(err)
	switch {
	case r.Live == nil && link != "" && r.State == Idle:
		h.Errorf("I1: `current` names %s, and nothing is live", link)
	case r.Live != nil && link != r.Live.Dir && r.State == Idle && r.Hold == nil:
		h.Errorf("I1: `current` names %s, and %s is live", link, r.Live.Dir)
	}
	for _, root := range []*Root{r.Live, r.Back} {
		if root == nil {
			continue
		}
		if root.Committed.IsZero() {
			h.Errorf("I3: %s is not committed", root.Dir)
		}
		if _, err := os.Stat(h.dir + "/" + root.Dir); err != nil {
			h.Errorf("I7: %v", err)
		}
	}
	h.complete()
	if serving, _ := os.ReadFile(h.dir + "/serving"); r.State == Idle && r.Live != nil && h.o.Hook.Script != "" &&
		r.Hold == nil && string(serving) != filepath.Base(r.Live.Dir) {
		h.Errorf("I2: %q serves, and %s is live", serving, r.Live.Dir)
	}
	if r.Live != nil && r.Live.Verification == Verified && r.State == Idle && h.env == nil {
		if has(h.dir+"/"+r.Live.Dir, failVerify) == 1 || has(h.dir+"/"+r.Live.Dir, failHook) == 1 {
			h.Error("I10: a bad root is shown as verified")
		}
	}
	if r.Last != nil && r.Last.New.Configuration.Revision > 0 && (r.Last.Verdict == Bad) != slices.ContainsFunc(r.Marks, func(m Mark) bool { return m.Digest == r.Last.New.Configuration.Digest }) {
		h.Errorf("I4: verdict %q, marks %v", r.Last.Verdict, r.Marks)
	}
}

// complete compares every root that has a name with its manifest.
func (h *host) complete() {
	h.Helper()
	entries, err := os.ReadDir(h.dir + "/roots")
	must(err)
	for _, e := range entries {
		if !e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		dir := h.dir + "/roots/" + e.Name()
		f, err := os.Open(dir + ".manifest")
		if err != nil {
			h.Errorf("I6: %s has no manifest: %v", e.Name(), err)
			continue
		}
		m, err := manifest.Decode(f)
		must(err)
		f.Close()
		var have []string
		filepath.WalkDir(dir, func(p string, e os.DirEntry, err error) error {
			if p != dir {
				have = append(have, strings.TrimPrefix(p, dir+"/"))
			}
			return err
		})
		var want []string
		for _, e := range m {
			want = append(want, e.Path)
			if b, err := os.ReadFile(dir + "/" + e.Path); e.Type == manifest.File && (err != nil || digest.Of(b) != e.Digest) {
				h.Errorf("I1: %s/%s: %v, or another content", dir, e.Path, err)
			}
		}
		slices.Sort(have)
		if !slices.Equal(have, want) {
			h.Errorf("I1: %s holds %q, want %q", dir, have, want)
		}
	}
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
