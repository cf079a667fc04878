package verify

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"deploytools/verify/spec"
)

// roots are two roots with a program each, and the link `current`.
type roots struct{ dir, old, new string }

func newRoots(t *testing.T) roots {
	t.Helper()
	dir := t.TempDir()
	r := roots{dir, dir + "/roots/1", dir + "/roots/2"}
	cat, err := exec.LookPath("cat")
	must(t, err)
	program, err := os.ReadFile(cat)
	must(t, err)
	for _, root := range []string{r.old, r.new} {
		must(t, os.MkdirAll(root+"/bin", 0o755))
		must(t, os.WriteFile(root+"/bin/service", program, 0o755))
		must(t, os.WriteFile(root+"/bin/script", []byte("echo up; read end\n"), 0o755))
	}
	r.point(t, r.old)
	return r
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (r roots) point(t *testing.T, root string) {
	t.Helper()
	os.Remove(r.dir + "/current")
	must(t, os.Symlink(root, r.dir+"/current"))
}

// start starts a service and waits until it is up.
func start(t *testing.T, dir, name string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() { in.Close(); cmd.Process.Kill(); cmd.Wait() })
	if filepath.Base(name) == "service" { // it says what it hears
		_, err := in.Write([]byte("up\n"))
		must(t, err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "up\n" {
		t.Fatalf("the service says %q, %v", line, err)
	}
	return cmd
}

func (r roots) pidfile(t *testing.T, content string) spec.Check {
	t.Helper()
	path := r.dir + "/pid"
	must(t, os.WriteFile(path, []byte(content), 0o600))
	return spec.Check{Type: spec.Process, PIDFile: path}
}

func TestProcessRunsFromTheNewRootAndIsNew(t *testing.T) {
	r := newRoots(t)
	for name, row := range map[string]struct {
		dir  string
		argv []string // started with `current` at OLDROOT if before, else at NEWROOT
		old  bool
		kind Kind
	}{
		"program of the new root":         {argv: []string{r.new + "/bin/service"}},
		"through current":                 {argv: []string{r.dir + "/current/bin/service"}},
		"interpreter in the new root":     {dir: r.new, argv: []string{"/bin/sh", "bin/script"}},
		"interpreter through current":     {argv: []string{"/bin/sh", r.dir + "/current/bin/script"}},
		"program of the old root":         {argv: []string{r.old + "/bin/service"}, kind: WrongRoot},
		"old program through current":     {argv: []string{r.dir + "/current/bin/service"}, old: true, kind: WrongRoot},
		"old interpreter through current": {argv: []string{"/bin/sh", r.dir + "/current/bin/script"}, old: true, kind: NotRestarted},
		"interpreter in the old root":     {dir: r.old, argv: []string{"/bin/sh", r.dir + "/current/bin/script"}, kind: WrongRoot},
		"program of neither":              {argv: []string{"/bin/sh", "-c", "echo up; read end"}, kind: WrongRoot},
	} {
		t.Run(name, func(t *testing.T) {
			before := Uptime()
			if row.old {
				r.point(t, r.old)
			} else {
				r.point(t, r.new)
			}
			cmd := start(t, row.dir, row.argv[0], row.argv[1:]...)
			switched := before
			if row.old {
				r.point(t, r.new)
				switched = Uptime() + tick
			}
			c := r.pidfile(t, fmt.Sprintln(cmd.Process.Pid))
			f := lookAt(t, c, Vars{NewRoot: r.new, Switched: switched})
			if f.Kind != row.kind {
				t.Errorf("%+v, want kind %q", f, row.kind)
			}
			if f.Kind == WrongRoot && (f.Got == "" || !strings.Contains(f.Detail, r.new)) {
				t.Errorf("%+v does not say where it runs, and where it should", f)
			}
		})
	}
}

// Before the switch, and on the way back, the old process may be as old as it is.
func TestProcessOfTheRootThatServesMayBeOld(t *testing.T) {
	r := newRoots(t)
	cmd := start(t, "", r.old+"/bin/service")
	c := r.pidfile(t, fmt.Sprint(cmd.Process.Pid))
	if f := lookAt(t, c, Vars{NewRoot: r.old}); !f.OK {
		t.Errorf("%+v", f)
	}
	if f := lookAt(t, c, Vars{NewRoot: r.old, Switched: Uptime() + time.Hour}); f.Kind != NotRestarted {
		t.Errorf("%+v, want kind %q", f, NotRestarted)
	}
}

func TestProcessThatIsNotThere(t *testing.T) {
	r := newRoots(t)
	ended := exec.Command("true")
	must(t, ended.Start())
	awaitExit(ended.Process.Pid)
	defer ended.Wait()
	for name, row := range map[string]struct {
		content string
		kind    Kind
	}{
		"empty":    {"", Process},
		"a zombie": {fmt.Sprint(ended.Process.Pid), NotRunning},
		"no id":    {"x\x1b[2J", Process},
		"zero":     {"0\n", Process},
	} {
		if f := lookAt(t, r.pidfile(t, row.content), Vars{NewRoot: r.new}); f.Kind != row.kind || strings.Contains(f.Detail, "\x1b") {
			t.Errorf("%s: %+v, want kind %q", name, f, row.kind)
		}
	}
	if f := lookAt(t, spec.Check{Type: spec.Process, PIDFile: r.dir + "/none"}, Vars{NewRoot: r.new}); f.Kind != NotRunning {
		t.Errorf("no file: %+v, want kind %q", f, NotRunning)
	}
}

// systemctl is a program of this test: a service manager is not needed to see
// what is made of its answers.
func TestProcessOfAUnit(t *testing.T) {
	r := newRoots(t)
	cmd := start(t, "", r.new+"/bin/service")
	must(t, os.WriteFile(r.dir+"/systemctl", []byte(`#!/bin/sh
[ "$*" = "show --property=MainPID,NRestarts -- $UNIT" ] || { echo "called as $*" >&2; exit 1; }
[ "$UNIT" = hangs ] && exec sleep 1000
[ "$UNIT" = down ] && { echo "Failed to connect to bus" >&2; exit 1; }
[ "$UNIT" = dead ] && printf "MainPID=0\nNRestarts=3\n"
[ "$UNIT" = web@1 ] && printf "NRestarts=0\nMainPID=$MAIN\n"
[ "$UNIT" = crashes ] && printf "MainPID=$MAIN\nNRestarts=2\n"
[ "$UNIT" = ancient ] && printf "MainPID=$MAIN\n"
true`), 0o755))
	t.Setenv("PATH", r.dir+":"+os.Getenv("PATH"))
	t.Setenv("MAIN", fmt.Sprint(cmd.Process.Pid))
	for unit, want := range map[string]struct {
		kind   Kind
		detail string
	}{
		"web@1": {}, "ancient": {},
		"crashes": {Restarting, "restarts of the unit: 2"},
		"dead":    {NotRunning, "dead has no main process"},
		"down":    {Process, "Failed to connect to bus"},
		"hangs":   {Timeout, "systemctl gave no answer"},
	} {
		t.Setenv("UNIT", unit)
		f := lookAt(t, spec.Check{Type: spec.Process, Unit: unit, Timeout: time.Second}, Vars{NewRoot: r.new})
		if f.Kind != want.kind || !strings.Contains(f.Detail, want.detail) || f.Target != unit {
			t.Errorf("%s: %+v, want kind %q with %q", unit, f, want.kind, want.detail)
		}
	}
}

// A unit whose process ends at once, again and again, has one at most looks. But
// what has recovered is as good as before.
func TestWhatSystemdStartedAgainHasToLast(t *testing.T) {
	for _, row := range []struct {
		restarts int
		age      time.Duration
		want     bool
	}{{0, 0, false}, {1, 0, true}, {7, settled - tick, true}, {7, settled, false}} {
		if got := unsettled(row.restarts, row.age); got != row.want {
			t.Errorf("%d restarts, %v old: unsettled %v, want %v", row.restarts, row.age, got, row.want)
		}
	}
}
