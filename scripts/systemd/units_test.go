//go:build systemd

package systemd

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// The first test: what install has done stands.
func TestRegistryServesUnderItsUnit(t *testing.T) {
	const unit = "deploy-registry.service"
	if got := run(t, "systemctl", "status", unit); !strings.Contains(got, "active (running)") || !strings.Contains(got, `Status: "serving `+registryAddr) {
		t.Errorf("systemctl status: %s", got)
	}
	run(t, "deployctl", "components")
	info, err := os.Stat("/var/lib/deploy-registry")
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("state directory: %v, %v", info, err)
	}

	t.Run("starts again after a kill", func(t *testing.T) {
		old := property(t, unit, "MainPID")
		run(t, "systemctl", "kill", "-s", "KILL", unit)
		awaitRestart(t, unit, old, 10*time.Second)
		run(t, "deployctl", "components")
	})
	t.Run("reload reads the keys", func(t *testing.T) {
		run(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/root/second")
		words := []string{"deployctl", "-key", "/root/second", "components"}
		if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err == nil {
			t.Fatalf("a key that is not in the file: %s", out)
		}
		write(t, "/etc/deploy-registry/operator.keys", read("/root/operator.pub")+read("/root/second.pub"), 0o640)
		run(t, "systemctl", "reload", unit)
		run(t, words...)
	})
	t.Run("comes back from a hang", func(t *testing.T) {
		dropIn(t, unit, "[Service]\nWatchdogSec=1s\nTimeoutAbortSec=1s\n")
		run(t, "systemctl", "restart", unit)
		hang(t, unit)
		run(t, "deployctl", "components")
	})
}

func awaitRestart(t *testing.T, unit, old string, d time.Duration) {
	t.Helper()
	await(t, unit, d, unit+" restarted", func() bool {
		pid := property(t, unit, "MainPID")
		return pid != "0" && pid != old && property(t, unit, "ActiveState") == "active"
	})
}

// hang stops the main process; the watchdog has to see it.
func hang(t *testing.T, unit string) {
	t.Helper()
	old := property(t, unit, "MainPID")
	run(t, "kill", "-STOP", old)
	awaitRestart(t, unit, old, 30*time.Second)
	if log := run(t, "journalctl", "-u", unit, "-o", "cat"); !strings.Contains(log, "Watchdog timeout") {
		t.Errorf("%s was restarted, and not by the watchdog: %s", unit, log)
	}
}

// hookOf writes a hook that says on which attempt it runs, and then does what
// the text says.
func hookOf(t *testing.T, name, text string) (path string) {
	t.Helper()
	path = "/etc/deploy-agent/" + name + ".sh"
	write(t, path, "#!/bin/sh\nset -eu\necho \"$DEPLOY_ACTION $DEPLOY_ATTEMPT\" >>/tmp/"+name+".calls\n"+text, 0o755)
	return path
}

func TestAgentUnderItsUnit(t *testing.T) {
	t.Parallel()
	const name = "web"
	publish(t, name, "v1", map[string]string{"index": "v1"})
	publish(t, name, "v2", map[string]string{"index": "v2"})
	configure(t, name, "v1")
	hook := hookOf(t, name, "")
	unit := start(t, name, "DEPLOY_AGENT_SCRIPT="+hook+"\nDEPLOY_AGENT_VERIFY=type=tcp,addr="+registryAddr+"\nDEPLOY_AGENT_POLL=1h\n")
	run(t, "systemctl", "reload", unit) // or the first poll is at any time in that hour
	awaitLive(t, name, "v1")

	if got := run(t, "systemctl", "status", unit); !strings.Contains(got, "active (running)") || !strings.Contains(got, `Status: "`) {
		t.Errorf("systemctl status: %s", got)
	} else {
		t.Log(got)
	}
	if out, err := exec.Command("sh", "-c", "cd /var/lib/deploy-agent/web && deploy-agent -name web -dir . doctor -env /etc/deploy-agent/environment -env /etc/deploy-agent/web.environment").CombinedOutput(); err != nil || strings.Contains(string(out), "FAIL") {
		t.Errorf("doctor: %v\n%s", err, out)
	} else {
		t.Logf("doctor:\n%s", out)
	}

	t.Run("reload asks the registry", func(t *testing.T) {
		change(t, name, "v2")
		run(t, "systemctl", "reload", unit)
		awaitLive(t, name, "v2")
	})
	t.Run("starts again after a kill", func(t *testing.T) {
		old := property(t, unit, "MainPID")
		run(t, "systemctl", "kill", "-s", "KILL", "--kill-who=main", unit)
		awaitRestart(t, unit, old, 15*time.Second)
		awaitLive(t, name, "v2")
	})
	t.Run("comes back from a hang", func(t *testing.T) {
		dropIn(t, unit, "[Service]\nWatchdogSec=1s\nTimeoutAbortSec=1s\nRestartSec=100ms\n")
		run(t, "systemctl", "restart", unit)
		hang(t, unit)
		awaitLive(t, name, "v2")
	})
	if calls := read("/tmp/web.calls"); calls != "deploy 1\ndeploy 1\n" {
		t.Errorf("hooks run: %q, want two", calls)
	}
	t.Run("a wrong setting is not started again", func(t *testing.T) {
		write(t, "/etc/deploy-agent/web.environment", "DEPLOY_AGENT_POLL=often\n", 0o644)
		if out, err := exec.Command("systemctl", "restart", unit).CombinedOutput(); err == nil {
			t.Errorf("started with a wrong setting: %s", out)
		}
		if state, exit, n := property(t, unit, "ActiveState"), property(t, unit, "ExecMainStatus"), property(t, unit, "NRestarts"); state != "failed" || exit != "2" || n != "0" {
			t.Errorf("unit is %s with status %s after %s restarts", state, exit, n)
		}
	})
	t.Run("is taken off the host", func(t *testing.T) {
		run(t, "systemctl", "disable", "--now", "deploy-agent@web")
		write(t, "/etc/deploy-agent/web-remove.sh", "#!/bin/sh\ntouch /tmp/web.removed\n", 0o755)
		run(t, "deploy-agent", "remove", "-name", "web", "-remove-script", "/etc/deploy-agent/web-remove.sh", "-yes")
		if _, err := os.Stat("/tmp/web.removed"); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat("/var/lib/deploy-agent/web/current"); !os.IsNotExist(err) {
			t.Errorf("`current` is there still: %v", err)
		}
	})
}

// A hook that runs while the unit is restarted runs once, to its end.
func TestHookSurvivesRestartOfTheUnit(t *testing.T) {
	t.Parallel()
	const name = "slow"
	publish(t, name, "v1", map[string]string{"index": "v1"})
	configure(t, name, "v1")
	run(t, "mkfifo", "/tmp/slow.begun", "/tmp/slow.go")
	hook := hookOf(t, name, "echo >/tmp/slow.begun\nread -r word </tmp/slow.go\necho \"$word\" >/tmp/slow.word\n")
	unit := start(t, name, "DEPLOY_AGENT_SCRIPT="+hook+"\n")
	run(t, "cat", "/tmp/slow.begun")
	for range 2 {
		run(t, "systemctl", "restart", unit)
	}
	run(t, "systemctl", "kill", "-s", "KILL", "--kill-who=main", unit)
	// For reading too: a hook that was ended must not hold up the test.
	goOn, err := os.OpenFile("/tmp/slow.go", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer goOn.Close()
	if _, err := goOn.WriteString("through\n"); err != nil {
		t.Fatal(err)
	}
	awaitLive(t, name, "v1")
	if calls, word := read("/tmp/slow.calls"), read("/tmp/slow.word"); calls != "deploy 1\n" || word != "through\n" {
		t.Errorf("hooks run: %q, %q, want one that got through", calls, word)
	}
}

// Nothing of the agent's unit binds a hook.
func TestHookDoesWhatAnAdministratorMay(t *testing.T) {
	t.Parallel()
	const name = "free"
	publish(t, name, "v1", map[string]string{"index": "v1"})
	configure(t, name, "v1")
	hook := hookOf(t, name, `
umask 022
echo text >/etc/free.conf
mkdir -p /srv/free && mount -t tmpfs none /srv/free
systemd-run --quiet --unit=free-job --service-type=oneshot touch /srv/free/job
test -e /srv/free/job
umount /srv/free
useradd --system free
ulimit -c
`)
	start(t, name, "DEPLOY_AGENT_SCRIPT="+hook+"\n")
	awaitLive(t, name, "v1")
}

// One process does for several configurations.
func TestSeveralUnderOneUnit(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"one", "two"} {
		publish(t, name, "v1", map[string]string{"index": "v1"})
		configure(t, name, "v1")
		hook := hookOf(t, name, "")
		write(t, "/etc/deploy-agent/"+name+".environment", "DEPLOY_AGENT_SCRIPT="+hook+"\n", 0o644)
	}
	const unit = "deploy-agent.service"
	dropIn(t, unit, "[Service]\nEnvironment=\"DEPLOY_AGENT_NAME=one\\ntwo\"\n")
	t.Cleanup(func() { exec.Command("systemctl", "stop", unit).Run() })
	run(t, "systemctl", "start", unit)
	for _, name := range []string{"one", "two"} {
		awaitLive(t, name, "v1")
	}
	if got := run(t, "systemctl", "status", unit); !strings.Contains(got, "one") || !strings.Contains(got, "two") {
		t.Errorf("status names not both: %s", got)
	}
}

// A start that takes longer than the unit allows asks for more time: here the
// lock of the directory is slow. Not beside other tests: their daemon-reload has
// systemd forget what it was asked for.
func TestSlowStartGetsItsTime(t *testing.T) {
	const name = "late"
	publish(t, name, "v1", map[string]string{"index": "v1"})
	configure(t, name, "v1")
	dropIn(t, unitOf(name), "[Service]\nTimeoutStartSec=10s\nExecStart=\nExecStart=/usr/bin/strace -D -f -qq -o /dev/null -e trace=flock "+
		"-e inject=flock:delay_enter=13s:when=1 /usr/bin/deploy-agent -name %i -dir /var/lib/deploy-agent/%i\n")
	began := time.Now()
	unit := start(t, name, "DEPLOY_AGENT_SCRIPT=\n")
	if took := time.Since(began); took < 11*time.Second {
		t.Errorf("the start was not slow: %v", took)
	}
	awaitLive(t, name, "v1")
	if n := property(t, unit, "NRestarts"); n != "0" {
		t.Errorf("restarts: %s", n)
	}
}

// What runs may end when the registry is stopped.
func TestStoppedRegistryEndsTransfers(t *testing.T) {
	const unit = "deploy-registry.service"
	file := t.TempDir() + "/layer.tar.gz"
	run(t, "sh", "-c", "mkdir -p /root/big && head -c 800000 /dev/urandom >/root/big/noise && tar -C /root/big -czf "+file+" .")
	run(t, "sh", "-c", "ssh-keyscan -p 2022 127.0.0.1 >/root/known 2>/dev/null")
	cmd := exec.Command("sftp", "-q", "-b", "-", "-l", "1600", "-i", "/root/operator", "-o", "UserKnownHostsFile=/root/known", "-P", "2022", "127.0.0.1")
	cmd.Stdin = strings.NewReader("put " + file + "\n")
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	await(t, unit, 20*time.Second, "upload begun", func() bool { return strings.Contains(run(t, "deployctl", "uploads"), "layer") })
	stopping := exec.Command("systemctl", "stop", unit)
	if err := stopping.Start(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the upload: %v\n%s", err, out.String())
	}
	if err := stopping.Wait(); err != nil {
		t.Error(err)
	}
	if result := property(t, unit, "Result"); result != "success" {
		t.Errorf("stopped with %s", result)
	}
	run(t, "systemctl", "start", unit)
	if got := run(t, "deployctl", "uploads"); !strings.Contains(got, "layer") {
		t.Errorf("the upload is not there: %s", got)
	}
}
