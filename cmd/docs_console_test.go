package cmd_test

import (
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"deploytools/layers/digest"
	"deploytools/layers/manifest"
	"deploytools/registry/console"
	"deploytools/registry/wire"
)

func TestDocsConsole(t *testing.T) {
	var b strings.Builder
	for _, c := range console.Commands() {
		c.Page().Markdown(&b, "###")
	}
	checkDocument(t, "../docs/ssh-console.md", "<!-- commands -->", "<!-- /commands -->", strings.TrimRight(b.String(), "\n")+"\n")
}

// The page about the wire shows the golden files, and the rules and limits
// that the code holds.
func TestDocsWireFormat(t *testing.T) {
	parts := map[string]string{"statuses": statusTable(), "manifest": fenced(manifestText(t))}
	parts["names"] = nameRules(t)
	parts["limits"] = fmt.Sprintf("| limit | |\n|---|---|\n| layers | %d |\n| bytes of the document | %d |\n| bytes of a name | %d |\n"+
		"| names in a poll | %d |\n| bytes of a poll or its reply | %d |\n| bytes of a report | %d |\n| bytes of the hook's output in it | %d |\n"+
		"| bytes of each other text in it | %d |\n| bytes of a command line | %d |\n",
		wire.MaxLayers, wire.MaxConfigurationBytes, wire.MaxName, wire.MaxPollNames, wire.MaxPollBytes, wire.MaxReportBytes, wire.MaxReportOutput, wire.MaxReportLine, console.MaxLine)
	for _, name := range []string{"configuration.json", "original.json", "poll-request.json", "poll-reply.json", "poll-held.json", "poll-instance.json", "poll-reported.json", "report.json", "fetch-request.json"} {
		b, err := os.ReadFile("../registry/wire/testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		parts[name] = fenced(string(b))
	}
	for name, want := range parts {
		checkDocument(t, "../docs/wire-format.md", "<!-- "+name+" -->", "<!-- /"+name+" -->", want)
	}
}

// Every field of a configuration is explained in the page's hand-written table.
func TestDocsExplainEveryField(t *testing.T) {
	b, err := os.ReadFile("../docs/wire-format.md")
	if err != nil {
		t.Fatal(err)
	}
	for prefix, typ := range map[string]reflect.Type{"": reflect.TypeFor[wire.Configuration](), `(Layers\[\])?\.`: reflect.TypeFor[wire.Layer]()} {
		for f := range typ.Fields() {
			row := regexp.MustCompile("(?m)^\\|.*`" + prefix + f.Name + "`.*\\|")
			if !row.Match(b) {
				t.Errorf("docs/wire-format.md explains no field %s of %s", f.Name, typ)
			}
		}
	}
}

// nameRules shows the rules for names, having compared them with the code.
func nameRules(t *testing.T) string {
	t.Helper()
	out := ""
	for _, rule := range []struct {
		what, pattern string
		check         func(string) error
	}{
		{"components, configurations, hosts", `[A-Za-z0-9][A-Za-z0-9._+@-]{0,127}`, wire.CheckName},
		{"versions", `[A-Za-z0-9][A-Za-z0-9._+@:~-]{0,127}`, wire.CheckVersion},
	} {
		pattern := regexp.MustCompile(`\A` + rule.pattern + `\z`)
		names := []string{"", strings.Repeat("a", 128), strings.Repeat("a", 129)}
		for c := range 256 {
			names = append(names, string([]byte{byte(c)}), "a"+string([]byte{byte(c)}))
		}
		for _, name := range names {
			if got := rule.check(name) == nil; got != pattern.MatchString(name) {
				t.Errorf("%s: the name %q is allowed: %t, against %s", rule.what, name, got, rule.pattern)
			}
		}
		out += fmt.Sprintf("%-34s  %s\n", rule.what, rule.pattern)
	}
	return fenced(out)
}

func fenced(s string) string { return "```\n" + s + "```\n" }

// statusTable is the table of exit statuses in Markdown.
func statusTable() string {
	var b strings.Builder
	b.WriteString("| exit status | |\n|---|---|\n")
	for _, s := range wire.Statuses {
		b.WriteString("| " + s.Status.String() + " | " + s.Meaning + " |\n")
	}
	return b.String()
}

func manifestText(t *testing.T) string {
	content := []byte("hello")
	m := manifest.Manifest{
		{Path: "etc", Type: manifest.Dir, Mode: 0o755},
		{Path: "etc/motd", Type: manifest.File, Mode: 0o644, GID: 33, Size: int64(len(content)), Digest: digest.Of(content)},
		{Path: "srv/50% off.txt", Type: manifest.File, Mode: 0o600, UID: 1000, GID: 1000, Digest: digest.Of(nil)},
		{Path: "var/lock", Type: manifest.Symlink, Mode: 0o777, Target: "../run/lock"},
	}
	var b strings.Builder
	if err := m.Encode(&b); err != nil {
		t.Fatal(err)
	}
	if _, err := manifest.Decode(strings.NewReader(b.String())); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
