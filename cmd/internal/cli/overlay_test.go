package cli

import (
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
	lookup := func(m map[string]string) func(string) string { return func(name string) string { return m[name] } }
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
