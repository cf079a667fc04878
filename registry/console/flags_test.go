package console

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

// testFlags defines the kinds of flags that our commands have.
func testFlags() *pflag.FlagSet {
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	fs.String("name", "", "")
	fs.String("version", "", "")
	fs.StringArray("layer", nil, "")
	fs.Duration("poll", time.Second, "")
	fs.String("n", "", "")
	fs.BoolP("force", "f", false, "")
	fs.BoolP("quiet", "q", false, "")
	fs.BoolP("verbose", "v", false, "")
	fs.String("secret", "", "")
	fs.Lookup("secret").Hidden = true
	return fs
}

func TestNormalizeFlags(t *testing.T) {
	for _, test := range []struct {
		name, args, want string
	}{
		{"one dash", "-name code", "--name code"},
		{"two dashes", "--name code", "--name code"},
		{"one dash, equals sign", "-name=code", "--name=code"},
		{"two dashes, equals sign", "--name=code", "--name=code"},
		{"value with an equals sign", "-name=a=b -name a=b", "--name=a=b --name a=b"},
		{"empty value", "-name= -force", "--name= --force"},
		{"value that looks like a flag", "-version -name", "--version -name"},
		{"value that looks like the end", "-name -- -force", "--name -- --force"},
		{"negative value", "-poll -5s", "--poll -5s"},
		{"repeated", "-layer a -layer=b", "--layer a --layer=b"},
		{"boolean takes no word", "-force x", "--force x"},
		{"boolean with value", "-force=false", "--force=false"},
		{"shorthand", "-f x", "-f x"},
		{"shorthand with value", "-f=false", "-f=false"},
		{"group of shorthands", "-qfv x", "-qfv x"},
		{"group with help", "-vh", "-vh"},
		{"long flag of one letter", "-n x -n=y", "--n x --n=y"},
		{"help letter", "-h", "-h"},
		{"help", "-help", "--help"},
		{"long help", "--help", "--help"},
		{"end of flags", "-force -- -name -nmae", "--force -- -name -nmae"},
		{"single dash is an argument", "- -force", "- --force"},
		{"flags behind arguments", "a -force b -name c", "a --force b --name c"},
		{"nothing", "", ""},
	} {
		args := strings.Fields(test.args)
		before := slices.Clone(args)
		got, err := NormalizeFlags(testFlags(), args, true)
		if err != nil || strings.Join(got, " ") != test.want {
			t.Errorf("%s: NormalizeFlags(%q) = %q, %v, want %q", test.name, test.args, got, err, test.want)
		}
		if !slices.Equal(args, before) {
			t.Errorf("%s: its argument became %q", test.name, args)
		}
	}
}

func TestNormalizeFlagsRefuses(t *testing.T) {
	for _, test := range []struct {
		name, args, want string
	}{
		{"misspelled", "-nmae code", `unknown flag "-nmae", the nearest is -name`},
		{"misspelled, two dashes", "--nmae=code", `unknown flag "--nmae", the nearest is -name`},
		{"nothing near", "-directory x", `unknown flag "-directory"`},
		{"near a hidden one only", "-secrets x", `unknown flag "-secrets"`},
		{"flags of go test, which pflag would swallow", "-test.run x", `unknown flag "-test.run"`},
		{"flags of go test, two dashes", "--test.v", `unknown flag "--test.v"`},
		{"letter", "-x", `unknown flag "-x"`},
		{"group with a stranger", "-fx", `unknown flag "-fx"`},
		{"group with a value", "-fq=true", `unknown flag "-fq"`},
		{"value glued to its flag", "-ncode", `unknown flag "-ncode"`},
		{"long flag of one letter in a group", "-fn", `unknown flag "-fn", the nearest is -n`},
		{"help with value", "-help=yes", `unknown flag "-help"`},
		{"three dashes", "---name x", `unknown flag "---name", the nearest is -name`},
		{"no name", "-=x", `unknown flag "-"`},
		{"no name, two dashes", "--=x", `unknown flag "--"`},
		{"not ASCII", "-é", `unknown flag "-é"`},
		{"not text", "-\xff\x1b", `unknown flag "-\xff\x1b"`},
		{"no value", "-force -name", "flag -name needs a value"},
	} {
		got, err := NormalizeFlags(testFlags(), strings.Fields(test.args), true)
		if err == nil || err.Error() != test.want {
			t.Errorf("%s: NormalizeFlags(%q) = %q, %v, want error %q", test.name, test.args, got, err, test.want)
		}
	}
}

func TestFirstArgumentEndsTheFlagsUnlessInterspersed(t *testing.T) {
	args := []string{"-v", "showconf", "-unknown"}
	got, err := NormalizeFlags(testFlags(), args, false)
	if err != nil || !slices.Equal(got, args) {
		t.Errorf("NormalizeFlags = %q, %v", got, err)
	}
	if _, err := NormalizeFlags(testFlags(), args, true); err == nil {
		t.Error("interspersed: the flag behind the argument was not looked at")
	}
}

// Sets that CheckFlags refuses must not lose words either.
func TestShorthandGoesFirstAndTakesItsValue(t *testing.T) {
	fs := testFlags()
	fs.StringP("output", "o", "", "")
	fs.String("f", "", "")
	if got, err := NormalizeFlags(fs, []string{"-f", "-o", "-f", "--f", "-o"}, true); err != nil || strings.Join(got, " ") != "-f -o -f --f -o" {
		t.Errorf("NormalizeFlags = %q, %v", got, err)
	}
	if got, err := NormalizeFlags(fs, []string{"-fo", "x"}, true); err == nil {
		t.Errorf("a group with a value: NormalizeFlags = %q", got)
	}
	if err := ParseFlags(fs, []string{"-o", "-name", "x"}, true); err != nil || fs.Lookup("output").Value.String() != "-name" {
		t.Errorf("ParseFlags: %v, output = %s", err, fs.Lookup("output").Value)
	}
}

func TestParseFlags(t *testing.T) {
	fs := testFlags()
	err := ParseFlags(fs, strings.Fields("x -version -name -poll=3s -qf y -- -z"), true)
	if err != nil || fs.Lookup("version").Value.String() != "-name" || fs.Lookup("poll").Value.String() != "3s" ||
		!fs.Changed("quiet") || !fs.Changed("force") || !slices.Equal(fs.Args(), []string{"x", "y", "-z"}) {
		t.Errorf("ParseFlags: %v, arguments %q", err, fs.Args())
	}
	for _, word := range []string{"-h", "-help", "--help", "-vh"} {
		if err := ParseFlags(testFlags(), []string{word}, true); !errors.Is(err, pflag.ErrHelp) {
			t.Errorf("ParseFlags(%s) = %v, want ErrHelp", word, err)
		}
	}
	err = ParseFlags(testFlags(), []string{"-poll", "soon"}, true)
	if err == nil || !strings.HasPrefix(err.Error(), `bad value "soon" of flag -poll: `) {
		t.Errorf("ParseFlags of a bad value = %v", err)
	}
}

// What strconv says is for programmers.
func TestBadValuesSayWhatIsWanted(t *testing.T) {
	fs := pflag.NewFlagSet("x", pflag.ContinueOnError)
	fs.Int("keep", 0, "")
	fs.Uint64("to", 0, "")
	fs.Bool("wait", false, "")
	for word, want := range map[string]string{
		"-keep=x": "should be a number such as 3", "-to=x": "should be a number such as 3, and none below 0", "-to=-1": "should be a number such as 3, and none below 0",
		"-wait=x": "should be true or false", "-keep=99999999999999999999": "value out of range",
	} {
		if err := ParseFlags(fs, []string{word}, true); err == nil || !strings.HasSuffix(err.Error(), ": "+want) {
			t.Errorf("ParseFlags(%s) = %v, want %s", word, err, want)
		}
	}
}

func TestCheckFlags(t *testing.T) {
	if err := CheckFlags(testFlags()); err != nil {
		t.Errorf("CheckFlags = %v", err)
	}
	fs := testFlags()
	fs.StringP("output", "o", "", "")
	if err := CheckFlags(fs); err == nil || !strings.Contains(err.Error(), "-o takes a value") {
		t.Errorf("a shorthand with a value: CheckFlags = %v", err)
	}
	for _, name := range []string{"vfq", "f", "h"} {
		fs = testFlags()
		fs.Bool(name, false, "")
		if err := CheckFlags(fs); err == nil || err.Error() != "flag -"+name+": its name is made of shorthands" {
			t.Errorf("a flag named %s: CheckFlags = %v", name, err)
		}
	}
}

func TestNearest(t *testing.T) {
	names := []string{"addver", "addconf", "showconf", "showcomp", "ls"}
	for word, want := range map[string]string{
		"addver":                  "addver",
		"advder":                  "addver", // two swapped
		"adver":                   "addver",
		"showcnof":                "showconf",
		"showcom":                 "showcomp",
		"addvre":                  "addver",
		"l":                       "ls",
		"sl":                      "ls",
		"x":                       "",
		"xy":                      "",
		"remove":                  "",
		"":                        "",
		strings.Repeat("a", 1000): "",
	} {
		if got := Nearest(word, names); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", word, got, want)
		}
	}
	if got := Nearest("addver", []string{strings.Repeat("addver", 1<<20)}); got != "" {
		t.Errorf("a huge candidate: Nearest = %d bytes", len(got))
	}
}

func FuzzNormalizeFlags(f *testing.F) {
	f.Add("-name\n-force\n--\nx")
	f.Add("-test.v\n-\xff")
	f.Fuzz(func(t *testing.T, s string) {
		args := strings.Split(s, "\n")
		got, err := NormalizeFlags(testFlags(), args, true)
		if err == nil && len(got) != len(args) {
			t.Errorf("NormalizeFlags(%q) = %q: a word was lost", args, got)
		}
		// What it lets through, pflag must understand; only values may be bad.
		if err := ParseFlags(testFlags(), args, true); errors.As(err, new(*pflag.NotExistError)) ||
			errors.As(err, new(*pflag.InvalidSyntaxError)) || errors.As(err, new(*pflag.ValueRequiredError)) {
			t.Errorf("NormalizeFlags(%q) let through: %v", args, err)
		}
	})
}
