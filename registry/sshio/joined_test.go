package sshio

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"
)

// recorder is a connection that keeps what is written to it, and goes on to Conn if
// there is one.
type recorder struct {
	net.Conn
	mu     sync.Mutex
	writes [][]byte
	err    error
}

func (r *recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	if r.err != nil {
		defer r.mu.Unlock()
		return 0, r.err
	}
	r.writes = append(r.writes, bytes.Clone(p))
	r.mu.Unlock()
	if r.Conn == nil {
		return len(p), nil
	}
	return r.Conn.Write(p)
}

func (r *recorder) sizes() (all []int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range r.writes {
		all = append(all, len(w))
	}
	return all
}

// The library itself writes here: a version of it with another buffer is found out.
func TestEachPacketOfTheLibraryIsOneWrite(t *testing.T) {
	near, far := connected(t)
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	host, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	server := &ssh.ServerConfig{NoClientAuth: true}
	server.AddHostKey(host)
	ended := make(chan error, 1)
	go func() { ended <- swallow(far, server) }()
	r := &recorder{Conn: near}
	conn, channels, requests, err := ssh.NewClientConn(Join(r), "", &ssh.ClientConfig{HostKeyCallback: ssh.FixedHostKey(host.PublicKey())})
	if err != nil {
		t.Fatal(err)
	}
	go ssh.DiscardRequests(requests)
	go func() {
		for range channels {
		}
	}()
	ch, _, err := conn.OpenChannel("sink", nil)
	if err != nil {
		t.Fatal(err)
	}
	before := len(r.sizes())
	const packets = 20
	for range packets {
		if _, err := ch.Write(make([]byte, 32<<10)); err != nil {
			t.Fatal(err)
		}
	}
	sizes := r.sizes()[before:]
	if len(sizes) != packets || slices.Min(sizes) <= 32<<10 {
		t.Errorf("%d packets of 32 KiB are written as %v", packets, sizes)
	}
	conn.Close()
	<-ended
}

// connected returns both ends of a connection with buffers: both sides begin by
// writing.
func connected(t *testing.T) (near, far net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if near, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

// swallow is a server that reads one channel to its end.
func swallow(nc net.Conn, config *ssh.ServerConfig) error {
	conn, channels, requests, err := ssh.NewServerConn(nc, config)
	if err != nil {
		return err
	}
	go ssh.DiscardRequests(requests)
	for c := range channels {
		ch, requests, err := c.Accept()
		if err != nil {
			return err
		}
		go ssh.DiscardRequests(requests)
		for p := make([]byte, 64<<10); err == nil; {
			_, err = ch.Read(p)
		}
	}
	return conn.Wait()
}

// Whatever the sizes of the parts, every byte is written once, in order.
func TestJoinedLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		random := rand.New(rand.NewPCG(3, 4))
		r := &recorder{}
		j := Join(r)
		var want []byte
		for range 2000 {
			size := []int{1 + random.IntN(headBytes), headBytes, headBytes, headBytes + random.IntN(60<<10)}[random.IntN(4)]
			p := make([]byte, size)
			rand.NewChaCha8([32]byte{byte(size), byte(size >> 8)}).Read(p)
			want = append(want, p...)
			if n, err := j.Write(p); n != size || err != nil {
				t.Fatalf("Write of %d bytes = %d, %v", size, n, err)
			}
			if random.IntN(4) == 0 {
				time.Sleep(headWait * time.Duration(random.IntN(3)))
			}
		}
		time.Sleep(2 * headWait)
		synctest.Wait()
		if got := bytes.Join(r.writes, nil); !bytes.Equal(got, want) {
			t.Errorf("%d bytes are written that are not the %d of the caller", len(got), len(want))
		}
	})
}

func TestWhatNothingFollowsIsWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{}
		j := Join(r)
		for i := range 3 {
			j.Write(make([]byte, headBytes))
			if n := len(r.sizes()); n != i {
				t.Fatalf("%d writes at once, want %d: it may be half of a packet", n, i)
			}
			time.Sleep(headWait)
			synctest.Wait()
			if n := len(r.sizes()); n != i+1 {
				t.Fatalf("%d writes after %v, want %d", n, headWait, i+1)
			}
		}
	})
}

func TestAnErrorOfWhatWasHeldIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lost := errors.New("lost")
		j := Join(&recorder{err: lost})
		if _, err := j.Write(make([]byte, headBytes)); err != nil {
			t.Fatalf("Write = %v before anything was tried", err)
		}
		time.Sleep(headWait)
		synctest.Wait()
		for range 2 {
			if _, err := j.Write([]byte("x")); err != lost {
				t.Errorf("Write = %v, want %v", err, lost)
			}
		}
	})
}
