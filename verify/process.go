package verify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"deploytools/verify/spec"
)

// lookProcess finds the main process of a service. It passes when the kernel,
// or else its command line, says that it runs from NEWROOT, and when it was not
// started before the switch: a hook that restarts nothing cannot pass. One that
// systemd itself started again has to last. That it is the same one at each look
// is for tally to see.
func lookProcess(ctx context.Context, c spec.Check, v Vars) Finding {
	pid, restarts, f := mainProcess(ctx, c)
	if f.Kind != "" {
		return f
	}
	who := fmt.Sprintf("main process %d of %s", pid, c.Target())
	root, err := filepath.EvalSymlinks(v.NewRoot)
	if err != nil {
		return Finding{Kind: Spec, Detail: "cannot resolve NEWROOT: " + err.Error()}
	}
	started, err := startOf(pid)
	if err != nil {
		return Finding{Kind: NotRunning, Detail: who + " has ended"}
	}
	life := fmt.Sprintf("process %d, started %v after the kernel", pid, started)
	place, inside, err := placeOf(pid, root)
	switch {
	case err != nil && !inside:
		f = Finding{Kind: Process, Detail: who + " cannot be looked at: " + err.Error()}
	case !inside:
		f = Finding{Kind: WrongRoot, Detail: fmt.Sprintf("%s runs from %s, want below %s", who, place, root)}
	case v.Switched > 0 && started+tick <= v.Switched:
		f = Finding{Kind: NotRestarted, Detail: fmt.Sprintf("%s was started %v before the switch", who, (v.Switched - started).Round(tick))}
	case unsettled(restarts, Uptime()-started):
		f = Finding{Kind: Restarting, Detail: fmt.Sprintf("%s was started again by systemd %v ago, want it to last %v; restarts of the unit: %d",
			who, (Uptime() - started).Round(tick), settled, restarts)}
	}
	f.Want, f.Got, f.Life = root, place, life
	return f
}

// settled is how long a process must live that systemd has started again: one
// that ends at once, each time, passes between two ends else.
const settled = 5 * time.Second

func unsettled(restarts int, age time.Duration) bool { return restarts > 0 && age < settled }

// mainProcess returns the id of the process and how often systemd has started
// its unit again since somebody started it, or a Finding that says why there is
// no process.
func mainProcess(ctx context.Context, c spec.Check) (pid, restarts int, f Finding) {
	text, err := "", error(nil)
	if c.PIDFile != "" {
		text, err = readPIDFile(c.PIDFile)
	} else {
		text, restarts, err = askManager(ctx, c.Unit)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist) && c.PIDFile != "":
		return 0, 0, Finding{Kind: NotRunning, Detail: c.PIDFile + " does not exist"}
	case ctx.Err() != nil:
		return 0, 0, lost(ctx, Timeout, fmt.Errorf("systemctl gave no answer: %w", ctx.Err()))
	case err != nil:
		return 0, 0, Finding{Kind: Process, Detail: err.Error()}
	}
	pid, err = strconv.Atoi(strings.TrimSpace(text))
	switch {
	case err != nil || pid < 0 || pid == 0 && c.Unit == "":
		return 0, 0, Finding{Kind: Process, Detail: fmt.Sprintf("%s says %s, want a process id", c.Target(), excerpt([]byte(text)))}
	case pid == 0:
		return 0, 0, Finding{Kind: NotRunning, Detail: c.Unit + " has no main process"}
	}
	if _, err := startOf(pid); err != nil {
		return 0, 0, Finding{Kind: NotRunning, Detail: fmt.Sprintf("process %d of %s does not run", pid, c.Target())}
	}
	return pid, restarts, Finding{}
}

func readPIDFile(path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 64))
	return string(b), err
}

// askManager asks systemd by its own program: its protocol would be a library.
// One that is older than 235 does not count restarts: then there are none.
func askManager(ctx context.Context, unit string) (pid string, restarts int, err error) {
	cmd := exec.CommandContext(ctx, "systemctl", "show", "--property=MainPID,NRestarts", "--", unit)
	cmd.WaitDelay = killGrace
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return "", 0, fmt.Errorf("systemctl show %s: %v: %s", unit, err, bytes.TrimSpace(exit.Stderr))
	}
	for line := range strings.Lines(string(out)) {
		switch name, value, _ := strings.Cut(strings.TrimSpace(line), "="); name {
		case "MainPID":
			pid = value
		case "NRestarts":
			restarts, _ = strconv.Atoi(value)
		}
	}
	return pid, restarts, err
}

// tick is the resolution of the times in proc_pid_stat(5): USER_HZ is 100 on
// every machine that Go knows.
const tick = 10 * time.Millisecond

// Uptime is the time since the start of the kernel, suspended or not: the clock
// on which processes have their start. Nobody sets it.
func Uptime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return 0 // there is no Linux without it
	}
	return time.Duration(t.Nano())
}

// startOf returns when a process that lives was started, on the clock of Uptime.
func startOf(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// "PID (NAME) STATE ...": the program chooses its NAME. Field 22 is the start.
	f := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(f) < 20 || bytes.ContainsAny(f[0], "ZX") {
		return 0, fs.ErrNotExist
	}
	ticks, err := strconv.ParseInt(string(f[19]), 10, 64)
	return time.Duration(ticks) * tick, err
}

// placeOf returns what pid runs from, and whether that is the directory root or
// below it. What the kernel knows decides; only where that is no root of ours at
// all, as with an interpreter, the command line does, since `current` in the
// words of an old process would lead to NEWROOT too. The error says what could
// not be read.
func placeOf(pid int, root string) (place string, inside bool, err error) {
	for _, name := range []string{"exe", "root", "cwd"} {
		link, readErr := os.Readlink(fmt.Sprintf("/proc/%d/%s", pid, name))
		if readErr != nil {
			err = errors.Join(err, readErr)
			continue
		}
		if place == "" {
			place = link
		}
		if within(link, root) {
			return link, true, nil
		}
		if within(link, filepath.Dir(root)) && link != filepath.Dir(root) {
			return link, false, nil
		}
	}
	words, readErr := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if readErr != nil {
		return place, false, errors.Join(err, readErr)
	}
	cwd, _ := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
	for _, word := range pathsIn(words) {
		if !filepath.IsAbs(word) {
			word = filepath.Join(cwd, word)
		}
		if full, evalErr := filepath.EvalSymlinks(word); evalErr == nil && within(full, root) {
			return word, true, nil
		}
	}
	return place, false, err
}

// pathsIn returns what may be a path in a command line: words with a slash, and
// such parts of them as stand after a space (programs set their title) or a "=".
func pathsIn(cmdline []byte) []string {
	var all []string
	for word := range strings.SplitSeq(string(cmdline), "\x00") {
		all = append(append(all, word), strings.FieldsFunc(word, func(r rune) bool { return r == ' ' || r == '=' })...)
	}
	return slices.DeleteFunc(all, func(s string) bool { return !strings.Contains(s, "/") })
}

func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}
