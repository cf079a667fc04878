package agent

import (
	"bytes"
	"context"
	"errors"
	"io"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"deploytools/layers/digest"
	"deploytools/layers/manifest"
	"deploytools/registry/wire"
)

// noise is content that cannot be compressed.
func noise(n int) string {
	b := make([]byte, n)
	mathrand.NewChaCha8([32]byte{1}).Read(b)
	return string(b)
}

// large is a layer whose first file is whole long before the rest.
func large() []byte {
	return archive(files{"a": noise(1 << 20), "b": noise(3 << 20), "v": "1"})
}

// staged lists what lies in roots that are not complete.
func (h *host) staged(pattern string) []string {
	found, err := filepath.Glob(h.dir + "/roots/.*.partial" + pattern)
	must(err)
	return found
}

func TestLayerIsUnpackedWhileItArrives(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		layer := large()
		h.src.put("v1", layer)
		h.src.fetch = func(_ digest.Digest, offset int64, w io.Writer) error {
			half := layer[:len(layer)/2]
			if _, err := w.Write(half); err != nil {
				return err
			}
			synctest.Wait()
			if found := h.staged("/a"); len(found) != 1 {
				t.Errorf("half of the layer has come, and a lies in %q", found)
			}
			if names, _ := filepath.Glob(h.dir + "/roots/0*"); len(names) > 0 {
				t.Errorf("roots have names before they are proved: %q", names)
			}
			_, err := w.Write(layer[len(half):])
			return err
		}
		h.want("v1", nil)
		if r := h.agent.Record(); r.Live.Dir != "roots/"+r.Last.ID {
			t.Errorf("%s is live, so that it was unpacked twice", r.Live.Dir)
		}
	})
}

// A cut of the transfer ends neither it nor what was unpacked.
func TestUnpackingGoesOnOverACut(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		layer := large()
		h.src.put("v1", layer)
		h.src.fetch = inParts(layer, 1<<20)
		stop := h.serve()
		pass(time.Hour)
		stop()
		if r := h.agent.Record(); h.live() != "v1" || r.Live.Dir != "roots/"+r.Last.ID || len(h.src.offsets) != 5 {
			t.Errorf("%q is live after fetches from %v\n%s", h.live(), h.src.offsets, h.logged)
		}
		h.invariants()
	})
}

// What was unpacked of another layer is not there any more when the right one
// comes, however much alike they begin.
func TestWhatWasUnpackedOfAWrongLayerIsDropped(t *testing.T) {
	for name, wrong := range map[string]func(right []byte) []byte{
		"other bytes":  func(right []byte) []byte { b := bytes.Clone(right); b[len(b)-1] ^= 1; return b },
		"a trap":       func(right []byte) []byte { return padded(archive(files{"a": "wrong", "../x": ""}), len(right)) },
		"too much":     func(right []byte) []byte { return append(bytes.Clone(right), 0) },
		"too little":   func(right []byte) []byte { return right[:len(right)-1] },
		"another tree": func(right []byte) []byte { return padded(archive(files{"wrong": ""}), len(right)) },
	} {
		bubble(t, func(t *testing.T, h *host) {
			layer := large()
			c := h.src.put("v1", layer)
			c.Layers[0].Size = 0 // so that any length is taken
			h.src.announce(c)
			h.src.fetch = func(_ digest.Digest, offset int64, w io.Writer) error {
				h.src.fetch = nil
				_, err := w.Write(wrong(layer))
				return err
			}
			stop := h.serve()
			pass(time.Hour)
			stop()
			b, _ := os.ReadFile(h.dir + "/current/a")
			if h.live() != "v1" || string(b) != noise(1<<20) || has(h.dir+"/current", "wrong") != 0 || len(h.agent.Record().Marks) > 0 {
				t.Errorf("%s: %q is live, marks %v\n%s", name, h.live(), h.agent.Record().Marks, h.logged)
			}
			if left := h.staged(""); len(left) > 0 {
				t.Errorf("%s: left is %q", name, left)
			}
			h.invariants()
		})
	}
}

func padded(b []byte, n int) []byte { return append(b, make([]byte, max(n-len(b), 0))...) }

// If unpacking is what ends the process, it has to be Unpacking, which counts.
func TestNothingIsUnpackedAheadAfterAnEndInFetching(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		layer := large()
		h.src.put("v1", layer)
		points, hosts := h.killed(memoryDir(t))
		for i, p := range points {
			if !strings.HasSuffix(p, "effect of Fetching") && !strings.HasSuffix(p, "entered Fetching") {
				continue
			}
			k := hosts[i]
			must(os.RemoveAll(k.dir + "/cache"))
			k.src.fetch = func(_ digest.Digest, offset int64, w io.Writer) error {
				_, err := w.Write(layer[offset:])
				synctest.Wait()
				if k.agent.ahead != nil {
					t.Errorf("after a kill at %q it is unpacked ahead", p)
				}
				return err
			}
			k.want("v1", nil)
			k.src.fetch = nil
		}
	})
}

// A deployment that ends before it was fetched leaves no tree.
func TestSupersededFetchLeavesNoTree(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		layer := large()
		h.src.put("v1", layer)
		h.src.fetch = func(_ digest.Digest, offset int64, w io.Writer) error {
			if offset == 0 {
				if _, err := w.Write(layer[:len(layer)/2]); err != nil {
					return err
				}
			}
			return wire.ErrUnreachable
		}
		stop := h.serve()
		pass(time.Minute)
		if found := h.staged("/a"); len(found) != 1 {
			t.Errorf("before: %q", found)
		}
		h.src.put("v2", one("2"))
		h.src.set(func() { h.src.fetch = nil })
		pass(time.Hour)
		stop()
		if left := h.staged(""); len(left) > 0 || h.live() != "v2" {
			t.Errorf("%q is live, left is %q", h.live(), left)
		}
	})
}

func TestProgressIsTold(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		layer := archive(files{"a": noise(4 << 20)})
		h.src.put("v1", layer)
		var told []string
		h.o.Observe.Notify = func(s string) { told = append(told, s) }
		var seen []Progress
		h.src.fetch = func(_ digest.Digest, offset int64, w io.Writer) error {
			for at := 0; at < len(layer); at += 64 << 10 {
				time.Sleep(time.Second)
				if _, err := w.Write(layer[at:min(at+64<<10, len(layer))]); err != nil {
					return err
				}
				seen = append(seen, *h.agent.Status().Coming)
			}
			return nil
		}
		h.want("v1", nil)
		p := seen[len(seen)/2]
		if p.Layer != "code:v1" || p.Total != int64(len(layer)) || p.Bytes != int64(len(seen)/2+1)*64<<10 || p.Rate != 64<<10 {
			t.Errorf("in the middle: %+v", p)
		}
		line := "web: Fetching, revision 1: code:v1, 2.2 MiB of 4.0 MiB (54%), 64.0 KiB/s"
		if all := strings.Join(told, "\n"); !strings.Contains(all, line) || len(told) > 40 || h.agent.Status().Coming != nil {
			t.Errorf("status was\n%s\nwant a line\n%s", all, line)
		}
		if n := h.lines("INFO", "layer arriving"); n != 2 {
			t.Errorf("%d lines about %d s\n%s", n, len(seen), h.logged)
		}
		if h.agent.Progress() != nil {
			t.Errorf("afterwards: %+v", h.agent.Progress())
		}
	})
}

// After a power loss the part that was there has its length, and other bytes.
func TestDamagedPartOfALayerIsFetchedAnew(t *testing.T) {
	layer := large()
	for name, part := range map[string][]byte{
		"a part": make([]byte, 1000), "all of it": make([]byte, len(layer)), "more": make([]byte, len(layer)+1),
	} {
		bubble(t, func(t *testing.T, h *host) {
			c := h.src.put("v1", layer)
			must(os.Mkdir(h.dir+"/cache", 0o755))
			must(os.WriteFile(h.dir+"/cache/."+c.Layers[0].Hash.String()+".partial", part, 0o600))
			h.want("v1", nil)
			if n := h.lines("WARN", "part of a layer damaged"); n != 1 {
				t.Errorf("%s: %d lines\n%s", name, n, h.logged)
			}
		})
	}
}

// There is room for the layer and its root, but not for a second root: what was
// unpacked before a cut is not in the way of the next try.
func TestRoomTakenAheadIsNotCountedTwice(t *testing.T) {
	needsRoot(t)
	bubble(t, func(t *testing.T, h *host) {
		h.dir = t.TempDir()
		h.o.Dir = h.dir
		must(unix.Mount("none", h.dir, "tmpfs", 0, "size=12m"))
		t.Cleanup(func() { unix.Unmount(h.dir, unix.MNT_DETACH) })
		layer := large()
		c := h.src.put("v1", layer)
		c.Layers[0].Unpacked, c.Layers[0].Entries = 4<<20, 3
		h.src.announce(c)
		h.src.fetch = inParts(layer, 3<<20)
		stop := h.serve()
		pass(time.Hour)
		stop()
		if h.live() != "v1" || h.lines("WARN", "no room") > 0 {
			t.Errorf("%q is live\n%s", h.live(), h.logged)
		}
	})
}

// inParts is a line that is cut after so many bytes of the layer.
func inParts(layer []byte, step int64) func(digest.Digest, int64, io.Writer) error {
	return func(_ digest.Digest, offset int64, w io.Writer) error {
		end := min(offset+step, int64(len(layer)))
		if _, err := w.Write(layer[offset:end]); err != nil || end == int64(len(layer)) {
			return err
		}
		return wire.ErrUnreachable
	}
}

// Sealing a root of a million names takes a while, in which the agent is to end, or
// to be seen alive.
func TestSealingIsAliveAndEnds(t *testing.T) {
	a := &Agent{}
	a.pulse.since = time.Now().Add(-time.Hour)
	a.pulse.within(-pulseSlack - time.Minute) // long gone
	if a.Alive() {
		t.Fatal("alive without a sign of life")
	}
	all := manifest.Manifest{{Path: "a"}, {Path: "b"}}
	if got, err := manifest.Collect(a.paced(t.Context(), all.All())); err != nil || len(got) != 2 || !a.Alive() {
		t.Errorf("%v, %v, alive: %t", got, err, a.Alive())
	}
	errStop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	n := 0
	for _, err := range a.paced(ctx, all.All()) {
		if n++; n == 2 && err != errStop {
			t.Errorf("the second is %v", err)
		}
		cancel(errStop)
	}
	if n != 2 {
		t.Errorf("%d entries, want one and an error", n)
	}
}
