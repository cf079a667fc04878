package sshd

import (
	"bufio"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// A crowd of 250 addresses opens 2,000 connections, goes as far as it can
// without a key, and lets them lie. Who is inside works on; who has a key comes
// in; and what the crowd held is given back when it is gone.
func TestAbandonedHandshakesStopNobody(t *testing.T) {
	const all, bySource, prompt = 2000, 8, 3 * time.Second
	d := start(t)
	inside := d.mustDial(t, "anna", d.operator)
	before := runtime.NumGoroutine()

	var crowd sync.WaitGroup
	var mu sync.Mutex
	var held []net.Conn
	for i := range all / bySource {
		crowd.Go(func() {
			from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 7, byte(i), 1)}}
			for stage := range bySource {
				nc, err := from.Dial("tcp", d.addr)
				if err != nil {
					t.Errorf("source %d: %v", i, err)
					return
				}
				mu.Lock()
				held = append(held, nc)
				mu.Unlock()
				goHalfWay(nc, stage%4)
			}
		})
	}
	gathered := make(chan struct{})
	go func() {
		crowd.Wait()
		close(gathered)
	}()
	for n := 0; ; n++ {
		began := time.Now()
		if out, err := session1(t, inside).Output("help"); err != nil || len(out) == 0 {
			t.Fatalf("command %d of who is inside: %q, %v", n, out, err)
		}
		if took := time.Since(began); took > prompt {
			t.Errorf("command %d took %v", n, took)
		}
		select {
		case <-gathered:
		default:
			continue
		}
		break
	}
	d.comesIn(t, 4*prompt)
	stats := d.Stats()
	if stats.Accepted < all || stats.Waiting > DefaultStartups.Full || stats.Refused["crowded"]+stats.Refused["handshake"]+stats.Refused["source_crowded"] == 0 {
		t.Errorf("Stats() = %+v", stats)
	}
	for _, nc := range held {
		nc.Close()
	}
	d.comesIn(t, prompt)
	late := time.After(time.Minute)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for d.Stats().Waiting > 0 || runtime.NumGoroutine() > before+20 {
		select {
		case <-late:
			t.Fatalf("%d wait and %d goroutines run, %d did before", d.Stats().Waiting, runtime.NumGoroutine(), before)
		case <-tick.C:
		}
	}
}

// comesIn tries to log in, as a person does who is refused.
func (d *daemon) comesIn(t *testing.T, within time.Duration) {
	t.Helper()
	for end := time.Now().Add(within); ; {
		nc, err := net.Dial("tcp", d.addr)
		if err != nil {
			t.Fatal(err)
		}
		sc, channels, requests, err := ssh.NewClientConn(nc, "registry", &ssh.ClientConfig{
			User: "anna", Auth: []ssh.AuthMethod{ssh.PublicKeys(d.operator)}, HostKeyCallback: ssh.FixedHostKey(d.host.PublicKey()),
		})
		if err == nil {
			c := ssh.NewClient(sc, channels, requests)
			defer c.Close()
			if out, err := session1(t, c).Output("help"); err != nil || len(out) == 0 {
				t.Errorf("the command of who came in: %q, %v", out, err)
			}
			return
		}
		nc.Close()
		if time.Now().After(end) {
			t.Fatalf("nobody comes in within %v: %v", within, err)
		}
	}
}

// goHalfWay goes some way of the handshake: not a byte, half a version, no
// answer to the server's proposal, or all of the key exchange.
func goHalfWay(nc net.Conn, stage int) {
	switch stage {
	case 1:
		io.WriteString(nc, "SSH-2.0-")
	case 2:
		io.WriteString(nc, rawVersion+"\r\n")
	case 3:
		r := &raw{Conn: nc, in: bufio.NewReader(nc)}
		if err := r.exchange(); err != nil && !errors.Is(err, io.EOF) {
			return // refused, as most are
		}
	}
}
