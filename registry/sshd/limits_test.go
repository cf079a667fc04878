package sshd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"deploytools/registry/console"
	"deploytools/registry/wire"
)

// serveInMemory has d serve connections of a bubble. The test ends d itself.
func (d *daemon) serveInMemory() *pipes {
	p := newPipes()
	go func() { d.ended <- d.Serve(d.ctx, p) }()
	return p
}

func (d *daemon) end(t *testing.T) {
	t.Helper()
	d.stop()
	if err := <-d.ended; err != nil {
		t.Errorf("Serve = %v", err)
	}
}

func isClosed(c *pipeEnd) bool {
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	return c.in.closed
}

func TestSlowHandshakeIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDaemon(t)
		p := d.serveInMemory()
		silent := p.connect("192.0.2.2:1")
		slow := p.connect("192.0.2.3:1")
		var typing sync.WaitGroup
		typing.Go(func() { // a byte a second
			for _, err := slow.Write([]byte("S")); err == nil; _, err = slow.Write([]byte("S")) {
				time.Sleep(time.Second)
			}
		})
		time.Sleep(30*time.Second - time.Millisecond)
		synctest.Wait()
		if isClosed(silent) || isClosed(slow) {
			t.Error("cut before 30 s")
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if !isClosed(silent) || !isClosed(slow) {
			t.Error("not cut after 30 s")
		}
		typing.Wait()
		d.end(t)
	})
}

// The client of a test that dies with the bubble.
func (d *daemon) member(t *testing.T, nc net.Conn, user string, key ssh.Signer) *ssh.Client {
	t.Helper()
	c, err := d.client(t, nc, user, key)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestSilentPeerIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDaemon(t)
		p := d.serveInMemory()
		gone, there := p.connect("192.0.2.2:1"), p.connect("192.0.2.3:1")
		a, b := d.member(t, gone, AgentUser, d.agent), d.member(t, there, AgentUser, d.agent)
		gone.in.stop(true) // its machine lost power
		time.Sleep(119 * time.Second)
		synctest.Wait()
		if isClosed(gone) {
			t.Error("cut before the third keepalive was missed")
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if !isClosed(gone) {
			t.Error("a peer that answers no keepalive was not cut")
		}
		if isClosed(there) {
			t.Error("a peer that answers was cut")
		}
		if l := d.log.lines(t, "connection closed"); len(l) != 1 || l[0]["error"] != "no answer to 3 keepalives" {
			t.Errorf("log %v, want why", l)
		}
		a.Close()
		b.Close()
		d.end(t)
	})
}

func TestIdleConnectionIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDaemon(t)
		p := d.serveInMemory()
		nc := p.connect("192.0.2.2:1")
		c := d.member(t, nc, "anna", d.operator)
		s := session1(t, c)
		s.RequestPty("xterm", 24, 80, nil)
		in, _ := s.StdinPipe()
		s.Shell()
		time.Sleep(29 * time.Minute)
		in.Write([]byte("x"))
		time.Sleep(29 * time.Minute)
		synctest.Wait()
		if isClosed(nc) {
			t.Error("somebody who types was cut")
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if !isClosed(nc) {
			t.Error("an idle connection was not cut")
		}
		d.end(t)
	})
}

// A client that sends nothing does not keep its connection by having started a
// command that waits for it.
func TestCommandThatWaitsForInputIsIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDaemon(t)
		p := d.serveInMemory()
		nc := p.connect("192.0.2.2:1")
		s := session1(t, d.member(t, nc, "anna", d.operator))
		s.StdinPipe()
		s.Shell() // a script that never comes
		time.Sleep(31 * time.Minute)
		synctest.Wait()
		if !isClosed(nc) {
			t.Error("the connection was not cut")
		}
		d.end(t)
	})
}

// Upstream cut what ran when 30 minutes were over: B-17.
func TestWorkIsNeverIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDaemon(t)
		d.front.exec = func(_ context.Context, s *console.Session, line string) wire.Status {
			switch line {
			case "long":
				time.Sleep(5 * time.Hour)
			case "trickle":
				b := make([]byte, 1)
				for range 30 {
					s.Stdin.Read(b)
				}
			}
			return wire.OK
		}
		p := d.serveInMemory()
		run := func(user string, key ssh.Signer, work func(c *ssh.Client) error) <-chan error {
			c := d.member(t, p.connect("192.0.2.2:1"), user, key)
			done := make(chan error, 1)
			go func() { done <- errors.Join(work(c), c.Close()) }()
			return done
		}
		for name, done := range map[string]<-chan error{
			"a command": run("anna", d.operator, func(c *ssh.Client) error { return session1(t, c).Run("long") }),
			"slow input": run("anna", d.operator, func(c *ssh.Client) error {
				s := session1(t, c)
				in, _ := s.StdinPipe()
				s.Start("trickle")
				for range 30 {
					time.Sleep(10 * time.Minute)
					in.Write([]byte("x"))
				}
				return s.Wait()
			}),
			"an agent that polls": run(AgentUser, d.agent, func(c *ssh.Client) error {
				payload, _ := wire.EncodePoll(wire.PollRequest{Names: []string{"x"}})
				for range 300 {
					time.Sleep(time.Minute)
					if ok, _, err := c.SendRequest(wire.PollRequestType, true, payload); !ok || err != nil {
						return fmt.Errorf("poll = %t, %w", ok, err)
					}
				}
				return nil
			}),
		} {
			if err := <-done; err != nil {
				t.Errorf("%s was cut: %v", name, err)
			}
		}
		d.end(t)
	})
}

func TestStalledReaderIsCutAndSlowOneIsNot(t *testing.T) {
	for _, test := range []struct {
		name  string
		read  func(stdout io.Reader) // what the client does, until it is cut
		wants bool                   // to be cut
	}{
		{"takes nothing", func(io.Reader) {}, true},
		{"takes 32 KiB each four minutes", func(r io.Reader) {
			for b := make([]byte, 32<<10); ; time.Sleep(4 * time.Minute) {
				if _, err := io.ReadFull(r, b); err != nil {
					return
				}
			}
		}, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			d := newDaemon(t)
			done := make(chan error, 1)
			d.front.exec = func(_ context.Context, s *console.Session, _ string) wire.Status {
				_, err := io.WriteString(s.Stdout, strings.Repeat("x", 4<<20))
				done <- err
				return wire.OK
			}
			p := d.serveInMemory()
			nc := p.connect("192.0.2.2:1")
			c := d.member(t, nc, "anna", d.operator)
			s := session1(t, c)
			stdout, _ := s.StdoutPipe()
			s.Start("x")
			started := time.Now()
			var reading sync.WaitGroup
			reading.Go(func() { test.read(stdout) })
			err := <-done
			if cut := err != nil; cut != test.wants {
				t.Errorf("%s: after %v %v, want it cut: %t", test.name, time.Since(started), err, test.wants)
			}
			if test.wants && time.Since(started) > 6*time.Minute {
				t.Errorf("%s: cut after %v", test.name, time.Since(started))
			}
			c.Close()
			reading.Wait()
			d.end(t)
		})
	}
}

// The client's machine answers nothing any more, with a full window of TCP.
func TestStalledNetworkIsCut(t *testing.T) {
	d := newDaemon(t, func(o *Options) { o.Stall = 50 * time.Millisecond })
	done := make(chan error, 1)
	d.front.exec = func(_ context.Context, s *console.Session, _ string) wire.Status {
		s.Stdin.Read(make([]byte, 1))
		_, err := io.WriteString(s.Stdout, strings.Repeat("x", 1<<20))
		done <- err
		return wire.OK
	}
	p := d.serveInMemory()
	nc := p.connect("192.0.2.2:1")
	s := session1(t, d.member(t, nc, "anna", d.operator))
	in, _ := s.StdinPipe()
	s.Start("x")
	nc.in.stop(true)
	in.Write([]byte("x"))
	if err := <-done; err == nil {
		t.Error("a megabyte went nowhere")
	}
	nc.Close()
	d.end(t)
}

func TestMeterGivesUpOnlyWithoutProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pipe(1000, addr("c"), addr("s"))
		m := &meter{Conn: server, stall: time.Minute}
		go func() {
			b := make([]byte, 100)
			for range 90 {
				time.Sleep(50 * time.Second)
				client.Read(b)
			}
		}()
		started := time.Now()
		if n, err := m.Write(make([]byte, 10_000)); n != 10_000 || err != nil {
			t.Errorf("to a slow reader: Write = %d, %v", n, err)
		}
		if took := time.Since(started); took < time.Hour {
			t.Errorf("it took %v: the reader was not slow", took)
		}
		started = time.Now()
		n, err := m.Write(make([]byte, 10_000))
		if err == nil || time.Since(started) != time.Minute {
			t.Errorf("to one that takes nothing: Write = %d, %v after %v", n, err, time.Since(started))
		}
		m.Close()
	})
}

// B-15: upstream ended when it was out of file descriptors.
func TestAcceptErrorsEndNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDaemon(t)
		d.front.exec = echo
		p := d.serveInMemory()
		started := time.Now()
		for range 100 {
			p.errs <- fmt.Errorf("accept4: %w", syscall.EMFILE)
		}
		if took := time.Since(started); took < 90*time.Second {
			t.Errorf("100 errors in %v: it does not back off", took)
		}
		if out, err := session1(t, d.member(t, p.connect("192.0.2.2:1"), "anna", d.operator)).Output("x"); err != nil {
			t.Errorf("after the errors: %q, %v", out, err)
		}
		for range 10 {
			p.errs <- syscall.ECONNABORTED
		}
		if l := d.log.lines(t, "connections are not accepted"); len(l) != 2 {
			t.Errorf("%d lines in the log, want one for each kind: %v", len(l), l)
		}
		if l := d.log.lines(t, "connections are accepted again"); len(l) != 1 {
			t.Errorf("%d lines in the log about the end of it", len(l))
		}
		d.end(t)
	})
}

func TestServeSaysThatItsListenerIsGone(t *testing.T) {
	d := newDaemon(t)
	a, b := newPipes(), newPipes()
	go func() { d.ended <- d.Serve(d.ctx, a, b) }()
	b.Close()
	if err := <-d.ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve = %v, want that the listener is gone", err)
	}
	if _, err := a.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Error("the other listener is still open")
	}
}
