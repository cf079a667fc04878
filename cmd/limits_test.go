package cmd_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"deploytools/layers/digest"
)

// dialRegistry connects as the operator and stays connected.
func (s *site) dialRegistry(t *testing.T) *ssh.Client {
	t.Helper()
	text, err := os.ReadFile(s.key("operator"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.ParsePrivateKey(text)
	if err != nil {
		t.Fatal(err)
	}
	c, err := ssh.Dial("tcp", s.addr, &ssh.ClientConfig{
		User: "ops", Auth: []ssh.AuthMethod{ssh.PublicKeys(key)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// command runs one command over c and returns all that it says.
func command(c *ssh.Client, line string) (string, error) {
	s, err := c.NewSession()
	if err != nil {
		return "", err
	}
	defer s.Close()
	var out, said bytes.Buffer // each is written to by a goroutine of its own
	s.Stdout, s.Stderr = &out, &said
	err = s.Run(line)
	return out.String() + said.String(), err
}

// put uploads content over c and returns its digest.
func put(c *ssh.Client, content []byte) (digest.Digest, error) {
	tree, err := sftp.NewClient(c)
	if err != nil {
		return digest.Digest{}, err
	}
	defer tree.Close()
	f, err := tree.Create("upload")
	if err != nil {
		return digest.Digest{}, err
	}
	if _, err := f.Write(content); err != nil {
		return digest.Digest{}, err
	}
	return digest.Of(content), f.Close()
}

// flood opens connections that say nothing, from many addresses, and returns
// what ends them.
func flood(t *testing.T, addr string, n int) (end func()) {
	t.Helper()
	var held []net.Conn
	for i := range n {
		from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 9, byte(i>>8), byte(i))}}
		nc, err := from.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, nc)
	}
	return func() {
		for _, nc := range held {
			nc.Close()
		}
	}
}

// Out of file descriptors the registry lives, what needs none goes on, what
// needs one says so, and everything works again when there are some. By its own
// limits it never gets there.
func TestOutOfFileDescriptors(t *testing.T) {
	for _, test := range []struct {
		name   string
		limit  int
		flags  []string
		runOut bool
	}{
		{"by its own limits", 64, nil, false},
		{"with limits that are too great", 32, []string{"-max-connections", "1000", "-max-startups", "1000", "-max-startups-source", "1000"}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, err := newSite(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(s.close)
			s.under = []string{"prlimit", fmt.Sprintf("--nofile=%d:%d", test.limit, test.limit)}
			if err := s.startRegistry(nil, test.flags...); err != nil {
				t.Fatal(err)
			}
			inside := s.dialRegistry(t)
			add := func(version string) error {
				d, err := put(inside, archiveOf(map[string]string{"version": version}, nil))
				if err == nil {
					var out string
					if out, err = command(inside, fmt.Sprintf("addver -name code -version %s -hash %s", version, d)); err != nil {
						err = fmt.Errorf("%w: %s", err, out)
					}
				}
				return err
			}
			must := func(line string) {
				t.Helper()
				if out, err := command(inside, line); err != nil {
					t.Errorf("%s: %v, %s", line, err, out)
				}
			}
			for _, v := range []string{"v1", "v2"} {
				if err := add(v); err != nil {
					t.Fatal(err)
				}
			}
			must("addconf web code:v1")
			end := flood(t, s.addr, 200)
			if test.runOut {
				if _, err := awaitMatch(s.file("registry.log"), regexp.MustCompile("connections are not accepted.*too many open files"), 0); err != nil {
					t.Fatal(err, s.tail("registry.log"))
				}
			}
			must("changeconf -name web -component code -version v2") // a write of state.db
			err = add("v3")
			if !test.runOut && err != nil {
				t.Errorf("an upload, with a share of the file descriptors kept: %v", err)
			}
			if test.runOut && (err == nil || strings.Contains(err.Error(), "EOF")) {
				t.Errorf("an upload without a file descriptor: %v, want an answer", err)
			}
			if got := strings.Contains(s.text("registry.log"), "not accepted"); got != test.runOut {
				t.Errorf("accepting failed: %t, want %t", got, test.runOut)
			}
			end()
			if err := poll(func() (bool, error) {
				return exec.Command("ssh", "-F", filepath.Join(s.dir, "home/.ssh/config"), "reg", "components").Run() == nil, nil
			}); err != nil {
				t.Errorf("a login after it: %v, %s", err, s.tail("registry.log"))
			}
			if err := add("v4"); err != nil {
				t.Errorf("an upload after it: %v", err)
			}
			must("stats")
			if err := s.running["registry"].stop(); err != nil {
				t.Errorf("the registry: %v, %s", err, s.tail("registry.log"))
			}
			delete(s.running, "registry")
		})
	}
}

// What the registry shows about itself, to who is on the same machine.
func TestPagesOfTheRegistry(t *testing.T) {
	s, err := newSite(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	socket := s.file("http")
	if err := s.startRegistry(nil, "-http", socket); err != nil {
		t.Fatal(err)
	}
	page := pages(socket)
	inside := s.dialRegistry(t)
	if _, err := command(inside, "components"); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/healthz": "ok\n", "/readyz": "ready\n", "/version": `"program":"deploy-registry"`, "/metrics": "\ndeploy_registry_connections{role=\"operator\"} 1\n",
	} {
		if status, got := page(t, path); status != 200 || !strings.Contains(got, want) {
			t.Errorf("%s = %d, %q, want %q", path, status, got, want)
		}
	}
	check := exec.CommandContext(t.Context(), "promtool", "check", "metrics")
	_, metrics := page(t, "/metrics")
	check.Stdin = strings.NewReader(metrics)
	if out, err := check.CombinedOutput(); err != nil || len(out) != 0 {
		t.Errorf("promtool: %v\n%s", err, out)
	}
	if err := s.running["registry"].stop(); err != nil {
		t.Error(err)
	}
	delete(s.running, "registry")
	if _, err := os.Stat(socket); err == nil {
		t.Error("the socket is there after the end")
	}
}

// pages returns what asks for a page.
func pages(socket string) func(t *testing.T, path string) (int, string) {
	return func(t *testing.T, path string) (int, string) {
		t.Helper()
		c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		}}}
		r, err := c.Get("http://registry" + path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return r.StatusCode, string(b)
	}
}
