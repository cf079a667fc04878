package sshd

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"deploytools/registry"
	"deploytools/registry/console"
	"deploytools/registry/keys"
	"deploytools/registry/wire"
)

// executed runs a command on a session of its own: what it said, and its exit
// status, or why there was none.
func executed(t *testing.T, c *ssh.Client, line string) (stdout, stderr string, status wire.Status, err error) {
	t.Helper()
	s := session1(t, c)
	defer s.Close()
	var out, errs strings.Builder
	s.Stdout, s.Stderr = &out, &errs
	err = s.Run(line)
	if exit, ok := errors.AsType[*ssh.ExitError](err); ok {
		status, err = wire.Status(exit.ExitStatus()), nil
	}
	return out.String(), errs.String(), status, err
}

// Every command of the table, for every role, by lines of a keys file and real
// connections: denied exactly where the table says so. A command that is added
// to the table is in here by that.
func TestEveryCommandForEveryKey(t *testing.T) {
	type row struct {
		options string
		role    registry.Role // registry.NoRole: nothing
		scoped  bool
		forced  string
	}
	rows := []row{
		{options: "", role: registry.Admin},
		{options: "role=agent"},
		{options: "role=operator,expiry-time=20000101"},
		{options: `role=operator,from="192.0.2.1"`},
		{options: `role=operator,from="127.0.0.0/8"`, role: registry.Operator},
		{options: `role=admin,configs="mine"`, role: registry.Admin, scoped: true},
		{options: `role=admin,command="version"`, role: registry.Admin, forced: "version"},
		{options: `role=admin,command="internal-sftp"`, role: registry.Admin, forced: keys.CommandSFTP},
	}
	for _, role := range []registry.Role{registry.Viewer, registry.Publisher, registry.Operator, registry.Admin} {
		rows = append(rows, row{options: "role=" + role.String(), role: role}, row{options: "restrict,role=" + role.String(), role: role},
			row{options: "role=" + role.String() + `,configs="mine"`, role: role, scoped: true})
	}
	var lines []string
	var signers []ssh.Signer
	for i, r := range rows {
		signers = append(signers, newKey(t))
		lines = append(lines, strings.TrimSpace(r.options+" "+line(signers[i], fmt.Sprint("key", i))))
	}
	set := parse(t, registry.Admin, lines...)
	d := start(t, func(o *Options) { o.Operators = func() *keys.Set { return set } })
	for i, r := range rows {
		c, err := d.dial(t, "anna", signers[i])
		if (err == nil) != (r.role != registry.NoRole) {
			t.Errorf("%s: logs in: %v", r.options, err)
		}
		if err != nil {
			continue
		}
		for _, command := range console.Commands() {
			if r.forced == keys.CommandSFTP { // too many refusals would cut the connection
				if c, err = d.dial(t, "anna", signers[i]); err != nil {
					t.Fatal(err)
				}
			}
			for _, example := range command.Examples {
				stdout, stderr, status, err := executed(t, c, example)
				if err != nil {
					t.Errorf("%s: %s: %v", r.options, example, err)
					continue
				}
				// With a scope, what names a configuration names another's here.
				denied := r.role < command.Role || r.scoped && (command.Reach == console.AllConfigurations || strings.Contains(example, "project"))
				if r.forced == keys.CommandSFTP {
					denied = true
				} else if r.forced != "" {
					denied = false
					if !strings.HasPrefix(stdout, "deploy-registry ") {
						t.Errorf("%s: %s: %q, want what %s says", r.options, example, stdout, r.forced)
					}
				}
				if (status == wire.Denied) != denied {
					t.Errorf("%s: %s: exit status %d, %s, want it denied: %t", r.options, example, status, stderr, denied)
				}
			}
		}
	}
}

// The user name of agents gives an agent's rights and no others, whatever the
// line says: no commands, no terminal, no upload.
func TestAgentsRunNoCommandAtAll(t *testing.T) {
	d := start(t)
	for _, command := range console.Commands() {
		c := d.mustDial(t, AgentUser, d.agent) // of which a few refusals are borne
		for _, example := range command.Examples {
			if stdout, _, _, err := executed(t, c, example); err == nil || stdout != "" {
				t.Errorf("an agent runs %s: %q, %v", example, stdout, err)
			}
		}
	}
	c := d.mustDial(t, AgentUser, d.agent)
	s := session1(t, c)
	if err := s.RequestPty("xterm", 24, 80, nil); err == nil {
		t.Error("an agent gets a terminal")
	}
	if err := s.Shell(); err == nil {
		t.Error("an agent gets a shell")
	}
	f, err := sftp.NewClient(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Create("/new"); !errors.Is(err, os.ErrPermission) {
		t.Errorf("an agent uploads: %v", err)
	}
}

// keyed starts a server with one operator's key that has these options.
func keyed(t *testing.T, options string) *daemon {
	t.Helper()
	d := newDaemon(t)
	set := parse(t, registry.Admin, options+" "+line(d.operator, "anna"))
	d.o.Operators = func() *keys.Set { return set }
	d.listen(t)
	return d
}

// A forced command runs whatever is asked for, and on whatever way.
func TestForcedCommand(t *testing.T) {
	d := keyed(t, `command="help version"`)
	want, _, _ := d.run(t, "", "help", "version")
	if !strings.HasPrefix(want, "version: show what") {
		t.Fatalf("help version = %q", want)
	}
	for _, args := range [][]string{{"delconf", "-name", "x", "-force"}, {"exit"}, nil, {"scp", "-t", "/x"}} {
		if stdout, stderr, status := d.run(t, "components\nexit 3\n", args...); stdout != want || status != 0 {
			t.Errorf("ssh %q: exit status %d, %q, %s", args, status, stdout, stderr)
		}
	}
	if stdout, stderr, status := d.run(t, "", "-tt"); strings.ReplaceAll(stdout, "\r\n", "\n") != want || status != 0 {
		t.Errorf("with a terminal: exit status %d, %q, %s", status, stdout, stderr)
	}
	cmd := d.ssh(t, "sftp", "-i", "op", "-b", "-", "anna@registry")
	if _, stderr, status := output(t, cmd, "ls\n"); status == 0 {
		t.Errorf("sftp with a forced command works: %s", stderr)
	}
}

func TestForcedSFTP(t *testing.T) {
	d := keyed(t, `restrict,role=publisher,command="internal-sftp"`)
	for _, args := range [][]string{{"components"}, nil} {
		if stdout, stderr, status := d.run(t, "", args...); status != int(wire.Denied) || stdout != "" || !strings.Contains(stderr, "error: your key is for sftp and scp only\n") {
			t.Errorf("ssh %q: exit status %d, %q, %q", args, status, stdout, stderr)
		}
	}
	writeFile(t, d.dir+"/file", []byte("content"))
	for _, program := range []string{"sftp", "scp"} {
		args, stdin := []string{"-i", "op", "-b", "-", "anna@registry"}, "put file a\n"
		if program == "scp" {
			args, stdin = []string{"-i", "op", "file", "anna@registry:b"}, ""
		}
		if _, stderr, status := output(t, d.ssh(t, program, args...), stdin); status != 0 {
			t.Errorf("%s: exit status %d, %s", program, status, stderr)
		}
	}
}

// As in sshd, a key without a terminal still runs scripts.
func TestNoTerminal(t *testing.T) {
	for options, want := range map[string]bool{"no-pty": false, "restrict": false, "restrict,pty": true, "no-port-forwarding": true} {
		d := keyed(t, options)
		s := session1(t, d.mustDial(t, "anna", d.operator))
		if err := s.RequestPty("xterm", 24, 80, nil); (err == nil) != want {
			t.Errorf("%s: a terminal: %v, want one: %t", options, err, want)
		}
		if stdout, stderr, status := d.run(t, "version\n"); status != 0 || !strings.HasPrefix(stdout, "deploy-registry") {
			t.Errorf("%s: a script: exit status %d, %q, %s", options, status, stdout, stderr)
		}
	}
}
