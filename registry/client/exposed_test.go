package client_test

import (
	"os"
	"strings"
	"testing"

	"deploytools/registry/client"
	"deploytools/registry/wire"
)

// ssh refuses such a key; here it is used, and told of once however often the
// client connects.
func TestKeyFileThatIsOpenToOthersIsToldOfOnce(t *testing.T) {
	s := newServer(t)
	file, _ := writeKey(t)
	var told []string
	c := s.client(func(o *client.Options) {
		o.KeyFile, o.Warn = file, func(text string) { told = append(told, text) }
	})
	connect := func() { wants(t, c.Connect(t.Context()), wire.ErrUntrusted, file) } // refused: the next one connects anew
	connect()
	if len(told) > 0 {
		t.Errorf("a key of mode 0600: told %q", told)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	connect()
	connect()
	if len(told) != 1 || !strings.Contains(told[0], file) || !strings.Contains(told[0], "0644") {
		t.Errorf("told %q, want one line about %s", told, file)
	}

	public := file + ".pub"
	if err := os.WriteFile(public, []byte("ssh-ed25519 AAAA x\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	told = nil
	c = s.client(func(o *client.Options) {
		o.KeyFile, o.Warn = public, func(text string) { told = append(told, text) }
	})
	wants(t, c.Connect(t.Context()), wire.ErrUntrusted, public)
	if len(told) > 0 {
		t.Errorf("of a file that is no private key: told %q", told)
	}
}
