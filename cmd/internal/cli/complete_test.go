package cli

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestComplete(t *testing.T) {
	for line, want := range map[string]string{
		"":                   "echo bare far lost torn silent wait help version completion",
		"ec":                 "echo",
		"x":                  "",
		"-":                  "-addr -tries -dial-key -verbose -help",
		"--a":                "--addr",
		"-addr ":             "",
		"-addr h:1 ec":       "echo",
		"-addr=h:1 -v ec":    "echo",
		"-addr echo ":        "echo bare far lost torn silent wait help version completion", // echo is the address
		"echo -":             "-name -force -file -help",
		"echo --f":           "--force --file",
		"echo ":              ":files",
		"echo a ":            ":files",
		"echo -name ":        "",
		"echo -file ":        ":files",
		"-h":                 "-help",
		"echo -force ":       ":files",
		"echo -name x -f":    "-force -file",
		"bare ":              "",
		"nothing ":           "",
		"help ve":            "version",
		"help version ":      "",
		"completion ":        "bash zsh fish",
		"completion bash ":   "",
		"version -":          "-json -help",
		"-unknown echo -for": "-force",
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

// inBash completes the line as bash does when TAB is pressed at its end, with
// its own rules for splitting words.
func inBash(t *testing.T, dir string, words ...string) string {
	t.Helper()
	_, script, _ := call(t, tool(new(string)), nil, "completion", "bash")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	script += `
program=$1; shift
COMP_WORDS=("$program" "$@"); COMP_CWORD=$#
[[ $(complete -p test-tool) == 'complete -F _test_tool test-tool' ]] || exit 9
_test_tool "$program" "${!#}" "${COMP_WORDS[COMP_CWORD-1]}"
((${#COMPREPLY[@]} == 0)) || printf '%s\n' "${COMPREPLY[@]}"
`
	cmd := exec.Command("bash", append([]string{"--norc", "-euc", script, "bash", self}, words...)...)
	cmd.Env = append(os.Environ(), "CLI_TEST_RUN_TOOL=1")
	cmd.Dir = dir
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil || errs.Len() > 0 {
		t.Errorf("bash %q: %v, %s", words, err, errs.String())
	}
	return strings.TrimSuffix(string(out), "\n")
}

func TestBashCompletes(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a layer.tar.gz", "b.tar.gz"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		words []string
		want  string
	}{
		{[]string{"ec"}, "echo"},
		{[]string{"echo", "--f"}, "--force\n--file"},
		{[]string{"echo", "-name", "", "-fo"}, "-force"},
		{[]string{"echo", "a"}, "a layer.tar.gz"},
		{[]string{"echo", "-file", "b"}, "b.tar.gz"},
		{[]string{"echo", "-file", "=", "b"}, "b.tar.gz"},
		{[]string{"echo", "-name", "=", "b"}, ""},
		{[]string{"bare", ""}, ""},
	} {
		if got := inBash(t, dir, test.words...); got != test.want {
			t.Errorf("bash %q: %q, want %q", test.words, got, test.want)
		}
	}
	if got := inBash(t, dir, "echo", "-file", "="); !strings.Contains(got, "b.tar.gz") || !strings.Contains(got, "a layer.tar.gz") {
		t.Errorf("bash behind -file=: %q", got)
	}
}
