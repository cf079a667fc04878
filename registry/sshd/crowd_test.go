package sshd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"deploytools/registry/console"
	"deploytools/registry/wire"
)

func TestCrowdAtTheDoor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor()
		n := 0
		enter := func(source string) (*pipeEnd, error) {
			n++
			c, s := pipe(1, addr(fmt.Sprintf("%s:%d", source, n)), addr("x"))
			_, err := d.enter(s)
			return c, err
		}
		crowd := func(count int, source string) (first *pipeEnd) {
			for i := range count {
				c, err := enter(source)
				if err != nil {
					t.Fatalf("number %d of %s: %v", i+1, source, err)
				}
				if first == nil {
					first = c
				}
			}
			return first
		}
		oldest := crowd(16, "192.0.2.1")
		if _, err := enter("192.0.2.1"); !errors.Is(err, errCrowded) {
			t.Errorf("the 17th of one address: %v", err)
		}
		six := crowd(8, "[2001:db8::1]")
		crowd(8, "[2001:db8::2]")
		if _, err := enter("[2001:db8::ffff:3]"); !errors.Is(err, errCrowded) {
			t.Errorf("the 17th of one network: %v", err)
		}
		crowd(1, "[2001:db8:0:1::1]")
		crowd(16, "192.0.2.3")
		crowd(15, "192.0.2.4")
		if _, err := enter("192.0.2.5"); !errors.Is(err, errCrowded) {
			t.Errorf("the 65th: %v", err)
		}
		if isClosed(oldest) {
			t.Error("the oldest had to go at once: those who come together cut each other off")
		}
		time.Sleep(patience)
		if _, err := enter("192.0.2.5"); err != nil || !isClosed(oldest) {
			t.Errorf("after some time the 65th gets %v, and the oldest is cut: %t", err, isClosed(oldest))
		}
		if _, err := enter("[2001:db8::9]"); err != nil || !isClosed(six) {
			t.Errorf("after some time the 17th of a network gets %v, and the oldest of it is cut: %t", err, isClosed(six))
		}
		v, err := d.enter(&pipeEnd{remote: addr("192.0.2.9:1"), in: newStream(1), out: newStream(1)})
		if err != nil {
			t.Fatal(err)
		}
		d.leave(v)
		d.leave(v)
		if len(d.waiting) != 63 {
			t.Errorf("%d wait, want 63", len(d.waiting))
		}
		d.shut()
		if _, err := enter("192.0.2.8"); !errors.Is(err, errStopping) {
			t.Errorf("after shut: %v", err)
		}
	})
}

func TestStrangersDoNotKeepOthersOut(t *testing.T) {
	d := start(t)
	for range 200 {
		nc, err := net.Dial("tcp", d.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
	}
	// One source has its share, and no more.
	cmd := d.ssh(t, "ssh", "-i", "op", "-b", "127.0.0.2", "anna@registry", "help")
	if _, stderr, status := output(t, cmd, ""); status != 0 {
		t.Errorf("a good client: status %d, %s", status, stderr)
	}
	if n := len(d.log.lines(t, "connection refused")); n == 0 || n > 30 {
		t.Errorf("%d lines in the log for 200 connections, want a few", n)
	}
}

func TestChannelsPerConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDaemon(t)
		p := d.serveInMemory()
		c := d.member(t, p.connect("192.0.2.1:1"), "anna", d.operator)
		var open []*ssh.Session
		for range maxChannels {
			open = append(open, session1(t, c))
		}
		if _, err := c.NewSession(); err == nil {
			t.Error("one session more than allowed was opened")
		}
		if err := open[0].RequestSubsystem("sftp"); err != nil {
			t.Fatal(err)
		}
		open[0].Close()
		open[1].Close()
		synctest.Wait()
		for range 2 {
			if _, err := c.NewSession(); err != nil {
				t.Errorf("after two were closed: %v", err)
			}
		}
		c.Close()
		d.end(t)
	})
}

// A command that has not noticed yet that its client is gone still counts.
func TestRunningCommandsPerConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDaemon(t)
		release := make(chan struct{})
		d.front.exec = func(context.Context, *console.Session, string) wire.Status { <-release; return wire.OK }
		p := d.serveInMemory()
		c := d.member(t, p.connect("192.0.2.1:1"), "anna", d.operator)
		for range maxChannels {
			s := session1(t, c)
			s.Start("x")
			s.Close()
		}
		synctest.Wait()
		if _, err := c.NewSession(); err == nil {
			t.Error("more commands run than sessions are allowed")
		}
		close(release)
		c.Close()
		d.end(t)
	})
}

func TestRefusedChannelsCutTheConnection(t *testing.T) {
	d := start(t)
	c := d.mustDial(t, "anna", d.operator)
	for i := range maxRefusals {
		_, _, err := c.OpenChannel("direct-tcpip", nil)
		if _, refused := err.(*ssh.OpenChannelError); !refused && i < maxRefusals-1 {
			t.Fatalf("channel %d: %v, want it refused", i+1, err)
		}
	}
	if l := d.log.wait(t, "connection closed"); l["error"] != "64 channels refused" {
		t.Errorf("log %v, want why", l)
	}
}
