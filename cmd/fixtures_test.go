package cmd_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/ecdsa"
	"crypto/elliptic"
	cryptorand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// archiveCommand is
//
//	archive FILE NAME=CONTENT...
//
// and writes a layer.
func archiveCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: archive FILE NAME=CONTENT...")
	}
	files := map[string]string{}
	for _, f := range args[1:] {
		name, content, _ := strings.Cut(f, "=")
		files[name] = content
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), archiveOf(files, nil), 0o644))
}

// layerCommand is
//
//	layer FILE REST
//
// and writes a layer of noise whose size modulo 4096 is REST.
func layerCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: layer FILE REST")
	}
	rest, err := strconv.Atoi(args[1])
	ts.Check(err)
	noise := make([]byte, 10_000)
	rand.NewChaCha8([32]byte{byte(rest)}).Read(noise)
	files := map[string]string{"noise": string(noise)}
	extra := make([]byte, 1)
	extra = make([]byte, 1+((rest-len(archiveOf(files, extra)))%4096+4096)%4096)
	b := archiveOf(files, extra)
	if len(b)%4096 != rest {
		ts.Fatalf("layer has %d bytes, not %d modulo 4096", len(b), rest)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o600))
}

// archiveOf returns a layer with these files. extra goes into a field of gzip's
// header that means nothing (RFC 1952 section 2.3.1.1).
func archiveOf(files map[string]string, extra []byte) []byte {
	var b bytes.Buffer // takes everything: nothing below can fail
	z := gzip.NewWriter(&b)
	z.Extra = extra
	t := tar.NewWriter(z)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		t.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(files[name]))})
		t.Write([]byte(files[name]))
	}
	t.Close()
	z.Close()
	return b.Bytes()
}

// certificateCommand is
//
//	certificate DIR
//
// and makes cert.pem and key.pem in it.
func certificateCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: certificate DIR")
	}
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o755))
	cert, key, err := newCertificate()
	ts.Check(err)
	for name, content := range map[string][]byte{"cert.pem": cert, "key.pem": key} {
		ts.Check(os.WriteFile(filepath.Join(dir, name), content, 0o600))
	}
}

// newCertificate returns a certificate for site.test and its key, in PEM.
func newCertificate() (cert, key []byte, err error) {
	pair, err := ecdsa.GenerateKey(elliptic.P256(), cryptorand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "site.test"}, DNSNames: []string{"site.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	cert, err = x509.CreateCertificate(cryptorand.Reader, template, template, pair.Public(), pair)
	if err != nil {
		return nil, nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(pair)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), nil
}

// httpsd is the program of that name, which hooks start: it serves the file
// index in the directory ROOT with the certificate there, and makes READY when
// it listens.
//
//	httpsd ROOT HOST:PORT READY
func httpsd() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: httpsd ROOT HOST:PORT READY")
		os.Exit(2)
	}
	root, addr, ready := os.Args[1], os.Args[2], os.Args[3]
	cert, err := tls.LoadX509KeyPair(filepath.Join(root, "cert.pem"), filepath.Join(root, "key.pem"))
	if err == nil {
		l, listenErr := listenAgain(addr)
		if err = listenErr; err == nil {
			l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{cert}})
			err = os.WriteFile(ready, nil, 0o644)
		}
		if err == nil {
			err = http.Serve(l, http.FileServer(http.Dir(root)))
		}
	}
	fmt.Fprintln(os.Stderr, "error:", err)
	os.Exit(1)
}

// listenAgain waits for the port while whoever had it is about to end: on a busy
// machine a killed process keeps its sockets for a moment after it has no program.
func listenAgain(addr string) (net.Listener, error) {
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		l, err := net.Listen("tcp", addr)
		if !errors.Is(err, unix.EADDRINUSE) || time.Now().After(end) {
			return l, err
		}
	}
}
