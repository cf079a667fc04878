package agent

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// committedRoots deploys v1 to vn and returns the names of their roots.
func committedRoots(h *host, n int) (ids []string) {
	keep := h.o.Keep
	h.o.Keep = Keep{Roots: 99}
	for i := range n {
		v := fmt.Sprint(i + 1)
		h.src.put("v"+v, archive(files{"etc/motd": v, "bin": strings.Repeat(v, 100_000)}))
		h.want("v"+v, nil)
		ids = append(ids, filepath.Base(h.agent.Record().Live.Dir))
	}
	h.o.Keep = keep
	return ids
}

// rules returns what Explain says of each thing, after "stays " or "goes ".
func (h *host) rules() map[string]string {
	h.Helper()
	t, err := h.new().Explain(h.Context())
	must(err)
	rules := map[string]string{}
	for _, d := range t.Things {
		verb := "goes"
		if d.Kept {
			verb = "stays"
		}
		rules[strings.TrimPrefix(d.Name, "roots/")] = verb + " " + d.Rule
	}
	return rules
}

// Explain says by which rule each root stays or goes, and a collection does that.
func TestEachRootHasARule(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.o.Keep.Roots = 2
		ids := committedRoots(h, 7)
		failed := "000050-0123456789ab"
		must(os.Mkdir(h.dir+"/roots/"+failed, 0o755))
		must(os.WriteFile(h.dir+"/roots/"+failed+".manifest", nil, 0o600))
		must(Pin(h.dir, ids[0], "the one\nof the audit"))
		must(os.WriteFile(h.dir+"/roots/"+ids[1]+".pin", nil, 0o600))
		must(Pin(h.dir, ids[5], "old schema"))
		h.users = map[string]string{ids[2]: "process 12 (nginx)"}
		for _, foreign := range []string{"mine", "000099-0123456789ab"} {
			must(os.MkdirAll(h.dir+"/roots/"+foreign+"/data", 0o755))
		}
		half := ".000098-0123456789ab.partial"
		must(os.Mkdir(h.dir+"/roots/"+half, 0o700))
		want := map[string]string{
			ids[0]:                "stays pinned: the one of the audit",
			ids[1]:                "stays pinned",
			ids[2]:                "stays in use by process 12 (nginx)",
			ids[3]:                "goes committed before the 2 roots committed last before the live one",
			ids[4]:                "stays among the 2 roots committed last before the live one",
			ids[5]:                "stays rollback target, and pinned: old schema",
			ids[6]:                "stays live",
			failed:                "goes never committed",
			"000099-0123456789ab": "stays foreign: no document of it lies beside it",
			half:                  "goes half made or half deleted",
		}
		rules := h.rules()
		for id, rule := range want {
			if rules[id] != rule {
				t.Errorf("%s: %q, want %q", id, rules[id], rule)
			}
		}
		h.new()
		h.agent.rec, h.agent.saved = h.readRecord(), h.readRecord()
		must(h.agent.collect.now(h.agent))
		var left, stay []string
		for _, name := range h.names("roots") {
			if !strings.Contains(strings.TrimPrefix(name, "."), ".") || strings.HasPrefix(name, ".") {
				left = append(left, name)
			}
		}
		for id, rule := range want {
			if strings.HasPrefix(rule, "stays") {
				stay = append(stay, id)
			}
		}
		stay = append(stay, "mine")
		slices.Sort(stay)
		if !slices.Equal(left, stay) {
			t.Errorf("left %q, want %q", left, stay)
		}
		if was, err := Unpin(h.dir, ids[0]); !was || err != nil {
			t.Errorf("Unpin = %v, %v", was, err)
		}
		if rule := h.rules()[ids[0]]; !strings.HasPrefix(rule, "goes") {
			t.Errorf("without its pin: %q", rule)
		}
	})
}

// A kill in a collection leaves no root with a name that is not whole, and the
// next one ends what was begun.
func TestCrashInACollection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, newFakeRegistry())
		h.o.Keep.Roots = 1
		committedRoots(h, 4)
		points, hosts := h.killed(memoryDir(t))
		if n := strings.Count(strings.Join(points, ","), "root hidden"); n != 2 {
			t.Fatalf("passed %q", points)
		}
		for i, k := range hosts {
			k.agent = k.new()
			k.complete() // before anything is brought into order
			k.want("v4", nil)
			if left := k.names("roots"); len(left) != 6 {
				t.Errorf("after a kill at %q %q are left, want two roots with their documents", points[i], left)
			}
		}
	})
}

func TestPinNeedsARoot(t *testing.T) {
	dir := t.TempDir()
	must(os.MkdirAll(dir+"/roots/000001-0123456789ab", 0o755))
	must(Pin(dir, "000001-0123456789ab", "why"))
	for _, pinned := range []bool{true, false} {
		if was, err := Unpin(dir, "000001-0123456789ab"); was != pinned || err != nil {
			t.Errorf("Unpin = %v, %v, want %v", was, err, pinned)
		}
	}
	for _, id := range []string{"000002-0123456789ab", "../x", "", "current"} {
		if Pin(dir, id, "why") == nil {
			t.Errorf("pinned %q", id)
		}
	}
}

// The limits of space take layers that can be fetched again before roots, old
// roots before later ones, and never what is live, in flight, the rollback
// target, pinned or in use.
func TestLimitsOfSpace(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		ids := committedRoots(h, 6)
		must(Pin(h.dir, ids[1], ""))
		h.users = map[string]string{ids[2]: "process 1 (init)"}
		h.o.Keep.Roots = 9
		all := len(h.rules()) // 6 roots of 104 KiB and 6 layers of 4
		const root = 104 << 10
		for _, test := range []struct {
			max  int64
			goes []string
		}{
			{1 << 30, nil},
			{6*root + 6*4096 - 1, []string{"layer"}},
			{6*root + 2*4096, []string{"layer", "layer", "layer", "layer"}},
			{6*root + 2*4096 - 1, []string{"layer", "layer", "layer", "layer", ids[0]}},
			{5 * root, []string{"layer", "layer", "layer", "layer", ids[0], ids[3]}},
			{4 * root, []string{"layer", "layer", "layer", "layer", "layer", "layer", ids[0], ids[3]}},
			{1, []string{"layer", "layer", "layer", "layer", "layer", "layer", ids[0], ids[3]}},
		} {
			h.o.Keep.MaxBytes = test.max
			var goes []string
			for name, rule := range h.rules() {
				if strings.HasPrefix(rule, "goes") {
					if strings.HasPrefix(name, "cache/") {
						name = "layer"
					}
					goes = append(goes, name)
				}
			}
			if !slices.Equal(slices.Sorted(slices.Values(goes)), slices.Sorted(slices.Values(test.goes))) {
				t.Errorf("-max-bytes %d of %d things: %q go, want %q", test.max, all, goes, test.goes)
			}
		}
		r, err := h.new().Explain(t.Context())
		must(err)
		if rule := h.rules()[ids[0]]; !strings.HasPrefix(rule, "goes given up for -max-bytes; else: among the 9 ") {
			t.Errorf("the first root %q", rule)
		}
		if r.Short != 4*root-1 || r.Limit != "-max-bytes" || r.Bytes != 4*root {
			t.Errorf("%d bytes stay, short of %d by %q", r.Bytes, r.Short, r.Limit)
		}
		h.want("v6", nil)
		if h.lines("WARN", "limit of disk space not kept") != 1 {
			t.Errorf("not said:\n%s", h.logged)
		}
		for i, id := range ids {
			if _, err := os.Stat(h.dir + "/roots/" + id); (err != nil) != (i == 0 || i == 3) {
				t.Errorf("root %d: %v", i, err)
			}
		}
	})
}

func TestFreeSpaceIsKept(t *testing.T) {
	needsRoot(t)
	h := newHost(t, newFakeRegistry())
	h.dir = t.TempDir()
	h.o.Dir, h.o.Poll = h.dir, Poll{Interval: time.Millisecond}
	must(unix.Mount("none", h.dir, "tmpfs", 0, "size=3600k"))
	t.Cleanup(func() { unix.Unmount(h.dir, unix.MNT_DETACH) })
	ids := committedRoots(h, 6)
	h.o.Keep = Keep{Roots: 9, MinFree: Room{Percent: 25}}
	h.want("v6", nil)
	left := 0
	for _, id := range ids {
		if _, err := os.Stat(h.dir + "/roots/" + id); err == nil {
			left++
		}
	}
	on, err := diskOf(h.dir)
	must(err)
	if on.free*4 < on.total || left < 3 || left > 5 {
		t.Errorf("%d of %d free, %d roots left", on.free, on.total, left)
	}
}

func TestProcessesThatUseARoot(t *testing.T) {
	dir := t.TempDir()
	id := "000001-0123456789ab"
	for _, d := range []string{id, "000002-0123456789ab", "000003-0123456789ab"} {
		must(os.MkdirAll(dir+"/roots/"+d+"/bin", 0o755))
	}
	must(os.Symlink(dir, dir+"/link"))
	sleep, err := exec.LookPath("sleep")
	must(err)
	b, err := os.ReadFile(sleep)
	must(err)
	must(os.WriteFile(dir+"/roots/"+id+"/bin/zzz", b, 0o755))
	for how, cmd := range map[string]*exec.Cmd{
		"program":   exec.Command(dir + "/roots/" + id + "/bin/zzz"),
		"directory": {Path: sleep, Dir: dir + "/roots/" + id + "/bin"},
		"open file": {Path: sleep},
	} {
		cmd.Args = []string{"zzz", "1000"}
		if how == "open file" {
			f, err := os.Open(dir + "/roots/" + id)
			must(err)
			cmd.ExtraFiles = []*os.File{f}
		}
		must(cmd.Start())
		for _, f := range cmd.ExtraFiles {
			must(f.Close())
		}
		used, err := usersOf(t.Context(), dir+"/link/roots", []string{id, "000002-0123456789ab"})
		cmd.Process.Kill()
		cmd.Wait()
		if who := used[id]; err != nil || len(used) != 1 || !strings.HasPrefix(who, fmt.Sprintf("process %d (", cmd.Process.Pid)) {
			t.Errorf("%s: %q, %v", how, used, err)
		}
	}
	if used, err := usersOf(t.Context(), dir+"/roots", []string{"000003-0123456789ab"}); err != nil || len(used) > 0 {
		t.Errorf("unused: %q, %v", used, err)
	}
}

// A root that was bound elsewhere, or that only a process with mounts of its own
// sees, is in use.
func TestMountsUseARoot(t *testing.T) {
	needsRoot(t)
	const id = "000001-0123456789ab"
	for how, script := range map[string]string{
		"itself bound":    "mount --bind roots/" + id + " mnt && echo bound && exec sleep 1000",
		"its place bound": "mount --bind . mnt && cd mnt/roots/" + id + " && echo bound && exec sleep 1000",
	} {
		dir := t.TempDir()
		must(os.MkdirAll(dir+"/roots/"+id, 0o755))
		must(os.Mkdir(dir+"/mnt", 0o755))
		cmd := exec.Command("unshare", "--mount", "sh", "-c", script)
		cmd.Dir = dir
		out, err := cmd.StdoutPipe()
		must(err)
		must(cmd.Start())
		n, readErr := out.Read(make([]byte, 6))
		used, err := usersOf(t.Context(), dir+"/roots", []string{id})
		cmd.Process.Kill()
		cmd.Wait()
		if n == 0 || err != nil || !strings.HasPrefix(used[id], fmt.Sprintf("process %d (", cmd.Process.Pid)) {
			t.Errorf("%s: %q, %v, %v", how, used, err, readErr)
		}
	}
}

func TestParseRoom(t *testing.T) {
	for text, want := range map[string]Room{"": {}, "0": {}, "1000": {Bytes: 1000}, "2K": {Bytes: 2048}, "500M": {Bytes: 500 << 20},
		"10GiB": {Bytes: 10 << 30}, "1TiB": {Bytes: 1 << 40}, "10%": {Percent: 10}} {
		if got, err := ParseRoom(text); err != nil || got != want {
			t.Errorf("ParseRoom(%q) = %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"x", "-1", "100%", "-1%", "1.5G", "G", "10 GiB", "9999999999T", "1KM", "5i", "3GB", "%"} {
		if got, err := ParseRoom(text); err == nil {
			t.Errorf("ParseRoom(%q) = %v", text, got)
		}
	}
}
