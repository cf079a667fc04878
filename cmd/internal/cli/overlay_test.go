package cli

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"deploytools/registry/console"
)

func TestOverlay(t *testing.T) {
	type values struct {
		addr, script, word string
		wait               time.Duration
		many               []string
	}
	define := func(v *values) *pflag.FlagSet {
		fs := pflag.NewFlagSet("x", pflag.ContinueOnError)
		fs.StringVar(&v.addr, "addr", "default", "")
		fs.StringVar(&v.script, "script", "./{name}.sh", "")
		fs.StringVar(&v.word, "word", "{name}", "")
		fs.DurationVar(&v.wait, "wait", time.Second, "")
		fs.StringArrayVar(&v.many, "many", []string{"d"}, "")
		FileFlag(fs, "script")
		return fs
	}
	lookup := func(m map[string]string) func(string) (string, bool) {
		return func(name string) (string, bool) { v, ok := m[name]; return v, ok }
	}
	var program, part values
	base := define(&program)
	if err := console.ParseFlags(base, []string{"-many", "a, b", "-many", "c"}, false); err != nil {
		t.Fatal(err)
	}
	if err := fromEnv(base, "X", lookup(map[string]string{"X_WAIT": "5s", "X_WORD": "program"})); err != nil {
		t.Fatal(err)
	}
	fs := define(&part)
	err := Overlay(fs, base, "X", lookup(map[string]string{"X_WORD": "part", "X_MANY": "not taken"}), "addr")
	if err == nil {
		err = ExpandFiles(fs, "{name}", "web")
	}
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case len(part.many) != 2 || part.many[0] != "a, b":
		t.Errorf("many = %q: the command line counts most", part.many)
	case part.word != "part":
		t.Errorf("word = %q: the part's variable counts more than the program's", part.word)
	case part.wait != 5*time.Second:
		t.Errorf("wait = %v, want the program's", part.wait)
	case part.addr != "default":
		t.Errorf("addr = %q", part.addr)
	case part.script != "./web.sh":
		t.Errorf("script = %q, want the name in it", part.script)
	}
	for variable, value := range map[string]string{"X_ADDR": "elsewhere", "X_WAIT": "soon"} {
		if err := Overlay(define(&values{}), base, "X", lookup(map[string]string{variable: value}), "addr"); err == nil {
			t.Errorf("%s=%s was taken", variable, value)
		}
	}
}

func TestVariableWithoutAValue(t *testing.T) {
	for _, test := range []struct {
		environ   []string
		script    string
		addr      string
		overlaid  string // -script where the part has empty variables
		noEnviron bool
	}{
		{nil, "./x.sh", "default", "", false},
		{[]string{"X_SCRIPT=", "X_ADDR="}, "", "default", "", false},
		{[]string{"X_SCRIPT=./y.sh", "X_ADDR=a"}, "./y.sh", "a", "", false},
		{[]string{"X_SCRIPT="}, "./x.sh", "default", "", true},
	} {
		define := func(script, addr *string) *pflag.FlagSet {
			fs := pflag.NewFlagSet("x", pflag.ContinueOnError)
			fs.StringVar(script, "script", "./x.sh", "`file`; empty is none")
			fs.StringVar(addr, "addr", "default", "")
			EmptyFlag(fs, "script")
			return fs
		}
		o := &IO{Environ: func() []string { return test.environ }, Env: func(name string) string {
			for _, v := range test.environ {
				if value, ok := strings.CutPrefix(v, name+"="); ok {
					return value
				}
			}
			return ""
		}}
		if test.noEnviron {
			o.Environ = nil
		}
		var script, addr string
		base := define(&script, &addr)
		if err := fromEnv(base, "X", o.lookup); err != nil || script != test.script || addr != test.addr {
			t.Errorf("%q: -script %q -addr %q, %v, want %q and %q", test.environ, script, addr, err, test.script, test.addr)
		}
		var partScript, partAddr string
		part := define(&partScript, &partAddr)
		err := Overlay(part, base, "X", func(name string) (string, bool) { return "", true }, "addr")
		if err != nil || partScript != test.overlaid || partAddr != test.addr {
			t.Errorf("%q, part: -script %q -addr %q, %v, want %q and %q", test.environ, partScript, partAddr, err, test.overlaid, test.addr)
		}
	}
}

func TestUnknownVariables(t *testing.T) {
	fs := pflag.NewFlagSet("x", pflag.ContinueOnError)
	fs.String("script", "", "")
	fs.String("max-rate", "", "")
	EnvAlias(fs, "script", "X_OLD")
	got := UnknownVariables(fs, "X", slices.Values([]string{"X_SCRIPT", "X_SCRPT", "X_OLD", "X_MAX_RATE", "PATH", "XY", "X_FLUGZEUG"}))
	want := []string{"variable X_FLUGZEUG: there is no such setting", "variable X_SCRPT: there is no such setting, the nearest is X_SCRIPT"}
	if len(got) != len(want) {
		t.Fatalf("%q, want %q", got, want)
	}
	for i := range want {
		if got[i].Error() != want[i] {
			t.Errorf("%q, want %q", got[i], want[i])
		}
	}
}
