package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"deploytools/registry/wire"
)

// echo is a command that prints its flags and arguments, or returns err.
type echo struct {
	name  string
	force bool
	err   error
}

func (e *echo) Flags(fs *pflag.FlagSet) {
	fs.StringVar(&e.name, "name", "none", "`word` to print")
	fs.BoolVarP(&e.force, "force", "f", false, "print it louder")
	fs.String("file", "", "file to read")
	FileFlag(fs, "file")
	fs.String("dir", "", "`directory` to read")
	FileFlag(fs, "dir")
	fs.Bool("hidden-flag", false, "for nobody")
	fs.Lookup("hidden-flag").Hidden = true
}

func (e *echo) Run(_ context.Context, o *IO, args []string) error {
	fmt.Fprintf(o.Stdout, "name=%s force=%t args=%q\n", e.name, e.force, args)
	return e.err
}

// tool is a program with commands and settings. addr receives its setting.
func tool(addr *string) *Program {
	return &Program{
		Name: "test-tool", Short: "do what tests need",
		Flags: func(fs *pflag.FlagSet) {
			fs.StringVar(addr, "addr", "localhost:2022", "`host:port` of the registry")
			fs.Int("tries", 1, "tries")
			fs.String("dial-key", "", "`file` with the key")
			fs.BoolP("verbose", "v", false, "say more")
			EnvAlias(fs, "addr", "TEST_OLD_ADDR")
		},
		Suggest: func(_ context.Context, _ *IO, words []string, word string) []string {
			flag := word[:strings.IndexByte(word, '=')+1] // "-name=", or nothing
			names := []string{flag + "at-" + *addr, flag + "code:v1", flag + "code:v2~rc", flag + "web"}
			if slices.Contains(words, "a b") {
				names = append(names, flag+"wide")
			}
			return names
		},
		Commands: []Command{
			{Name: "echo", Args: "[WORD...]", Short: "print words", Files: true, Examples: []string{"test-tool echo a"},
				Statuses: []wire.Status{wire.Conflict, wire.NotFound, wire.Failed}, New: func() Op { return &echo{} }},
			{Name: "bare", Short: "take nothing", New: func() Op { return &echo{} }},
			{Name: "far", Short: "run elsewhere", Raw: true, New: func() Op { return &echo{} }},
			{Name: "lost", Short: "find nothing", New: func() Op {
				return &echo{err: WithHint(WithStatus(errors.New("no \x1b[31mred\nerror: forged"), wire.NotFound), "run 'test-tool echo'")}
			}},
			{Name: "torn", Short: "be used wrongly", New: func() Op { return &echo{err: WithHint(Usage("torn"), "mend it")} }},
			{Name: "silent", Short: "say nothing", New: func() Op { return &echo{err: &Error{Status: wire.Conflict}} }},
			{Name: "wait", Short: "wait for a signal", New: func() Op { return &waiter{} }},
			{Name: "hidden", Short: "stay hidden", Hidden: true, New: func() Op { return &echo{} }},
		},
	}
}

// call runs p with the words of line and returns what came out.
func call(t *testing.T, p *Program, env map[string]string, words ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	status = p.Main(t.Context(), words, &IO{
		Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs,
		Env: func(name string) string { return env[name] },
	})
	return status, out.String(), errs.String()
}

func TestCommandLines(t *testing.T) {
	for _, test := range []struct {
		line   string
		status wire.Status
		out    string // on stdout, in part
		errs   string // all of stderr
	}{
		{"echo -name code x", wire.OK, `name=code force=false args=["x"]`, ""},
		{"-addr h:1 echo x --name=code -f y", wire.OK, `name=code force=true args=["x" "y"]`, ""},
		{"hidden", wire.OK, "name=none", ""},
		{"far -unknown -h x", wire.OK, `args=["-unknown" "-h" "x"]`, ""},
		{"far -h", wire.OK, "Usage:\n  test-tool far [flags]\n", ""},
		{"", wire.Usage, "", "error: no command given\nhint: run 'test-tool -h'\n"},
		{"ehco", wire.Usage, "", "error: unknown command \"ehco\", the nearest is echo\nhint: run 'test-tool -h'\n"},
		{"hiden", wire.Usage, "", "error: unknown command \"hiden\"\nhint: run 'test-tool -h'\n"},
		{"\x1b[31m", wire.Usage, "", "error: unknown command \"\\x1b[31m\"\nhint: run 'test-tool -h'\n"},
		{"-adr x echo", wire.Usage, "", "error: unknown flag \"-adr\", the nearest is -addr\nhint: run 'test-tool -h'\n"},
		{"echo -nmae x", wire.Usage, "", "error: unknown flag \"-nmae\", the nearest is -name\nhint: run 'test-tool echo -h'\n"},
		{"echo -tries 3 x", wire.Usage, "", "error: flag -tries should stand before the command\nhint: test-tool -tries ... echo ...\n"},
		{"far -unknown --addr=x", wire.OK, `args=["-unknown" "--addr=x"]`, ""},
		{"far -name -addr --addr=x", wire.Usage, "", "error: flag -addr should stand before the command\nhint: test-tool -addr ... far ...\n"},
		{"far -name -addr", wire.OK, `args=["-name" "-addr"]`, ""},
		{"bare x", wire.Usage, "", "error: unexpected argument \"x\"\nhint: if it is a name: -name x\n"},
		{"silent", wire.Conflict, "", ""},
		{"version -json -nope", wire.Usage, "", `{"schema":1,"error":"unknown flag \"-nope\"","hint":"run 'test-tool version -h'","status":2}` + "\n"},
		{"lost", wire.NotFound, "", "error: no \\x1b[31mred\\nerror: forged\nhint: run 'test-tool echo'\n"},
		{"help nothing", wire.Usage, "", "error: unknown command \"nothing\"\nhint: run 'test-tool help'\n"},
		{"help ehco", wire.Usage, "", "error: unknown command \"ehco\", the nearest is echo\nhint: run 'test-tool help echo'\n"},
		{"help", wire.OK, "\n  echo        print words\n", ""},
		{"-h", wire.OK, "\n  -v, -verbose     say more ($TEST_TOOL_VERBOSE)\n", ""},
		{"--help", wire.OK, "\n  -addr host:port  host:port of the registry (default localhost:2022, $TEST_TOOL_ADDR, $TEST_OLD_ADDR)\n", ""},
		{"help echo", wire.OK, "\n  -name word      word to print (default none)\n", ""},
		{"echo -h", wire.OK, "\nExamples:\n  test-tool echo a\n", ""},
		{"echo -help", wire.OK, "\nExit statuses:\n  0  done\n  1  failed; nothing was changed unless the message says so\n  2  the command line is wrong\n  3  what was named does not exist\n  4  it exists already, or has changed meanwhile\n", ""},
		{"version", wire.OK, "test-tool ", ""},
		{"-version", wire.OK, "test-tool ", ""},
		{"completion csh", wire.Usage, "", "error: completion needs one shell: bash, zsh, fish\nhint: run 'test-tool completion -h'\n"},
		{"torn", wire.Usage, "", "error: torn\nhint: mend it\n"},
	} {
		status, out, errs := call(t, tool(new(string)), nil, strings.Fields(test.line)...)
		if status != int(test.status) || !strings.Contains(out, test.out) || errs != test.errs {
			t.Errorf("test-tool %s: status %d, want %d\nstdout:\n%swant in it: %s\nstderr:\n%swant:\n%s",
				test.line, status, test.status, out, test.out, errs, test.errs)
		}
	}
}

func TestHelpShowsNothingHidden(t *testing.T) {
	_, out, _ := call(t, tool(new(string)), nil, "help")
	_, echo, _ := call(t, tool(new(string)), nil, "help", "echo")
	out += echo
	var md strings.Builder
	if err := tool(new(string)).Markdown(&md); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"help": out, "Markdown": md.String()} {
		if strings.Contains(text, "hidden") || strings.Contains(text, completeName) {
			t.Errorf("%s shows a hidden command:\n%s", name, text)
		}
	}
}

func TestCheckFindsWhatIsWrong(t *testing.T) {
	if err := tool(new(string)).Check(); err != nil {
		t.Errorf("Check = %v", err)
	}
	for want, change := range map[string]func(*Program){
		"command echo: there are two":                func(p *Program) { p.Commands = append(p.Commands, p.Commands[0]) },
		"command help: there are two":                func(p *Program) { p.Commands[0].Name = "help" },
		"should be one line":                         func(p *Program) { p.Commands[1].Short = "end." },
		"test-tool bare: exit status 99: has no mea": func(p *Program) { p.Commands[1].Statuses = []wire.Status{99} },
		"does not call the program":                  func(p *Program) { p.Examples = []string{"rm -r"} },
		"variable TEST_OLD_ADDR sets -addr and -b": func(p *Program) {
			first := p.Flags
			p.Flags = func(fs *pflag.FlagSet) { first(fs); fs.Bool("b", false, "b"); EnvAlias(fs, "b", "TEST_OLD_ADDR") }
		},
		"takes a value":           func(p *Program) { p.Flags = func(fs *pflag.FlagSet) { fs.StringP("out", "o", "", "out") } },
		"flag -out: has no usage": func(p *Program) { p.Flags = func(fs *pflag.FlagSet) { fs.Bool("out", false, "") } },
	} {
		p := tool(new(string))
		change(p)
		if err := p.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Check = %v, want %q in it", err, want)
		}
	}
}

func TestSettings(t *testing.T) {
	for _, test := range []struct {
		name string
		env  map[string]string
		args string
		want string
	}{
		{"default", nil, "", "localhost:2022"},
		{"empty variable", map[string]string{"TEST_TOOL_ADDR": ""}, "", "localhost:2022"},
		{"variable", map[string]string{"TEST_TOOL_ADDR": "env:1"}, "", "env:1"},
		{"alias", map[string]string{"TEST_OLD_ADDR": "old:1"}, "", "old:1"},
		{"variable over alias", map[string]string{"TEST_TOOL_ADDR": "env:1", "TEST_OLD_ADDR": "old:1"}, "", "env:1"},
		{"flag over variable", map[string]string{"TEST_TOOL_ADDR": "env:1"}, "-addr flag:1", "flag:1"},
		{"empty flag over variable", map[string]string{"TEST_TOOL_ADDR": "env:1"}, "-addr=", ""},
	} {
		var addr string
		status, _, errs := call(t, tool(&addr), test.env, append(strings.Fields(test.args), "echo")...)
		if status != 0 || addr != test.want {
			t.Errorf("%s: status %d, addr %q, want %q\n%s", test.name, status, addr, test.want, errs)
		}
	}
}

func TestBadVariableIsNamed(t *testing.T) {
	env := map[string]string{"TEST_TOOL_TRIES": "many"}
	status, out, errs := call(t, tool(new(string)), env, "echo")
	if status != 2 || out != "" || !strings.HasPrefix(errs, `error: environment variable TEST_TOOL_TRIES: bad value "many": `) {
		t.Errorf("status %d, stderr: %s", status, errs)
	}
	for _, line := range []string{"help", "-h", "echo -h", "version", "completion bash", "-tries 2 echo"} {
		if status, _, errs := call(t, tool(new(string)), env, strings.Fields(line)...); status != 0 {
			t.Errorf("%s with a bad variable: status %d, %s", line, status, errs)
		}
	}
}

func TestProgramOfFlagsOnly(t *testing.T) {
	var dir string
	p := &Program{
		Name: "test-daemon", Short: "wait",
		Flags: func(fs *pflag.FlagSet) { fs.StringVar(&dir, "dir", ".", "directory") },
		Run: func(_ context.Context, o *IO, args []string) error {
			_, err := fmt.Fprintf(o.Stdout, "dir=%s args=%q\n", dir, args)
			return err
		},
	}
	env := map[string]string{"TEST_DAEMON_DIR": "/srv"}
	if status, out, _ := call(t, p, env); status != 0 || out != "dir=/srv args=[]\n" {
		t.Errorf("no words: status %d, %s", status, out)
	}
	if status, _, errs := call(t, p, nil, "extra"); status != 2 || errs != "error: unexpected argument \"extra\"\nhint: run 'test-daemon -h'\n" {
		t.Errorf("extra word: status %d, %s", status, errs)
	}
	if status, out, _ := call(t, p, nil, "-h"); status != 0 || !strings.Contains(out, "Usage:\n  test-daemon [flags]\n") {
		t.Errorf("-h: status %d, %s", status, out)
	}
}

func TestWordsThatNameNoCommandGoToRun(t *testing.T) {
	p := tool(new(string))
	var got []string
	p.Run = func(_ context.Context, _ *IO, args []string) error { got = args; return nil }
	if status, _, errs := call(t, p, nil, "-v", "ehco", "-x", "y"); status != 0 || strings.Join(got, " ") != "ehco -x y" {
		t.Errorf("status %d, words %q, %s", status, got, errs)
	}
	if status, out, _ := call(t, p, nil, "echo", "x"); status != 0 || !strings.HasPrefix(out, "name=none") {
		t.Errorf("a command of ours: status %d, %s", status, out)
	}
	if status, _, _ := call(t, p, nil); status != 2 {
		t.Errorf("no words: status %d", status)
	}
}

func TestVersionAsJSON(t *testing.T) {
	for _, words := range [][]string{{"version", "-json"}, {"--version", "--json"}} {
		_, out, errs := call(t, tool(new(string)), nil, words...)
		var got struct{ Program, Version, Go string }
		if err := json.Unmarshal([]byte(out), &got); err != nil || got.Program != "test-tool" || got.Version == "" || got.Go == "" {
			t.Errorf("%q: %v, %s%s", words, err, out, errs)
		}
	}
}

func TestBuildIsWhatTheLinkerRecorded(t *testing.T) {
	info := debug.BuildInfo{GoVersion: "go1.26.5", Main: debug.Module{Version: "v1.2.3"}, Settings: []debug.BuildSetting{
		{Key: "vcs.revision", Value: "abc"}, {Key: "vcs.time", Value: "2026-11-21T00:00:00Z"}, {Key: "vcs.modified", Value: "true"},
	}}
	if got, want := buildOf(&info).String(), "v1.2.3, commit abc with changes of 2026-11-21T00:00:00Z, go1.26.5, wire format 1"; got != want {
		t.Errorf("with a commit: %q, want %q", got, want)
	}
	if got, want := buildOf(&debug.BuildInfo{GoVersion: "go1.26.5"}).String(), "(devel), go1.26.5, wire format 1"; got != want {
		t.Errorf("without one: %q, want %q", got, want)
	}
}

// full refuses every byte, like /dev/full.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

func TestStdoutThatCannotBeWrittenIsAnError(t *testing.T) {
	for _, line := range []string{"help", "echo -h", "version", "version -json", "completion bash", "__complete e"} {
		var errs bytes.Buffer
		o := &IO{Stdout: full{}, Stderr: &errs, Env: func(string) string { return "" }}
		want := "error: no space left on device\n"
		if line == "version -json" {
			want = `{"schema":1,"error":"no space left on device","status":1}` + "\n"
		}
		if status := tool(new(string)).Main(t.Context(), strings.Fields(line), o); status != 1 || errs.String() != want {
			t.Errorf("%s: status %d, %s", line, status, errs.String())
		}
	}
}

func TestHelpIsTheSameAsJSON(t *testing.T) {
	for _, name := range append([]string{""}, tool(new(string)).names()...) {
		words := strings.Fields("help " + name)
		_, text, _ := call(t, tool(new(string)), nil, words...)
		status, line, stderr := call(t, tool(new(string)), nil, append(words, "-json")...)
		var got struct {
			Schema   int
			Help     string
			Commands []struct{ Name, Short string }
		}
		if err := json.Unmarshal([]byte(line), &got); err != nil || status != 0 || stderr != "" {
			t.Errorf("%s -json: status %d, %q, %v, %s", words, status, line, err, stderr)
		}
		if got.Schema != 1 || got.Help != text || strings.Count(line, "\n") != 1 || strings.Contains(line, `\u003`) {
			t.Errorf("%s -json: %q, want the text %q", words, line, text)
		}
		var names []string
		for _, c := range got.Commands {
			names = append(names, c.Name)
		}
		if want := tool(new(string)).names(); name == "" && !slices.Equal(names, want) || name != "" && names != nil {
			t.Errorf("%s -json: commands %q, want %q", words, names, want)
		}
	}
}
