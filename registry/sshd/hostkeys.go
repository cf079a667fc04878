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
	"strings"

	"golang.org/x/crypto/ssh"

	"deploytools/atomic"
)

// Names of host keys: the first, and how those of others start.
const (
	hostKeyFile  = "host_key"
	moreHostKeys = "host_key_"
)

// LoadHostKeys returns the host key in dir/host_key, of whatever kind it is, and
// behind it those in dir/host_key_*, by name; it logs their fingerprints. Where
// there is no host_key it makes one, durably, before anybody can have seen it. A
// file that is there is never replaced: clients would take a registry with
// another key for an impostor.
func LoadHostKeys(dir string, log *slog.Logger) ([]ssh.Signer, error) {
	path := filepath.Join(dir, hostKeyFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if text, err = makeHostKey(path); err == nil {
			log.Warn("new host key made, there was none", "file", path)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("cannot load the host key: %w", err)
	}
	key, err := parseHostKey(text)
	if err != nil {
		return nil, fmt.Errorf("host key %s: %w: restore it from a backup; if there is none, remove the file to get a new key, which every client has to be told of", path, err)
	}
	log.Info("host key fingerprint: " + ssh.FingerprintSHA256(key.PublicKey()))
	more, err := loadMore(dir)
	if err != nil {
		return nil, err
	}
	for _, key := range more {
		log.Info("another host key fingerprint: " + ssh.FingerprintSHA256(key.PublicKey()))
	}
	return append([]ssh.Signer{key}, more...), nil
}

func loadMore(dir string) ([]ssh.Signer, error) {
	entries, err := os.ReadDir(dir) // sorted
	if err != nil {
		return nil, fmt.Errorf("cannot look for host keys: %w", err)
	}
	var keys []ssh.Signer
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), moreHostKeys) || strings.HasSuffix(e.Name(), ".pub") {
			continue
		}
		path := filepath.Join(dir, e.Name())
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("cannot load the host key: %w", err)
		}
		key, err := parseHostKey(text)
		if err != nil {
			return nil, fmt.Errorf("host key %s: %w: mend the file, or take it away", path, err)
		}
		keys = append(keys, key)
	}
	return keys, nil
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
