package agent

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"deploytools/layers/digest"
	"deploytools/registry/wire"
)

func TestRootIsNeverUsedAgain(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.src.put("v1", one("1"))
		h.want("v1", nil)
		tampered := h.agent.Record().Live.Dir
		must(os.WriteFile(h.dir+"/"+tampered+"/v", []byte("tampered"), 0o644))
		h.src.put("v2", one("2"))
		if err := h.run(); err != nil {
			t.Fatal(err)
		}
		h.src.put("v1", one("1"))
		if err := h.run(); err != nil {
			t.Fatal(err)
		}
		b, _ := os.ReadFile(h.dir + "/current/v")
		if dir := h.agent.Record().Live.Dir; string(b) != "1" || dir == tampered {
			t.Errorf("%s holds %q, want a new root with 1", dir, b)
		}
	})
}

func TestFlippedBitInTheCacheIsFetchedAgain(t *testing.T) {
	for _, at := range []string{"entered Unpacking", "entered Idle"} {
		bubble(t, func(t *testing.T, h *host) {
			c := h.src.put("v1", one("1"))
			file := h.dir + "/cache/" + c.Layers[0].Hash.String()
			done := false
			h.seam = func(p string) {
				if p == at && !done {
					done = true
					flip(file)
				}
			}
			stop := h.serve()
			pass(time.Minute)
			h.src.put("v1b", one("1")) // relabelled: not unpacked
			pass(time.Minute)
			h.src.set(func() { h.src.blobs[digest.Of(one("2"))] = one("2") })
			more := wire.Layer{Name: "more", Version: "1", Hash: digest.Of(one("2"))}
			h.src.announce(&wire.Configuration{Name: "web", Layers: []wire.Layer{{Name: "code", Version: "v1b", Hash: c.Layers[0].Hash}, more}})
			pass(time.Hour)
			stop()
			if err := proved(file, c.Layers[0].Hash); err != nil || h.live() != "v1b" || len(h.src.offsets) != 3 {
				t.Errorf("flipped at %q: %v; %q is live after %d fetches, want 3\n%s", at, err, h.live(), len(h.src.offsets), h.logged)
			}
			if len(h.agent.Record().Marks) > 0 {
				t.Errorf("flipped at %q: marked %v", at, h.agent.Record().Marks)
			}
			h.invariants()
		})
	}
}

func TestTransferGoesOnWhereItWasCut(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		layer := one(strings.Repeat("0123456789", 1000))
		h.src.put("v1", layer)
		h.src.fetch = func(d digest.Digest, offset int64, w io.Writer) error {
			if _, err := w.Write(layer[offset:min(offset+30, int64(len(layer)))]); err != nil {
				return err
			}
			if offset+30 < int64(len(layer)) {
				return wire.ErrUnreachable
			}
			return nil
		}
		for h.run() != nil && len(h.src.offsets) < 100 {
		}
		for i, offset := range h.src.offsets {
			if offset != int64(i)*30 {
				t.Errorf("fetch %d from %d, want %d", i, offset, i*30)
			}
		}
		if h.live() != "v1" || len(h.src.offsets) < 2 {
			t.Errorf("%q is live after %d fetches", h.live(), len(h.src.offsets))
		}
	})
}

func TestWhatIsNotTheLayerIsNotKept(t *testing.T) {
	for name, lie := range map[string]func(layer []byte, w io.Writer) error{
		"another layer": func(layer []byte, w io.Writer) error {
			_, err := w.Write(bytes.Repeat([]byte("x"), len(layer)))
			return err
		},
		"too long":  func(layer []byte, w io.Writer) error { _, err := w.Write(append(layer, 0)); return err },
		"too short": func(layer []byte, w io.Writer) error { _, err := w.Write(layer[:9]); return err },
		"nothing":   func([]byte, io.Writer) error { return nil },
		"a panic":   func([]byte, io.Writer) error { panic("hostile") },
	} {
		bubble(t, func(t *testing.T, h *host) {
			layer := one("1")
			h.src.put("v1", layer)
			h.src.fetch = func(_ digest.Digest, _ int64, w io.Writer) error { return lie(layer, w) }
			stop := h.serve()
			pass(time.Hour)
			if s := h.agent.Record().State; s != Fetching || len(h.agent.Record().Marks) > 0 {
				t.Errorf("%s: in %s with marks %v, want to go on asking", name, s, h.agent.Record().Marks)
			}
			if n := len(h.src.offsets); n < 5 || n > 300 {
				t.Errorf("%s: %d fetches in an hour", name, n)
			}
			h.src.set(func() { h.src.fetch = nil })
			pass(time.Hour)
			stop()
			if h.live() != "v1" {
				t.Errorf("%s: %q is live\n%s", name, h.live(), h.logged)
			}
		})
	}
}

func TestCacheMayBeDeleted(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.src.put("v1", one("1"))
		h.want("v1", nil)
		stop := h.serve()
		pass(time.Minute)
		must(os.RemoveAll(h.dir + "/cache"))
		h.src.put("v2", one("2"))
		pass(10 * time.Minute)
		stop()
		if h.live() != "v2" {
			t.Errorf("%q is live\n%s", h.live(), h.logged)
		}
	})
}
