package sshd

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/crypto/ssh"

	"deploytools/atomic"
)

const hostKeyFile = "host_key"

// LoadHostKeys returns the host key in dir/host_key, of whatever kind it is, and
// logs its fingerprint. Where there is none it makes one, durably, before
// anybody can have seen it. A file that is there is never replaced: clients
// would take a registry with another key for an impostor.
func LoadHostKeys(dir string, log *slog.Logger) ([]ssh.Signer, error) {
	path := filepath.Join(dir, hostKeyFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		text, err = makeHostKey(path)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot load the host key: %w", err)
	}
	key, err := parseHostKey(text)
	if err != nil {
		return nil, fmt.Errorf("host key %s: %w: restore it from a backup; if there is none, remove the file to get a new key, which every client has to be told of", path, err)
	}
	log.Info("host key fingerprint: " + ssh.FingerprintSHA256(key.PublicKey()))
	return []ssh.Signer{key}, nil
}

func makeHostKey(path string) ([]byte, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	block, err := ssh.MarshalPrivateKey(key, "deploy-registry")
	if err != nil {
		return nil, err
	}
	text := pem.EncodeToMemory(block)
	return text, atomic.WriteFile(path, text, 0o600)
}

func parseHostKey(text []byte) (ssh.Signer, error) {
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, errors.New("the file is empty")
	}
	key, err := ssh.ParsePrivateKey(text)
	if _, ok := errors.AsType[*ssh.PassphraseMissingError](err); ok {
		return nil, errors.New("the key needs a passphrase, which a daemon cannot give")
	}
	if err != nil {
		return nil, err
	}
	switch key.PublicKey().Type() {
	case typeDSA:
		return nil, errors.New("DSA keys are too weak")
	case ssh.KeyAlgoRSA:
		// Without this SHA-1 signatures would be offered as well.
		return ssh.NewSignerWithAlgorithms(key.(ssh.AlgorithmSigner), []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256})
	}
	return key, nil
}
