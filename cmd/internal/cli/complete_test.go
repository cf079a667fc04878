package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestComplete(t *testing.T) {
	for line, want := range map[string]string{
		"":                    "echo bare far lost torn silent wait help version completion",
		"ec":                  "echo",
		"x":                   "",
		"-":                   "-addr -tries -dial-key -verbose -help",
		"--a":                 "--addr",
		"-addr ":              "",
		"-addr h:1 ec":        "echo",
		"-addr=h:1 -v ec":     "echo",
		"-addr echo ":         "echo bare far lost torn silent wait help version completion", // echo is the address
		"echo -":              "-name -force -file -dir -help",
		"echo --f":            "--force --file",
		"echo ":               ":files",
		"echo a ":             ":files",
		"echo -name ":         "",
		"echo -file ":         ":files",
		"echo -dir ":          ":directories",
		"echo -dir=":          ":directories",
		"-h":                  "-help",
		"echo -force ":        ":files",
		"echo -name x -f":     "-force -file",
		"bare ":               "",
		"nothing ":            "at-localhost:2022 code:v1 code:v2~rc web",
		"nothing -":           "",
		"far -name ":          "at-localhost:2022 code:v1 code:v2~rc web",
		"-addr h far -name=a": "-name=at-h",
		"-tries x far -name ": "", // which cannot be run either
		"-key= far -name ":    "",
		"echo -name=":         "",
		"echo -file=":         ":files",
		"far -file=":          ":files",
		"far 'a":              "",
		"help ve":             "version",
		"help version ":       "",
		"completion ":         "bash zsh fish",
		"completion bash ":    "",
		"version -":           "-json -help",
		"-unknown echo -for":  "-force",
	} {
		words := append([]string{completeName}, strings.Split(line, " ")...)
		status, out, errs := call(t, tool(new(string)), nil, words...)
		if got := strings.Join(strings.Fields(out), " "); status != 0 || got != want || errs != "" {
			t.Errorf("%q: status %d, %q, want %q, %s", line, status, got, want, errs)
		}
	}
}

// TestMain lets bash call this test as the program that it completes.
func TestMain(m *testing.M) {
	if os.Getenv("CLI_TEST_RUN_TOOL") != "" {
		Exit(tool(new(string)).Main)
	}
	os.Exit(m.Run())
}

// inBash returns the line after bash has put all that TAB would offer at its
// end into it.
func inBash(t *testing.T, dir, line string) string {
	t.Helper()
	_, script, _ := call(t, tool(new(string)), nil, "completion", "bash")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	if err := os.Symlink(self, filepath.Join(bin, "test-tool")); err != nil {
		t.Fatal(err)
	}
	rc := filepath.Join(bin, "rc")
	script += `bind -x '"\C-x\C-p": printf "%s" "$READLINE_LINE" >"$OUT"'` + "\n"
	if err := os.WriteFile(rc, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(bin, "out")
	cmd := exec.Command("bash", "--noprofile", "--rcfile", rc, "-i")
	cmd.Env = append(os.Environ(), "CLI_TEST_RUN_TOOL=1", "PATH="+bin+":"+os.Getenv("PATH"), "OUT="+out, "HISTFILE=", "INPUTRC=/dev/null", "TERM=dumb")
	cmd.Dir = dir
	cmd.Stdin = strings.NewReader("test-tool " + line + "\x1b*\x18\x10\x15")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // it would take our terminal
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("bash: %v, %s", err, output)
	}
	got, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(strings.TrimPrefix(string(got), "test-tool "), " ")
}

func TestBashCompletes(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "built site"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a layer.tar.gz", "b.tar.gz"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for line, want := range map[string]string{
		"ec":                      "echo",
		"echo --f":                "echo --file --force",
		"echo -name '' -fo":       "echo -name '' -force",
		"echo a":                  `echo a\ layer.tar.gz`,
		`echo "a la`:              `echo "a layer.tar.gz"`,
		`echo a\ la`:              `echo a\ layer.tar.gz`,
		`echo -file a\ `:          `echo -file a\ layer.tar.gz`,
		"echo ":                   `echo a\ layer.tar.gz b.tar.gz built\ site`,
		"echo -dir ":              `echo -dir built\ site`,
		"echo -dir=":              `echo -dir=built\ site`,
		"echo -dir b":             `echo -dir built\ site`,
		"echo -file b.":           "echo -file b.tar.gz",
		"echo -file=b.":           "echo -file=b.tar.gz",
		"echo -file=":             `echo -file=a\ layer.tar.gz b.tar.gz built\ site`,
		"echo -name=b":            "echo -name=b",
		"echo -name b":            "echo -name b",
		"bare ":                   "bare",
		"far -name w":             "far -name web",
		"far -name=":              "far -name=at-localhost:2022 code:v1 code:v2~rc web",
		"far -name=we":            "far -name=web",
		"-addr=h far -name at":    "-addr=h far -name at-h",
		"-tries x far -name w":    "-tries x far -name w",
		"far -name code:":         "far -name code:v1 v2~rc",
		"far -name=code:v2":       "far -name=code:v2~rc",
		`far -name "w`:            `far -name "w`,
		`far -name w\`:            `far -name w\`,
		"far 'a b' -name w":       "far 'a b' -name web wide",
		`far a\ b -name wi`:       `far a\ b -name wide`,
		"far $(touch hit) -na":    "far $(touch hit) -name",
		"far `touch hit` -name w": "far `touch hit` -name web",
		"nothing -name w":         "nothing -name web",
	} {
		if got := inBash(t, dir, line); got != want {
			t.Errorf("bash %q: %q, want %q", line, got, want)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "hit")); err == nil {
		t.Error("a substitution was run")
	}
}
