package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The agent itself was started with other signals, mask and descriptors.
func TestHookGetsACleanStart(t *testing.T) {
	h := newHookTest(t, `tr '\0' '\n' < /proc/$$/environ > $D/env
pwd; echo $#; umask
readlink /proc/self/fd/0; wc -c
ls /proc/self/fd | tr '\n' ' '; echo
grep -E 'SigBlk|SigIgn' /proc/self/status
[ $(cut -d ' ' -f 5 /proc/$$/stat) = $$ ] && echo leads its group
[ $(cut -d ' ' -f 6 /proc/$$/stat) = $PPID ] && echo in the session of its supervisor`)
	exe, err := os.Executable()
	must(err)
	h.h.argv = []string{"/bin/sh", "-c", `trap '' HUP INT TERM PIPE TSTP TTOU USR1; umask 077; exec 5</dev/null 7</dev/null 9</dev/null; exec "$0" ` + SuperviseCommand, exe}
	h.c.WorkDir = t.TempDir()
	h.c.Env = append(h.c.Env, "NAME=;$(touch x)`touch x` '", "BYTES=\xff\xfe", "EMPTY=", "DEPLOY_ATTEMPT=99")
	if r := h.mustRun(); r.Err() != nil {
		t.Error(r.Err())
	}
	want := []string{h.c.WorkDir, "0", "0022", "/dev/null", "0", "0 1 2 3 ", // 3 is ls's own
		"SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000", "leads its group", "in the session of its supervisor"}
	// Signals 32 and 33 are the C library's own (signal(7)); Go leaves them as
	// whoever started the tests did.
	for i, line := range h.lines {
		if mask, ok := strings.CutPrefix(line, "SigIgn:\t"); ok {
			ignored, err := strconv.ParseUint(mask, 16, 64)
			must(err)
			h.lines[i] = fmt.Sprintf("SigIgn:\t%016x", ignored&^(3<<31))
		}
	}
	if !slices.Equal(h.lines, want) {
		t.Errorf("lines\n%q\nwant\n%q", h.lines, want)
	}
	b, err := os.ReadFile(h.c.Dir + "/env")
	must(err)
	wantEnv := strings.Join(append(slices.Delete(slices.Clone(h.c.Env), len(h.c.Env)-1, len(h.c.Env)), "DEPLOY_ATTEMPT=1"), "\n") + "\n"
	if string(b) != wantEnv {
		t.Errorf("environment\n%q\nwant\n%q", b, wantEnv)
	}
	for _, kind := range []string{"output", "status.json", "attempt.json", "lock"} {
		if info, err := os.Stat(h.c.file(kind)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v, want mode 0600: it may hold secrets", kind, info.Mode(), err)
		}
	}
}

func TestHookThatCannotBeStartedIsADefiniteFailure(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		must(os.WriteFile(path, []byte(content), mode))
		return path
	}
	for _, test := range []struct{ path, want string }{
		{dir + "/missing", "no such file"},
		{"./missing", "no such file"},
		{"missing-program", "executable file not found in $PATH"},
		{dir, "it is a directory"},
		{file("mode", "#!/bin/sh\n", 0o644), "not executable (mode 0644): chmod +x"},
		{file("crlf", "#!/bin/sh\r\nexit 0\r\n", 0o755), `its interpreter "/bin/sh\r" does not exist: the script has CRLF line ends`},
		{file("interpreter", "#! /opt/none -e\n", 0o755), `its interpreter "/opt/none" does not exist`},
		{file("directory", "#!/etc\n", 0o755), `permission denied: it or its interpreter "/etc" may not be executed here`},
		{file("text", "exit 0\n", 0o755), "exec format error: neither a program for this machine nor a script that begins with #!"},
		{file("empty", "", 0o755), "exec format error: neither a program for this machine nor a script that begins with #!"},
		{file("below", "", 0o644) + "/x", "not a directory"},
	} {
		h := newHookTest(t, "")
		h.c.Path = test.path
		if err := h.h.startable(test.path); (err == nil) != strings.HasPrefix(test.want, "exec format error") ||
			err != nil && err.Error() != fmt.Sprintf("%q call failure: %s", test.path, test.want) {
			t.Errorf("%s: startable = %v, want %s", test.path, err, test.want)
		}
		r, err := h.run()
		if err != nil {
			t.Errorf("%s: run = %v, want a result", test.path, err)
			continue
		}
		want := fmt.Sprintf("%q call failure: %s", test.path, test.want)
		if got := r.Err(); got == nil || got.Error() != want || r.Exit != -1 {
			t.Errorf("%s: run = %+v\nwith error %v\nwant       %s", test.path, r, got, want)
		}
	}
}

func TestHookThatCanBeStartedIsStartable(t *testing.T) {
	dir := t.TempDir()
	must(os.WriteFile(dir+"/env", []byte("#! /usr/bin/env sh\n"), 0o755))
	must(os.WriteFile(dir+"/secret", []byte("#!/bin/sh\n"), 0o711))
	must(os.Symlink("env", dir+"/link"))
	for _, path := range []string{"true", "/bin/sh", dir + "/env", dir + "/secret", dir + "/link"} {
		if err := new(hookRunner).startable(path); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestHookWithoutADeadlineIsRefused(t *testing.T) {
	h := newHookTest(t, "")
	h.c.Timeout = 0
	if _, err := h.run(); err == nil {
		t.Error("run without a deadline succeeds")
	}
	h.wantRuns(0)
}

func TestParseStatTakesAnyProgramName(t *testing.T) {
	p, ok := parseStat(7, []byte("7 (x) Z 1 2 3 (y z) S 1 20 30 0 -1\n"))
	if want := (process{pid: 7, group: 20, session: 30}); !ok || p != want {
		t.Errorf("parseStat = %+v, %v, want %+v", p, ok, want)
	}
	for _, s := range []string{"", "7 (x)", "7 (x) S 1 2", "7 (x) S 1 a b"} {
		if _, ok := parseStat(7, []byte(s)); ok {
			t.Errorf("parseStat(%q) succeeds", s)
		}
	}
}
