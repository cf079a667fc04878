package agent

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"deploytools/atomic"
	"deploytools/layers/digest"
	"deploytools/registry/wire"
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

// fakeRegistry is a Source. While an agent runs, set changes its fields.
type fakeRegistry struct {
	mu      sync.Mutex
	now     *wire.Configuration // nil: no such configuration
	hold    *wire.Hold
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

// set changes the registry while an agent may be asking it.
func (r *fakeRegistry) set(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
}

// announce makes c the configuration, as its next revision.
func (r *fakeRegistry) announce(c *wire.Configuration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.history++
	c.Revision = r.history
	c.Seal()
	r.now = c
}

func (r *fakeRegistry) Poll(_ context.Context, name string) (wire.PollState, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.polls++
	if r.down != nil || r.now == nil {
		return wire.PollState{Name: name}, r.down
	}
	return wire.PollState{Name: name, Revision: r.now.Revision, Digest: r.now.Digest, Hold: r.hold}, nil
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

	unready map[string]error // programs that cannot be started
	ended   []string         // programs that end was called for
	deaf    int              // so many times quiet cannot look
}

func (f *fakeHooks) run(ctx context.Context, c hookCall, onLine func(string)) (hookResult, error) {
	status := c.file("status.json")
	r := hookResult{Path: c.Path, Attempt: 1, Started: now()}
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
	must(writeDocument(c.file("attempt.json"), hookAttempt{Format: hookFormat, Attempt: r.Attempt}))
	f.h.calls = append(f.h.calls, env)
	if c.began != nil {
		c.began()
	}
	f.h.seam("before " + c.Label)
	must(os.WriteFile(c.file("output"), []byte(c.Label+" of "+env["DEPLOY_ID"]+"\n"), 0o600))
	r.Exit = f.effect(env)
	f.h.seam("after " + c.Label)
	b, err := json.Marshal(hookStatus{Format: hookFormat, hookResult: r})
	must(err)
	must(atomic.WriteFile(status, b, 0o600))
	return r, nil
}

func (f *fakeHooks) quiet(context.Context, string) error {
	if f.deaf == 0 {
		return nil
	}
	f.deaf--
	return unix.EMFILE
}

func (f *fakeHooks) end(_ context.Context, dir, label string) error {
	f.ended = append(f.ended, label+" of "+filepath.Base(dir))
	return nil
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
	must(atomic.WriteFile(f.h.dir+"/serving", []byte(filepath.Base(env["NEWROOT"])), 0o600))
	return has(env["NEWROOT"], failHook)
}

func has(root, name string) int {
	if _, err := os.Lstat(filepath.Join(root, name)); root != "" && err == nil {
		return 1
	}
	return 0
}

func (f *fakeHooks) startable(path string) error { return f.unready[path] }

func (f *fakeHooks) readable(string) error { return nil }

func (f *fakeHooks) forget(dir, label string) error {
	return os.RemoveAll(filepath.Join(dir, label+".status.json"))
}
