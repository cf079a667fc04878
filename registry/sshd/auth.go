package sshd

import (
	"crypto/rsa"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"deploytools/registry/console"
)

// AgentUser is the user name under which agents come. Every other name is an
// operator's.
const AgentUser = "deploy-agent"

// Sizes of RSA keys, in bits, that may authenticate. Greater ones cost too much
// to check before anybody has shown who he is.
const (
	minRSA = 2048
	maxRSA = 8192
)

// typeDSA is the type of keys that are always too weak.
const typeDSA = "ssh-dss"

// CheckKey says whether the key blob, in SSH wire format, is good enough to
// authenticate with. It fits keys.Rules.
func CheckKey(blob []byte) error {
	key, err := ssh.ParsePublicKey(blob)
	if err != nil {
		return fmt.Errorf("cannot read the key: %w", err)
	}
	kind := key.Type()
	switch {
	case strings.Contains(kind, "-cert-"):
		return errors.New("a certificate, where a key should be")
	case kind == typeDSA:
		return errors.New("DSA keys are too weak: make another with ssh-keygen -t ed25519")
	case kind == ssh.KeyAlgoRSA:
		return checkRSA(key)
	}
	return nil
}

func checkRSA(key ssh.PublicKey) error {
	k, ok := key.(ssh.CryptoPublicKey).CryptoPublicKey().(*rsa.PublicKey)
	if !ok {
		return errors.New("not an RSA key")
	}
	if n := k.N.BitLen(); n < minRSA || n > maxRSA {
		return fmt.Errorf("an RSA key of %d bits: %d to %d are taken", n, minRSA, maxRSA)
	}
	return nil
}

// CheckCommand says whether line, the value of command= in a keys file, can be
// run. It fits keys.Rules.
func CheckCommand(line string) error {
	words, err := console.Split(line)
	if err != nil {
		return err
	}
	if len(words) == 0 {
		return errors.New("no command")
	}
	if _, ok := console.Lookup(words[0]); !ok {
		return fmt.Errorf("%q is no command", words[0])
	}
	return nil
}

// identityOf is the key of Permissions.ExtraData that holds the identity.
type identityOf struct{}

// authenticate says what a key stands for. It is asked about keys that are only
// offered, too, so it changes nothing: the answer about the key that is proven
// in the end is the one that comes back with the connection.
func (s *Server) authenticate(meta ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
	id, err := s.identify(peer{meta.User(), meta.RemoteAddr()}, key, time.Now())
	if err != nil {
		return nil, err
	}
	return &ssh.Permissions{ExtraData: map[any]any{identityOf{}: id}}, nil
}

// config returns the SSH side of the server. The lists leave out what x/crypto
// offers by default for the sake of old peers: SHA-1, encrypt-and-MAC with short
// tags, and NIST curves for the key exchange. What stays is needed by a client
// in use: CTR by PuTTY 0.78, paramiko and libssh2, and their hmac-sha2-256.
func (s *Server) config() *ssh.ServerConfig {
	c := &ssh.ServerConfig{
		Config: ssh.Config{
			KeyExchanges: []string{
				ssh.KeyExchangeMLKEM768X25519, ssh.KeyExchangeCurve25519, ssh.KeyExchangeDH16SHA512, ssh.KeyExchangeDH14SHA256,
			},
			Ciphers: ciphers(hasFastAES()),
			MACs:    []string{ssh.HMACSHA256ETM, ssh.HMACSHA512ETM, ssh.HMACSHA256, ssh.HMACSHA512},
		},
		PublicKeyAuthAlgorithms: []string{
			ssh.KeyAlgoED25519, ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256,
			ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSASHA512,
		},
		MaxAuthTries:      6, // as sshd: an agent with five keys still gets in
		PublicKeyCallback: s.authenticate,
		ServerVersion:     "SSH-2.0-generic",
	}
	for _, key := range shown(s.o.HostKeys) {
		c.AddHostKey(key)
	}
	return c
}

const maxUser = 64 // runes of a user name that are kept

// clean makes text of a client fit to be shown: see console.Clean. What is
// longer than limit runes is cut, visibly.
func clean(text string, limit int) string {
	n := 0
	for i := range text {
		if n == limit {
			return console.Clean(text[:i]) + "..."
		}
		n++
	}
	return console.Clean(text)
}
