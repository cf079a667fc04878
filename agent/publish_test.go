package agent

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"deploytools/layers/digest"
	"deploytools/registry/wire"
)

// publisher is a host with a root, and with a directory for what it publishes.
func publisher(t *testing.T, root files) (h *host, etc string) {
	h = newHost(t, newFakeRegistry())
	etc = memoryDir(t)
	for name, text := range root {
		file := filepath.Join(h.dir, "roots/1", name)
		must(os.MkdirAll(filepath.Dir(file), 0o755))
		must(os.WriteFile(file, []byte(text), 0o640))
	}
	return h, etc
}

func (h *host) publishes(byHand bool) ([]Published, error) {
	return h.new().publishes(&Deployment{New: Root{Dir: "roots/1"}, ByHand: byHand})
}

func mapping(text string) Mapping {
	m, err := ParseMapping(text)
	must(err)
	return m
}

func TestPublishesWhatHostAndRootSay(t *testing.T) {
	h, etc := publisher(t, files{"a": "A", "b": "B", ".deploy/publish": "# ours\nb=" + "ETC/b,mode=0600\nc=ETC/c,optional=true\n"})
	must(os.WriteFile(h.dir+"/roots/1/.deploy/publish", []byte("b="+etc+"/b,mode=0600\nc="+etc+"/c,optional=true\n"), 0o644))
	h.o.Publish.Files = []Mapping{mapping("a=" + etc + "/z")}
	got, err := h.publishes(false)
	if err != nil || len(got) != 1 || got[0].To != etc+"/z" || got[0].Digest != digest.Of([]byte("A")) || got[0].Perm != 0o640 {
		t.Errorf("without -publish-allow: %v, %v; want what the host says and nothing else", got, err)
	}
	h.o.Publish.Allow = []string{filepath.Dir(etc)}
	got, err = h.publishes(false)
	if err != nil || len(got) != 2 || got[0].To != etc+"/b" || got[1].To != etc+"/z" {
		t.Errorf("with -publish-allow: %v, %v", got, err)
	}
}

// A link on the way to a destination does not lead out of the prefix, and one on
// the way to the prefix does not lock it.
func TestPublishFollowsNoLinkOutOfThePrefix(t *testing.T) {
	h, etc := publisher(t, files{"a": "A"})
	must(os.Mkdir(etc+"/in", 0o755))
	must(os.Mkdir(etc+"/in-side", 0o755))
	must(os.Symlink("../in-side", etc+"/in/out"))
	must(os.Symlink("in", etc+"/link"))
	for _, row := range []struct {
		to, allow string
		want      string // resolved; "": refused
	}{
		{"/in/a", "/in", "/in/a"},
		{"/in/a", "/in/", "/in/a"},
		{"/link/a", "/in", "/in/a"},
		{"/in/a", "/link", "/in/a"},
		{"/link/a", "/link", "/in/a"},
		{"/in/out/a", "/in", ""},
		{"/in-side/a", "/in", ""},
		{"/in", "/in", ""},
		{"/in/a", "/not-there", ""},
	} {
		h.o.Publish = Publish{Allow: []string{etc + row.allow}, Files: []Mapping{mapping("a=" + etc + row.to)}}
		got, err := h.publishes(false)
		switch {
		case row.want == "" && (err == nil || isDefinite(err) || !strings.Contains(err.Error(), "is not below any of -publish-allow")):
			t.Errorf("%s below %s: %v, %v; want to wait for the host's flags to be mended", row.to, row.allow, got, err)
		case row.want != "" && (err != nil || got[0].To != etc+row.want):
			t.Errorf("%s below %s: %v, %v", row.to, row.allow, got, err)
		}
		must(os.MkdirAll(h.dir+"/roots/1/.deploy", 0o755))
		must(os.WriteFile(h.dir+"/roots/1/.deploy/publish", []byte("\na="+etc+row.to), 0o644))
		h.o.Publish.Files = nil
		if got, err = h.publishes(false); row.want == "" && (!isDefinite(err) || !strings.Contains(err.Error(), ".deploy/publish, line 2: ")) {
			t.Errorf("%s below %s, by the root: %v, %v; want to be refused for good", row.to, row.allow, got, err)
		}
		must(os.RemoveAll(h.dir + "/roots/1/.deploy"))
	}
}

func TestPublishRefusesForGoodWhatTheRootLacks(t *testing.T) {
	h, etc := publisher(t, files{"a": "A", "d/x": ""})
	must(os.Symlink("/etc/passwd", h.dir+"/roots/1/out"))
	must(os.Symlink("a", h.dir+"/roots/1/in"))
	must(unix.Mkfifo(h.dir+"/roots/1/fifo", 0o600))
	h.o.Publish.Allow = []string{etc}
	for text, want := range map[string]string{
		"gone=ETC/x":                  "the root has no file gone",
		"d=ETC/x":                     "d in the root is no regular file",
		"fifo=ETC/x":                  "fifo in the root is no regular file",
		"out=ETC/x":                   "escapes",
		"a=ETC/x\na=ETC/y/../y":       "without .. and //",
		"a=ETC/x\n\na=ETC/x":          "line 3: ETC/x is published to by .deploy/publish, line 1 already",
		"a=ETC/x\nbad":                ".deploy/publish, line 2: ",
		"a=AGENT/roots/1/a":           "AGENT/roots/1/a is not below",
		"gone=ETC/x,optional=true":    "",
		"in=ETC/x":                    "",
		"a=ETC/x\na=ETC/y\nd/x=ETC/z": "",
	} {
		here := strings.NewReplacer("ETC", etc, "AGENT", h.dir)
		must(os.MkdirAll(h.dir+"/roots/1/.deploy", 0o755))
		must(os.WriteFile(h.dir+"/roots/1/.deploy/publish", []byte(here.Replace(text)), 0o644))
		_, err := h.publishes(false)
		if want == "" && err != nil || want != "" && (!isDefinite(err) || !strings.Contains(err.Error(), here.Replace(want))) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	h.o.Publish.Allow = append(h.o.Publish.Allow, h.dir)
	must(os.WriteFile(h.dir+"/roots/1/.deploy/publish", []byte("a="+h.dir+"/journal.json"), 0o644))
	if _, err := h.publishes(false); !isDefinite(err) || !strings.Contains(err.Error(), "agent's own directory") {
		t.Errorf("to the agent's own directory: %v", err)
	}
	must(os.Remove(h.dir + "/roots/1/.deploy/publish"))
	must(os.Mkdir(h.dir+"/roots/1/.deploy/publish", 0o755))
	if _, err := h.publishes(false); !isDefinite(err) || !strings.Contains(err.Error(), ".deploy/publish: is no regular file") {
		t.Errorf("mappings in a directory: %v", err)
	}
}

// The way back to a root of an earlier time is open, whatever the host publishes by now.
func TestPublishOfAnEarlierRootLacksWhatThatLacks(t *testing.T) {
	h, etc := publisher(t, files{"a": "A"})
	h.o.Publish.Files = []Mapping{mapping("a=" + etc + "/a"), mapping("b=" + etc + "/b")}
	if _, err := h.publishes(false); !isDefinite(err) {
		t.Errorf("a new root: %v, want to be refused", err)
	}
	if got, err := h.publishes(true); err != nil || len(got) != 1 {
		t.Errorf("an earlier root: %v, %v; want what it has", got, err)
	}
}

// A directory that the host lacks is no version's fault.
func TestPublishWaitsForTheHostsDirectory(t *testing.T) {
	h, etc := publisher(t, files{"a": "A", ".deploy/publish": ""})
	must(os.WriteFile(h.dir+"/roots/1/.deploy/publish", []byte("a="+etc+"/later/a"), 0o644))
	h.o.Publish.Allow = []string{etc}
	if _, err := h.publishes(false); isDefinite(err) || !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "line 1: cannot publish to "+etc+"/later/a") {
		t.Errorf("without the directory: %v", err)
	}
	must(os.Mkdir(etc+"/later", 0o755))
	if got, err := h.publishes(false); err != nil || len(got) != 1 {
		t.Errorf("with the directory: %v, %v", got, err)
	}
}

func TestPublishNamesTheOtherConfiguration(t *testing.T) {
	parent := memoryDir(t)
	h, _ := publisher(t, files{"a": "A"})
	other, far := filepath.Join(parent, "api"), filepath.Join(memoryDir(t), "far")
	h.o.Dir = filepath.Join(parent, "web")
	for _, dir := range []string{other, far, h.o.Dir} {
		must(os.Mkdir(dir, 0o755))
	}
	write := func(dir string, r *Record) {
		b, err := encode(r)
		must(err)
		must(os.WriteFile(dir+"/journal.json", b, 0o600))
	}
	its := []Published{{Mapping: mapping("x=/etc/x")}}
	under := &Record{Name: "far", State: Checking, Deployment: &Deployment{New: Root{Configuration: &wire.Configuration{Name: "far"}, Published: its}}}
	write(h.o.Dir, &Record{Name: "web", State: Idle, Published: its})
	for _, row := range []struct {
		name   string
		record *Record
		dir    string
	}{{"committed", &Record{Name: "api", State: Idle, Published: its}, other}, {"under way", under, far}} {
		h.o.Publish.Agents = []string{h.o.Dir, far}
		write(row.dir, row.record)
		err := h.new().unclaimed([]Published{{Mapping: mapping("y=/etc/x")}})
		if err == nil || !strings.Contains(err.Error(), "web and "+row.record.Name) || !strings.Contains(err.Error(), row.dir) {
			t.Errorf("%s: %v, want to be refused with both names", row.name, err)
		}
		if err := h.new().unclaimed([]Published{{Mapping: mapping("x=/etc/y")}}); err != nil {
			t.Errorf("%s, another path: %v", row.name, err)
		}
		must(os.Remove(row.dir + "/journal.json"))
	}
	if err := h.new().unclaimed(its); err != nil {
		t.Errorf("what it publishes itself: %v", err)
	}
}

// A key that the root keeps from others is not published for all to read.
func TestPublishTakesTheModeOfTheRoot(t *testing.T) {
	h, etc := publisher(t, files{"a": "A", "b": "B"})
	h.o.Publish.Files = []Mapping{mapping("a=" + etc + "/a"), mapping("b=" + etc + "/b")}
	must(os.WriteFile(etc+"/b", nil, 0o600))
	got, err := h.publishes(false)
	must(err)
	h.agent.rec = &Record{}
	targets := h.agent.targets(h.dir+"/roots/1", got)
	if len(targets) != 2 || targets[0].Mode != 0o640 || targets[1].Mode != 0 {
		t.Errorf("targets = %+v; want the mode in the root for a, and that of the file there for b", targets)
	}
}
