package cmd_test

import (
	"errors"
	"fmt"
	"go/build"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "deploytools"

// arrows says which of our packages may import which, all of it: a package that
// is not here may not exist. docs/architecture.md has the same table, and the
// reasons. A name that ends in /* stands for every package one level below.
var arrows = []arrow{
	{"layers/digest", nil},
	{"layers/inflate", nil},
	{"layers/manifest", []string{"layers/digest"}},
	{"layers", []string{"layers/digest", "layers/inflate", "layers/manifest"}},
	{"atomic", nil},
	{"verify/spec", nil},
	{"verify/sshsig", nil},
	{"verify", []string{"verify/spec"}},
	{"registry/wire", []string{"layers/digest", "layers/manifest", "verify/spec"}},
	{"registry", []string{"registry/wire", "layers/digest", "layers/manifest", "verify/spec"}},
	{"registry/keys", []string{"registry"}},
	{"registry/enginetest", []string{"registry", "layers/digest"}},
	{"registry/boltmeta", []string{"registry", "atomic"}},
	{"registry/fsblobs", []string{"registry", "layers/digest", "atomic"}},
	{"registry/console", []string{"registry", "registry/wire", "layers/digest", "layers/manifest", "verify/spec"}},
	{"registry/sftpfs", []string{"registry", "registry/wire", "layers/digest"}},
	{"registry/sshio", nil},
	{"registry/sshd", []string{"registry", "registry/console", "registry/sftpfs", "registry/sshio", "registry/keys", "registry/wire", "layers/digest", "atomic"}},
	{"registry/client", []string{"registry/sshio", "registry/wire", "layers/digest"}},
	{"agent", []string{"registry/wire", "layers/digest", "layers/manifest", "layers", "atomic", "verify", "verify/spec"}},
	{"cmd/internal/*", []string{"layers", "layers/*", "atomic", "verify", "verify/*", "registry", "registry/*", "agent", "cmd/internal/*"}},
	{"cmd/*", []string{"cmd/internal/*"}},
	{"scripts/*", nil},
	{"scripts/faults/*", nil},
}

type arrow struct {
	from string
	to   []string
}

// pure lists the packages that touch nothing outside of the process, neither
// themselves nor through another package of ours.
var pure = []string{
	"layers/digest", "layers/inflate", "layers/manifest", "verify/spec", "registry/wire", "registry", "registry/keys", "registry/console",
}

// impure lists what pure packages do not import, nor anything below it.
var impure = []string{
	"os", "net", "syscall", "path/filepath", "golang.org/x/sys",
	"golang.org/x/crypto/ssh", "github.com/pkg/sftp", "go.etcd.io/bbolt",
}

// harmless lists packages below those that only compute.
var harmless = []string{"net/netip", "net/url"}

// pkg is one package of ours: what its files import.
type pkg struct {
	Imports, TestImports, XTestImports []string
}

// packages returns our packages by their path inside the module. It reads the
// files itself, so that go test knows when its cached result is out of date.
func packages(t *testing.T) map[string]pkg {
	t.Helper()
	found := map[string]pkg{}
	err := filepath.WalkDir("..", func(dir string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() || dir == ".." {
			return err
		}
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil || d.Name() == "testdata" || strings.ContainsAny(d.Name()[:1], "._") {
			return fs.SkipDir
		}
		p, err := build.ImportDir(dir, 0)
		if _, ok := errors.AsType[*build.NoGoError](err); ok {
			return nil
		}
		found[filepath.ToSlash(strings.TrimPrefix(dir, "../"))] = pkg{p.Imports, p.TestImports, p.XTestImports}
		return err
	})
	if err != nil || len(found) == 0 {
		t.Fatalf("cannot list the packages: %d found, %v", len(found), err)
	}
	return found
}

// inside returns the path of our package inside the module, or "".
func inside(importPath string) string {
	name, ok := strings.CutPrefix(importPath, module+"/")
	if !ok {
		return ""
	}
	return name
}

// matches reports whether name is what the table calls pattern.
func matches(pattern, name string) bool {
	ok, err := path.Match(pattern, name)
	return ok && err == nil
}

// row returns the row of the table for the package.
func row(table []arrow, name string) (arrow, bool) {
	i := slices.IndexFunc(table, func(a arrow) bool { return matches(a.from, name) })
	if i < 0 {
		return arrow{}, false
	}
	return table[i], true
}

// checkArrows returns what breaks the table. Tests may import more: those
// below registry each other's packages, since an engine is tested by the
// conformance suite and a front end on a real engine, and those of cmd
// anything below it.
func checkArrows(table []arrow, found map[string]pkg) []string {
	const where = "(table: cmd/arrows_test.go and docs/architecture.md)"
	var bad []string
	for name, p := range found {
		r, ok := row(table, name)
		if name == "cmd" { // tests only
			r, ok = row(table, "cmd/internal/*")
		}
		if !ok {
			bad = append(bad, fmt.Sprintf("package %s is not in the table of arrows %s", name, where))
			continue
		}
		check := func(imports []string, allowed []string, kind string) {
			for _, i := range imports {
				to := inside(i)
				if to == "" || to == name || slices.ContainsFunc(allowed, func(pattern string) bool { return matches(pattern, to) }) {
					continue
				}
				bad = append(bad, fmt.Sprintf("%s -> %s: %s has no such arrow %s", name, to, kind, where))
			}
		}
		check(p.Imports, r.to, "the code")
		inTests := r.to
		if strings.HasPrefix(name, "registry") {
			inTests = append([]string{"registry", "registry/*", "layers/*", "atomic"}, r.to...)
		}
		check(slices.Concat(p.TestImports, p.XTestImports), inTests, "the test")
	}
	slices.Sort(bad)
	return slices.Compact(bad)
}

// checkPurity returns the ways on which a pure package reaches an impure one.
func checkPurity(found map[string]pkg) []string {
	var bad []string
	for _, name := range pure {
		seen := map[string]bool{}
		var follow func(way []string)
		follow = func(way []string) {
			for _, i := range found[way[len(way)-1]].Imports {
				next := inside(i)
				switch {
				case next != "" && !seen[next]:
					seen[next] = true
					follow(append(slices.Clone(way), next))
				case next == "" && isImpure(i):
					bad = append(bad, fmt.Sprintf("%s -> %s: %s has to stay pure", strings.Join(way, " -> "), i, name))
				}
			}
		}
		follow([]string{name})
	}
	return bad
}

func isImpure(importPath string) bool {
	return !slices.Contains(harmless, importPath) && slices.ContainsFunc(impure, func(root string) bool {
		return importPath == root || strings.HasPrefix(importPath, root+"/")
	})
}

func TestArrows(t *testing.T) {
	for _, bad := range checkArrows(arrows, packages(t)) {
		t.Error(bad)
	}
}

func TestArrowsOfPurePackages(t *testing.T) {
	for _, bad := range checkPurity(packages(t)) {
		t.Error(bad)
	}
}

// TestArrowsAreSeen shows that the checks find what they are for.
func TestArrowsAreSeen(t *testing.T) {
	for name, test := range map[string]struct {
		from  string
		found pkg
		want  string
	}{
		"a wrong arrow":           {"agent", pkg{Imports: []string{"deploytools/registry"}}, "agent -> registry: the code has no such arrow"},
		"a wrong arrow, in tests": {"agent", pkg{XTestImports: []string{"deploytools/registry/client"}}, "agent -> registry/client: the test has no such arrow"},
		"an import of cmd":        {"registry/sshd", pkg{TestImports: []string{"deploytools/cmd/internal/cli"}}, "registry/sshd -> cmd/internal/cli: the test has no such arrow"},
		"a program":               {"cmd/deployctl", pkg{Imports: []string{"deploytools/registry"}}, "cmd/deployctl -> registry: the code has no such arrow"},
		"a stranger":              {"registry/util", pkg{}, "package registry/util is not in the table of arrows"},
		"a deep stranger":         {"cmd/internal/cli/util", pkg{}, "package cmd/internal/cli/util is not in the table of arrows"},
	} {
		got := checkArrows(arrows, map[string]pkg{test.from: test.found})
		if len(got) != 1 || !strings.HasPrefix(got[0], test.want) {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
	for name, found := range map[string]map[string]pkg{
		"itself":          {"registry": {Imports: []string{"os"}}},
		"below":           {"registry": {Imports: []string{"net/http"}}},
		"through another": {"registry/wire": {Imports: []string{"deploytools/layers/x"}}, "layers/x": {Imports: []string{"os/exec"}}},
	} {
		if got := checkPurity(found); len(got) != 1 {
			t.Errorf("%s: %q, want one way", name, got)
		}
	}
	if got := checkPurity(map[string]pkg{"registry": {Imports: []string{"io", "net/netip", "github.com/spf13/pflag"}}}); got != nil {
		t.Errorf("pure imports: %q", got)
	}
}

func TestDocsArrows(t *testing.T) {
	var b strings.Builder
	b.WriteString("| package | may import |\n|---|---|\n")
	for _, a := range arrows {
		name := "`" + a.from + "`"
		if slices.Contains(pure, a.from) {
			name += " (pure)"
		}
		to := "nothing of ours"
		if a.to != nil {
			to = "`" + strings.Join(a.to, "` `") + "`"
		}
		fmt.Fprintf(&b, "| %s | %s |\n", name, to)
	}
	checkDocument(t, "../docs/architecture.md", "<!-- arrows -->", "<!-- /arrows -->", b.String())
}

// floors are the oldest versions without the known holes in them, by module;
// "go" is the toolchain.
var floors = map[string]string{
	"go":                            "1.26.5",  // CVE-2026-39822: os.Root; CVE-2026-32288: archive/tar
	"golang.org/x/crypto":           "0.56.0",  // CVE-2026-56855, CVE-2026-78662: deadlocked connections
	"github.com/pkg/sftp":           "1.13.12", // hostile server
	"github.com/klauspost/compress": "1.18.7",  // GHSA-259r-337f-4rfw
	"go.etcd.io/bbolt":              "1.5.0",
}

func TestFloors(t *testing.T) { // B-37
	b, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]string{}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(strings.TrimPrefix(line, "require ")); len(f) >= 2 {
			have[f[0]] = f[1]
		}
	}
	if have["go"] == "" {
		t.Fatal("go.mod: no line with the version of Go found")
	}
	for path, floor := range floors {
		if v, ok := have[path]; ok && older(v, floor) {
			t.Errorf("go.mod: %s %s is older than %s, which mends a known hole: run `go get %s@latest`", path, v, floor, path)
		}
	}
}

// older reports whether version a is before b; a leading v and anything behind
// the three numbers do not count.
func older(a, b string) bool {
	return slices.Compare(numbers(a), numbers(b)) < 0
}

func numbers(version string) []int {
	version, _, _ = strings.Cut(strings.TrimPrefix(version, "v"), "-")
	var out []int
	for part := range strings.SplitSeq(version, ".") {
		n, _ := strconv.Atoi(part)
		out = append(out, n)
	}
	return out
}

func TestFloorsCompareNumbers(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want bool
	}{
		{"v1.13.9", "1.13.12", true}, {"v1.13.12", "1.13.12", false}, {"v1.14.0", "1.13.12", false},
		{"v0.9.0", "0.56.0", true}, {"v0.58.0", "0.56.0", false}, {"1.26", "1.26.5", true}, {"v1.5.0-0.2026", "1.5.0", false},
	} {
		if got := older(test.a, test.b); got != test.want {
			t.Errorf("older(%s, %s) = %t", test.a, test.b, got)
		}
	}
}
