package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"deploytools/layers/digest"
	"deploytools/layers/manifest"
)

// tree makes a tree and returns its directory and its manifest.
func tree(t *testing.T) (string, string) {
	dir := t.TempDir()
	m := manifest.Manifest{}
	add := func(e manifest.Entry) {
		e.UID, e.GID = os.Getuid(), os.Getgid()
		m = append(m, e)
	}
	for _, d := range []string{"a", "a/deep", "empty"} {
		must(os.Mkdir(dir+"/"+d, 0o755))
		add(manifest.Entry{Path: d, Type: manifest.Dir, Mode: 0o755})
	}
	// In the order of paths "a-b" lies between "a" and "a/x".
	for _, f := range []string{"a-b", "a/x", "a/deep/y", "a.c", "a0", "sp ace", "\xff"} {
		must(os.WriteFile(dir+"/"+f, []byte(f), 0o644))
		add(manifest.Entry{Path: f, Type: manifest.File, Mode: 0o644, Size: int64(len(f)), Digest: digest.Of([]byte(f))})
	}
	must(os.Symlink("a/x", dir+"/link"))
	add(manifest.Entry{Path: "link", Type: manifest.Symlink, Mode: 0o777, Target: "a/x"})
	m.Sort()
	var b bytes.Buffer
	must(m.Encode(&b))
	return dir, b.String()
}

func compared(t *testing.T, dir, m string, how How) []string {
	t.Helper()
	var all []string
	for d, err := range Compare(t.Context(), dir, strings.NewReader(m), how) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, d.String())
	}
	return all
}

func TestCompareNamesWhatDiffers(t *testing.T) {
	outside := t.TempDir()
	must(os.WriteFile(outside+"/x", []byte("a/x"), 0o644))
	must(os.Mkdir(outside+"/deep", 0o755))
	for name, test := range map[string]struct {
		do   func(dir string) error
		want []string
	}{
		"nothing":         {func(string) error { return nil }, nil},
		"one bit":         {func(dir string) error { flip(dir + "/a/deep/y"); return nil }, []string{"modified a/deep/y: content"}},
		"longer":          {func(dir string) error { return os.WriteFile(dir+"/a-b", []byte("longer"), 0o644) }, []string{"modified a-b: size 6, want 3"}},
		"mode":            {func(dir string) error { return os.Chmod(dir+"/a.c", 0o640) }, []string{"modified a.c: mode 0640, want 0644"}},
		"setuid":          {func(dir string) error { return unix.Chmod(dir+"/a.c", 0o4755) }, []string{"modified a.c: mode 4755, want 0644"}},
		"directory's":     {func(dir string) error { return os.Chmod(dir+"/empty", 0o777) }, []string{"modified empty: mode 0777, want 0755"}},
		"odd names":       {func(dir string) error { return errors.Join(os.Remove(dir+"/sp ace"), os.Remove(dir+"/\xff")) }, []string{"missing sp%20ace", "missing %FF"}},
		"tree gone":       {func(dir string) error { return os.RemoveAll(dir + "/a") }, []string{"missing a", "missing a/deep", "missing a/deep/y", "missing a/x"}},
		"all gone":        {func(dir string) error { return os.RemoveAll(dir + "/a0") }, []string{"missing a0"}},
		"extra":           {func(dir string) error { return os.WriteFile(dir+"/a/w", nil, 0o644) }, []string{"extra a/w"}},
		"extra directory": {func(dir string) error { return os.MkdirAll(dir+"/b/c/d", 0o755) }, []string{"extra b"}},
		"fifo":            {func(dir string) error { return errors.Join(os.Remove(dir+"/a0"), unix.Mkfifo(dir+"/a0", 0o644)) }, []string{"modified a0: is a device, fifo or socket, want a file"}},
		"extra fifo":      {func(dir string) error { return unix.Mkfifo(dir+"/fifo", 0o644) }, []string{"extra fifo"}},
		"target":          {func(dir string) error { return errors.Join(os.Remove(dir+"/link"), os.Symlink("a/z", dir+"/link")) }, []string{"modified link: target a/z, want a/x"}},
		"link for file":   {func(dir string) error { return errors.Join(os.Remove(dir+"/a0"), os.Symlink(outside+"/x", dir+"/a0")) }, []string{"modified a0: is a symlink, want a file"}},
		"link for directory": {func(dir string) error { return errors.Join(os.RemoveAll(dir+"/a"), os.Symlink(outside, dir+"/a")) },
			[]string{"modified a: is a symlink, want a directory", "missing a/deep", "missing a/deep/y", "missing a/x"}},
		"directory for file": {func(dir string) error { return errors.Join(os.Remove(dir+"/a0"), os.Mkdir(dir+"/a0", 0o755)) }, []string{"modified a0: is a directory, want a file"}},
		"file for directory": {func(dir string) error {
			return errors.Join(os.Remove(dir+"/empty"), os.WriteFile(dir+"/empty", nil, 0o755))
		},
			[]string{"modified empty: is a file, want a directory"}},
		"two things": {func(dir string) error { flip(dir + "/a-b"); return os.Chmod(dir+"/a-b", 0o600) }, []string{"modified a-b: content, mode 0600, want 0644"}},
	} {
		dir, m := tree(t)
		must(test.do(dir))
		got := compared(t, dir, m, How{Owner: true})
		if !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(test.want))) {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

// What a twin shares is not read; the rest is, also below a directory that came from
// elsewhere.
func TestQuickComparisonReadsWhatMayDiffer(t *testing.T) {
	const tick = 20 * time.Millisecond
	for name, test := range map[string]struct {
		do   func(dir, twin, other string) // between what is compared and its twin were filled
		want []string
	}{
		"linked, whatever is in it": {func(dir, twin, _ string) {
			keepingTime(dir+"/a/x", func() { flip(dir + "/a/x") })
			must(os.Link(dir+"/a/x", twin+"/a/x"))
		}, nil},
		"linked, then written to": {func(dir, twin, _ string) { must(os.Link(dir+"/a/x", twin+"/a/x")); flip(dir + "/a/x") }, []string{"modified a/x: content"}},
		"not linked":              {func(dir, _, other string) { flip(dir + "/a/x") }, []string{"modified a/x: content"}},
		"another in the twin": {func(dir, twin, _ string) { flip(dir + "/a/x"); must(os.WriteFile(twin+"/a/x", []byte("a/x"), 0o644)) },
			[]string{"modified a/x: content"}},
		"no such directory in the twin": {func(dir, twin, _ string) { flip(dir + "/a/deep/y") }, []string{"modified a/deep/y: content"}},
		"linked, with other content": {func(dir, twin, _ string) {
			keepingTime(dir+"/a.c", func() { flip(dir + "/a.c") })
			must(os.Link(dir+"/a.c", twin+"/a.c"))
		},
			[]string{"modified a.c: content"}},
		"a file that is new beside others": {func(dir, _, _ string) { must(os.WriteFile(dir+"/a/deep/new", nil, 0o644)) }, []string{"extra a/deep/new"}},
		"another directory": {func(dir, _, other string) {
			must(os.Rename(dir+"/a", dir+"/old"))
			must(os.Rename(other+"/a", dir+"/a"))
		}, []string{"modified a/deep/y: content", "modified a/x: content", "extra old"}},
	} {
		dir, m := tree(t)
		twinOf := t.TempDir()
		must(os.Mkdir(twinOf+"/a", 0o755))
		other, _ := tree(t)
		flip(other + "/a/x")
		flip(other + "/a/deep/y")
		if strings.HasPrefix(name, "a file") { // what is not read does not differ
			flip(dir + "/a/deep/y")
		}
		time.Sleep(tick)
		how := How{Since: time.Now()}
		time.Sleep(tick)
		test.do(dir, twinOf, other)
		time.Sleep(tick)
		filled := time.Now()
		text := twinOf + ".manifest"
		twinText := strings.Replace(m, digest.Of([]byte("a.c")).String(), digest.Of([]byte("A.C")).String(), 1)
		must(os.WriteFile(text, []byte(twinText), 0o600))
		compared := func(t *testing.T, dir, m string, how How) []string {
			how.twin = newTwin(twinOf, text, digest.Of([]byte(twinText)), filled)
			defer how.twin.close()
			return compared(t, dir, m, how)
		}
		if got := compared(t, dir, m, how); !slices.Equal(got, test.want) {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
		time.Sleep(tick)
		must(os.WriteFile(dir+"/a/x", []byte("A-X"), 0o644)) // when both were filled
		if got, want := compared(t, dir, m, how), "modified a/x: content"; !slices.Contains(got, want) {
			t.Errorf("%s: modified later: %q, want also %q", name, got, want)
		}
	}
}

// Such a file system does not say with a name which ones are directories.
func TestCompareOnAFileSystemWithoutTypes(t *testing.T) {
	h := newHost(t, newFakeRegistry())
	h.onDisk("-O", "^filetype")
	h.src.put("v1", archive(files{"a/b/c": "1", "a-b": "2", "d": "3"}))
	h.want("v1", nil)
	must(os.WriteFile(h.dir+"/current/a/b/c", []byte("4"), 0o644))
	must(os.Remove(h.dir + "/current/d"))
	found, err := Inspect(t.Context(), h.dir, Inspection{})
	if err != nil || found.Roots[0].Modified != 1 || found.Roots[0].Missing != 1 || found.Roots[0].Extra != 0 {
		t.Errorf("Inspect = %+v, %v", found, err)
	}
}

// Names of one directory lie in several parts.
func TestCompareADirectoryOfManyNames(t *testing.T) {
	dir := memoryDir(t)
	var m manifest.Manifest
	for i := range 4000 {
		name := fmt.Sprintf("%04d-%s", i, strings.Repeat("n", i*37%250))
		e := manifest.Entry{Path: name, Type: manifest.Dir, Mode: 0o755}
		if i%2 == 0 {
			e.Type, e.Mode, e.Digest = manifest.File, 0o644, digest.Of(nil)
			must(os.WriteFile(dir+"/"+name, nil, 0o644))
		} else {
			must(os.Mkdir(dir+"/"+name, 0o755))
		}
		m = append(m, e)
	}
	var text bytes.Buffer
	must(m.Encode(&text))
	if got := compared(t, dir, text.String(), How{}); len(got) > 0 {
		t.Errorf("%d differences, the first is %s", len(got), got[0])
	}
	must(os.Remove(dir + "/" + m[1999].Path))
	must(os.Mkdir(dir+"/1999-other", 0o755))
	if got := compared(t, dir, text.String(), How{}); len(got) != 2 || got[0] != "missing "+m[1999].Path || got[1] != "extra 1999-other" {
		t.Errorf("%q", got)
	}
}

func TestCompareOwner(t *testing.T) {
	needsRoot(t)
	dir, m := tree(t)
	must(os.Lchown(dir+"/link", 12, 34))
	if got := compared(t, dir, m, How{}); got != nil {
		t.Errorf("without Owner: %q", got)
	}
	if got := compared(t, dir, m, How{Owner: true}); len(got) != 1 || got[0] != "modified link: owner 12:34, want 0:0" {
		t.Errorf("with Owner: %q", got)
	}
}

// A quick comparison reads what was touched since, even if its size, mode and
// time are as before; and nothing else.
func TestQuickCompare(t *testing.T) {
	dir, m := tree(t)
	must(os.WriteFile(dir+".stamp", nil, 0o600))
	info, err := os.Stat(dir + ".stamp")
	must(err)
	was, err := os.Stat(dir + "/a/x")
	must(err)
	flip(dir + "/a/x")
	must(os.Chtimes(dir+"/a/x", was.ModTime(), was.ModTime()))
	want := []string{"modified a/x: content"}
	if got := compared(t, dir, m, How{Since: info.ModTime()}); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := compared(t, dir, m, How{Since: time.Now().Add(time.Hour)}); got != nil {
		t.Errorf("files that have not changed since then are read: %q", got)
	}
	must(os.Remove(dir + "/a0"))
	must(os.WriteFile(dir+"/more", nil, 0o600))
	want = []string{"missing a0", "extra more"}
	if got := compared(t, dir, m, How{Since: time.Now().Add(time.Hour)}); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestCompareEnds(t *testing.T) {
	dir, m := tree(t)
	last := func(ctx context.Context, dir, m string) (err error) {
		for _, err = range Compare(ctx, dir, strings.NewReader(m), How{}) {
		}
		return err
	}
	if err := last(t.Context(), dir, m[:len(m)-3]); !errors.Is(err, manifest.ErrInvalid) {
		t.Errorf("a torn manifest: %v", err)
	}
	if err := last(t.Context(), dir+"/a0", m); err == nil {
		t.Error("a file is no tree")
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := last(gone, dir, m); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	must(os.RemoveAll(dir))
	must(os.Mkdir(dir, 0o755))
	for range Compare(t.Context(), dir, strings.NewReader(m), How{}) {
		break // ends it
	}
}

// What Inspect finds with an agent's directory, without an agent.
func TestInspect(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		for _, v := range []string{"1", "2"} {
			h.src.put("v"+v, archive(files{"etc/motd": v}))
			h.want("v"+v, nil)
		}
		r := h.agent.Record()
		look := func(what Inspection) string {
			t.Helper()
			found, err := Inspect(t.Context(), h.dir, what)
			must(err)
			var b bytes.Buffer
			must(found.Text(&b))
			return b.String()
		}
		whole := func() bool {
			found, err := Inspect(t.Context(), h.dir, Inspection{All: true})
			must(err)
			return found.Whole()
		}
		both := r.Back.Dir + ": whole\n" + r.Live.Dir + " (live): whole\nlooked at: 2 roots, 2 cached layers, 3 records\n"
		for _, quick := range []bool{true, false} {
			if got := look(Inspection{All: true, Quick: quick, Owner: true, Idle: true}); got != both {
				t.Errorf("untouched: %q, want %q", got, both)
			}
		}
		if !whole() {
			t.Error("not whole before")
		}
		flip(h.dir + "/journal.json")
		if whole() {
			t.Error("whole with a damaged record")
		}
		flip(h.dir + "/journal.json")
		flip(h.dir + "/" + r.Live.Dir + "/etc/motd")
		if whole() {
			t.Error("whole with a damaged file")
		}
		must(os.WriteFile(h.dir+"/"+r.Live.Dir+"/more", nil, 0o600))
		want := r.Live.Dir + " (live): 1 modified, 0 missing, 1 extra\n  modified etc/motd: content\n  extra more\n"
		for _, quick := range []bool{true, false} {
			if got := look(Inspection{Quick: quick}); got != want {
				t.Errorf("quick %t: %q, want %q", quick, got, want)
			}
		}
		flip(h.dir + "/" + r.Back.Dir + ".manifest")
		flip(h.dir + "/" + r.Back.Dir + ".json")
		flip(h.dir + "/journal.json")
		layer := r.Live.Configuration.Layers[0].Hash.String()
		flip(h.dir + "/cache/" + layer)
		got := look(Inspection{All: true})
		for _, part := range []string{r.Back.Dir + ": manifest damaged: ", r.Back.Dir + ".json: damaged: ", "journal.json: damaged: ", "cache/" + layer + ": ", want, "\nlooked at: 2 roots, 2 cached layers, 3 records\n"} {
			if !strings.Contains(got, part) {
				t.Errorf("does not say %q:\n%s", part, got)
			}
		}
		must(os.Remove(h.dir + "/" + r.Live.Dir + ".manifest"))
		must(os.RemoveAll(filepath.Join(h.dir, r.Back.Dir)))
		if got := look(Inspection{}); !strings.Contains(got, "(live): there is no manifest of it\n") {
			t.Errorf("without a manifest: %q", got)
		}
	})
}
