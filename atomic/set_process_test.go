package atomic

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// programs are what this test binary is, told by the environment, when it is
// not the tests: see TestMain.
var programs = map[string]func(dir string) error{
	"race":   raceApplies,
	"nobody": applyAsNobody,
}

const programEnv = "ATOMIC_TEST_PROGRAM"

// start starts a program on a directory.
func start(t *testing.T, name, dir string, as *syscall.Credential) (wait func() error) {
	t.Helper()
	self, err := os.Executable()
	must(err)
	if as != nil { // who may not get at the test binary
		b, err := os.ReadFile(self)
		must(err)
		self = dir + "/program"
		must(os.WriteFile(self, b, 0o755))
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), programEnv+"="+name, "ATOMIC_TEST_DIR="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	out := &strings.Builder{}
	cmd.Stdout, cmd.Stderr = out, out
	must(cmd.Start())
	return func() error {
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
}

// raceApplies applies a set again and again, through a store of its own, and
// fails if what lies there is not its own set while it verifies.
func raceApplies(dir string) error {
	store := fmt.Sprintf("%s/store-%d", dir, os.Getpid())
	s, err := disk{gate: unsynced{}}.openStore(store)
	if err != nil {
		return err
	}
	for n := range 100 {
		mine := fmt.Sprintf("%d %d", os.Getpid(), n)
		p := Plan{Keep: -1, Files: []Target{{Path: dir + "/a", Bytes: []byte(mine)}, {Path: dir + "/b", Bytes: []byte(mine)}}}
		_, err := s.Apply(context.Background(), p, Hooks{Verify: func(context.Context, Phase) error {
			for _, name := range []string{"/a", "/b"} {
				if b, err := os.ReadFile(dir + name); string(b) != mine {
					return fmt.Errorf("%s is %q, %v; want %q", name, b, err, mine)
				}
			}
			return nil
		}})
		if err != nil {
			return err
		}
	}
	return nil
}

func TestTwoProcessesDoNotInterleave(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	one, two := start(t, "race", dir, nil), start(t, "race", dir, nil)
	if err := errors.Join(one(), two()); err != nil {
		t.Error(err)
	}
}

// applyAsNobody is what happens to somebody who cannot give files away.
func applyAsNobody(dir string) error {
	s, err := OpenStore(dir + "/store")
	if err != nil {
		return err
	}
	p := Plan{ID: "set", Files: []Target{{Path: dir + "/f", Bytes: []byte("new"), Metadata: Metadata{Mode: os.ModeSetuid | 0o755, Owner: []string{"0"}}}}}
	p.Owners = StrictOwners
	if _, err := s.Apply(context.Background(), p, Hooks{}); !errors.Is(err, ErrPrepareFailed) || !errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("strict: %w", err)
	}
	p.Owners = StrictIfRoot
	r, err := s.Apply(context.Background(), p, Hooks{})
	if err != nil || len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "owner would be 0") {
		return fmt.Errorf("lenient: %+v, %w", r, err)
	}
	if n, err := (disk{}).node(dir + "/f"); err != nil || n.mode != 0o755 {
		return fmt.Errorf("the file gives other rights away: %+v, %w", n, err)
	}
	if r, err := s.Apply(context.Background(), p, Hooks{}); err != nil || !r.Skipped {
		return fmt.Errorf("again: %+v, %w", r, err)
	}
	p = Plan{Files: []Target{{Path: dir + "/sticky/f", Bytes: []byte("new")}}} // root's, where only root may rename it
	if _, err := s.Apply(context.Background(), p, Hooks{}); !errors.Is(err, ErrPlanInvalid) || !strings.Contains(err.Error(), "sticky") {
		return fmt.Errorf("in a sticky directory: %w", err)
	}
	return nil
}

func TestWhoCannotGiveFilesAwayIsWarned(t *testing.T) {
	needsRoot(t)
	dir, err := os.MkdirTemp("", "nobody")
	must(err)
	defer os.RemoveAll(dir)
	must(os.Chmod(dir, 0o755))
	must(os.Chown(dir, 65534, 65534))
	must(os.Mkdir(dir+"/sticky", 0o700))
	must(os.WriteFile(dir+"/sticky/f", []byte("old"), 0o644))
	must(os.Chmod(dir+"/sticky", os.ModeSticky|0o777))
	if err := start(t, "nobody", dir, &syscall.Credential{Uid: 65534, Gid: 65534})(); err != nil {
		t.Error(err)
	}
}
