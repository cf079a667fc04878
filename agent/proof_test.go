package agent

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"deploytools/layers/digest"
)

// onDisk has the host's directory on a file system of its own, which notes each read.
// options are for mkfs.ext4.
func (h *host) onDisk(options ...string) {
	h.Helper()
	needsRoot(h.T)
	image, dir := filepath.Join(memoryDir(h.T), "image"), h.TempDir()
	for _, argv := range [][]string{{"truncate", "-s", "32M", image}, append([]string{"mkfs.ext4", "-q", image}, options...), {"mount", "-o", "loop,strictatime", image, dir}} {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			h.Fatalf("%q: %v: %s", argv, err, out)
		}
	}
	h.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			h.Error(err)
		}
	})
	h.dir = dir
	h.o.Dir = dir
}

// really sleeps also where time is faked, for what the file system's clock tells.
func really(d time.Duration) {
	left := unix.NsecToTimespec(d.Nanoseconds())
	for unix.Nanosleep(&left, &left) == unix.EINTR {
	}
}

// keepingTime has do change a file, which has its time back then.
func keepingTime(path string, do func()) {
	info, err := os.Stat(path)
	must(err)
	do()
	must(os.Chtimes(path, info.ModTime(), info.ModTime()))
}

func readAt(path string) time.Time {
	var st unix.Stat_t
	must(unix.Stat(path, &st))
	return time.Unix(st.Atim.Unix())
}

// read reports whether lib/a of the base is read by do.
func (h *host) read(do func()) bool {
	name := h.dir + "/" + h.agent.Record().Live.Dir + "/lib/a"
	before := readAt(name)
	really(20 * time.Millisecond)
	do()
	return !readAt(name).Equal(before)
}

// proving is a test with a daemon whose first root, of a linked base, was deployed just
// now.
func proving(t *testing.T, f func(h *host, next func(version string))) {
	t.Parallel() // each waits for real
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, newFakeRegistry())
		h.onDisk()
		h.o.Checks.Inspect = 24 * time.Hour
		h.o.Keep.Roots = 1
		h.seam = func(point string) {
			if point == "filled" { // else the inodes and the manifest are of one tick
				really(20 * time.Millisecond)
			}
		}
		h.putOver("v1", base, files{"v": "v1"})
		stop := h.serve()
		defer stop()
		pass(30 * time.Second)
		really(proofMargin + 20*time.Millisecond)
		f(h, func(version string) {
			t.Helper()
			h.putOver(version, base, files{"v": version})
			pass(30 * time.Second)
			if h.live() != version {
				t.Fatalf("%s is live\n%s", h.live(), h.logged)
			}
		})
	})
}

func TestWhatThePatrolHasReadIsNotReadAgain(t *testing.T) {
	proving(t, func(h *host, next func(string)) {
		if !h.read(func() { next("v2") }) {
			t.Error("taken unread before anybody had read it")
		}
		really(proofMargin + 20*time.Millisecond)
		if !h.read(func() { pass(5 * time.Minute) }) {
			t.Fatal("not read after the deployment")
		}
		if h.read(func() { next("v3") }) || linksOf(h.dir+"/current/lib/a") != 3 {
			t.Errorf("read again, or not linked: %d links", linksOf(h.dir+"/current/lib/a"))
		}
		// The collection of v1 changes the inodes, so a comparison follows, in its turn.
		for linksOf(h.dir+"/current/lib/a") != 2 {
			pass(time.Second)
		}
		really(proofMargin + 20*time.Millisecond)
		if h.read(func() { pass(5 * time.Minute) }) {
			t.Error("read more than once an hour")
		}
		if !h.read(func() { pass(patrolAgain) }) {
			t.Fatal("not read after a collection")
		}
		if h.read(func() { pass(12 * time.Hour) }) {
			t.Error("read again although nothing had changed")
		}
		if h.read(func() { next("v4") }) || linksOf(h.dir+"/current/lib/a") != 3 {
			t.Errorf("read again, or not linked: %d links", linksOf(h.dir+"/current/lib/a"))
		}
	})
}

func TestWhatIsReadAgain(t *testing.T) {
	sameSize := func(p string) { keepingTime(p, func() { must(os.WriteFile(p, []byte("ONE"), 0o644)) }) }
	for name, test := range map[string]struct {
		before, after func(root string) // the comparison
		modified      bool              // lib/a
	}{
		"a file that was modified before": {before: func(r string) { sameSize(r + "/lib/a") }, modified: true},
		"another that was":                {before: func(r string) { sameSize(r + "/lib/b") }},
		"a file that was modified since":  {after: func(r string) { sameSize(r + "/lib/a") }, modified: true},
		"one beside it that is new":       {after: func(r string) { must(os.WriteFile(r+"/lib/new", nil, 0o644)) }},
		"one that has an attribute":       {before: func(r string) { must(unix.Setxattr(r+"/lib/b", "user.x", []byte("1"), 0)) }},
	} {
		t.Run(name, func(t *testing.T) {
			proving(t, func(h *host, next func(string)) {
				root := h.dir + "/" + h.agent.Record().Live.Dir
				if test.before != nil {
					test.before(root)
					really(proofMargin + 20*time.Millisecond)
				}
				pass(5 * time.Minute)
				if test.after != nil {
					test.after(root)
				}
				if !h.read(func() { next("v2") }) {
					t.Error("not read")
				}
				b, err := os.ReadFile(h.dir + "/current/lib/a")
				if links := linksOf(h.dir + "/current/lib/a"); string(b) != "one" || err != nil || test.modified != (links == 1) {
					t.Errorf("%q, %v, %d links", b, err, links)
				}
			})
		})
	}
}

// A restart, a comparison that was long ago, none at all, and a clock that is set back
// leave nothing proven.
func TestProofsEnd(t *testing.T) {
	at := time.Unix(1_700_000_000, 0)
	synctest.Test(t, func(t *testing.T) {
		p := proven{root: "roots/a", proof: &proof{at: at, skew: skew()}, began: time.Now()}
		pass(time.Hour)
		if got := p.of("roots/a", time.Hour); !got.Equal(at) {
			t.Errorf("after an hour: %v", got)
		}
		if got := p.of("roots/b", time.Hour); !got.IsZero() {
			t.Errorf("another root: %v", got)
		}
		if got := p.of("roots/a", 59*time.Minute); !got.IsZero() {
			t.Errorf("an hour is not too long ago: %v", got)
		}
		if got := p.of("roots/a", 0); !got.IsZero() {
			t.Errorf("where nothing is compared: %v", got)
		}
		p.proof.skew += 3 * time.Second
		p.proof.watch()
		p.proof.skew -= 3 * time.Second
		if got := p.of("roots/a", time.Hour); !got.IsZero() {
			t.Errorf("the clock was set back, and forward again: %v", got)
		}
	})
	if got := (&proven{}).of("", time.Hour); !got.IsZero() {
		t.Errorf("after a start: %v", got)
	}
}

// Pages that wait to be written back can be written to, and no inode tells.
func TestMappedFilesTell(t *testing.T) {
	h := newHost(t, newFakeRegistry())
	h.onDisk()
	f, err := os.Create(h.dir + "/mapped")
	must(err)
	defer f.Close()
	must(f.Truncate(4096))
	mapped, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(err)
	defer unix.Munmap(mapped)
	mapped[0] = 1
	really(proofMargin + 20*time.Millisecond)
	p := newProof(h.dir)
	p.file(f)
	mapped[0] = 2
	var st unix.Stat_t
	must(unix.Fstat(int(f.Fd()), &st))
	if changed := time.Unix(st.Ctim.Unix()); p.void || changed.Before(p.at) {
		t.Errorf("a file that was written to after %v changed at %v; void: %v", p.at, changed, p.void)
	}
}

// The clock may be set back a little, and nobody notices.
func TestProofsHaveAMargin(t *testing.T) {
	h := newHost(t, newFakeRegistry())
	h.onDisk()
	before := time.Now()
	if p := newProof(h.dir); !p.at.Before(before.Add(-time.Second)) || p.at.Before(before.Add(-3*time.Second)) {
		t.Errorf("proven are files as of %v, at %v", p.at, before)
	}
}

// What is mounted over a file hides what will be taken.
func TestMountsAreNotProven(t *testing.T) {
	h := newHost(t, newFakeRegistry())
	h.onDisk()
	for _, name := range []string{"/below", "/over"} {
		must(os.WriteFile(h.dir+name, []byte("x"), 0o644))
	}
	for _, mounted := range []bool{false, true} {
		if mounted {
			must(unix.Mount(h.dir+"/over", h.dir+"/below", "", unix.MS_BIND, ""))
			defer unix.Unmount(h.dir+"/below", unix.MNT_DETACH)
		}
		f, err := os.Open(h.dir + "/below")
		must(err)
		defer f.Close()
		p := newProof(h.dir)
		if p.file(f); p.void != mounted {
			t.Errorf("mounted: %v, void: %v", mounted, p.void)
		}
	}
}

// What cannot be removed is tried each hour. The live root is not read for that.
func TestPatrolRestsWhatCannotBeRemoved(t *testing.T) {
	proving(t, func(h *host, next func(string)) {
		stuck := h.dir + "/roots/.000000-0123456789ab.partial/stuck"
		must(os.MkdirAll(stuck, 0o755))
		must(unix.Mount("tmpfs", stuck, "tmpfs", 0, ""))
		defer unix.Unmount(stuck, unix.MNT_DETACH)
		pass(3 * time.Hour)
		if h.read(func() { pass(5 * time.Hour) }) {
			t.Error("read again although nothing had changed")
		}
	})
}

// Who polls rarely has a comparison after a deployment, too.
func TestPatrolWithRarePolls(t *testing.T) {
	for _, poll := range []time.Duration{31 * time.Minute, 3 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			h := newHost(t, newFakeRegistry())
			h.onDisk()
			h.o.Checks.Inspect, h.o.Poll.Interval = 24*time.Hour, poll
			h.putOver("v1", base, files{"v": "v1"})
			stop := h.serve()
			defer stop()
			for h.agent.Record().Live == nil {
				pass(time.Minute)
			}
			if !h.read(func() { pass(4 * poll) }) {
				t.Errorf("not read in %v, with a poll every %v", 4*poll, poll)
			}
		})
	}
}

// The root that came and went has changed the inodes that it shared.
func TestPatrolAfterARollback(t *testing.T) {
	proving(t, func(h *host, next func(string)) {
		pass(5 * time.Minute)
		next("v2")
		h.rollback("")
		pass(5 * time.Minute)
		if h.live() != "v1" {
			t.Fatalf("%s is live", h.live())
		}
		really(proofMargin + 20*time.Millisecond)
		if !h.read(func() { pass(patrolAgain + 5*time.Minute) }) {
			t.Error("not read after the rollback")
		}
	})
}

// A manifest that somebody has edited proves nothing.
func TestEditedManifestProvesNothing(t *testing.T) {
	proving(t, func(h *host, next func(string)) {
		pass(5 * time.Minute)
		name := h.dir + "/" + h.agent.Record().Live.Dir + ".manifest"
		text, err := os.ReadFile(name)
		must(err)
		edited := bytes.Replace(text, []byte(digest.Of([]byte("v1")).String()), []byte(digest.Of([]byte("v2")).String()), 1)
		if bytes.Equal(edited, text) {
			t.Fatal("nothing edited")
		}
		must(os.WriteFile(name, edited, 0o600))
		if !h.read(func() { next("v2") }) {
			t.Error("not read")
		}
	})
}

// Where inodes do not tell of mapped files, nothing is proven.
func TestNoProofOnOtherFileSystems(t *testing.T) {
	needsRoot(t)
	memory := t.TempDir()
	must(unix.Mount("tmpfs", memory, "tmpfs", 0, ""))
	t.Cleanup(func() { must(unix.Unmount(memory, 0)) })
	for _, dir := range []string{memory, "/proc", "/nowhere"} {
		if p := newProof(dir); p != nil {
			t.Errorf("proof on %s: %v", dir, p)
		}
	}
}
