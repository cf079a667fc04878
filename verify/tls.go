package verify

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"deploytools/verify/spec"
)

// lookTLS compares the certificate that c.Addr serves under c.SNI with the one
// that should be served, byte for byte. The chain is not looked at: a wrong
// certificate stays wrong with a good chain, and the right one right without.
func lookTLS(ctx context.Context, c spec.Check, v Vars) Finding {
	want, source := c.Fingerprint, "as the check says"
	if c.Cert != "" {
		var err error
		if want, err = certFingerprint(v.NewRoot, c.Cert); err != nil {
			return Finding{Kind: Spec, Detail: fmt.Sprintf("cert %q: %v", c.Cert, err)}
		}
		source = fmt.Sprintf("from %q", c.Cert)
	}
	served, err := leaf(ctx, c.Addr, c.SNI)
	if err != nil {
		f := lost(ctx, Handshake, err)
		f.Want = want
		return f
	}
	f := Finding{Want: want, Got: Fingerprint(served)}
	if f.Got != want {
		f.Kind = WrongCert
		f.Detail = fmt.Sprintf("%s serves %s (subject %q, valid from %s), want %s (%s)", c.Target(), f.Got,
			served.Subject, served.NotBefore.UTC().Format("2006-01-02 15:04:05Z"), want, source)
	}
	return f
}

// leaf returns the first certificate that addr serves under the name sni.
func leaf(ctx context.Context, addr, sni string) (*x509.Certificate, error) {
	conn, err := connect(ctx, addr)
	if err != nil {
		return nil, err
	}
	// The certificate is compared, not trusted: that is the check.
	t, err := handshake(ctx, conn, &tls.Config{ServerName: sni, InsecureSkipVerify: true})
	if err != nil {
		return nil, err
	}
	defer t.Close()
	return t.ConnectionState().PeerCertificates[0], nil
}

// Fingerprint is the SHA-256 of the certificate as it is transmitted (DER), in
// 64 lower-case hex digits.
func Fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

// maxCertBytes limits the file that holds the wanted certificate.
const maxCertBytes = 1 << 20

// certFingerprint reads the wanted certificate. No link in the tree leads out
// of root, and nothing but a regular file is read: a fifo would never end.
func certFingerprint(root, name string) (string, error) {
	if root == "" {
		return "", errors.New("there is no NEWROOT to read it from")
	}
	r, err := os.OpenRoot(root)
	if err != nil {
		return "", err
	}
	defer r.Close()
	f, err := r.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil {
		return "", err
	} else if !info.Mode().IsRegular() {
		return "", errors.New("not a regular file")
	}
	b, err := io.ReadAll(io.LimitReader(f, maxCertBytes+1))
	if err != nil {
		return "", err
	}
	if len(b) > maxCertBytes {
		return "", fmt.Errorf("larger than %d bytes", maxCertBytes)
	}
	c, err := firstCertificate(b)
	if err != nil {
		return "", err
	}
	return Fingerprint(c), nil
}

// firstCertificate returns the first CERTIFICATE block of a PEM file, whatever
// other blocks stand before it. pem.Decode passes over a damaged block without
// a word; here that would make an intermediate of the wanted certificate.
func firstCertificate(b []byte) (*x509.Certificate, error) {
	const begin = "-----BEGIN CERTIFICATE-----"
	rest := bytes.TrimPrefix(b, []byte("\ufeff"))
	for {
		block, tail := pem.Decode(rest)
		begins := bytes.Count(rest[:len(rest)-len(tail)], []byte(begin))
		switch {
		case block == nil && !bytes.Contains(rest, []byte(begin)):
			return nil, errors.New("no CERTIFICATE block in it")
		case block != nil && block.Type == "CERTIFICATE" && begins == 1:
			return x509.ParseCertificate(block.Bytes)
		case block == nil || begins > 0:
			return nil, errors.New("its first CERTIFICATE block is damaged")
		}
		rest = tail
	}
}
