//go:build systemd

package systemd

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if root := inRoot(); root != "" {
		if err := greeter(root); err != nil {
			fmt.Fprintln(os.Stderr, "error:", err)
			os.Exit(1)
		}
		return
	}
	if strings.TrimSpace(read("/run/systemd/container")) != "systemd-nspawn" {
		fmt.Fprintln(os.Stderr, "error: this is no container of run.sh")
		os.Exit(2)
	}
	if err := install(); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

const registryAddr = "127.0.0.1:2022"

// install does what docs/systemd.md says about the registry and about an agent,
// up to the agent's settings, which are each test's own.
func install() error {
	all, err := installation(".")
	if err != nil {
		return err
	}
	registry, agent, several := all[0], all[1], all[2]
	steps := []string{
		strings.Replace(registry[0], "make\n", "", 1),
		agent[0], several[0],
		"ssh-keygen -q -t ed25519 -N '' -f /root/operator\n" +
			"cp /root/operator.pub /etc/deploy-registry/operator.keys && cp /etc/deploy-agent/key.pub /etc/deploy-registry/service.keys\n" +
			"chgrp deploy-registry /etc/deploy-registry/*.keys && chmod 0640 /etc/deploy-registry/*.keys\n" +
			"echo DEPLOY_REGISTRY_ADDR=" + registryAddr + " >/etc/deploy-registry/environment",
		registry[3],
	}
	var said string
	for _, step := range steps {
		out, err := exec.Command("sh", "-euc", step).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s\n%s", err, step, out)
		}
		said = string(out)
	}
	_, fingerprint, ok := strings.Cut(said, "SHA256:")
	if !ok {
		return fmt.Errorf("what docs/systemd.md greps for shows no fingerprint: %s", said)
	}
	fingerprint = "SHA256:" + strings.FieldsFunc(fingerprint, func(r rune) bool { return strings.ContainsRune(" \"\n", r) })[0]
	for name, value := range map[string]string{
		"DEPLOYCTL_ADDR": registryAddr, "DEPLOYCTL_FP": fingerprint, "DEPLOYCTL_KEY": "/root/operator", "SYSTEMD_PAGER": "cat", "SYSTEMD_COLORS": "0",
	} {
		os.Setenv(name, value)
	}
	settings := fmt.Sprintf("DEPLOY_AGENT_ADDR=%s\nDEPLOY_AGENT_FP=%s\nDEPLOY_AGENT_KEY=/etc/deploy-agent/key\nDEPLOY_AGENT_POLL=500ms\n", registryAddr, fingerprint)
	return os.WriteFile("/etc/deploy-agent/environment", []byte(settings), 0o644)
}

// run runs a command and returns what it has printed.
func run(t *testing.T, words ...string) string {
	t.Helper()
	out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
	if err != nil {
		if words[0] == "systemctl" {
			log, _ := exec.Command("journalctl", "-n", "30", "-o", "cat", "--no-pager").CombinedOutput()
			out = append(out, log...)
		}
		t.Fatalf("%s: %v\n%s", strings.Join(words, " "), err, out)
	}
	return string(out)
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func read(path string) string {
	b, _ := os.ReadFile(path)
	return string(b)
}

// await returns when done returns true, within d. The log of the unit says why not.
func await(t *testing.T, unit string, d time.Duration, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(d); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v\n%s", what, d, run(t, "journalctl", "-u", unit, "-n", "60", "-o", "cat", "--no-pager"))
		}
	}
}

// property returns one of a unit.
func property(t *testing.T, unit, name string) string {
	t.Helper()
	return strings.TrimSpace(run(t, "systemctl", "show", "-p", name, "--value", unit))
}

// publish adds a version of a component; files are by name.
func publish(t *testing.T, component, version string, files map[string]string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tree")
	for name, text := range files {
		write(t, filepath.Join(dir, name), text, 0o755)
	}
	run(t, "deployctl", "pack", "-o", dir+".tar.gz", dir)
	run(t, "deployctl", "addver", "-name", component, "-version", version, "-file", dir+".tar.gz")
}

// configure makes a configuration of the component of the same name.
func configure(t *testing.T, name, version string) {
	t.Helper()
	run(t, "deployctl", "addconf", "-name", name, "-layer", name+":"+version)
}

func change(t *testing.T, name, version string) {
	t.Helper()
	run(t, "deployctl", "changeconf", "-name", name, "-component", name, "-version", version)
}

// status is what `deploy-agent status -json` says, as far as it is needed here.
type status struct {
	Running bool
	State   string
	Live    struct {
		Root         string
		Layers       []string
		Verification string
	}
	Last struct {
		Verdict string
		Reason  string
	}
	Failed []struct{ Reason string } `json:"failed_here"`
}

func statusOf(name string) (s status) {
	// While it starts it does not answer: nothing is known then.
	out, _ := exec.Command("deploy-agent", "status", "-name", name, "-json").Output()
	json.NewDecoder(bytes.NewReader(out)).Decode(&s)
	return s
}

// awaitLive waits until the version is live and nothing is under way.
func awaitLive(t *testing.T, name, version string) {
	t.Helper()
	await(t, unitOf(name), 30*time.Second, name+":"+version+" live", func() bool {
		s := statusOf(name)
		return s.Running && s.State == "Idle" && len(s.Live.Layers) == 1 && s.Live.Layers[0] == name+":"+version
	})
}

func unitOf(name string) string { return "deploy-agent@" + name + ".service" }

// start starts the unit of an agent with these settings.
func start(t *testing.T, name, settings string) (unit string) {
	t.Helper()
	unit = unitOf(name)
	write(t, "/etc/deploy-agent/"+name+".environment", settings, 0o644)
	t.Cleanup(func() { exec.Command("systemctl", "stop", unit).Run() })
	run(t, "systemctl", "start", unit)
	return unit
}

// dropIn changes a unit.
func dropIn(t *testing.T, unit, text string) {
	t.Helper()
	write(t, "/etc/systemd/system/"+unit+".d/test.conf", text, 0o644)
	run(t, "systemctl", "daemon-reload")
}
