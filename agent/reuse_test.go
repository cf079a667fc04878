package agent

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/sys/unix"

	"deploytools/registry/wire"
)

// putOver makes a new revision of two layers, of which the base is linked.
func (h *host) putOver(version string, base, code files) *wire.Configuration {
	h.o.Link = []string{"base"}
	below := h.src.put("b", archive(base)).Layers[0]
	below.Name = "base"
	c := h.src.put(version, archive(code))
	c.Layers = []wire.Layer{c.Layers[0], below}
	h.src.announce(c)
	return c
}

// sameTimes gives the files of roots their times in a copy.
func (h *host) sameTimes(k *host) {
	must(filepath.WalkDir(h.dir+"/roots", func(p string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		return os.Chtimes(k.dir+strings.TrimPrefix(p, h.dir), info.ModTime(), info.ModTime())
	}))
}

func linksOf(path string) int {
	var st unix.Stat_t
	must(unix.Lstat(path, &st))
	return int(st.Nlink)
}

var base = files{"lib/a": "one", "lib/b": "two", "lib/c": "three"}

func TestUnchangedLayerIsTakenFromTheLiveRoot(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		for n, v := range []string{"v1", "v2", "v3"} {
			h.putOver(v, base, files{"v": v})
			h.want(v, nil)
			if got := linksOf(h.dir + "/current/lib/a"); got != n+1 {
				t.Errorf("%s: %d links to a file that stayed\n%s", v, got, h.logged)
			}
			if got := linksOf(h.dir + "/current/v"); got != 1 {
				t.Errorf("%s: %d links to a file of another layer", v, got)
			}
		}
	})
}

// The archive is not even opened: it could as well be damaged.
func TestUnchangedLayerIsNotRead(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		below := h.putOver("v1", base, files{"v": "1"}).Layers[1]
		h.want("v1", nil)
		flip(h.dir + "/cache/" + below.Hash.String())
		h.putOver("v2", base, files{"v": "2"})
		h.want("v2", nil)
		if r := h.agent.Record(); r.Live.Dir != "roots/"+r.Last.ID || linksOf(h.dir+"/current/lib/a") != 2 {
			t.Errorf("%s is live: the layer was read\n%s", r.Live.Dir, h.logged)
		}
	})
}

func TestModifiedFilesDoNotArriveInTheNewRoot(t *testing.T) {
	for name, modify := range map[string]func(path string){
		"content":  func(p string) { must(os.WriteFile(p, []byte("ONE"), 0o644)) },
		"mode":     func(p string) { must(os.Chmod(p, 0o666)) },
		"replaced": func(p string) { must(os.Remove(p)); must(os.WriteFile(p, []byte("ONE"), 0o644)) },
		"gone":     func(p string) { must(os.Remove(p)) },
		"index":    func(p string) { flip(filepath.Clean(filepath.Dir(p)+"/..") + ".index") },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, h *host) {
				h.putOver("v1", base, files{"v": "1"})
				h.want("v1", nil)
				old := h.dir + "/" + h.agent.Record().Live.Dir
				modify(old + "/lib/a")
				h.putOver("v2", base, files{"v": "2"})
				if err := h.run(); err != nil || h.live() != "v2" {
					t.Fatalf("%v, %q is live\n%s", err, h.live(), h.logged)
				}
				b, err := os.ReadFile(h.dir + "/current/lib/a")
				if string(b) != "one" || err != nil || linksOf(h.dir+"/current/lib/a") != 1 {
					t.Errorf("%q, %v, %d links", b, err, linksOf(h.dir+"/current/lib/a"))
				}
			})
		})
	}
}

// A repair is there for what cannot be trusted.
func TestRepairTakesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.putOver("v1", base, files{"v": "1"})
		h.want("v1", nil)
		h.o.Mode.Repair = true
		h.want("v1", nil)
		if n := linksOf(h.dir + "/current/lib/a"); n != 1 {
			t.Errorf("%d links", n)
		}
	})
}

func TestIndexGoesWithItsRoot(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.o.Keep.Roots = 1
		must(os.MkdirAll(h.dir+"/roots", 0o755))
		must(os.WriteFile(h.dir+"/roots/000000-0123456789ab.index", nil, 0o600))
		for _, v := range []string{"v1", "v2", "v3", "v4"} {
			h.putOver(v, base, files{"v": v})
			h.want(v, nil)
		}
		left, err := filepath.Glob(h.dir + "/roots/*.index")
		if len(left) != 2 || err != nil {
			t.Errorf("left: %q", left)
		}
	})
}

func TestDamagedIndexIsNamed(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.putOver("v1", base, files{"v": "1"})
		h.want("v1", nil)
		name := h.agent.Record().Live.Dir + ".index"
		flip(h.dir + "/" + name)
		found, err := Inspect(t.Context(), h.dir, Inspection{All: true})
		must(err)
		if len(found.Damaged) != 1 || found.Damaged[0].Name != name {
			t.Errorf("found %v", found.Damaged)
		}
	})
}

// A deployment that takes over files is killed at every point: what was live
// before is as it was, and what is live in the end is whole.
func TestCrashesWhileFilesAreTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		into := memoryDir(t)
		h := newHost(t, newFakeRegistry())
		h.putOver("v1", base, files{"v": "1"})
		h.want("v1", nil)
		h.putOver("v2", base, files{"v": "2"})
		n, taken := 0, 0
		h.seam = func(point string) {
			n++
			k := h.copied(filepath.Join(into, strings.Repeat("x", n)))
			h.sameTimes(k)
			k.want("v2", nil)
			if linksOf(k.dir+"/current/lib/a") > 1 {
				taken++
			}
		}
		h.want("v2", nil)
		if n < 10 || taken == 0 {
			t.Errorf("%d points, of which %d took files over", n, taken)
		}
	})
}
