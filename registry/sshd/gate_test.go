package sshd

import (
	"bufio"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"
)

// stranger is a raw client that has exchanged keys and not authenticated.
func stranger(t *testing.T, p *pipes) *raw {
	t.Helper()
	nc := p.connect("192.0.2.2:1")
	r := &raw{Conn: nc, in: bufio.NewReader(nc)}
	if err := r.exchange(); err != nil {
		t.Fatal(err)
	}
	go io.Copy(io.Discard, r.in)
	return r
}

// In x/crypto v0.58.0 whoever sent 18 packets more behind a wrong one left two
// goroutines and 17 packets in the memory of a server, for ever, without having
// authenticated. The bubble tells of goroutines that stay.
func TestStrangersLeaveNothingBehind(t *testing.T) {
	service, method := packet(msgServiceRequest, "ssh-userauth"), packet(msgUserauthRequest, "eve", "ssh-connection", "none")
	for name, packets := range map[string][][]byte{
		"no service":              times(1000, packet(msgServiceRequest, "x")),
		"no request for one":      times(1000, packet(msgData, 0, "x")),
		"smallest packets":        times(1000, []byte{msgServiceRequest}),
		"greatest packets":        times(40, packet(msgServiceRequest, strings.Repeat("x", 200<<10))),
		"no authentication":       with([][]byte{service}, times(1000, packet(msgData, 0, "x"))...),
		"too many tries":          with([][]byte{service}, times(1000, method)...),
		"all at once":             times(1000, service, method),
		"another key exchange":    with([][]byte{service}, times(100, (*raw)(nil).kexInit(), method)...),
		"a wrong key exchange":    with([][]byte{{msgKexInit}}, times(1000, service)...),
		"too much authentication": with([][]byte{service}, times(100, packet(msgUserauthRequest, "eve", "ssh-connection", strings.Repeat("x", 100<<10)))...),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDaemon(t)
				p := d.serveInMemory()
				r := stranger(t, p)
				for _, packet := range packets {
					if r.send(packet) != nil {
						break
					}
					if name == "another key exchange" {
						synctest.Wait() // the library reads what it agreed on beside the next agreement
					}
				}
				synctest.Wait()
				r.Close()
				synctest.Wait()
				if waiting, _ := d.door.state(); waiting != 0 {
					t.Errorf("%d wait, when the stranger is gone", waiting)
				}
				d.end(t)
			})
		})
	}
}

// authenticateAtOnce sends all that authenticates, and more behind it, without
// waiting for an answer.
func authenticateAtOnce(t *testing.T, r *raw, user string, key ssh.Signer, more ...[]byte) {
	t.Helper()
	r.send(packet(msgServiceRequest, "ssh-userauth"))
	for range 3 { // what is tried first and refused
		r.send(packet(msgUserauthRequest, user, "ssh-connection", "none"))
	}
	request := packet(msgUserauthRequest, user, "ssh-connection", "publickey", true, key.PublicKey().Type(), string(key.PublicKey().Marshal()))
	signature, err := key.Sign(rand.Reader, append(packet(0, string(r.hash))[1:], request...))
	if err != nil {
		t.Fatal(err)
	}
	r.send(append(request, packet(0, string(ssh.Marshal(signature)))[1:]...))
	for _, packet := range more {
		if r.send(packet) != nil {
			return
		}
	}
}

// The same from a client that is known, and from one that comes when there is no
// place left.
func TestMembersLeaveNothingBehind(t *testing.T) {
	many := times(1000, packet(msgGlobalRequest, "x", false)) // more than the library keeps for us
	wrong := with([][]byte{{msgUserauthSuccess}}, many...)
	for name, test := range map[string]struct {
		packets [][]byte
		full    bool
	}{"a wrong packet": {wrong, false}, "no place, a wrong packet": {wrong, true}, "no place": {many, true}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDaemon(t, func(o *Options) {
					if test.full {
						o.Limits.Connections = 2 // one of them for agents
					}
				})
				p := d.serveInMemory()
				if test.full {
					d.member(t, p.connect("192.0.2.1:1"), AgentUser, d.agent)
					synctest.Wait() // it knows that it is in before it has its place
				}
				r := stranger(t, p)
				authenticateAtOnce(t, r, AgentUser, d.agent, test.packets...)
				synctest.Wait()
				if full := d.Stats().Refused["full"] == 1; full != test.full {
					t.Errorf("refused: %v", d.Stats().Refused)
				}
				r.Close()
				d.end(t)
			})
		})
	}
}

// Before authentication nobody can fill the memory with great packets.
func TestStrangersSendLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pipe(64<<10, addr("192.0.2.2:1"), addr("s"))
		g := newGate(server)
		go func() { // ends when the gate's end is closed
			for b := make([]byte, 1000); ; {
				if _, err := client.Write(b); err != nil {
					return
				}
			}
		}()
		n, err := io.Copy(io.Discard, g)
		if n != maxStranger || !errors.Is(err, errTooMuch) {
			t.Errorf("%d bytes come in, %v", n, err)
		}
		g.passed.Store(true)
		if n, err := io.CopyN(io.Discard, g, 10<<20); err != nil {
			t.Errorf("after authentication %d bytes come in, %v", n, err)
		}
		g.Close()
	})
}

// A try that is refused opens nothing.
func TestRefusedStrangersSendLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDaemon(t)
		p := d.serveInMemory()
		r := stranger(t, p)
		r.send(packet(msgServiceRequest, "ssh-userauth"))
		for range 2 { // the first is not counted
			r.send(packet(msgUserauthRequest, "eve", "ssh-connection", "none"))
		}
		synctest.Wait()
		sent := 0
		for r.send(packet(msgIgnore, strings.Repeat("x", 30<<10))) == nil && sent < 4*maxStranger {
			sent += 30 << 10
			synctest.Wait()
		}
		const underWay = 64 << 10 // in the pipe
		if sent > maxStranger+underWay {
			t.Errorf("%d bytes come in from a stranger", sent)
		}
		r.Close()
		d.end(t)
	})
}

// Some clients do not wait for each answer; they get in, too.
func TestEagerClientGetsIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDaemon(t)
		p := d.serveInMemory()
		r := stranger(t, p)
		authenticateAtOnce(t, r, "anna", d.operator)
		time.Sleep(time.Second)
		synctest.Wait()
		if all := d.Connections(); len(all) != 1 {
			t.Errorf("%d are connected, want the one that sent all at once: %v", len(all), d.log.lines(t, "connection refused"))
		}
		r.Close()
		d.end(t)
	})
}

// slow is a connection whose peer may have answered what is written to it before
// the write ends.
type slow struct{ net.Conn }

func (s slow) Write(p []byte) (int, error) {
	n, err := s.Conn.Write(p)
	time.Sleep(5 * time.Millisecond) // in a bubble it would not end: a lock is held
	return n, err
}

// A client that has just got in may send as much as it likes: an agent's outbox
// does.
func TestMuchAtOnceFromAMember(t *testing.T) {
	d, p := newDaemon(t), newPipes()
	d.serve(t, p)
	end, server := pipe(64<<10, addr("192.0.2.2:1"), addr("192.0.2.1:22"))
	p.conns <- slow{server}
	c := d.member(t, end, AgentUser, d.agent)
	for range 10 {
		if _, _, err := c.SendRequest("x", false, make([]byte, maxStranger/4)); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := c.SendRequest("x", true, nil); err != nil {
		t.Error(err)
	}
}

// A client that breaks the rules is cut, and the log says why. Of one that leaves it
// has nothing to say.
func TestTheLogTellsWhyAConnectionEnded(t *testing.T) {
	for name, test := range map[string]struct {
		last []byte
		want string
	}{
		"nothing a server takes":   {packet(msgUserauthSuccess), "ssh: parse error in message type 52"},
		"an end for a reason":      {packet(msgDisconnect, 2, "no\ncookies", ""), `ssh: disconnect, reason 2: "no\ncookies"`},
		"an end by its user":       {packet(msgDisconnect, 11, "bye", ""), ""},
		"an end without a message": {nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDaemon(t)
				p := d.serveInMemory()
				r := stranger(t, p)
				authenticateAtOnce(t, r, AgentUser, d.agent)
				synctest.Wait()
				if test.last == nil {
					r.Close()
				} else {
					r.send(test.last)
				}
				got, _ := d.log.wait(t, "connection closed")["error"].(string)
				if got != test.want {
					t.Errorf("the log has the error %q, want %q", got, test.want)
				}
				r.Close()
				d.end(t)
			})
		})
	}
}

// What backlog relies on is where it was.
func TestTheLibraryHasItsQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDaemon(t)
		p := d.serveInMemory()
		c := d.member(t, p.connect("192.0.2.1:1"), "anna", d.operator)
		synctest.Wait()
		for _, c := range d.connections() {
			if c.queue == nil || cap(c.queue) != 16 {
				t.Errorf("the queue of a connection: %v, of %d", c.queue, cap(c.queue))
			}
		}
		c.Close()
		d.end(t)
	})
	for _, v := range []any{nil, 7, struct{}{}, struct{ transport int }{}, &struct{ transport struct{ incoming int } }{}} {
		if backlogOf(v) != nil {
			t.Errorf("backlogOf(%v) found something", v)
		}
	}
}
