package sshd

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"

	"deploytools/registry"
	"deploytools/registry/console"
	"deploytools/registry/enginetest"
	"deploytools/registry/keys"
	"deploytools/registry/wire"
)

// daemon is a server that runs, and what is needed to talk to it.
type daemon struct {
	*Server
	addr            string
	host            ssh.Signer
	operator, agent ssh.Signer
	dir             string // has the private keys op and agent
	log             *journal
	ctx             context.Context
	stop            func()
	ended           chan error
}

// newDaemon makes a server that is not listening yet.
func newDaemon(t *testing.T, change ...func(*Options)) *daemon {
	t.Helper()
	d := &daemon{host: newKey(t), operator: newKey(t), agent: newKey(t), log: &journal{}, ended: make(chan error, 1)}
	blobs, spool := enginetest.NewBlobs()
	r := registry.New(registry.Options{Meta: enginetest.NewMeta(enginetest.MetaOptions{}), Blobs: blobs, Spool: spool, Check: acceptAll})
	t.Cleanup(r.Close)
	o := Options{
		Registry: r, HostKeys: []ssh.Signer{d.host}, Log: newLog(d.log),
		Operators: set(t, registry.Admin, d.operator, "anna"), Agents: set(t, registry.Agent, d.agent, "host1"),
	}
	for _, f := range change {
		f(&o)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	d.Server = s
	d.ctx, d.stop = context.WithCancel(context.Background())
	return d
}

func acceptAll(_ context.Context, r io.Reader, _ func(int64) error) (registry.Archive, error) {
	n, err := io.Copy(io.Discard, r)
	return registry.Archive{Size: n}, err
}

// start makes a server that listens on a port of its own.
func start(t *testing.T, change ...func(*Options)) *daemon {
	t.Helper()
	d := newDaemon(t, change...)
	d.listen(t)
	return d
}

func (d *daemon) listen(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d.addr = l.Addr().String()
	d.serve(t, l)
}

func (d *daemon) serve(t *testing.T, l net.Listener) {
	go func() { d.ended <- d.Serve(d.ctx, l) }()
	t.Cleanup(func() {
		d.stop()
		for _, c := range d.connections() {
			c.cut(nil)
		}
		if err := <-d.ended; err != nil {
			t.Errorf("Serve = %v", err)
		}
	})
}

// ssh returns OpenSSH's client, with arguments that have it trust the server.
func (d *daemon) ssh(t *testing.T, program string, args ...string) *exec.Cmd {
	t.Helper()
	if d.dir == "" {
		d.dir = t.TempDir()
		for name, key := range map[string]ssh.Signer{"op": d.operator, "agent": d.agent} {
			block, err := ssh.MarshalPrivateKey(key.(testKey).private, name)
			if err != nil {
				t.Fatal(err)
			}
			writeFile(t, filepath.Join(d.dir, name), pem.EncodeToMemory(block))
		}
		known := "registry " + string(ssh.MarshalAuthorizedKey(d.host.PublicKey()))
		writeFile(t, filepath.Join(d.dir, "known"), []byte(known))
	}
	host, port, _ := net.SplitHostPort(d.addr)
	all := []string{
		"-F", "none", "-o", "UserKnownHostsFile=" + filepath.Join(d.dir, "known"), "-o", "HostKeyAlias=registry",
		"-o", "StrictHostKeyChecking=yes", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "HostName=" + host,
		"-o", "Port=" + port,
	}
	cmd := exec.CommandContext(t.Context(), program, append(all, args...)...)
	cmd.Env = append(os.Environ(), "TERM=xterm", "SSH_AUTH_SOCK=")
	cmd.Dir = d.dir
	return cmd
}

// run runs the client as an operator and returns what it did.
func (d *daemon) run(t *testing.T, stdin string, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	cmd := d.ssh(t, "ssh", append([]string{"-i", "op", "anna@registry"}, args...)...)
	return output(t, cmd, stdin)
}

func output(t *testing.T, cmd *exec.Cmd, stdin string) (stdout, stderr string, status int) {
	t.Helper()
	var out, errs strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	if err := cmd.Run(); cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// dial connects as a Go client.
func (d *daemon) dial(t *testing.T, user string, auth ...ssh.Signer) (*ssh.Client, error) {
	t.Helper()
	nc, err := net.Dial("tcp", d.addr)
	if err != nil {
		t.Fatal(err)
	}
	return d.client(t, nc, user, auth...)
}

func (d *daemon) client(t *testing.T, nc net.Conn, user string, auth ...ssh.Signer) (*ssh.Client, error) {
	t.Helper()
	sc, channels, requests, err := ssh.NewClientConn(nc, "registry", &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(auth...)}, HostKeyCallback: ssh.FixedHostKey(d.host.PublicKey()),
	})
	if err != nil {
		nc.Close()
		return nil, err
	}
	c := ssh.NewClient(sc, channels, requests)
	t.Cleanup(func() { c.Close() })
	return c, nil
}

func (d *daemon) mustDial(t *testing.T, user string, key ssh.Signer) *ssh.Client {
	t.Helper()
	c, err := d.dial(t, user, key)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func session1(t *testing.T, c *ssh.Client) *ssh.Session {
	t.Helper()
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// testKey is a signer that can be written to a file.
type testKey struct {
	ssh.Signer
	private ed25519.PrivateKey
}

func newKey(t *testing.T) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return testKey{signer, private}
}

// set returns the set of one key.
func set(t *testing.T, role registry.Role, key ssh.Signer, comment string) func() *keys.Set {
	t.Helper()
	s := parse(t, role, line(key, comment))
	return func() *keys.Set { return s }
}

// line is a key as a keys file has it, without options.
func line(key ssh.Signer, comment string) string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key.PublicKey()))) + " " + comment
}

// parse reads lines of a keys file; all of them count.
func parse(t *testing.T, role registry.Role, lines ...string) *keys.Set {
	t.Helper()
	s, refused, err := keys.Parse("keys", []byte(strings.Join(lines, "\n")), keys.Rules{Role: role, Key: CheckKey, Command: CheckCommand})
	if err != nil || len(refused) > 0 {
		t.Fatal(refused, err)
	}
	return s
}

// echo is a front end that shows what it was given: its words on stdout, and
// the caller on stderr. "status N" as a line has that status.
func echo(_ context.Context, s *console.Session, line string) wire.Status {
	fmt.Fprintf(s.Stdout, "out %s\n", line)
	fmt.Fprintf(s.Stderr, "err %s\n", s.Caller.User)
	var status int
	fmt.Sscanf(line, "status %d", &status)
	if s.Ran != nil {
		s.Ran(line, 0, wire.Status(status))
	}
	return wire.Status(status)
}

// journal is a log whose lines can be waited for.
type journal struct {
	mu    sync.Mutex
	text  bytes.Buffer
	grown chan struct{}
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.grown != nil {
		close(j.grown)
		j.grown = nil
	}
	return j.text.Write(p)
}

func newLog(j *journal) *slog.Logger { return slog.New(slog.NewJSONHandler(j, nil)) }

// lines returns the lines with the message msg.
func (j *journal) lines(t *testing.T, msg string) (out []map[string]any) {
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	for line := range bytes.Lines(j.text.Bytes()) {
		m := map[string]any{}
		if err := json.Unmarshal(line, &m); err != nil {
			t.Fatalf("log line %q: %v", line, err)
		}
		if m["msg"] == msg {
			out = append(out, m)
		}
	}
	return out
}

// wait returns the first line with the message msg, when it is there.
func (j *journal) wait(t *testing.T, msg string) map[string]any {
	t.Helper()
	for {
		j.mu.Lock()
		if j.grown == nil {
			j.grown = make(chan struct{})
		}
		grown := j.grown
		j.mu.Unlock()
		if l := j.lines(t, msg); len(l) > 0 {
			return l[0]
		}
		<-grown
	}
}

func writeFile(t *testing.T, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
}
