package client_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
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
	"golang.org/x/crypto/ssh"

	"deploytools/registry/client"
	"deploytools/registry/wire"
)

// server is a registry as this package sees one. Its fields are set before the
// first connection; a nil function refuses.
type server struct {
	t        testing.TB
	hostKeys []ssh.Signer
	listener net.Listener

	global func(conn ssh.Conn, r *ssh.Request)
	exec   func(line string, ch ssh.Channel) (status uint32, send bool)
	sftp   func(ch io.ReadWriteCloser) // in place of files
	files  *files
	lanes  *lanes // nil: of the original kind
	ended  func() // after each SFTP session

	mu          sync.Mutex // guards what follows
	authorized  []ssh.PublicKey
	conns       []net.Conn
	connections int
	sessions    int   // of SFTP
	budget      int64 // see cutAfter
	asked       int   // public keys that were offered
}

// newServer starts a server with an ed25519 host key that lets in the key that
// options gives.
func newServer(t testing.TB) *server {
	t.Helper()
	s := &server{t: t, files: &files{content: map[string][]byte{}}, hostKeys: []ssh.Signer{newKey(t)}}
	var err error
	if s.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := s.listener.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			if s.budget > 0 {
				c = &cutConn{Conn: c, left: s.budget}
			}
			s.conns = append(s.conns, c)
			s.connections++
			s.mu.Unlock()
			all.Go(func() { s.serve(c) })
		}
	})
	t.Cleanup(func() {
		s.listener.Close()
		s.cut()
		all.Wait()
	})
	return s
}

// cut ends all connections as a crash of the registry's host would.
func (s *server) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		c.Close()
	}
	s.conns = nil
}

func (s *server) addr() string { return s.listener.Addr().String() }

func (s *server) fingerprint() string { return ssh.FingerprintSHA256(s.hostKeys[0].PublicKey()) }

// count returns one of the counters.
func (s *server) count(n *int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return *n
}

func (s *server) authorize(key ssh.PublicKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.authorized = append(s.authorized, key)
}

// options returns how a client with a key of its own reaches the server.
func (s *server) options() client.Options {
	s.t.Helper()
	file, key := writeKey(s.t)
	s.authorize(key)
	return client.Options{Addr: s.addr(), User: "ann", Fingerprints: []string{s.fingerprint()}, KeyFile: file}
}

// client returns a client that is let in.
func (s *server) client(change ...func(*client.Options)) *client.Client {
	s.t.Helper()
	o := s.options()
	for _, f := range change {
		f(&o)
	}
	return newClient(s.t, o)
}

func newClient(t testing.TB, o client.Options) *client.Client {
	t.Helper()
	c, err := client.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func (s *server) serve(c net.Conn) {
	defer c.Close()
	config := &ssh.ServerConfig{
		PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.asked++
			for _, k := range s.authorized {
				if bytes.Equal(k.Marshal(), key.Marshal()) {
					return nil, nil
				}
			}
			return nil, errors.New("unknown key")
		},
	}
	for _, k := range s.hostKeys {
		config.AddHostKey(k)
	}
	conn, channels, requests, err := ssh.NewServerConn(c, config)
	if err != nil {
		return
	}
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() {
		for r := range requests {
			if s.global != nil {
				s.global(conn, r)
			} else {
				r.Reply(false, nil)
			}
		}
	})
	for n := range channels {
		switch {
		case n.ChannelType() == wire.FetchChannelType && s.lanes != nil:
			all.Go(func() { s.lanes.serve(n) })
			continue
		case n.ChannelType() != "session":
			n.Reject(ssh.UnknownChannelType, "only sessions are served")
			continue
		}
		ch, rs, err := n.Accept()
		if err != nil {
			return
		}
		all.Go(func() { s.channel(ch, rs) })
	}
}

func (s *server) channel(ch ssh.Channel, requests <-chan *ssh.Request) {
	defer ch.Close()
	for r := range requests {
		switch {
		case r.Type == "exec" && s.exec != nil:
			r.Reply(true, nil)
			if status, send := s.exec(string(r.Payload[4:]), ch); send {
				ch.SendRequest("exit-status", false, ssh.Marshal(struct{ S uint32 }{status}))
			}
			return
		case r.Type == "subsystem" && s.files != nil:
			s.mu.Lock()
			s.sessions++
			s.mu.Unlock()
			r.Reply(true, nil)
			if s.sftp != nil {
				s.sftp(ch)
				return
			}
			// Without options it answers with 32 KiB at most, as the original
			// registry does.
			sftp.NewRequestServer(ch, sftp.Handlers{FileGet: s.files, FilePut: s.files, FileCmd: s.files, FileList: s.files}).Serve()
			if s.ended != nil {
				s.ended()
			}
			return
		default:
			r.Reply(false, nil)
		}
	}
}

// polls returns a server's global that answers each poll with what reply gives.
func polls(reply func(wire.PollRequest) wire.PollReply) func(ssh.Conn, *ssh.Request) {
	return func(_ ssh.Conn, r *ssh.Request) {
		if r.Type != wire.PollRequestType {
			r.Reply(false, nil)
			return
		}
		q, err := wire.DecodePollRequest(r.Payload)
		if err != nil {
			r.Reply(false, nil)
			return
		}
		b, err := wire.EncodePoll(reply(q))
		r.Reply(err == nil, b)
	}
}

// files are the handlers of an SFTP session over a map.
type files struct {
	mu      sync.Mutex
	content map[string][]byte
	denied  bool
	size    int64 // told instead of the right one, if not 0
	full    bool  // writing fails
	busy    bool  // appending fails

	unfinished bool // closing what was written fails

	read func(p []byte, offset int64) (int, error) // in place of content
}

func (f *files) set(name string, b []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.content["/"+name] = b
}

func (f *files) get(name string) ([]byte, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b, ok := f.content["/"+name]
	return bytes.Clone(b), ok
}

type readerFunc func(p []byte, offset int64) (int, error)

func (r readerFunc) ReadAt(p []byte, offset int64) (int, error) { return r(p, offset) }

func (f *files) Fileread(r *sftp.Request) (io.ReaderAt, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.denied {
		return nil, sftp.ErrSSHFxPermissionDenied
	}
	b, ok := f.content[r.Filepath]
	if !ok {
		return nil, os.ErrNotExist
	}
	if f.read != nil {
		return readerFunc(f.read), nil
	}
	return bytes.NewReader(b), nil
}

func (f *files) Filewrite(r *sftp.Request) (io.WriterAt, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.denied {
		return nil, sftp.ErrSSHFxPermissionDenied
	}
	if f.busy && r.Pflags().Append {
		return nil, errors.New("upload is being written in another session")
	}
	if r.Pflags().Trunc {
		f.content[r.Filepath] = nil
	}
	return &fileWriter{f, r.Filepath}, nil
}

type fileWriter struct {
	f    *files
	path string
}

func (w *fileWriter) WriteAt(p []byte, offset int64) (int, error) {
	w.f.mu.Lock()
	defer w.f.mu.Unlock()
	if w.f.full {
		return 0, errors.New("no space at the registry")
	}
	b := w.f.content[w.path]
	if end := int(offset) + len(p); end > len(b) {
		b = append(b, make([]byte, end-len(b))...)
	}
	copy(b[offset:], p)
	w.f.content[w.path] = b
	return len(p), nil
}

func (w *fileWriter) Close() error {
	w.f.mu.Lock()
	defer w.f.mu.Unlock()
	if w.f.unfinished {
		return errors.New("over the quota")
	}
	return nil
}

func (f *files) Filecmd(r *sftp.Request) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.Method != "Remove" {
		return sftp.ErrSSHFxOpUnsupported
	}
	delete(f.content, r.Filepath)
	return nil
}

func (f *files) Filelist(r *sftp.Request) (sftp.ListerAt, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b, ok := f.content[r.Filepath]
	if !ok {
		return nil, os.ErrNotExist
	}
	info := fileInfo{name: filepath.Base(r.Filepath), size: int64(len(b))}
	if f.size != 0 {
		info.size = f.size
	}
	return lister{info}, nil
}

type lister []os.FileInfo

func (l lister) ListAt(out []os.FileInfo, offset int64) (int, error) {
	if offset >= int64(len(l)) {
		return 0, io.EOF
	}
	return copy(out, l[offset:]), io.EOF
}

type fileInfo struct {
	name string
	size int64
}

func (i fileInfo) Name() string       { return i.name }
func (i fileInfo) Size() int64        { return i.size }
func (i fileInfo) Mode() os.FileMode  { return 0o600 }
func (i fileInfo) ModTime() time.Time { return time.Time{} }
func (i fileInfo) IsDir() bool        { return false }
func (i fileInfo) Sys() any           { return nil }

func newKey(t testing.TB) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return signer(t, private)
}

func signer(t testing.TB, private any) ssh.Signer {
	t.Helper()
	s, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// writeKey makes a key file without a passphrase.
func writeKey(t testing.TB) (string, ssh.PublicKey) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "key")
	run(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file)
	return file, publicKey(t, file)
}

func publicKey(t testing.TB, file string) ssh.PublicKey {
	t.Helper()
	b, err := os.ReadFile(file + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(b)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// wants fails unless err is of the kind and its text has all of the parts.
func wants(t *testing.T, err, kind error, parts ...string) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Fatalf("have error %v, want one that wraps %q", err, kind)
	}
	text := err.Error()
	if e, ok := errors.AsType[*client.Error](err); ok {
		text = fmt.Sprintf("%s\n%s", text, e.Hint)
	}
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("have error %q, want it to say %q", text, p)
		}
	}
}

// cutAfter ends each connection from now on when n bytes were sent on it.
func (s *server) cutAfter(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.budget = n
}

// cutConn ends after a number of bytes, in the middle of what is written.
type cutConn struct {
	net.Conn
	left int64
}

func (c *cutConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p[:min(int64(len(p)), c.left)])
	if c.left -= int64(n); c.left == 0 {
		c.Conn.(*net.TCPConn).CloseWrite() // to reset it would take back what it has sent
		err = net.ErrClosed
	}
	return n, err
}

// distantly dials connections on which what is sent takes a while.
func distantly(dial func(context.Context, string, string) (net.Conn, error)) func(context.Context, string, string) (net.Conn, error) {
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		return slowConn{c}, err
	}
}

type slowConn struct{ net.Conn }

func (c slowConn) Write(p []byte) (int, error) {
	<-time.After(5 * time.Millisecond) // the line
	return c.Conn.Write(p)
}
