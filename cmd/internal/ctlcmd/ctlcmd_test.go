package ctlcmd

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"deploytools/cmd/internal/cli"
	"deploytools/layers"
	"deploytools/layers/digest"
	"deploytools/registry/console"
	"deploytools/registry/wire"
)

// oldRegistry is a registry of the original kind, as far as deployctl sees it:
// it joins stdout and stderr, has the statuses 0 and 1, and takes uploads. What
// the real registry does is tested by the scripts in cmd/testdata.
type oldRegistry struct {
	addr, fingerprint string

	mu       sync.Mutex // guards what follows
	lines    []string   // commands that were run
	stdins   []string   // of each
	users    []string   // who connected
	uploaded map[string]*bytes.Buffer
	onUpload func() // before the first byte is taken
}

func newOldRegistry(t *testing.T) *oldRegistry {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	hostKey, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &oldRegistry{addr: l.Addr().String(), fingerprint: ssh.FingerprintSHA256(hostKey.PublicKey()), uploaded: map[string]*bytes.Buffer{}}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { r.serve(c, hostKey) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		all.Wait()
	})
	return r
}

func (r *oldRegistry) serve(c net.Conn, hostKey ssh.Signer) {
	defer c.Close()
	config := &ssh.ServerConfig{PublicKeyCallback: func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) { return nil, nil }}
	config.AddHostKey(hostKey)
	conn, channels, requests, err := ssh.NewServerConn(c, config)
	if err != nil {
		return
	}
	r.mu.Lock()
	r.users = append(r.users, conn.User())
	r.mu.Unlock()
	go ssh.DiscardRequests(requests)
	var all sync.WaitGroup
	for n := range channels {
		ch, rs, err := n.Accept()
		if err != nil {
			break
		}
		all.Go(func() { r.session(ch, rs) })
	}
	all.Wait()
}

func (r *oldRegistry) session(ch ssh.Channel, requests <-chan *ssh.Request) {
	defer ch.Close()
	q, ok := <-requests
	if !ok {
		return
	}
	q.Reply(true, nil)
	go ssh.DiscardRequests(requests)
	if q.Type == "subsystem" {
		sftp.NewRequestServer(ch, sftp.Handlers{FilePut: r, FileCmd: r, FileGet: r, FileList: r}).Serve()
		return
	}
	status := r.exec(string(q.Payload[4:]), ch)
	ch.SendRequest("exit-status", false, ssh.Marshal(struct{ S uint32 }{status}))
}

func (r *oldRegistry) exec(line string, ch ssh.Channel) uint32 {
	stdin, _ := io.ReadAll(ch)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines, r.stdins = append(r.lines, line), append(r.stdins, string(stdin))
	words, err := console.Split(line)
	if err != nil || words[0] != "addver" {
		io.WriteString(ch, "ran "+line+"\n")
		return 0
	}
	d := strings.TrimPrefix(words[len(words)-1], "-hash=")
	for _, b := range r.uploaded {
		if digest.Of(b.Bytes()).String() == d {
			return 0
		}
	}
	io.WriteString(ch, noUpload+"\n")
	return 1
}

func (r *oldRegistry) Filewrite(q *sftp.Request) (io.WriterAt, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.onUpload != nil {
		r.onUpload()
	}
	r.uploaded[q.Filepath] = &bytes.Buffer{}
	return inOrder{r, q.Filepath}, nil
}

func (r *oldRegistry) Filecmd(q *sftp.Request) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.uploaded, q.Filepath)
	return nil
}

func (*oldRegistry) Fileread(*sftp.Request) (io.ReaderAt, error) { return nil, os.ErrPermission }

func (*oldRegistry) Filelist(*sftp.Request) (sftp.ListerAt, error) { return nil, os.ErrPermission }

// inOrder takes uploads of one packet.
type inOrder struct {
	r    *oldRegistry
	path string
}

func (w inOrder) WriteAt(p []byte, offset int64) (int, error) {
	w.r.mu.Lock()
	defer w.r.mu.Unlock()
	if offset != int64(w.r.uploaded[w.path].Len()) {
		return 0, errors.New("out of order")
	}
	return w.r.uploaded[w.path].Write(p)
}

// call runs deployctl against r.
type call struct {
	defaults Defaults
	env      map[string]string
	stdin    string
}

func (c call) run(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	status = c.defaults.Main(t.Context(), args, &cli.IO{
		Stdin: strings.NewReader(c.stdin), Stdout: &out, Stderr: &errs, Env: func(name string) string { return c.env[name] },
	})
	return status, out.String(), errs.String()
}

func (r *oldRegistry) call(t *testing.T) call {
	t.Helper()
	key := filepath.Join(t.TempDir(), "key")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
	return call{env: map[string]string{
		"DEPLOYCTL_ADDR": r.addr, "DEPLOYCTL_FINGERPRINT": r.fingerprint, "DEPLOYCTL_KEY": key, "USER": "ann",
	}}
}

// layer writes an archive that is a layer, and returns its name and content.
func layer(t *testing.T) (string, []byte) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "layer.tar.gz")
	if out, err := exec.Command("tar", "-czf", name, "-C", dir, "file").CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return name, b
}

func TestUploadToAnOriginalRegistry(t *testing.T) {
	r := newOldRegistry(t)
	c := r.call(t)
	file, b := layer(t)
	if status, out, errs := c.run(t, "addver", "-name", "code", "-version", "v1", "-file", file); status != 0 || out != "" || errs != "" {
		t.Fatalf("addver = %d\nstdout %q\nstderr %q", status, out, errs)
	}
	line := "addver -name=code -version=v1 -hash=" + digest.Of(b).String()
	if want := []string{line, line}; !slices.Equal(r.lines, want) {
		t.Errorf("ran %q, want %q: ask, upload, add", r.lines, want)
	}
	if got := r.uploaded["/upload"]; got == nil || !bytes.Equal(got.Bytes(), b) {
		t.Errorf("uploaded %v", got)
	}
}

// A file that is written while it is uploaded becomes no version.
func TestFileThatChanges(t *testing.T) {
	r := newOldRegistry(t)
	c := r.call(t)
	file, b := layer(t)
	r.onUpload = func() { // whenever the check gets to it
		if err := os.WriteFile(file, append([]byte{1}, b[1:]...), 0o600); err != nil {
			t.Error(err)
		}
	}
	status, _, errs := c.run(t, "addver", "-name", "code", "-version", "v1", "-file", file)
	if status != 1 || !strings.Contains(errs, "has changed while it was read") {
		t.Errorf("addver = %d after %q\nstderr %q", status, r.lines, errs)
	}
}

func TestWordsReachTheRegistryAsTheyAre(t *testing.T) {
	r := newOldRegistry(t)
	c := r.call(t)
	for _, words := range [][]string{
		{"showconf", "-name", "my conf"},
		{"showconf", "", "'", `"`, `\`, "$x", "`y`", "\n", "a;b|c&d>e<f", "-file", "é"},
		{"command-of-tomorrow", "--flag", "x y"},
		{"addver", "-flag-of-tomorrow", "x"},
		{"addver", "-name", "-file", "-hash", "x"}, // a component of this name
	} {
		if status, _, errs := c.run(t, words...); status == 2 || errs != "" {
			t.Errorf("%q = %d, stderr %q", words, status, errs)
		}
		got, err := console.Split(r.lines[len(r.lines)-1])
		if err != nil || !slices.Equal(got, words) {
			t.Errorf("%q arrives as %q, %v", words, got, err)
		}
	}
}

// An archive that takes longer to check than to send, and whose very end is
// wrong, is not left at the registry for somebody to claim.
func TestRefusedArchiveLeavesNothingBehind(t *testing.T) {
	r := newOldRegistry(t)
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	err := errors.Join(
		w.WriteHeader(&tar.Header{Name: "zeros", Mode: 0o644, Size: 60 << 20}),
		func() error { _, err := w.Write(make([]byte, 60<<20)); return err }(),
		w.Close(), z.Close(),
	)
	if err != nil {
		t.Fatal(err)
	}
	b.Bytes()[b.Len()-8]++ // of the CRC
	file := filepath.Join(t.TempDir(), "layer.tar.gz")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	status, _, errs := r.call(t).run(t, "addver", "-name", "code", "-version", "v1", "-file", file)
	if status != 1 || !strings.HasPrefix(errs, "error: layer code:v1: ") || len(r.lines) != 1 {
		t.Errorf("addver = %d, stderr %q, ran %q", status, errs, r.lines)
	}
	if len(r.uploaded) != 0 {
		t.Errorf("uploads are left: %v bytes", r.uploaded["/upload"].Len())
	}
}

// Limits are the registry's: one that is told to take more is sent more.
func TestLimitsAreTheRegistrys(t *testing.T) {
	o := whole
	for _, l := range []struct {
		name       string
		have, than int64
	}{
		{"Unpacked", o.Limits.Unpacked, layers.DefaultLimits().Unpacked},
		{"Ratio", o.Limits.Ratio, layers.DefaultLimits().Ratio},
		{"Entries", int64(o.Limits.Entries), int64(layers.DefaultLimits().Entries)},
		{"Links", int64(o.Limits.Links), int64(layers.DefaultLimits().Links)},
	} {
		if l.have <= l.than {
			t.Errorf("%s: %d is not more than the default %d", l.name, l.have, l.than)
		}
	}
}

// What is to be uploaded is understood here or not at all.
func TestFlagsBesideFileAreParsedHere(t *testing.T) {
	r := newOldRegistry(t)
	status, _, errs := r.call(t).run(t, "addver", "-name", "code", "-flag-of-tomorrow", "-file=x")
	if status != 2 || len(r.lines) != 0 || !strings.Contains(errs, "unknown flag") {
		t.Errorf("addver = %d, stderr %q, ran %q", status, errs, r.lines)
	}
}

func TestStdinIsGivenToThoseWhoReadIt(t *testing.T) {
	r := newOldRegistry(t)
	c := r.call(t)
	c.stdin = "lines"
	for word, want := range map[string]string{"components": "", "addver -hash x": "", "batch": "lines", "command-of-tomorrow": "lines"} {
		c.run(t, strings.Fields(word)...)
		if got := r.stdins[len(r.stdins)-1]; got != want {
			t.Errorf("%s is given %q, want %q", word, got, want)
		}
	}
}

func TestDefaults(t *testing.T) {
	r := newOldRegistry(t)
	c := r.call(t)
	delete(c.env, "DEPLOYCTL_ADDR")
	delete(c.env, "DEPLOYCTL_FINGERPRINT")
	other := "SHA256:" + strings.Repeat("A", 43)
	c.defaults = Defaults{Address: r.addr, Fingerprint: other + "," + r.fingerprint}
	if status, out, errs := c.run(t, "components"); status != 0 || out != "ran components\n" {
		t.Errorf("with defaults = %d, %q, %q", status, out, errs)
	}
	if status, _, _ := c.run(t, "-fp", other, "components"); status != int(wire.Untrusted) {
		t.Errorf("a flag in place of a default = %d, want %d", status, wire.Untrusted)
	}
	if !slices.Equal(r.users, []string{"ann"}) {
		t.Errorf("users %q, want $USER", r.users)
	}
}

// What -X of the linker sets, as the documentation says.
func TestDefaultsAreSetByTheLinker(t *testing.T) {
	r := newOldRegistry(t)
	c := r.call(t)
	program := filepath.Join(t.TempDir(), "deployctl")
	flags := "-X main.defaultAddress=" + r.addr + " -X main.defaultFingerprint=" + r.fingerprint
	if out, err := exec.Command("go", "build", "-o", program, "-ldflags", flags, "deploytools/cmd/deployctl").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	out, err := exec.Command(program, "-key", c.env["DEPLOYCTL_KEY"], "components").CombinedOutput()
	if err != nil || string(out) != "ran components\n" {
		t.Errorf("deployctl components = %v\n%s", err, out)
	}
}

func TestInterrupt(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		if c, err := l.Accept(); err == nil {
			defer c.Close()
			cancel()
			io.Copy(io.Discard, c)
		}
	}()
	r := newOldRegistry(t)
	r.addr = l.Addr().String()
	c := r.call(t)
	var errs bytes.Buffer
	status := Main(ctx, []string{"components"}, &cli.IO{
		Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: &errs, Env: func(name string) string { return c.env[name] },
	})
	if status != 1 || errs.String() != "error: interrupted\n" {
		t.Errorf("status %d, stderr %q", status, &errs)
	}
}
