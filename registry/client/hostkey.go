package client

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/skeema/knownhosts"
	"golang.org/x/crypto/ssh"
	xknownhosts "golang.org/x/crypto/ssh/knownhosts"

	"deploytools/registry/wire"
)

// hostKeyKind is one kind of host key and the signatures that we take from it.
type hostKeyKind struct {
	name       string // ssh.PublicKey.Type
	algorithms []string
	cert       bool
}

// hostKeyKinds lists all kinds, the preferred first.
var hostKeyKinds = []hostKeyKind{
	{ssh.CertAlgoED25519v01, []string{ssh.CertAlgoED25519v01}, true},
	{ssh.CertAlgoECDSA256v01, []string{ssh.CertAlgoECDSA256v01}, true},
	{ssh.CertAlgoECDSA384v01, []string{ssh.CertAlgoECDSA384v01}, true},
	{ssh.CertAlgoECDSA521v01, []string{ssh.CertAlgoECDSA521v01}, true},
	{ssh.CertAlgoRSAv01, []string{ssh.CertAlgoRSASHA512v01, ssh.CertAlgoRSASHA256v01}, true},
	{ssh.KeyAlgoED25519, []string{ssh.KeyAlgoED25519}, false},
	{ssh.KeyAlgoECDSA256, []string{ssh.KeyAlgoECDSA256}, false},
	{ssh.KeyAlgoECDSA384, []string{ssh.KeyAlgoECDSA384}, false},
	{ssh.KeyAlgoECDSA521, []string{ssh.KeyAlgoECDSA521}, false},
	{ssh.KeyAlgoRSA, []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}, false},
}

// knownKeys decides about host keys during one dial. A registry may have keys of
// several kinds of which we know one: a kind that turns out wrong is left out,
// and the next is asked for, until none is left that could be the known one.
type knownKeys struct {
	addr         string
	fingerprints []string
	db           *knownhosts.HostKeyDB // used where there are no fingerprints
	files        []string              // of db, also those that do not exist

	candidates []hostKeyKind // that may be the known key, not seen yet
	others     []hostKeyKind // that cannot, but show who is there
	shown      ssh.PublicKey // the first wrong key, or nil
	why        error         // what is wrong with it
	unknown    bool          // nothing is known about this host
	retry      bool          // the last key was wrong and another may be right
}

// knownKeys reads what is known about the registry's host keys.
func (c *Client) knownKeys() (*knownKeys, error) {
	k := &knownKeys{addr: c.o.Addr, fingerprints: c.o.Fingerprints}
	if len(k.fingerprints) > 0 {
		for _, kind := range hostKeyKinds {
			if !kind.cert {
				k.candidates = append(k.candidates, kind)
			}
		}
		return k, nil
	}
	k.files = c.o.KnownHosts
	if len(k.files) == 0 {
		k.files = defaultKnownHosts()
	}
	var exist []string
	for _, f := range k.files {
		if _, err := os.Stat(f); err == nil {
			exist = append(exist, f)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, k.unreadable(err)
		}
	}
	var err error
	if k.db, err = knownhosts.NewDB(exist...); err != nil {
		return nil, k.unreadable(err)
	}
	known := k.db.HostKeyAlgorithms(k.addr)
	authority := slices.ContainsFunc(known, func(a string) bool { return strings.Contains(a, "-cert-") })
	for _, kind := range hostKeyKinds {
		switch {
		case kind.cert && authority, !kind.cert && slices.Contains(known, kind.algorithms[0]):
			k.candidates = append(k.candidates, kind)
		case !kind.cert:
			k.others = append(k.others, kind)
		}
	}
	return k, nil
}

func (k *knownKeys) unreadable(err error) error {
	return &Error{
		Text: "registry " + k.addr + " cannot be trusted: cannot read the known host keys",
		Hint: "mend the file, or give the fingerprint of its host key",
		Kind: wire.ErrUntrusted, Err: err,
	}
}

func defaultKnownHosts() []string {
	files := []string{"/etc/ssh/ssh_known_hosts"}
	if home, err := os.UserHomeDir(); err == nil {
		files = append([]string{filepath.Join(home, ".ssh", "known_hosts")}, files...)
	}
	return files
}

// algorithms returns what to ask for: the known kinds first.
func (k *knownKeys) algorithms() []string {
	var out []string
	for _, kind := range slices.Concat(k.candidates, k.others) {
		out = append(out, kind.algorithms...)
	}
	return out
}

// check is the callback of the handshake.
func (k *knownKeys) check(host string, remote net.Addr, key ssh.PublicKey) error {
	k.retry = false
	err := k.compare(host, remote, key)
	if err == nil {
		k.shown, k.why = nil, nil
		return nil
	}
	if k.shown == nil {
		k.shown, k.why = key, err
	}
	left := slices.DeleteFunc(slices.Clone(k.candidates), func(kind hostKeyKind) bool { return kind.name == key.Type() })
	// Known kinds are asked for first: another kind says that the registry has
	// none of those that are left.
	k.retry = len(left) > 0 && len(left) < len(k.candidates) && !k.unknown
	k.candidates = left
	return err
}

func (k *knownKeys) compare(host string, remote net.Addr, key ssh.PublicKey) error {
	if len(k.fingerprints) > 0 {
		if slices.Contains(k.fingerprints, ssh.FingerprintSHA256(key)) {
			return nil
		}
		return fmt.Errorf("known is %s", strings.Join(k.fingerprints, ", "))
	}
	err := k.db.HostKeyCallback()(host, remote, key)
	if e, ok := errors.AsType[*xknownhosts.KeyError](err); ok {
		k.unknown = len(e.Want) == 0
		var known []string
		for _, w := range e.Want {
			known = append(known, fmt.Sprintf("%s (%s, line %d)", ssh.FingerprintSHA256(w.Key), w.Filename, w.Line))
		}
		return fmt.Errorf("known is %s", strings.Join(known, ", "))
	}
	return err
}

// another reports whether to connect again, because the registry may have a
// key of another kind which is the known one.
func (k *knownKeys) another() bool {
	retry := k.retry
	k.retry = false
	return retry
}

// verdict returns what to say about the first wrong key, or nil when the
// registry has shown none.
func (k *knownKeys) verdict() error {
	if k.shown == nil {
		return nil
	}
	have := fmt.Sprintf("%s (%s)", ssh.FingerprintSHA256(k.shown), k.shown.Type())
	if k.unknown {
		host, port, _ := net.SplitHostPort(k.addr)
		return &Error{
			Text: fmt.Sprintf("registry %s is not known: its host key is %s", k.addr, have),
			Hint: fmt.Sprintf("compare that with the registry's log; if it is the same, run 'ssh-keyscan -p %s %s >>%s', or give the fingerprint with -fp", port, host, k.files[0]),
			Kind: wire.ErrUntrusted,
		}
	}
	return &Error{
		Text: fmt.Sprintf("registry %s is not trusted: its host key is %s", k.addr, have),
		Hint: k.changedHint(),
		Kind: wire.ErrUntrusted, Err: k.why,
	}
}

// changedHint says what to do about another key than the known one.
func (k *knownKeys) changedHint() string {
	const ask = "somebody may be listening; if the key was really changed, "
	if len(k.fingerprints) > 0 {
		return ask + "give the fingerprint that the registry logs when it starts"
	}
	return fmt.Sprintf("%srun \"ssh-keygen -R '%s' -f %s\" and add the new key", ask, xknownhosts.Normalize(k.addr), k.files[0])
}

// parseFingerprint reads what ssh-keygen -l prints of a key, in any case of the
// prefix and with or without padding.
func parseFingerprint(s string) (string, error) {
	const prefix = "SHA256:"
	s = strings.TrimSpace(s)
	if len(s) > len(prefix) && strings.EqualFold(s[:len(prefix)], prefix) {
		text := strings.TrimRight(s[len(prefix):], "=")
		if b, err := base64.RawStdEncoding.DecodeString(text); err == nil && len(b) == 32 {
			return prefix + text, nil
		}
	}
	return "", fmt.Errorf("fingerprint %q: should be SHA256: and 43 characters, as ssh-keygen -l prints it", s)
}
