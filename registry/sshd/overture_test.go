package sshd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"
)

// kexPacket is a client's KEXINIT with these lists of ciphers.
func kexPacket(toServer, toClient string) []byte {
	payload := ssh.Marshal(struct {
		Cookie             [16]byte `sshtype:"20"`
		Kex, HostKeys      []string
		ToServer, ToClient []string
		M1, M2, C1, C2     []string
		L1, L2             []string
		Follows            bool
		Reserved           uint32
	}{ToServer: strings.Split(toServer, ","), ToClient: strings.Split(toClient, ",")})
	padding := 4 + 8 - (len(payload)+5+4)%8
	p := binary.BigEndian.AppendUint32(nil, uint32(1+len(payload)+padding))
	p = append(append(p, byte(padding)), payload...)
	return append(p, make([]byte, padding)...)
}

func long(length uint32) []byte {
	return append(binary.BigEndian.AppendUint32(nil, length), 4, msgKexInit)
}

// overheard has a client say these parts, one behind the other, and fall silent.
// It returns what listen makes of it, how long that takes, what the handshake
// reads then, and what the client gets.
func overheard(t *testing.T, parts ...string) (gcm bool, took time.Duration, read, got string) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		var sent bytes.Buffer
		go io.Copy(&sent, theirs)
		go func() {
			for _, p := range parts {
				theirs.Write([]byte(p))
			}
		}()
		done := time.AfterFunc(time.Hour, func() { theirs.Close() }) // the handshake's time
		begun := time.Now()
		o, only := listen(ours, "SSH-2.0-generic")
		gcm, took = only, time.Since(begun)
		if done.Stop() {
			time.AfterFunc(time.Second, func() { theirs.Close() })
		}
		// As the transport does: its version line, then what it likes.
		for _, w := range []string{"SSH-2.0-generic\r\n", "more"} {
			if n, err := o.Write([]byte(w)); n != len(w) && took < time.Hour {
				t.Errorf("wrote %d bytes of %q: %v", n, w, err)
			}
		}
		b, _ := io.ReadAll(o)
		synctest.Wait()
		read, got = string(b), sent.String()
		ours.Close()
	})
	return gcm, took, read, got
}

func TestOnlyGCMForWhoWouldTakeCTRInstead(t *testing.T) {
	const openssh = "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u10\r\n"
	both := string(kexPacket("chacha20-poly1305@openssh.com,aes128-ctr,aes256-gcm@openssh.com", "aes128-ctr,aes128-gcm@openssh.com"))
	bytewise := strings.Split(openssh+both, "")
	for name, test := range map[string]struct {
		said []string
		gcm  bool
		took time.Duration
	}{
		"at once":                       {[]string{openssh + both}, true, 0},
		"line, then list":               {[]string{openssh, both}, true, 0},
		"byte by byte":                  {bytewise, true, 0},
		"and more behind it":            {[]string{openssh + both + strings.Repeat("x", 3000)}, true, 0},
		"GCM one way only":              {[]string{openssh, string(kexPacket("aes128-gcm@openssh.com", "aes128-ctr"))}, false, 0},
		"no GCM":                        {[]string{openssh, string(kexPacket("aes128-ctr", "aes128-ctr"))}, false, 0},
		"another program":               {[]string{"SSH-2.0-paramiko_3.4.0\r\n", both}, false, 0},
		"waits for our list":            {[]string{openssh}, false, overtureWait},
		"half a list":                   {[]string{openssh, both[:40]}, false, overtureWait},
		"a packet too long":             {[]string{openssh, string(long(1 << 31))}, false, 0},
		"a packet shorter than padding": {[]string{openssh, string(long(3))}, false, 0},
		"another message":               {[]string{openssh, string(append(binary.BigEndian.AppendUint32(nil, 12), 4, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0))}, false, 0},
		"no line and no end":            {[]string{strings.Repeat("x", 9000)}, false, 0},
		"says nothing":                  {nil, false, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			gcm, took, read, got := overheard(t, test.said...)
			if gcm != test.gcm || took != test.took {
				t.Errorf("only GCM: %t after %v, want %t after %v", gcm, took, test.gcm, test.took)
			}
			if read != strings.Join(test.said, "") {
				t.Errorf("the handshake reads %q of %q", read, test.said)
			}
			if want := "SSH-2.0-generic\r\nmore"; got != want && test.took < time.Hour {
				t.Errorf("the client gets %q, want %q", got, want)
			}
		})
	}
}

// FuzzOverture looks at what a stranger sends first.
func FuzzOverture(f *testing.F) {
	f.Add(kexPacket("aes128-ctr", "aes128-gcm@openssh.com"))
	f.Add(kexPacket("aes128-gcm@openssh.com", "aes256-gcm@openssh.com"))
	f.Add(long(1 << 31))
	f.Fuzz(func(t *testing.T, heard []byte) {
		o, whole := kexInit(heard)
		if o != nil && !whole || len(heard) > maxOverture+4 && !whole {
			t.Errorf("%v, %t", o, whole)
		}
		if hasGCM(o) && !slices.ContainsFunc(onlyGCM, func(c string) bool { return bytes.Contains(heard, []byte(c)) }) {
			t.Error("found a cipher that is not there")
		}
	})
}

// A client whose connection breaks in the middle of its first words is told of
// like any other.
func TestOvertureOfAConnectionThatBreaks(t *testing.T) {
	ours, theirs := net.Pipe()
	theirs.Close()
	o, gcm := listen(ours, "SSH-2.0-generic")
	if gcm {
		t.Error("offers GCM to nobody")
	}
	if _, err := o.Write([]byte("SSH-2.0-generic\r\n")); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("the handshake's first write: %v", err)
	}
}
