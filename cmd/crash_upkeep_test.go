package cmd_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// tool is a program that fills a directory and that faults happen to.
type tool struct {
	args    []string // of deploy-registry
	stdin   []byte
	prepare func(t *testing.T, dir string)           // what is there before
	check   func(t *testing.T, when string, ok bool) // what is there after; ok: the program has succeeded
}

// eachFault tests every fault in a site of its own, without a registry that runs.
func eachFault(t *testing.T, test func(*testing.T, *site, fault)) {
	for _, f := range faults(1) {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			s, err := newSite(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			test(t, s, f)
		})
	}
}

// crash lets every fault happen to the tool at each system call that changes
// files in dir.
func (w tool) crash(t *testing.T, s *site, dir string, f fault) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	image := ""
	if f.fs != "" {
		image = makeImage(t, s.file("image"), f.fs)
		mount(t, image, dir)
		t.Cleanup(func() { unmount(dir) })
	}
	log := s.file("points")
	if out, err := w.run(t, s, dir, "-log", log); err != nil {
		t.Fatalf("without a fault: %v: %s", err, out)
	}
	w.check(t, "without a fault", true)
	b, err := os.ReadFile(log)
	points := bytes.Count(b, []byte("\n"))
	if err != nil || points < 15 {
		t.Fatalf("only %d points, %v: nothing would be tested: %s", points, err, b)
	}
	for n := range f.sample(t, points) {
		_, err := w.run(t, s, dir, append([]string{"-n", strconv.Itoa(n)}, f.args...)...)
		ok := err == nil
		if image != "" {
			if f.power != 0 && ok {
				cutPower(t, dir, f.power)
			}
			remount(t, image, dir)
		}
		w.check(t, fmt.Sprintf("%s at point %d", f.name, n), ok)
	}
}

// run prepares the directory and runs the tool under crashat.
func (w tool) run(t *testing.T, s *site, dir string, args ...string) (out []byte, err error) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if err == nil && e.Name() != "lost+found" {
			err = os.RemoveAll(filepath.Join(dir, e.Name()))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	w.prepare(t, dir)
	unix.Sync()
	program, err := crashat()
	if err != nil {
		t.Fatal(err)
	}
	args = append(append([]string{"-match", dir}, args...), "--", "deploy-registry")
	cmd := s.command(program, append(args, w.args...)...)
	cmd.Stdin = bytes.NewReader(w.stdin)
	return cmd.CombinedOutput()
}

// registryTool runs deploy-registry without a fault.
func (s *site) registryTool(stdin []byte, args ...string) (string, error) {
	cmd := s.command("deploy-registry", args...)
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// wantChecked expects that fsck, reading everything, finds so many blobs and no
// fault.
func (s *site) wantChecked(t *testing.T, when, dir string, blobs int) {
	t.Helper()
	out, err := s.registryTool(nil, "fsck", "-dir", dir, "-read-data")
	if err != nil || !strings.Contains(out, fmt.Sprintf(" %d blobs, ", blobs)) {
		t.Errorf("%s: fsck = %v: %s", when, err, out)
	}
}

// TestCrashMatrixImport: after every fault the old database is as it was or the
// new one is whole, and an import that said that it succeeded has.
func TestCrashMatrixImport(t *testing.T) {
	t.Parallel()
	versions := []upstreamVersion{
		{"code", "v1", string(archiveOf(map[string]string{"f": "1"}, nil))}, {"code", "v2", string(archiveOf(map[string]string{"f": "2"}, nil))},
	}
	eachFault(t, func(t *testing.T, s *site, f fault) {
		dir := s.file("old")
		var before []byte
		tool{
			args: []string{"migrate", "-dir", dir},
			prepare: func(t *testing.T, dir string) {
				err := makeUpstream(dir, versions)
				if err != nil {
					t.Fatal(err)
				}
				if before, err = os.ReadFile(dir + "/state.db"); err != nil {
					t.Fatal(err)
				}
			},
			check: func(t *testing.T, when string, ok bool) {
				now, err := os.ReadFile(dir + "/state.db")
				if err != nil {
					t.Fatalf("%s: %v", when, err)
				}
				if bytes.Equal(before, now) {
					if out, err := s.registryTool(nil, "migrate", "-dir", dir); err != nil || ok {
						t.Errorf("%s: success was told: %t; import = %v: %s", when, ok, err, out)
					}
				}
				s.wantChecked(t, when, dir, 4)
				if kept, err := os.ReadFile(dir + "/state.db.upstream"); !bytes.Equal(before, kept) {
					t.Errorf("%s: the old database is not kept: %v", when, err)
				}
			},
		}.crash(t, s, dir, f)
	})
}

// TestCrashMatrixRestore: after every fault nothing starts with a part of a
// backup, the same restore makes it whole, and one that said that it succeeded
// has.
func TestCrashMatrixRestore(t *testing.T) {
	t.Parallel()
	s := startSite(t)
	s.publish(t, "code", "v1", map[string]string{"f": "1"})
	s.deployctl(t, "addconf", "-name", "web", "-layer", "code:v1")
	backup, err := s.command("ssh", "reg", "backup").Output()
	if err != nil {
		t.Fatalf("backup = %v", err)
	}
	eachFault(t, func(t *testing.T, s *site, f fault) {
		dir := s.file("new")
		tool{
			args: []string{"restore", "-dir", dir}, stdin: backup,
			prepare: func(*testing.T, string) {},
			check: func(t *testing.T, when string, ok bool) {
				_, unfinished := os.Stat(dir + "/restore.unfinished")
				_, state := os.Stat(dir + "/state.db")
				switch {
				case unfinished == nil:
					if out, err := s.registryTool(nil, "-dir", dir); err == nil || !strings.Contains(out, "a restore was not finished") {
						t.Errorf("%s: a registry starts with it, or says %s", when, out)
					}
					fallthrough
				case state != nil:
					if out, err := s.registryTool(backup, "restore", "-dir", dir); err != nil || ok {
						t.Errorf("%s: success was told: %t; restore = %v: %s", when, ok, err, out)
					}
				}
				s.wantChecked(t, when, dir, 2)
			},
		}.crash(t, s, dir, f)
	})
}
