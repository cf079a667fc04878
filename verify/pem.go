package verify

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"syscall"
)

// maxCertBytes limits a file of certificates.
const maxCertBytes = 1 << 20

// readCertificates reads the certificates of a PEM file in the tree. No link in
// it leads out of root, and nothing but a regular file is read: a fifo would
// never end.
func readCertificates(root, name string) ([]*x509.Certificate, error) {
	if root == "" {
		return nil, errors.New("there is no NEWROOT to read it from")
	}
	r, err := os.OpenRoot(root)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	f, err := r.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	b, err := io.ReadAll(io.LimitReader(f, maxCertBytes+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxCertBytes {
		return nil, fmt.Errorf("larger than %d bytes", maxCertBytes)
	}
	return certificates(b)
}

// certificates returns the CERTIFICATE blocks of a PEM file, at least one,
// whatever other blocks stand between them. pem.Decode passes over a damaged
// block without a word; here that would make an intermediate of the wanted
// certificate.
func certificates(b []byte) ([]*x509.Certificate, error) {
	const begin = "-----BEGIN CERTIFICATE-----"
	var all []*x509.Certificate
	rest := bytes.TrimPrefix(b, []byte("\ufeff"))
	for bytes.Contains(rest, []byte(begin)) {
		block, tail := pem.Decode(rest)
		begins := bytes.Count(rest[:len(rest)-len(tail)], []byte(begin))
		if block == nil || begins > 1 || begins == 1 && block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("its CERTIFICATE block %d is damaged", len(all)+1)
		}
		rest = tail
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("its CERTIFICATE block %d: %w", len(all)+1, err)
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		return nil, errors.New("no CERTIFICATE block in it")
	}
	return all, nil
}

// ends returns the certificates that are not there for the sake of another one:
// the first, and each that has issued none of the others.
func ends(all []*x509.Certificate) []*x509.Certificate {
	var found []*x509.Certificate
	for i, c := range all {
		issued := func(o *x509.Certificate) bool {
			byItself := bytes.Equal(o.RawIssuer, o.RawSubject)
			return o != c && !byItself && bytes.Equal(o.RawIssuer, c.RawSubject)
		}
		if i == 0 || !slices.ContainsFunc(all, issued) {
			found = append(found, c)
		}
	}
	return found
}
