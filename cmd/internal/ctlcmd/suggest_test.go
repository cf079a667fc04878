package ctlcmd

import (
	"net"
	"path/filepath"
	"testing"
	"time"
)

// silent accepts connections and never says a word on them.
func silent(t *testing.T, network, addr string) string {
	t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// The client's own deadlines are 15 s and more.
func TestCompletionDoesNotWait(t *testing.T) {
	r := newOldRegistry(t)
	for name, change := range map[string][2]string{
		"silent registry":  {"DEPLOYCTL_ADDR", silent(t, "tcp", "127.0.0.1:0")},
		"silent SSH agent": {"SSH_AUTH_SOCK", silent(t, "unix", filepath.Join(t.TempDir(), "agent"))},
		"bad setting":      {"DEPLOYCTL_FINGERPRINT", "MD5:aa"},
	} {
		c := r.call(t)
		c.env[change[0]] = change[1]
		began := time.Now()
		status, stdout, stderr := c.run(t, "__complete", "showconf", "-name", "")
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%s: took %v, want about %v", name, took, maxWait)
		}
		if status != 0 || stdout != "" || stderr != "" {
			t.Errorf("%s: status %d, %q, %q, want nothing", name, status, stdout, stderr)
		}
	}
}

// A script puts what it is told into a command line that somebody will run.
func TestNamesThatAShellWouldReadAreNotOffered(t *testing.T) {
	for word, want := range map[string]bool{
		"web": true, "code:v1.2+b_3@x-4": true, "1.0~rc1": true, "-name=web": true, "-to": true, "12": true,
		"": false, "a b": false, "$(id)": false, "a`id`": false, "a;id": false, `a\`: false, "a'": false, `a"b`: false,
		"\x1b[2J": false, "a\rb": false, "~root": false, "=ls": false, "%1": false, "*": false, "a|b": false, "ä": false,
	} {
		if got := plain(word); got != want {
			t.Errorf("plain(%q) = %t, want %t", word, got, want)
		}
	}
}
