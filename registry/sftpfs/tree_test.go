package sftpfs

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pkg/sftp"

	"deploytools/layers/digest"
	"deploytools/layers/manifest"
	"deploytools/registry"
	"deploytools/registry/boltmeta"
	"deploytools/registry/enginetest"
	"deploytools/registry/fsblobs"
)

var ann = registry.Caller{User: "ann", Role: registry.Admin, Fingerprint: "SHA256:ann", Comment: "ann@desk"}

// moment is the time in these tests.
var moment = time.Date(2026, 11, 21, 20, 0, 0, 0, time.UTC)

// check takes everything for a layer.
func check(_ context.Context, r io.Reader, _ func(int64) error) (registry.Archive, error) {
	h := digest.NewWriter()
	_, err := io.Copy(h, r)
	return registry.Archive{Size: h.Len(), Manifest: manifest.Manifest{}.All()}, err
}

func options() registry.Options {
	blobs, spool := enginetest.NewBlobs()
	return registry.Options{
		Meta: enginetest.NewMeta(enginetest.MetaOptions{}), Blobs: blobs, Spool: spool, Check: check,
		Now: func() time.Time { return moment },
	}
}

// open starts a registry over engines in memory.
func open(t *testing.T, o registry.Options) *registry.Registry {
	t.Helper()
	r := registry.New(o)
	t.Cleanup(r.Close)
	return r
}

// notices is what a user sees.
type notices struct {
	mu sync.Mutex // guards the following
	b  strings.Builder
}

func (n *notices) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.b.Write(p)
}

func (n *notices) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.b.String()
}

// dial serves h over a pipe. cut breaks the connection and waits for the
// server's end; it is done when the test ends, at the latest.
func dial(t *testing.T, h sftp.Handlers) (c *sftp.Client, cut func()) {
	t.Helper()
	conn, cut := serving(t, h)
	c, err := sftp.NewClientPipe(conn, conn, sftp.UseConcurrentWrites(true))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, cut
}

func serving(t *testing.T, h sftp.Handlers) (client net.Conn, cut func()) {
	client, server := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		sftp.NewRequestServer(server, h, sftp.WithRSAllocator()).Serve()
		server.Close()
	}()
	cut = func() {
		client.Close()
		<-done
	}
	t.Cleanup(cut)
	return client, cut
}

// session is an operator's.
func session(t *testing.T, r *registry.Registry, c registry.Caller) (*sftp.Client, *notices, func()) {
	t.Helper()
	n := &notices{}
	client, cut := dial(t, Operator(t.Context(), r, c, n, nil))
	return client, n, cut
}

func put(t *testing.T, c *sftp.Client, path, content string) {
	t.Helper()
	f, err := c.Create(path)
	if err != nil {
		t.Fatalf("Create(%s) = %v", path, err)
	}
	if _, err := f.ReadFrom(strings.NewReader(content)); err != nil {
		t.Errorf("writing %s: %v", path, err)
	}
	if err := f.Close(); err != nil {
		t.Errorf("closing %s: %v", path, err)
	}
}

func read(t *testing.T, c *sftp.Client, path string) string {
	t.Helper()
	f, err := c.Open(path)
	if err != nil {
		t.Errorf("Open(%s) = %v", path, err)
		return ""
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Errorf("reading %s: %v", path, err)
	}
	return string(b)
}

// ls is what a directory lists, a line each.
func ls(t *testing.T, c *sftp.Client, path string) string {
	t.Helper()
	infos, err := c.ReadDir(path)
	if err != nil {
		t.Errorf("ReadDir(%s) = %v", path, err)
	}
	var b strings.Builder
	for _, i := range infos {
		fmt.Fprintf(&b, "%v %d %s %s\n", i.Mode(), i.Size(), i.ModTime().UTC().Format(time.DateTime), i.Name())
	}
	return b.String()
}

// addver makes a version of content that was uploaded.
func addver(t *testing.T, r *registry.Registry, component, version, content string) {
	t.Helper()
	if _, err := r.AddVersion(t.Context(), registry.Act{Caller: ann}, registry.NewVersion{Component: component, Version: version, Digest: digest.Of([]byte(content))}, nil); err != nil {
		t.Fatalf("AddVersion(%s:%s) = %v", component, version, err)
	}
}

// stock puts two layers and a configuration into the registry.
func stock(t *testing.T, r *registry.Registry) {
	t.Helper()
	c, _, cut := session(t, r, ann)
	for _, v := range []string{"v1", "v2"} {
		put(t, c, "code"+v, "code "+v)
		addver(t, r, "code", v, "code "+v)
	}
	cut()
	for _, name := range []string{"web", "api"} {
		if _, err := r.AddConfiguration(t.Context(), registry.Act{Caller: ann}, name, []registry.LayerRef{{Component: "code", Version: "v2"}}, registry.Checks{}, false); err != nil {
			t.Fatal(err)
		}
	}
}

// onDisk is a registry in dir with the real engines; close ends it.
func onDisk(dir string) (r *registry.Registry, close func(), err error) {
	blobs, spool, err := fsblobs.Open(dir)
	if err != nil {
		return nil, nil, err
	}
	meta, err := boltmeta.Open(filepath.Join(dir, "state.db"), boltmeta.Options{})
	if err != nil {
		return nil, nil, err
	}
	r = registry.New(registry.Options{Meta: meta, Blobs: blobs, Spool: spool, Check: check, MinFree: 1})
	return r, func() { r.Close(); meta.Close() }, nil
}

// TestMain serves stdin and stdout as an sftp-server instead when the real
// clients of openssh_test.go have started it as theirs.
func TestMain(m *testing.M) {
	dir := os.Getenv("SFTPFS_TEST_SERVE")
	if dir == "" {
		os.Exit(m.Run())
	}
	r, close, err := onDisk(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
	h := Operator(context.Background(), r, ann, os.Stderr, nil)
	if os.Getenv("SFTPFS_TEST_AGENT") != "" {
		h = Agent(context.Background(), r, ann, nil)
	}
	sftp.NewRequestServer(stdio{os.Stdin, os.Stdout}, h).Serve()
	close()
}

type stdio struct {
	io.Reader
	io.WriteCloser
}
