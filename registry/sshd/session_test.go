package sshd

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"deploytools/layers/digest"
	"deploytools/registry/console"
	"deploytools/registry/wire"
)

func TestExecKeepsStreamsAndStatusApart(t *testing.T) {
	d := newDaemon(t)
	d.front.exec = echo
	d.listen(t)
	stdout, stderr, status := d.run(t, "", "status 3 'a  b'")
	if stdout != "out status 3 'a  b'\n" || stderr != "err anna\n" || status != 3 {
		t.Errorf("exec = %q, %q, %d", stdout, stderr, status)
	}
}

func TestConsoleIsBehindIt(t *testing.T) {
	d := start(t)
	stdout, stderr, status := d.run(t, "", "components -json")
	if stdout != `{"schema":1,"components":[]}`+"\n" && !strings.HasPrefix(stdout, `{"schema":1`) || stderr != "" || status != 0 {
		t.Errorf("components -json = %q, %q, %d", stdout, stderr, status)
	}
	stdout, stderr, status = d.run(t, "", "showconf -name nope")
	if stdout != "" || !strings.Contains(stderr, `error: configuration "nope" not found`) && !strings.Contains(stderr, "not found") || status != 3 {
		t.Errorf("showconf = %q, %q, %d, want an error on stderr and 3", stdout, stderr, status)
	}
}

// B-20: upstream took only CR for the end of a line, so a script did nothing
// and succeeded.
func TestShellWithoutTerminalIsAScript(t *testing.T) {
	d := start(t)
	for name, script := range map[string]string{
		"LF":          "help showconf\nshowconf -name nope\nhelp addver\n",
		"CRLF":        "help showconf\r\nshowconf -name nope\r\nhelp addver\r\n",
		"no last end": "help showconf\nshowconf -name nope",
	} {
		stdout, stderr, status := d.run(t, script)
		if !strings.Contains(stdout, "showconf") || strings.Contains(stdout, "addver") || strings.ContainsAny(stdout, "\x1b\r") || strings.Contains(stdout, "> ") {
			t.Errorf("%s: stdout %q, want the first command's output and nothing else", name, stdout)
		}
		if !strings.Contains(stderr, "line 2") || status != 3 {
			t.Errorf("%s: stderr %q, status %d, want line 2 and 3", name, stderr, status)
		}
	}
	if n := len(d.log.lines(t, "command run")); n != 6 {
		t.Errorf("%d lines in the log for 6 commands", n)
	}
}

func TestOldSCPGetsOneClearLine(t *testing.T) {
	d := start(t)
	for _, line := range []string{"scp -t name", "scp -v -f name"} {
		stdout, stderr, status := d.run(t, "", line)
		if stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, "use scp without -O, or sftp") || status != 2 {
			t.Errorf("%s = %q, %q, %d", line, stdout, stderr, status)
		}
	}
}

func TestAgentsHaveNoConsole(t *testing.T) {
	d := start(t)
	for _, test := range []struct{ args, want string }{
		{"help", "exec request failed on channel 0"},
		{"", "shell request failed on channel 0"},
		{"-tt", "PTY allocation request failed on channel 0"},
	} {
		cmd := d.ssh(t, "ssh", append([]string{"-i", "agent", "deploy-agent@registry"}, strings.Fields(test.args)...)...)
		stdout, stderr, status := output(t, cmd, "help\n")
		if stdout != "" || !strings.Contains(stderr, test.want) || status != 255 {
			t.Errorf("ssh %s = %q, %q, %d, want %q and 255", test.args, stdout, stderr, status, test.want)
		}
	}
}

func TestPoll(t *testing.T) {
	d := start(t)
	q := wire.PollRequest{Names: []string{"project1", "project2"}}
	payload, err := wire.EncodePoll(q)
	if err != nil {
		t.Fatal(err)
	}
	c := d.mustDial(t, AgentUser, d.agent)
	for range 3 { // on one connection, without a session
		ok, reply, err := c.SendRequest(wire.PollRequestType, true, payload)
		if !ok || err != nil {
			t.Fatalf("poll = %t, %v", ok, err)
		}
		r, err := wire.DecodePollReply(reply, q)
		if err != nil || r.Configurations[1] != (wire.PollState{Name: "project2", Digest: digest.Digest{}}) {
			t.Errorf("poll = %s, %v", reply, err)
		}
	}
	if ok, _, err := c.SendRequest(wire.PollRequestType, true, []byte(`{"Names":["../x"]}`)); ok || err != nil {
		t.Errorf("a poll for ../x = %t, %v, want it refused", ok, err)
	}
	c = d.mustDial(t, "anna", d.operator)
	if ok, _, err := c.SendRequest(wire.PollRequestType, true, payload); ok || err != nil {
		t.Errorf("an operator's poll = %t, %v, want it refused", ok, err)
	}
}

func TestUnknownRequestsAreRefused(t *testing.T) {
	d := start(t)
	for user, key := range map[string]ssh.Signer{"anna": d.operator, AgentUser: d.agent} {
		c := d.mustDial(t, user, key)
		for _, name := range []string{"keepalive@openssh.com", "tcpip-forward", "streamlocal-forward@openssh.com", "x"} {
			if ok, _, err := c.SendRequest(name, true, []byte("anything")); ok || err != nil {
				t.Errorf("%s: global request %s = %t, %v, want it refused", user, name, ok, err)
			}
		}
		s := session1(t, c)
		for _, name := range []string{"env", "x11-req", "auth-agent-req@openssh.com", "simple@putty.projects.tartarus.org", "x"} {
			if ok, err := s.SendRequest(name, true, []byte("anything")); ok || err != nil {
				t.Errorf("%s: request %s = %t, %v, want it refused", user, name, ok, err)
			}
		}
		for _, name := range []string{"exec", "subsystem", "pty-req", "window-change"} {
			if ok, err := s.SendRequest(name, true, []byte("short")); ok || err != nil {
				t.Errorf("%s: a malformed %s = %t, %v, want it refused", user, name, ok, err)
			}
		}
		if _, _, err := c.OpenChannel("direct-tcpip", nil); err == nil {
			t.Errorf("%s: forwarding is open", user)
		}
	}
}

// B-18: upstream started a second server on the same stream.
func TestChannelRunsOneThing(t *testing.T) {
	d := newDaemon(t)
	release := make(chan struct{})
	d.front.exec = func(context.Context, *console.Session, string) wire.Status { <-release; return wire.OK }
	d.listen(t)
	c := d.mustDial(t, "anna", d.operator)
	sftp := ssh.Marshal(struct{ Name string }{"sftp"})
	for _, first := range []string{"subsystem", "exec"} {
		s := session1(t, c)
		if ok, err := s.SendRequest(first, true, sftp); !ok || err != nil {
			t.Fatalf("%s = %t, %v", first, ok, err)
		}
		for _, second := range []string{"subsystem", "exec", "shell", "pty-req"} {
			if ok, err := s.SendRequest(second, true, sftp); ok || err != nil {
				t.Errorf("%s after %s = %t, %v, want it refused", second, first, ok, err)
			}
		}
	}
	close(release)
}

func TestOnlySFTPIsASubsystem(t *testing.T) {
	d := start(t)
	s := session1(t, d.mustDial(t, "anna", d.operator))
	if err := s.RequestSubsystem("netconf"); err == nil {
		t.Error("netconf was started")
	}
	if err := s.RequestSubsystem("sftp"); err != nil {
		t.Errorf("sftp after a refused subsystem: %v", err)
	}
}

// A fault in a command is the end of that command, not of the daemon.
func TestPanicEndsOneSession(t *testing.T) {
	d := newDaemon(t)
	d.front.exec = func(ctx context.Context, s *console.Session, line string) wire.Status {
		if line == "boom" {
			panic("boom in a command")
		}
		return echo(ctx, s, line)
	}
	d.listen(t)
	c := d.mustDial(t, "anna", d.operator)
	s := session1(t, c)
	var stderr strings.Builder
	s.Stderr = &stderr
	err := s.Run("boom")
	if e, ok := err.(*ssh.ExitError); !ok || e.ExitStatus() != 1 || stderr.String() != "error: internal error\n" {
		t.Errorf("Run = %v, stderr %q, want status 1 and a word", err, stderr.String())
	}
	if out, err := session1(t, c).Output("x"); err != nil || string(out) != "out x\n" {
		t.Errorf("another session of the connection: %q, %v", out, err)
	}
	l := d.log.wait(t, "internal error")
	if stack, _ := l["stack"].(string); l["error"] != "boom in a command" || !strings.Contains(stack, "session_test.go") {
		t.Errorf("log %v, want the panic and its stack", l)
	}
	if n := d.Stats().Errors; n != 1 {
		t.Errorf("%d faults are counted, want 1", n)
	}
}

// Upstream could close the channel before it had answered the request.
func TestExecIsAnsweredBeforeItRuns(t *testing.T) {
	d := newDaemon(t)
	d.front.exec = func(context.Context, *console.Session, string) wire.Status { return wire.OK }
	d.listen(t)
	c := d.mustDial(t, "anna", d.operator)
	for range 300 {
		if err := session1(t, c).Run("x"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCommandEndsWithItsClient(t *testing.T) {
	d := newDaemon(t)
	started, ended := make(chan struct{}), make(chan struct{})
	d.front.exec = func(ctx context.Context, _ *console.Session, _ string) wire.Status {
		close(started)
		<-ctx.Done()
		close(ended)
		return wire.Failed
	}
	d.listen(t)
	s := session1(t, d.mustDial(t, "anna", d.operator))
	if err := s.Start("wait"); err != nil {
		t.Fatal(err)
	}
	<-started
	s.Close()
	<-ended
}

func TestLogOfAConnection(t *testing.T) {
	d := newDaemon(t)
	d.front.exec = echo
	d.listen(t)
	c := d.mustDial(t, "an\x1b[2Jna", d.operator)
	session1(t, c).Run("status 4 \n\x1b]0;title\x07" + strings.Repeat("x", 5000))
	c.Close()
	d.log.wait(t, "connection closed")
	for _, msg := range []string{"connection opened", "command run", "connection closed"} {
		l := d.log.wait(t, msg)
		if l["user"] != `an\x1b[2Jna` || l["key_fingerprint"] != ssh.FingerprintSHA256(d.operator.PublicKey()) || !strings.HasPrefix(fmt.Sprint(l["remote"]), "127.0.0.1:") {
			t.Errorf("%s: %v, want who it was", msg, l)
		}
	}
	l := d.log.wait(t, "command run")
	command := l["command"].(string)
	if l["status"] != 4.0 || strings.ContainsAny(command, "\n\x1b\x07") || !strings.HasPrefix(command, `status 4 \n\x1b]0;title\ax`) || len(command) > 1100 {
		t.Errorf("command run: %v", l)
	}
}

func TestSFTPReachesItsFrontEnd(t *testing.T) {
	d := start(t)
	for user, key := range map[string]string{"anna": "op", AgentUser: "agent"} {
		stdout, stderr, status := output(t, d.ssh(t, "sftp", "-i", key, "-b", "-", user+"@registry"), "pwd\nversion\n")
		if status != 0 || !strings.Contains(stdout, "Remote working directory: /\n") {
			t.Errorf("%s: sftp = %q, %q, %d", user, stdout, stderr, status)
		}
	}
}

// What OpenSSH shows of an upload is the channel's stderr.
func TestUploadTellsTheDigest(t *testing.T) {
	d := start(t)
	d.ssh(t, "ssh")
	content := strings.Repeat("layer", 100_000)
	writeFile(t, filepath.Join(d.dir, "code.tar.gz"), []byte(content))
	want := digest.Of([]byte(content)).String()
	for _, cmd := range []*exec.Cmd{
		d.ssh(t, "scp", "-i", "op", "code.tar.gz", "anna@registry:"),
		d.ssh(t, "sftp", "-i", "op", "-b", "-", "anna@registry"),
	} {
		stdout, stderr, status := output(t, cmd, "put code.tar.gz\n")
		if status != 0 || !strings.Contains(stderr, want) {
			t.Errorf("%s: %q, %q, %d, want the digest %s", cmd.Args[0], stdout, stderr, status, want)
		}
	}
	if stdout, _, _ := d.run(t, "", "uploads"); !strings.Contains(stdout, want) {
		t.Errorf("uploads = %q, want %s", stdout, want)
	}
}

// Output larger than a window and input of the same size, at once.
func TestBytesArriveWhole(t *testing.T) {
	d := newDaemon(t)
	d.front.exec = func(_ context.Context, s *console.Session, _ string) wire.Status {
		if _, err := io.Copy(s.Stdout, s.Stdin); err != nil {
			return wire.Failed
		}
		return wire.OK
	}
	d.listen(t)
	in := strings.Repeat("0123456789abcde\n", 1<<18) // 4 MiB
	out, stderr, status := d.run(t, in, "cat")
	if out != in || status != 0 {
		t.Errorf("%d of %d bytes came back, %q, status %d", len(out), len(in), stderr, status)
	}
}
