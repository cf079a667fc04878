package cmd_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const troubleshootingFile = "../docs/troubleshooting.md"

// TestDocsTroubleshooting: what an operator can be told has a row.
func TestDocsTroubleshooting(t *testing.T) {
	var first []string // what is in code font in the first column
	for line := range strings.Lines(readText(troubleshootingFile)) {
		if cells := strings.Split(line, " | "); strings.HasPrefix(line, "| `") && len(cells) == 3 {
			for _, quoted := range regexp.MustCompile("`[^`]+`").FindAllString(cells[0], -1) {
				first = append(first, strings.Trim(quoted, "`"))
			}
		}
	}
	if len(first) < 40 {
		t.Fatalf("rows: %q", first)
	}
	messages := startFailures(t)
	for _, dir := range []string{"../agent", "../atomic", "../registry/wire/errors.go", "../cmd/internal/control"} {
		messages = append(messages, sentinels(t, dir)...)
	}
	messages = append(messages, recipeErrors(t)...)
	messages = append(messages, alerts(t)...)
	for _, message := range messages {
		if !slices.ContainsFunc(first, func(row string) bool { return strings.Contains(message, row) }) {
			t.Errorf("%s has no row for %q", troubleshootingFile, message)
		}
	}
	all := strings.Join(messages, "\n")
	for _, row := range first {
		if strings.HasPrefix(row, "Deploy") && !strings.Contains(all, row) {
			t.Errorf("%s has a row for %q, which is no alert", troubleshootingFile, row)
		}
	}
}

// parsed returns the Go files of a directory, or the one.
func parsed(t *testing.T, path string) []*ast.File {
	t.Helper()
	names := []string{path}
	if !strings.HasSuffix(path, ".go") {
		names, _ = filepath.Glob(path + "/*.go") // no error: the pattern is sound
	}
	var files []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	return files
}

// sentinels returns the texts of the errors that a Go package exports.
func sentinels(t *testing.T, path string) []string {
	t.Helper()
	var texts []string
	for _, f := range parsed(t, path) {
		ast.Inspect(f, func(n ast.Node) bool {
			v, ok := n.(*ast.ValueSpec)
			if !ok || !strings.HasPrefix(v.Names[0].Name, "Err") || len(v.Values) != 1 {
				return true
			}
			if call, ok := v.Values[0].(*ast.CallExpr); ok && len(call.Args) == 1 {
				texts = append(texts, literal(call.Args[0])...)
			}
			return true
		})
	}
	if len(texts) == 0 {
		t.Fatalf("%s exports no error", path)
	}
	return texts
}

// startFailures returns what can keep a program of the host's from being started.
func startFailures(t *testing.T) []string {
	t.Helper()
	var texts []string
	for _, f := range parsed(t, "../agent/hook_start.go") {
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Name.Name == "startFailure" {
				ast.Inspect(fn, func(n ast.Node) bool {
					for _, text := range literal(n) {
						if strings.Contains(text, " ") {
							texts = append(texts, text)
						}
					}
					return true
				})
			}
		}
	}
	if len(texts) < 5 {
		t.Fatalf("startFailure says %q", texts)
	}
	return texts
}

// literal returns the text of a string literal, or nothing.
func literal(n ast.Node) []string {
	l, ok := n.(*ast.BasicLit)
	if !ok || l.Kind != token.STRING {
		return nil
	}
	text, err := strconv.Unquote(l.Value)
	if err != nil {
		return nil
	}
	return []string{text}
}

// recipeErrors returns what the scripts of recipes say when they fail.
func recipeErrors(t *testing.T) []string {
	t.Helper()
	scripts, err := filepath.Glob("../scripts/hooks/*.sh")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("scripts: %q, %v", scripts, err)
	}
	var texts []string
	for _, script := range scripts {
		for _, found := range regexp.MustCompile(`error: ([^"'\n]+)["']|:\?([^}]+)\}`).FindAllStringSubmatch(readText(script), -1) {
			texts = append(texts, found[1]+found[2])
		}
	}
	return texts
}

const alertsFile = "../deploy/alerts.yml"

// alerts returns the names of the alerts.
func alerts(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, found := range regexp.MustCompile(`- alert: (\w+)`).FindAllStringSubmatch(readText(alertsFile), -1) {
		names = append(names, found[1])
	}
	if len(names) == 0 {
		t.Fatal("no alert")
	}
	return names
}

// TestAlertsNameMetrics: each number in the rules is one that a program shows.
func TestAlertsNameMetrics(t *testing.T) {
	shown := map[string]bool{}
	for _, program := range []string{"agent", "registry"} {
		files, _ := filepath.Glob("../cmd/internal/" + program + "cmd/*.go") // no error: the pattern is sound
		for _, file := range files {
			for _, found := range regexp.MustCompile(`\bdesc\("(\w+)"`).FindAllStringSubmatch(readText(file), -1) {
				shown["deploy_"+program+"_"+found[1]] = true
			}
		}
	}
	named := regexp.MustCompile(`deploy_(agent|registry)_\w+`).FindAllString(readText(alertsFile), -1)
	if len(named) < 20 {
		t.Fatalf("the rules name %q", named)
	}
	for _, name := range named {
		if !shown[name] {
			t.Errorf("%s names %s, which no program shows", alertsFile, name)
		}
	}
}

// TestAlertsFire: each alert fires where it should, and none where all is well.
func TestAlertsFire(t *testing.T) {
	if _, err := exec.LookPath("promtool"); err != nil && os.Getenv("CI") == "" {
		t.Skip("promtool is not installed: run scripts/deps.sh")
	}
	rules, err := filepath.Abs(alertsFile)
	if err != nil {
		t.Fatal(err)
	}
	trial := strings.Replace(readText("testdata/alerts_test.yml"), "RULES", rules, 1)
	for _, name := range alerts(t) {
		if !strings.Contains(trial, `alertname="`+name+`"`) {
			t.Errorf("the alert %s is not tried", name)
		}
	}
	file := filepath.Join(t.TempDir(), "alerts_test.yml")
	if err := os.WriteFile(file, []byte(trial), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "promtool", "test", "rules", file).CombinedOutput(); err != nil {
		t.Errorf("promtool: %v\n%s", err, out)
	}
}
