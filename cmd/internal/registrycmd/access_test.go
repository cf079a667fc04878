package registrycmd

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"deploytools/registry/keys"
)

// door is a directory with keys, and who reads them.
type door struct {
	*access
	t   *testing.T
	dir string

	mu  sync.Mutex // guards the following
	log bytes.Buffer
}

func (d *door) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.log.Write(p)
}

// newDoor has the operators anna and ben, and the agent host1.
func newDoor(t *testing.T, revoked bool) *door {
	t.Helper()
	d := &door{t: t, dir: t.TempDir()}
	s := &settings{operators: filepath.Join(d.dir, "ops"), agents: filepath.Join(d.dir, "agents.keys")}
	if revoked {
		s.revoked = filepath.Join(d.dir, "revoked")
		d.write("revoked", "")
	}
	if err := os.Mkdir(s.operators, 0o700); err != nil {
		t.Fatal(err)
	}
	d.write("ops/anna.keys", line("anna"))
	d.write("ops/ben.keys", line("ben"))
	d.write("agents.keys", "configs=web "+line("host1"))
	d.access = newAccess(s, slog.New(slog.NewJSONHandler(d, nil)))
	if err := d.load(); err != nil {
		t.Fatal(err)
	}
	return d
}

// write replaces a file as most programs do, by renaming; "" removes it, but for
// the list of what is revoked.
func (d *door) write(name, text string) {
	d.t.Helper()
	path := filepath.Join(d.dir, name)
	if text == "" && name != "revoked" {
		if err := os.Remove(path); err != nil {
			d.t.Fatal(err)
		}
		return
	}
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		d.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		d.t.Fatal(err)
	}
}

// blobOf is the public key of somebody.
func blobOf(name string) ssh.PublicKey {
	seed := [ed25519.SeedSize]byte{}
	copy(seed[:], name)
	key, err := ssh.NewPublicKey(ed25519.NewKeyFromSeed(seed[:]).Public())
	if err != nil {
		panic(err)
	}
	return key
}

func line(name string) string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(blobOf(name)))) + " " + name + "\n"
}

// who returns who may come in: comments of keys.
func (d *door) who() string {
	var names []string
	for _, name := range []string{"anna", "ben", "cleo", "host1", "host2"} {
		for _, set := range []*keys.Set{d.operators.Current(), d.agents.Current()} {
			if len(set.Key(blobOf(name).Marshal())) > 0 && !d.revoked.Current().Key(ssh.FingerprintSHA256(blobOf(name))) {
				names = append(names, name)
			}
		}
	}
	return strings.Join(names, " ")
}

// said returns what was logged since the last call: levels, messages and errors.
func (d *door) said() string {
	d.t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	var b strings.Builder
	for text := range bytes.Lines(d.log.Bytes()) {
		var l struct{ Level, Msg, Error string }
		if err := json.Unmarshal(text, &l); err != nil {
			d.t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s %s %s\n", l.Level, l.Msg, strings.ReplaceAll(l.Error, d.dir+"/", ""))
	}
	d.log.Reset()
	return b.String()
}

func TestReload(t *testing.T) {
	const reloaded = "INFO keys reloaded \n"
	for _, test := range []struct {
		name, file, text string
		who              string
		said             string // how each line starts
	}{
		{name: "nothing", file: "ops/ben.keys", text: line("ben"), who: "anna ben host1"},
		{name: "another key", file: "ops/ben.keys", text: line("cleo"), who: "anna cleo host1", said: reloaded},
		{name: "another file", file: "ops/cleo.keys", text: line("cleo"), who: "anna ben cleo host1", said: reloaded},
		{name: "file gone", file: "ops/ben.keys", who: "anna host1", said: reloaded},
		{name: "file that does not count", file: "ops/cleo.txt", text: line("cleo"), who: "anna ben host1"},
		{name: "hidden file", file: "ops/.cleo.keys", text: line("cleo"), who: "anna ben host1"},
		{name: "no key in it", file: "ops/ben.keys", text: "# ben is away\n", who: "anna ben host1",
			said: "ERROR keys not reloaded, those from before stay keys file ops/ben.keys: no key that can be used\n"},
		{name: "new file without a key", file: "ops/cleo.keys", text: "#\n", who: "anna ben host1",
			said: "ERROR keys not reloaded, those from before stay keys file ops/cleo.keys: no key"},
		{name: "one bad line", file: "ops/ben.keys", text: "nonsense " + line("ben") + line("cleo"), who: "anna cleo host1",
			said: "ERROR key refused ops/ben.keys: line 1: option \"nonsense\" is not supported here, so the key is refused\n" + reloaded},
		{name: "agents' file gone", file: "agents.keys", who: "anna ben host1",
			said: "ERROR keys not reloaded, those from before stay stat agents.keys: no such file or directory\n"},
		{name: "agent that sees all", file: "agents.keys", text: "\nconfigs=web " + line("host1") + line("host2"), who: "anna ben host1 host2",
			said: "WARN agents may read every configuration agents.keys: line 3 without configs=\n" + reloaded},
		{name: "admin among the agents", file: "agents.keys", text: "role=admin " + line("cleo") + "configs=web " + line("host1"), who: "anna ben host1",
			said: "ERROR key refused agents.keys: line 1: option role=admin: this file is for agents\n" + reloaded},
		{name: "revoked", file: "revoked", text: ssh.FingerprintSHA256(blobOf("ben")) + "\n", who: "anna host1", said: reloaded},
		{name: "bad list", file: "revoked", text: "nonsense\n" + ssh.FingerprintSHA256(blobOf("ben")) + "\n", who: "anna host1",
			said: "ERROR line of the revoked list left out, the others count revoked list revoked: line 1: should be a fingerprint, a key, serial: NUMBER or id: TEXT\n" + reloaded},
	} {
		d := newDoor(t, true)
		if got := d.who(); got != "anna ben host1" {
			t.Fatalf("at first: %s", got)
		}
		if got := d.said(); got != "" {
			t.Errorf("at first it says %s", got)
		}
		d.write(test.file, test.text)
		d.reload(false)
		if got := d.who(); got != test.who {
			t.Errorf("%s: %q may come in, want %q", test.name, got, test.who)
		}
		if got := d.said(); !strings.HasPrefix(got, test.said) || test.said == "" && got != "" {
			t.Errorf("%s: says\n%swant\n%s", test.name, got, test.said)
		}
		d.reload(false)
		if got := d.said(); strings.Contains(got, "reloaded ") || strings.Contains(got, "refused") {
			t.Errorf("%s: says again\n%s", test.name, got)
		}
		if got := d.who(); got != test.who {
			t.Errorf("%s: later %q may come in, want %q", test.name, got, test.who)
		}
		d.reload(true)
		if got := d.said(); !strings.Contains(got, reloaded) {
			t.Errorf("%s: asked for, it says\n%s", test.name, got)
		}
	}
}

// What was revoked stays revoked by a list that was cut, or that is gone.
func TestRevokedStaysRevoked(t *testing.T) {
	d := newDoor(t, true)
	d.write("revoked", ssh.FingerprintSHA256(blobOf("ben"))+"\n")
	d.reload(false)
	d.write("revoked", ssh.FingerprintSHA256(blobOf("ben"))[:20]+"\n")
	d.reload(false)
	if got := d.who(); got != "anna host1" {
		t.Errorf("with a list that was cut %q may come in", got)
	}
	if err := os.Remove(filepath.Join(d.dir, "revoked")); err != nil {
		t.Fatal(err)
	}
	d.reload(false)
	if got := d.who(); got != "anna host1" {
		t.Errorf("without the list %q may come in", got)
	}
	d.write("revoked", "")
	d.reload(false)
	if got := d.who(); got != "anna ben host1" {
		t.Errorf("with an empty list %q may come in", got)
	}
}

// At the first time nothing may be wrong: nobody is there yet to be kept.
func TestFirstLoadIsStrict(t *testing.T) {
	for _, test := range []struct{ name, file, text, want string }{
		{"no key", "ops/ben.keys", "#\n", "keys file ops/ben.keys: no key that can be used"},
		{"no file", "agents.keys", "", "stat agents.keys: no such file or directory"},
		{"bad list", "revoked", "x\n", "revoked list revoked: line 1: should be"},
		{"binary list", "revoked", "SSHKRL\n\x00", "revoked list revoked: line 1: is a key revocation list in OpenSSH's binary format"},
	} {
		d := newDoor(t, true)
		d.write(test.file, test.text)
		s := &settings{operators: d.operators.path, agents: d.agents.path, revoked: d.access.revoked.path}
		err := newAccess(s, d.access.log).load()
		if err == nil || !strings.HasPrefix(strings.ReplaceAll(err.Error(), d.dir+"/", ""), test.want) {
			t.Errorf("%s: load = %v, want %s", test.name, err, test.want)
		}
	}
	d := newDoor(t, false)
	d.write("ops/anna.keys", "")
	d.write("ops/ben.keys", "")
	if err := newAccess(&settings{operators: d.operators.path, agents: d.agents.path}, d.access.log).load(); err == nil || !strings.HasSuffix(err.Error(), "ops: no file *.keys") {
		t.Errorf("an empty directory: load = %v", err)
	}
}

// A change is seen within seconds, and never before it is complete; a signal is
// obeyed at once.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(t, true)
		ctx, stop := context.WithCancel(t.Context())
		hangups := make(chan os.Signal, 1)
		var rechecks atomic.Int64
		done := make(chan struct{})
		go func() {
			defer close(done)
			d.watch(ctx, hangups, func() { rechecks.Add(1) })
		}()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got := d.said(); got != "" {
			t.Errorf("without a change it says %s", got)
		}
		before := rechecks.Load()
		d.write("ops/ben.keys", "")
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if got := d.who(); got != "anna host1" || rechecks.Load() != before+1 {
			t.Errorf("5 s after ben's removal %q may come in, after %d rechecks", got, rechecks.Load()-before)
		}
		// A file that grows, in place, is read when it is at rest.
		path := filepath.Join(d.dir, "ops/anna.keys")
		var text string
		for _, part := range []string{"# new\n", line("cleo"), line("ben")} {
			text += part
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			time.Sleep(lookEvery)
			synctest.Wait()
			if got := d.who(); got != "anna host1" {
				t.Errorf("in the middle of writing %q may come in", got)
			}
		}
		time.Sleep(2 * lookEvery)
		synctest.Wait()
		if got := d.who(); got != "ben cleo host1" {
			t.Errorf("%q may come in, want what was written", got)
		}
		d.write("ops/anna.keys", line("anna"))
		hangups <- os.Interrupt
		synctest.Wait()
		if got := d.who(); got != "anna host1" {
			t.Errorf("after the signal %q may come in", got)
		}
		stop()
		<-done
	})
}

// Links are followed to what they stand for: a directory that is exchanged as a
// whole, by turning a link, is a change.
func TestLooksThroughLinks(t *testing.T) {
	d := newDoor(t, false)
	link := filepath.Join(d.dir, "current")
	other := filepath.Join(d.dir, "other")
	if err := os.Mkdir(other, 0o700); err != nil {
		t.Fatal(err)
	}
	d.write("other/anna.keys", line("anna"))
	if err := os.Symlink("ops", link); err != nil {
		t.Fatal(err)
	}
	d.operators.path = link
	was := d.look()
	if err := os.Symlink("other", link+".new"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(link+".new", link); err != nil {
		t.Fatal(err)
	}
	if d.look() == was {
		t.Error("a turned link is not seen")
	}
	d.reload(false)
	if got := d.who(); got != "anna host1" {
		t.Errorf("%q may come in", got)
	}
}

func TestListed(t *testing.T) {
	var many []int
	for n := range 25 {
		many = append(many, 25-n)
	}
	if got := listed(many); got != "line 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20 and 5 more" {
		t.Errorf("listed = %s", got)
	}
}
