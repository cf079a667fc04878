package verify

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"deploytools/verify/spec"
)

// TestMain makes the certificate of package httptest one that this process
// trusts, as a system's own roots are, and names a proxy where nothing listens.
// Both are read once, by the first who needs them.
func TestMain(m *testing.M) {
	s := httptest.NewTLSServer(http.NotFoundHandler())
	s.Close()
	dir, err := os.MkdirTemp("", "verify")
	if err != nil {
		panic(err)
	}
	roots := filepath.Join(dir, "roots.pem")
	if err := os.WriteFile(roots, pemOf("CERTIFICATE", s.Certificate().Raw), 0o600); err != nil {
		panic(err)
	}
	os.Setenv("SSL_CERT_FILE", roots)
	os.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	status := m.Run()
	os.RemoveAll(dir)
	os.Exit(status)
}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// newCert makes a certificate that is its own issuer.
func newCert(t *testing.T, name string, key crypto.Signer) tls.Certificate {
	t.Helper()
	template := x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func edKey(t *testing.T) crypto.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func ecKey(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// serve accepts connections and gives each to handle, until the test ends.
func serve(t *testing.T, handle func(net.Conn)) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go acceptAll(l, handle)
	return l.Addr().String()
}

// acceptAll gives each connection to handle, until l is closed.
func acceptAll(l net.Listener, handle func(net.Conn)) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			handle(c)
		}()
	}
}

// serveTLS answers handshakes.
func serveTLS(t *testing.T, config *tls.Config) (addr string) {
	t.Helper()
	return serve(t, func(c net.Conn) {
		s := tls.Server(c, config)
		s.Handshake()
		s.Read(make([]byte, 1))
	})
}

// tarpit accepts connections and says nothing; accepted receives once for each.
func tarpit(t *testing.T) (addr string, accepted chan struct{}) {
	t.Helper()
	accepted = make(chan struct{}, 100)
	return serve(t, func(net.Conn) {
		accepted <- struct{}{}
		<-t.Context().Done()
	}), accepted
}

// refused is an address where nothing listens, and which nobody else can take.
func refused(t *testing.T) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", name.(*unix.SockaddrInet4).Port)
}

// fullBacklog is an address that answers no more connections: one waits to be
// accepted, and there is no room for another.
func fullBacklog(t *testing.T) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	bound, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", bound.(*unix.SockaddrInet4).Port)
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return addr
}

// tree writes one file into a new root.
func tree(t *testing.T, name string, content []byte) (root string) {
	t.Helper()
	root = t.TempDir()
	path := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return root
}

// lookAt is one look at one check.
func lookAt(t *testing.T, c spec.Check, v Vars) Finding {
	t.Helper()
	return lookWith(t, t.Context(), c, v)
}

func lookWith(t *testing.T, ctx context.Context, c spec.Check, v Vars) Finding {
	t.Helper()
	r := Once(ctx, spec.Spec{Checks: []spec.Check{c}}, v)
	if len(r.Findings) != 1 {
		t.Fatalf("Once(%s) has %d findings, want 1", c, len(r.Findings))
	}
	f := r.Findings[0]
	if f.OK != r.OK || f.OK != r.Verified || f.OK != (f.Kind == "") {
		t.Errorf("Once(%s) = %+v: OK, Verified and Kind contradict each other", c, r)
	}
	return f
}
