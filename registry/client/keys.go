package client

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
	sshagent "golang.org/x/crypto/ssh/agent"

	"deploytools/registry/wire"
)

// keys are those that we may prove to have, during one dial.
type keys struct {
	signers []ssh.Signer
	names   []string // of each signer, for messages
	locked  []string // files that were left out, since nobody was asked for a passphrase
	agent   net.Conn // nil: none
}

// close gives the SSH agent back. The keys must not be used any more.
func (k *keys) close() {
	if k.agent != nil {
		k.agent.Close()
	}
}

// setDeadline bounds the wait for the SSH agent, where a person may have to
// touch a token.
func (k *keys) setDeadline(t time.Time) {
	if k.agent != nil {
		k.agent.SetDeadline(t)
	}
}

// String lists the keys for a message.
func (k *keys) String() string { return strings.Join(k.names, ", ") }

func (k *keys) add(s ssh.Signer, from string) {
	k.signers = append(k.signers, s)
	k.names = append(k.names, fmt.Sprintf("%s (%s)", ssh.FingerprintSHA256(s.PublicKey()), from))
}

// has returns the signer for a public key.
func (k *keys) has(key ssh.PublicKey) (ssh.Signer, bool) {
	i := slices.IndexFunc(k.signers, func(s ssh.Signer) bool {
		return string(s.PublicKey().Marshal()) == string(key.Marshal())
	})
	if i < 0 {
		return nil, false
	}
	return k.signers[i], true
}

// refusedHint says what to do when the registry wants none of the keys.
func (k *keys) refusedHint() string {
	hint := "ask the registry's operator to add the public key for this user name, to -srvauth if it is an agent's; " +
		"the registry's log says why it was refused, such as a revoked key, a line that was left out or a wrong principal"
	if len(k.locked) > 0 {
		hint += ", or unlock a further key: ssh-add " + strings.Join(k.locked, " ")
	}
	return hint
}

// keys collects the keys. A key file that is given is the only key; otherwise
// there are those of the SSH agent and the usual files. The caller closes them.
func (c *Client) keys() (_ *keys, err error) {
	k := new(keys)
	defer func() {
		if err != nil {
			k.close()
		}
	}()
	agentErr := c.addAgent(k)
	if c.o.KeyFile != "" {
		return c.onlyKey(k)
	}
	for _, file := range defaultKeys() {
		_, err := c.addFile(k, file, false)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, c.noKey(inFile(file, err))
		}
	}
	if len(k.signers) == 0 && len(k.locked) > 0 {
		if _, err := c.addFile(k, k.locked[0], true); err != nil {
			return nil, c.noKey(inFile(k.locked[0], err))
		}
	}
	if len(k.signers) == 0 {
		return nil, c.noKey(agentErr)
	}
	return k, nil
}

// onlyKey returns the keys of KeyFile. An encrypted one needs no passphrase
// when the SSH agent has it.
func (c *Client) onlyKey(agent *keys) (*keys, error) {
	k := &keys{agent: agent.agent}
	key, err := c.addFile(k, c.o.KeyFile, false)
	if err == nil && len(k.signers) == 0 {
		if s, ok := agent.has(key); key != nil && ok {
			k.add(s, c.o.KeyFile+" in the SSH agent")
			return k, nil
		}
		_, err = c.addFile(k, c.o.KeyFile, true)
	}
	if err != nil {
		return nil, badKeyFile(c.o.KeyFile, err)
	}
	return k, nil
}

// badKeyFile says why the only key file cannot be used.
func badKeyFile(file string, err error) error {
	hint := "it should be a private key, as ssh-keygen writes it, and not the one with .pub"
	switch {
	case errors.Is(err, fs.ErrNotExist):
		hint = "check -key; 'ssh-keygen -t ed25519 -f " + file + "' makes a new key"
	case errors.Is(err, fs.ErrPermission):
		hint = "check its owner and mode: whoever runs this has to be able to read it"
	case errors.Is(err, errLocked):
		hint = "give its passphrase once for all to the SSH agent: ssh-add " + file
	}
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err // the file is named already
	}
	return &Error{Text: "cannot use key file " + file, Hint: hint, Kind: wire.ErrUntrusted, Err: err}
}

// errLocked says that a key file stays encrypted.
var errLocked = errors.New("it is encrypted")

func (c *Client) noKey(err error) error {
	return &Error{
		Text: "no usable key for registry " + c.o.Addr,
		Hint: "run 'ssh-add', or 'ssh-keygen -t ed25519' for a new key, or name a key file",
		Kind: wire.ErrUntrusted, Err: err,
	}
}

// inFile names the file that err is about.
func inFile(file string, err error) error {
	if _, ok := errors.AsType[*fs.PathError](err); ok {
		return err // which names it
	}
	return fmt.Errorf("key file %s: %w", file, err)
}

// addAgent adds what the SSH agent has.
func (c *Client) addAgent(k *keys) error {
	if c.o.AgentSocket == "" {
		return nil
	}
	conn, err := net.Dial("unix", c.o.AgentSocket)
	if err != nil {
		return fmt.Errorf("cannot reach the SSH agent: %w", err)
	}
	k.agent = conn
	k.setDeadline(time.Now().Add(c.o.Timeouts.Handshake))
	a := sshagent.NewClient(conn)
	signers, err := a.Signers()
	if err != nil {
		return fmt.Errorf("cannot ask the SSH agent: %w", err)
	}
	for _, s := range signers {
		k.add(s, "SSH agent")
	}
	return nil
}

// defaultKeys are the files that ssh(1) looks for too.
func defaultKeys() []string {
	home, err := os.UserHomeDir()
	if err != nil {
		return nil
	}
	var files []string
	for _, name := range []string{"id_ed25519", "id_ecdsa", "id_rsa"} {
		files = append(files, filepath.Join(home, ".ssh", name))
	}
	return files
}

// addFile adds the key in file, with its certificate first if there is one. An
// encrypted key is only noted as locked unless ask is set; its public key is
// returned where the file tells it. The error need not name the file.
func (c *Client) addFile(k *keys, file string, ask bool) (ssh.PublicKey, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	s, err := ssh.ParsePrivateKey(pem)
	e, locked := errors.AsType[*ssh.PassphraseMissingError](err)
	if err == nil || locked { // else it is no private key, whatever it is open to
		c.warnExposed(file)
	}
	if locked {
		if !ask {
			k.locked = append(k.locked, file)
			return e.PublicKey, nil
		}
		s, err = c.unlock(file, pem)
	}
	if err != nil {
		return nil, err
	}
	if _, ok := k.has(s.PublicKey()); ok {
		return s.PublicKey(), nil
	}
	if cert := certificate(file+"-cert.pub", s); cert != nil {
		k.add(cert, file+"-cert.pub")
	}
	k.add(s, file)
	return s.PublicKey(), nil
}

// warnExposed tells of a private key for which ssh(1) would not take it: one of
// ours that others have rights to.
func (c *Client) warnExposed(file string) {
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm()&0o077 == 0 {
		return
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || int(st.Uid) != os.Getuid() {
		return
	}
	if !c.exposed[file] {
		c.exposed[file] = true
		c.o.Warn(fmt.Sprintf("key file %s is open to others (mode %04o): chmod 600 %s", file, info.Mode().Perm(), file))
	}
}

func (c *Client) unlock(file string, pem []byte) (ssh.Signer, error) {
	if c.o.Passphrase == nil {
		return nil, fmt.Errorf("%w, and nobody can be asked for its passphrase", errLocked)
	}
	passphrase, err := c.o.Passphrase(file)
	if err != nil {
		return nil, fmt.Errorf("%w, and %w", errLocked, err)
	}
	s, err := ssh.ParsePrivateKeyWithPassphrase(pem, passphrase)
	if errors.Is(err, x509.IncorrectPasswordError) {
		err = fmt.Errorf("%w, and the passphrase is wrong", errLocked)
	}
	return s, err
}

// certificate returns the signer with the certificate in file, or nil when
// there is none for this key.
func certificate(file string, s ssh.Signer) ssh.Signer {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(b)
	if err != nil {
		return nil
	}
	cert, ok := key.(*ssh.Certificate)
	if !ok {
		return nil
	}
	signer, err := ssh.NewCertSigner(cert, s)
	if err != nil {
		return nil
	}
	return signer
}
