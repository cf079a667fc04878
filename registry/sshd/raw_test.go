package sshd

import (
	"bufio"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"

	"golang.org/x/crypto/ssh"
)

// raw is an SSH client that sends what packets it likes, which no library
// allows: RFC 4253 with one algorithm of each kind. It authenticates as an
// operator; then every packet is the test's.
type raw struct {
	net.Conn
	in        *bufio.Reader
	hash      []byte // of the key exchange, which is the session's name
	secret    []byte
	out, back *gcm // nil: in clear
}

// Numbers of messages (RFC 4250 section 4.1.2).
const (
	msgDisconnect      = 1
	msgIgnore          = 2
	msgServiceRequest  = 5
	msgServiceAccept   = 6
	msgKexInit         = 20
	msgNewKeys         = 21
	msgKexReply        = 31
	msgUserauthRequest = 50
	msgUserauthSuccess = 52
	msgGlobalRequest   = 80
	msgRequestSuccess  = 81
	msgRequestFailure  = 82
	msgOpen            = 90
	msgOpenConfirm     = 91
	msgOpenFailure     = 92
	msgWindowAdjust    = 93
	msgData            = 94
	msgExtendedData    = 95
	msgEOF             = 96
	msgClose           = 97
	msgRequest         = 98
	msgSuccess         = 99
	msgFailure         = 100
)

const (
	rawVersion = "SSH-2.0-raw"
	rawCipher  = "aes128-gcm@openssh.com"
)

// dialRaw authenticates over nc.
func dialRaw(nc net.Conn, user string, key ssh.Signer) (*raw, error) {
	r := &raw{Conn: nc, in: bufio.NewReader(nc)}
	err := r.exchange()
	if err == nil {
		err = r.authenticate(user, key)
	}
	return r, err
}

func (r *raw) exchange() error {
	if _, err := io.WriteString(r, rawVersion+"\r\n"); err != nil {
		return err
	}
	theirs, err := r.in.ReadString('\n')
	if err != nil {
		return err
	}
	theirs = theirs[:len(theirs)-2]
	ourInit := r.kexInit()
	if err := r.send(ourInit); err != nil {
		return err
	}
	theirInit, err := r.receive()
	if err != nil {
		return err
	}
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	public := key.PublicKey().Bytes()
	if err := r.send(ssh.Marshal(struct {
		Key []byte `sshtype:"30"`
	}{public})); err != nil {
		return err
	}
	packet, err := r.receive()
	if err != nil {
		return err
	}
	var reply struct {
		HostKey, Key, Signature []byte `sshtype:"31"`
	}
	if err := ssh.Unmarshal(packet, &reply); err != nil {
		return err
	}
	peer, err := ecdh.X25519().NewPublicKey(reply.Key)
	if err != nil {
		return err
	}
	shared, err := key.ECDH(peer)
	if err != nil {
		return err
	}
	k := new(big.Int).SetBytes(shared)
	h := sha256.Sum256(ssh.Marshal(struct {
		Ours, Theirs              string
		OurInit, TheirInit        []byte
		HostKey, OurKey, TheirKey []byte
		Shared                    *big.Int
	}{rawVersion, theirs, ourInit, theirInit, reply.HostKey, public, reply.Key, k}))
	r.hash, r.secret = h[:], ssh.Marshal(struct{ K *big.Int }{k})
	if err := r.send([]byte{msgNewKeys}); err != nil {
		return err
	}
	if packet, err = r.receive(); err != nil || packet[0] != msgNewKeys {
		return fmt.Errorf("message %v in place of the new keys: %w", packet, err)
	}
	r.out, r.back = r.gcm('A', 'C'), r.gcm('B', 'D')
	return nil
}

// kexInit offers one algorithm of each kind (RFC 4253 section 7.1).
func (*raw) kexInit() []byte {
	return ssh.Marshal(struct {
		Cookie                                   [16]byte `sshtype:"20"`
		Kex, HostKey, CipherUp, CipherDown       []string
		MACUp, MACDown, CompressUp, CompressDown []string
		LanguageUp, LanguageDown                 []string
		Follows                                  bool
		Reserved                                 uint32
	}{
		Kex: []string{"curve25519-sha256"}, HostKey: []string{"ssh-ed25519"}, CipherUp: []string{rawCipher}, CipherDown: []string{rawCipher},
		MACUp: []string{"hmac-sha2-256"}, MACDown: []string{"hmac-sha2-256"}, CompressUp: []string{"none"}, CompressDown: []string{"none"},
	})
}

func (r *raw) authenticate(user string, key ssh.Signer) error {
	if err := r.send(ssh.Marshal(struct {
		Name string `sshtype:"5"`
	}{"ssh-userauth"})); err != nil {
		return err
	}
	for { // the server may tell its extensions first
		packet, err := r.receive()
		if err != nil {
			return err
		}
		if packet[0] == msgServiceAccept {
			break
		}
	}
	request := ssh.Marshal(struct {
		User, Service, Method string `sshtype:"50"`
		Signed                bool
		Algorithm             string
		Key                   []byte
	}{user, "ssh-connection", "publickey", true, key.PublicKey().Type(), key.PublicKey().Marshal()})
	signed := append(ssh.Marshal(struct{ Session []byte }{r.hash}), request...)
	signature, err := key.Sign(rand.Reader, signed)
	if err != nil {
		return err
	}
	if err := r.send(append(request, ssh.Marshal(struct{ S []byte }{ssh.Marshal(signature)})...)); err != nil {
		return err
	}
	for {
		packet, err := r.receive()
		if err != nil {
			return err
		}
		switch packet[0] {
		case msgUserauthSuccess:
			return nil
		case msgUserauthRequest + 1:
			return errors.New("key refused")
		}
	}
}

// send sends one packet (RFC 4253 section 6, RFC 5647).
func (r *raw) send(payload []byte) error {
	const block = 16
	padding := block - (1+len(payload))%block
	if r.out == nil {
		padding = block - (5+len(payload))%block
	}
	if padding < 4 {
		padding += block
	}
	packet := binary.BigEndian.AppendUint32(nil, uint32(1+len(payload)+padding))
	body := append(append([]byte{byte(padding)}, payload...), make([]byte, padding)...)
	if r.out != nil {
		body = r.out.seal(body, packet)
	}
	_, err := r.Write(append(packet, body...))
	return err
}

// receive returns the next packet.
func (r *raw) receive() ([]byte, error) {
	length := make([]byte, 4)
	if _, err := io.ReadFull(r.in, length); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(length)
	if n > 1<<20 {
		return nil, fmt.Errorf("packet of %d bytes", n)
	}
	if r.back != nil {
		n += 16
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r.in, body); err != nil {
		return nil, err
	}
	if r.back != nil {
		var err error
		if body, err = r.back.open(body, length); err != nil {
			return nil, err
		}
	}
	return body[1 : len(body)-int(body[0])], nil
}

// gcm is one direction of aes128-gcm@openssh.com (RFC 5647 section 7.1).
type gcm struct {
	cipher.AEAD
	nonce []byte
}

// gcm derives the keys of a direction from what was exchanged (RFC 4253 section
// 7.2).
func (r *raw) gcm(nonce, key byte) *gcm {
	derive := func(letter byte) []byte {
		h := sha256.New()
		h.Write(r.secret)
		h.Write(r.hash)
		h.Write([]byte{letter})
		h.Write(r.hash)
		return h.Sum(nil)
	}
	block, _ := aes.NewCipher(derive(key)[:16]) // no error: the length is right
	aead, _ := cipher.NewGCM(block)
	return &gcm{aead, derive(nonce)[:12]}
}

// next returns the nonce of a packet.
func (g *gcm) next() []byte {
	n := append([]byte(nil), g.nonce...)
	binary.BigEndian.PutUint64(g.nonce[4:], binary.BigEndian.Uint64(g.nonce[4:])+1)
	return n
}

func (g *gcm) seal(body, length []byte) []byte { return g.Seal(nil, g.next(), body, length) }

func (g *gcm) open(body, length []byte) ([]byte, error) { return g.Open(nil, g.next(), body, length) }
