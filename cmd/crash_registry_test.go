package cmd_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"deploytools/layers/digest"
)

// TestCrashMatrixRegistry lets every fault happen to a registry while an operator
// works: at each system call that changes its files from its start on. When it
// is started again, what was acknowledged is there, and what is there is whole.
func TestCrashMatrixRegistry(t *testing.T) {
	t.Parallel()
	for _, f := range faults(1) {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			m := newCrashed(t, f)
			points := m.countPoints(t)
			for n := range f.sample(t, points) {
				m.at(t, n)
			}
			m.at(t, points+1000) // nothing happens, but for a cut after all is acknowledged
			if f.power != 0 {
				m.pause = writeBack
				m.at(t, points+1000)
			}
		})
	}
}

// TestRandomPowerCutsOfTheRegistry cuts the power at random moments until a
// thousand acts were acknowledged, none of which is lost; twenty in a usual run.
func TestRandomPowerCutsOfTheRegistry(t *testing.T) {
	t.Parallel()
	acts := 20
	if everyPoint() == 1 {
		acts = 1000
	} else if underRace {
		acts = 10
	}
	var cuts []*crashed
	for _, f := range faults(1) {
		if f.power != 0 {
			cuts = append(cuts, newCrashed(t, f))
		}
	}
	points := cuts[0].countPoints(t)
	for acknowledged, i := 0, 0; acknowledged < acts && !t.Failed(); i++ {
		m := cuts[i%len(cuts)]
		m.acknowledged = 0
		m.at(t, 1+rand.IntN(points))
		acknowledged += m.acknowledged
	}
}

// crashed is a registry that faults happen to, and what its operator knows.
type crashed struct {
	fault
	s        *site
	dir      string // of the registry
	image    string // mounted on dir; "": nothing is
	round    int
	versions []string // acknowledged
	uploaded string   // digest of an acknowledged upload, that is no version
	live     string   // the version that the configuration had last
	asked    string   // the one that it may have got since

	acknowledged int           // acts
	pause        time.Duration // between the last of them and a cut
}

// writeBack is after the time in which the kernel has written by itself what
// nobody synced: ext4 writes its journal every 5 s.
const writeBack = 7 * time.Second

func newCrashed(t *testing.T, f fault) *crashed {
	t.Helper()
	s, err := newSite(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	m := &crashed{fault: f, s: s, dir: s.file("registry"), versions: []string{"v0"}, live: "v0"}
	if f.fs != "" {
		keys, err := os.ReadFile(s.file("registry/operator.keys"))
		if err != nil {
			t.Fatal(err)
		}
		agents, err := os.ReadFile(s.file("registry/service.keys"))
		if err != nil {
			t.Fatal(err)
		}
		m.image = makeImage(t, s.file("image"), f.fs)
		mount(t, m.image, m.dir)
		t.Cleanup(func() { unmount(m.dir) })
		for name, content := range map[string][]byte{"operator.keys": keys, "service.keys": agents} {
			if err := os.WriteFile(filepath.Join(m.dir, name), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		unix.Sync()
	}
	t.Cleanup(s.close) // before the file system goes
	m.start(t)
	s.publish(t, "code", "v0", map[string]string{"version": "v0"})
	s.deployctl(t, "addconf", "-name", "web", "-layer", "code:v0")
	m.stop(t)
	return m
}

// crashFlags keep the registry from removing old versions, which are what is looked
// for, and from refusing uploads to a small file system.
var crashFlags = []string{"-maxver", "0", "-min-free", "1"}

// start starts the registry as ever.
func (m *crashed) start(t *testing.T) {
	t.Helper()
	m.s.under = nil
	if err := m.s.startRegistry(nil, crashFlags...); err != nil {
		t.Fatalf("%s: the registry does not start: %v", m.when(0), err)
	}
}

func (m *crashed) stop(t *testing.T) {
	t.Helper()
	if err := m.s.running["registry"].stop(); err != nil {
		t.Fatalf("registry: %v: %s", err, m.s.tail("registry.log"))
	}
	delete(m.s.running, "registry")
}

func (m *crashed) when(n int) string { return fmt.Sprintf("%s at point %d", m.name, n) }

// countPoints lets the operator work once and returns how many points that has.
func (m *crashed) countPoints(t *testing.T) int {
	t.Helper()
	log := m.s.file("points")
	m.faulty(t, "-log", log)
	for _, act := range m.acts() {
		if err := act(); err != nil {
			t.Fatalf("without a fault: %v: %s", err, m.s.tail("registry.log"))
		}
	}
	m.stop(t)
	b, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	points := bytes.Count(b, []byte("\n"))
	if points < 30 {
		t.Fatalf("only %d points: nothing would be tested: %s", points, b)
	}
	m.check(t, "without a fault")
	return points
}

// faulty starts the registry under crashat, and reports whether it listens.
func (m *crashed) faulty(t *testing.T, args ...string) bool {
	t.Helper()
	program, err := crashat()
	if err != nil {
		t.Fatal(err)
	}
	m.s.under = append(append([]string{program, "-match", m.dir}, args...), "--")
	os.Remove(m.s.file("registry.log"))
	if err := m.s.startRegistry(nil, crashFlags...); err != nil {
		return false
	}
	return true
}

// at lets the fault happen at the nth point of a start and of the operator's
// work, and checks what is left.
func (m *crashed) at(t *testing.T, n int) {
	t.Helper()
	up := m.faulty(t, append([]string{"-n", strconv.Itoa(n)}, m.args...)...)
	survived := up
	if up {
		for _, act := range m.acts() {
			err := act()
			if err == nil {
				m.acknowledged++
			} else if !m.fails() {
				survived = false
				break
			}
		}
	}
	registry := m.s.running["registry"]
	switch {
	case !m.fails() && !survived:
		registry.wait()
	case m.power != 0:
		time.Sleep(m.pause)
		cutPower(t, m.dir, m.power)
	case m.fails() && up:
		// It lives and tells, whatever it may not write.
		if out, err := m.s.command("ssh", "reg", "components").CombinedOutput(); err != nil {
			t.Errorf("%s: the registry does not live on: %v: %s: %s", m.when(n), err, out, m.s.tail("registry.log"))
		}
	case m.fails():
		if err := registry.wait(); err == nil || !strings.Contains(m.s.text("registry.log"), "error: ") {
			t.Errorf("%s: the registry does not start, and says %v, %q", m.when(n), err, m.s.text("registry.log"))
		}
	}
	registry.cmd.Process.Signal(syscall.SIGQUIT) // crashat kills the registry
	<-registry.done
	delete(m.s.running, "registry")
	if m.image != "" {
		remount(t, m.image, m.dir)
	}
	m.check(t, m.when(n))
}

// acts are an operator's work: uploads, versions, a configuration, deletions, a
// backup. The
// error of one says that it was not acknowledged.
func (m *crashed) acts() []func() error {
	m.round++
	version, second := fmt.Sprint("v", m.round, "a"), fmt.Sprint("v", m.round, "b")
	run := func(name string, args ...string) error {
		cmd := m.s.command(name, args...)
		var said bytes.Buffer
		cmd.Stderr = &said
		end := time.AfterFunc(patience, func() { cmd.Process.Kill() })
		defer end.Stop()
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s %q: %w: %s", name, args, err, said.Bytes())
		}
		return nil
	}
	archive := func(content string) (file string, d digest.Digest) {
		b := archiveOf(map[string]string{"version": content}, nil)
		file = m.s.file("layer.tar.gz")
		if err := os.WriteFile(file, b, 0o600); err != nil {
			panic(err)
		}
		return file, digest.Of(b)
	}
	return []func() error{
		func() error { // sftp put
			file, d := archive(version)
			batch := m.s.file("batch")
			if err := os.WriteFile(batch, []byte("put "+file+"\n"), 0o600); err != nil {
				panic(err)
			}
			m.uploaded = ""
			err := run("sftp", "-b", batch, "reg")
			if err == nil {
				m.uploaded = d.String()
			}
			return err
		},
		func() error {
			_, d := archive(version)
			err := run("ssh", "reg", "addver", "-name", "code", "-version", version, "-hash", d.String())
			if err == nil {
				m.versions, m.uploaded = append(m.versions, version), ""
			}
			return err
		},
		func() error {
			file, _ := archive(second)
			err := run("deployctl", "addver", "-name", "code", "-version", second, "-file", file)
			if err == nil {
				m.versions = append(m.versions, second)
			}
			return err
		},
		func() error {
			m.asked = m.versions[len(m.versions)-1]
			err := run("ssh", "reg", "changeconf", "-name", "web", "-component", "code", "-version", m.asked)
			if err == nil {
				m.live = m.asked
			}
			return err
		},
		func() error { // of the version before, and of its content
			old := second
			if m.asked == second {
				old = version
			}
			if !slices.Contains(m.versions, old) {
				return nil
			}
			m.versions = slices.DeleteFunc(m.versions, func(v string) bool { return v == old })
			return run("ssh", "reg", "delver", "-name", "code", "-version", old)
		},
		func() error { return run("ssh", "reg", "gc") },
		func() error { return run("ssh", "reg", "backup") },
	}
}

// check starts the registry without a fault and looks for all that is known of
// it.
func (m *crashed) check(t *testing.T, when string) {
	t.Helper()
	m.start(t)
	got := m.s.checkRegistry(t, when, m.versions)
	if got != m.live && got != m.asked {
		t.Errorf("%s: the configuration has %s, want %s or %s", when, got, m.live, m.asked)
	}
	m.live, m.asked = got, ""
	if out, err := m.s.command("ssh", "reg", "fsck", "-read-data").CombinedOutput(); err != nil {
		t.Errorf("%s: fsck: %v: %s", when, err, out)
	}
	if m.uploaded != "" {
		// It may be a version, although that was not acknowledged.
		uploads, err := m.s.command("ssh", "reg", "uploads").Output()
		if _, no := os.Stat(filepath.Join(m.dir, "files", m.uploaded)); err != nil || no != nil && !strings.Contains(string(uploads), m.uploaded) {
			t.Errorf("%s: the upload %s is lost: %v: %s", when, m.uploaded, err, uploads)
		}
		m.uploaded = ""
	}
	m.stop(t)
}
