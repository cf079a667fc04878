package cmd_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"deploytools/registry"
	"deploytools/registry/console"
	"deploytools/registry/keys"
	"deploytools/registry/sshd"
)

const keysPage = "../docs/keys.md"

func TestDocsKeys(t *testing.T) {
	var roles strings.Builder
	roles.WriteString("| role | may also |\n|---|---|\n")
	var whole []string
	for role := registry.Viewer; role <= registry.Admin; role++ {
		var may []string
		for _, c := range console.Commands() {
			if c.Role == role {
				may = append(may, "`"+c.Name+"`")
			}
			if c.Role == role && c.Reach == console.AllConfigurations {
				whole = append(whole, "`"+c.Name+"`")
			}
		}
		switch role {
		case registry.Viewer:
			may = append(may, "read configurations and layers by SFTP")
		case registry.Publisher:
			may = append(may, "upload by SFTP and scp")
		}
		fmt.Fprintf(&roles, "| `%s` | %s |\n", role, strings.Join(may, ", "))
	}
	roles.WriteString("| `agent` | read its configurations and their layers by SFTP, and ask whether there is anything new |\n")
	checkDocument(t, keysPage, "<!-- roles -->", "<!-- /roles -->", roles.String())
	checkDocument(t, keysPage, "<!-- whole -->", "<!-- /whole -->",
		"Commands that are about no one configuration need a key without `configs=`: "+strings.Join(whole, ", ")+".\n")

	var options strings.Builder
	options.WriteString("| option | |\n|---|---|\n")
	for _, o := range keys.Options() {
		text := o.Name
		if o.Value != "" {
			text += `="` + o.Value + `"`
		}
		fmt.Fprintf(&options, "| `%s` | %s |\n", text, o.Short)
	}
	checkDocument(t, keysPage, "<!-- options -->", "<!-- /options -->", options.String())
}

// blocks returns the code blocks of the page that are marked as kind.
func blocks(t *testing.T, kind string) []string {
	t.Helper()
	b, err := os.ReadFile(keysPage)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range regexp.MustCompile("(?ms)^```"+kind+"\n(.*?)^```$").FindAllStringSubmatch(string(b), -1) {
		out = append(out, m[1])
	}
	if out == nil {
		t.Fatalf("%s has no block of %s", keysPage, kind)
	}
	return out
}

// Every line that the page shows is taken as it stands, with a key in it.
func TestDocsKeysLines(t *testing.T) {
	pub, err := os.ReadFile(filepath.Join(keyDir, "operator.pub"))
	if err != nil {
		t.Fatal(err)
	}
	whole := strings.Fields(string(pub))[1]
	for _, block := range blocks(t, "keys") {
		for line := range strings.Lines(strings.ReplaceAll(block, "AAAA...", whole)) {
			if strings.HasPrefix(line, "#") {
				continue
			}
			rules := keys.Rules{Role: registry.Admin, Key: sshd.CheckKey, Command: sshd.CheckCommand}
			if strings.HasPrefix(line, "host=") {
				rules.Role = registry.Agent
			}
			if _, refused, err := keys.Parse("the page", []byte(line), rules); err != nil || len(refused) > 0 {
				t.Errorf("%s: %v, %v", strings.TrimSpace(line), refused, err)
			}
		}
	}
	for _, block := range blocks(t, "revoked") {
		if _, bad := keys.ParseRevoked([]byte(strings.ReplaceAll(block, "AAAA...", whole))); len(bad) > 0 {
			t.Errorf("the list of what is revoked: %v", bad)
		}
	}
	for _, o := range keys.Options() {
		text := o.Name
		if o.Value != "" {
			text += `="` + o.Value + `"`
		}
		for also, with := range map[string]string{"host": "role=agent,", "principals": "cert-authority,"} {
			if o.Name == also {
				text = with + text
			}
		}
		if _, _, err := keys.Parse("the page", []byte(text+" "+string(pub)), keys.Rules{Role: registry.Admin}); err != nil {
			t.Errorf("the table's %s: %v", o.Name, err)
		}
	}
}

// The page's commands work, one after the other, with the real programs.
func TestDocsKeysCommands(t *testing.T) {
	s, err := newSite(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	dir := s.file("registry")
	if err := os.WriteFile(filepath.Join(dir, "revoked"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	known := s.file("home/.ssh/known_hosts")
	start := func() {
		t.Helper()
		before, err := os.ReadFile(known)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.startRegistry(nil, "-revoked", filepath.Join(dir, "revoked")); err != nil {
			t.Fatal(err)
		}
		config := "User ops\nBatchMode yes\nLogLevel ERROR\nStrictHostKeyChecking yes\nUserKnownHostsFile " + known + "\n"
		err = os.WriteFile(s.file("home/.ssh/config"), []byte(config), 0o600)
		if err == nil && len(before) > 0 { // what ssh has learned, and nothing else
			err = os.WriteFile(known, before, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	start()
	_, port, err := net.SplitHostPort(s.addr)
	if err != nil {
		t.Fatal(err)
	}
	here := strings.NewReplacer("/etc/deploy-registry/", dir+"/", "/var/lib/deploy-registry/", dir+"/",
		"-p 2022", "-p "+port, "registry.example:2022", s.addr, "registry.example", s.host)
	read := 0
	for line := range strings.Lines(strings.Join(blocks(t, "sh"), "")) {
		line = strings.TrimSpace(here.Replace(line))
		switch line {
		case "systemctl restart deploy-registry":
			if err := s.running["registry"].stop(); err != nil {
				t.Fatal(err)
			}
			delete(s.running, "registry")
			start()
			continue
		case "systemctl reload deploy-registry":
			if err := s.running["registry"].cmd.Process.Signal(syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
			if read, err = awaitMatch(s.file("registry.log"), regexp.MustCompile("keys reloaded"), read); err != nil {
				t.Fatal(err)
			}
			continue
		}
		command, fails := strings.CutPrefix(line, "! ")
		if rest, ok := strings.CutPrefix(command, "ssh "); ok && !strings.Contains(rest, "-i ") {
			command = "ssh -i " + s.key("operator") + " " + rest // which is not where ssh looks by itself
		}
		cmd := exec.Command("bash", "-c", command)
		cmd.Dir, cmd.Env = s.dir, s.env()
		out, err := cmd.CombinedOutput()
		if (err != nil) != fails {
			t.Fatalf("%s: %v: %s\n%s", line, err, out, s.tail("registry.log"))
		}
	}
}
