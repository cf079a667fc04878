package sshd

import (
	"bytes"
	"encoding/binary"
	"net"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// overture is a connection whose first bytes were looked at before its handshake.
// OpenSSH before 10 lists AES-CTR before AES-GCM, and the client's order counts:
// of such a client we learn whether it has GCM, too, and then offer nothing else.
// See docs/decisions/0005-ciphers.md. Used by one goroutine until the handshake
// has it, and then as any net.Conn.
type overture struct {
	net.Conn
	heard []byte // came already, and nobody has taken it yet
	sent  int    // bytes of our version line that are out and will be written again
}

const (
	// overtureWait is how long the client's list is waited for. Some clients say
	// nothing before they have ours, and behind a round trip as long as this the
	// line is slower than either cipher.
	overtureWait = 20 * time.Millisecond
	maxOverture  = 8 << 10 // bytes; OpenSSH's are below 2,000
	prefersCTR   = "SSH-2.0-OpenSSH_"
)

// bestCipher makes the list of the configuration the best for who is on the other
// side of nc, and returns the connection to use instead of nc.
func bestCipher(nc net.Conn, config *ssh.ServerConfig) net.Conn {
	if slices.Contains(config.Ciphers, ssh.CipherChaCha20Poly1305) {
		return nc // that is the fast one here: see ciphers
	}
	o, gcm := listen(nc, config.ServerVersion)
	if gcm {
		config.Ciphers = onlyGCM
	}
	return o
}

// listen sends our version line and takes what the client says before it needs
// more of us. gcm says that the client would take CTR although it has GCM, too. What
// goes wrong is seen again by the handshake.
func listen(nc net.Conn, version string) (o *overture, gcm bool) {
	o = &overture{Conn: nc}
	line := version + "\r\n"
	if n, err := nc.Write([]byte(line)); err != nil {
		o.sent = n
		return o, false
	}
	o.sent = len(line)
	var end int
	for end == 0 {
		if o.more() != nil {
			return o, false
		}
		end = versionEnd(o.heard)
	}
	if !strings.HasPrefix(string(o.heard), prefersCTR) {
		return o, false
	}
	nc.SetReadDeadline(time.Now().Add(overtureWait))
	defer nc.SetReadDeadline(time.Time{})
	for {
		if offer, whole := kexInit(o.heard[end:]); whole {
			return o, hasGCM(offer)
		}
		if o.more() != nil {
			return o, false
		}
	}
}

// more reads what there is, within bounds.
func (o *overture) more() error {
	if len(o.heard) >= maxOverture {
		return errTooMuch
	}
	part := make([]byte, 2<<10)
	n, err := o.Conn.Read(part)
	o.heard = append(o.heard, part[:n]...)
	if n > 0 {
		return nil // an error comes again with the next read
	}
	return err
}

// Read returns what came already, then what comes.
func (o *overture) Read(p []byte) (int, error) {
	if len(o.heard) == 0 {
		return o.Conn.Read(p)
	}
	n := copy(p, o.heard)
	if o.heard = o.heard[n:]; len(o.heard) == 0 {
		o.heard = nil
	}
	return n, nil
}

// Write leaves out the version line that was sent.
func (o *overture) Write(p []byte) (int, error) {
	out := min(o.sent, len(p))
	o.sent -= out
	if out == len(p) {
		return out, nil
	}
	n, err := o.Conn.Write(p[out:])
	return out + n, err
}

// versionEnd returns where the first line ends, 0 while it does not.
func versionEnd(heard []byte) int { return bytes.IndexByte(heard, '\n') + 1 }

// offer is SSH_MSG_KEXINIT (RFC 4253 section 7.1) as far as it matters here.
type offer struct {
	Cookie             [16]byte `sshtype:"20"`
	Kex, HostKeys      []string
	ToServer, ToClient []string
	Rest               []byte `ssh:"rest"`
}

// kexInit reads the first packet, which is in clear: its length, that of the
// padding, payload and padding (RFC 4253 section 6). It is nil where this is no
// KEXINIT. whole is false as long as the packet has not come to its end.
func kexInit(heard []byte) (o *offer, whole bool) {
	const header = 5
	if len(heard) < header {
		return nil, false
	}
	length, padding := int64(binary.BigEndian.Uint32(heard)), int64(heard[4])
	switch {
	case length > maxOverture || length < padding+1:
		return nil, true
	case int64(len(heard)) < 4+length:
		return nil, false
	}
	o = &offer{}
	if ssh.Unmarshal(heard[header:4+length-padding], o) != nil {
		return nil, true
	}
	return o, true
}

// hasGCM reports whether one of our ciphers of this kind fits both ways.
func hasGCM(o *offer) bool {
	has := func(list []string) bool {
		return slices.ContainsFunc(onlyGCM, func(c string) bool { return slices.Contains(list, c) })
	}
	return o != nil && has(o.ToServer) && has(o.ToClient)
}
