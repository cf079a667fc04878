package sshd

import (
	"bytes"
	"crypto/rand"
	"io"
	"slices"

	"golang.org/x/crypto/ssh"
)

// The requests by which clients of OpenSSH learn the host keys to come, as its
// file PROTOCOL, section 2.5, has them: the announcement names all keys, and a
// client asks for a proof of those that it does not know, which goes to
// known_hosts (UpdateHostKeys in ssh_config(5)).
const (
	announceRequest = "hostkeys-00@openssh.com"
	proveRequest    = "hostkeys-prove-00@openssh.com"
)

// announcement is what one connection is told about the host keys.
type announcement struct {
	keys   []ssh.Signer
	proofs int // that were asked for
}

// maxProofs bounds the work that a client can ask for; one is enough for it.
const maxProofs = 4

// shown returns the keys that prove who the registry is while a connection is
// made: of each kind the first. x/crypto would take the last.
func shown(all []ssh.Signer) []ssh.Signer {
	seen := map[string]bool{}
	var out []ssh.Signer
	for _, key := range all {
		if kind := key.PublicKey().Type(); !seen[kind] {
			seen[kind] = true
			out = append(out, key)
		}
	}
	return out
}

// send announces all keys. Who does not know the request ignores it.
func (a *announcement) send(c ssh.Conn) {
	var payload []byte
	for _, key := range a.keys {
		payload = append(payload, ssh.Marshal(struct{ Blob []byte }{key.PublicKey().Marshal()})...)
	}
	c.SendRequest(announceRequest, false, payload)
}

// prove returns a signature of each key that the request names. It refuses
// requests that name others.
func (a *announcement) prove(session, payload []byte) (proof []byte, ok bool) {
	if a.proofs++; a.proofs > maxProofs {
		return nil, false
	}
	for n := 0; len(payload) > 0; n++ {
		var next struct {
			Blob []byte
			Rest []byte `ssh:"rest"`
		}
		if n == len(a.keys) || ssh.Unmarshal(payload, &next) != nil {
			return nil, false
		}
		payload = next.Rest
		signature := a.sign(session, next.Blob)
		if signature == nil {
			return nil, false
		}
		proof = append(proof, ssh.Marshal(struct{ Signature []byte }{ssh.Marshal(signature)})...)
	}
	return proof, true
}

func (a *announcement) sign(session, blob []byte) *ssh.Signature {
	i := slices.IndexFunc(a.keys, func(key ssh.Signer) bool { return bytes.Equal(key.PublicKey().Marshal(), blob) })
	if i < 0 {
		return nil
	}
	text := ssh.Marshal(struct {
		Request       string
		Session, Blob []byte
	}{proveRequest, session, blob})
	sign := a.keys[i].Sign
	if key, ok := a.keys[i].(ssh.MultiAlgorithmSigner); ok {
		// Sign would use SHA-1 with an RSA key, which no client takes any more.
		sign = func(random io.Reader, data []byte) (*ssh.Signature, error) {
			return key.SignWithAlgorithm(random, data, key.Algorithms()[0])
		}
	}
	signature, err := sign(rand.Reader, text)
	if err != nil {
		return nil
	}
	return signature
}
