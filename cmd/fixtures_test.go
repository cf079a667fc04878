package cmd_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// archiveCommand is
//
//	archive FILE SIZE NAME=CONTENT...
//
// and writes a tar.gz of exactly that many bytes; 0 is as many as it takes.
func archiveCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: archive FILE SIZE NAME=CONTENT...")
	}
	size, err := strconv.Atoi(args[1])
	ts.Check(err)
	files := map[string]string{}
	for _, f := range args[2:] {
		name, content, _ := bytes.Cut([]byte(f), []byte("="))
		files[string(name)] = string(content)
	}
	b, err := archiveOf(files, size)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o644))
}

// archiveOf returns a layer with these files. Where a size is wanted, a field of
// gzip's header fills it up (RFC 1952 section 2.3.1.1).
func archiveOf(files map[string]string, size int) ([]byte, error) {
	b, err := gzipOf(files, nil)
	if err != nil || size == 0 {
		return b, err
	}
	pad := size - len(b) - 2 // the field's length takes two bytes
	if pad < 0 || pad > 65535 {
		return nil, fmt.Errorf("cannot make %d bytes of %d", size, len(b))
	}
	return gzipOf(files, make([]byte, pad))
}

func gzipOf(files map[string]string, extra []byte) ([]byte, error) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Extra = extra
	t := tar.NewWriter(z)
	for name, content := range files {
		if err := t.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), Typeflag: tar.TypeReg}); err != nil {
			return nil, err
		}
		if _, err := t.Write([]byte(content)); err != nil {
			return nil, err
		}
	}
	if err := t.Close(); err != nil {
		return nil, err
	}
	err := z.Close()
	return b.Bytes(), err
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
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "site.test"}, DNSNames: []string{"site.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	ts.Check(err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	ts.Check(err)
	for name, block := range map[string]*pem.Block{
		"cert.pem": {Type: "CERTIFICATE", Bytes: cert}, "key.pem": {Type: "PRIVATE KEY", Bytes: private},
	} {
		ts.Check(os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600))
	}
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
		l, listenErr := tls.Listen("tcp", addr, &tls.Config{Certificates: []tls.Certificate{cert}})
		if err = listenErr; err == nil {
			err = os.WriteFile(ready, nil, 0o644)
		}
		if err == nil {
			err = http.Serve(l, http.FileServer(http.Dir(root)))
		}
	}
	fmt.Fprintln(os.Stderr, "error:", err)
	os.Exit(1)
}
