package sshd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"deploytools/registry/console"
	"deploytools/registry/wire"
)

// crowd is a door, and those who come to it.
type crowd struct {
	*door
	t *testing.T
	n int
}

// newCrowd returns a door at which the dice are in nobody's favour below full.
func newCrowd(t *testing.T, l Limits) *crowd {
	c := &crowd{door: newDoor(l.complete(budget{1000, 1000})), t: t}
	c.draw = func() int { return 99 }
	return c
}

func (c *crowd) visit(source string) (*visitor, *pipeEnd, error) {
	c.n++
	client, server := pipe(1, addr(fmt.Sprintf("%s:%d", source, c.n)), addr("x"))
	v, err := c.enter(server)
	return v, client, err
}

func (c *crowd) refused(source string) error {
	_, _, err := c.visit(source)
	return err
}

// visits returns the first of many who come.
func (c *crowd) visits(count int, source string) (first *pipeEnd) {
	c.t.Helper()
	for i := range count {
		_, client, err := c.visit(source)
		if err != nil {
			c.t.Fatalf("number %d of %s: %v", i+1, source, err)
		}
		if first == nil {
			first = client
		}
	}
	return first
}

func TestCrowdAtTheDoor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newCrowd(t, Limits{})
		oldest := d.visits(16, "192.0.2.1")
		if err := d.refused("192.0.2.1"); !errors.Is(err, errSource) {
			t.Errorf("the 17th of one address: %v", err)
		}
		six := d.visits(8, "[2001:db8::1]")
		d.visits(8, "[2001:db8::2]")
		if err := d.refused("[2001:db8::ffff:3]"); !errors.Is(err, errSource) {
			t.Errorf("the 17th of one network: %v", err)
		}
		d.visits(1, "[2001:db8:0:1::1]")
		d.visits(16, "192.0.2.3")
		d.visits(15, "192.0.2.4")
		if err := d.refused("192.0.2.5"); !errors.Is(err, errCrowded) {
			t.Errorf("the 65th: %v", err)
		}
		if isClosed(oldest) {
			t.Error("the oldest had to go at once: those who come together cut each other off")
		}
		time.Sleep(patience)
		if err := d.refused("192.0.2.5"); err != nil || !isClosed(oldest) {
			t.Errorf("after some time the 65th gets %v, and the oldest is cut: %t", err, isClosed(oldest))
		}
		if err := d.refused("[2001:db8::9]"); err != nil || !isClosed(six) {
			t.Errorf("after some time the 17th of a network gets %v, and the oldest of it is cut: %t", err, isClosed(six))
		}
		v, _, err := d.visit("192.0.2.9")
		if err != nil {
			t.Fatal(err)
		}
		d.leave(v)
		d.leave(v)
		if len(d.waiting) != 63 {
			t.Errorf("%d wait, want 63", len(d.waiting))
		}
		d.shut()
		if err := d.refused("192.0.2.8"); !errors.Is(err, errStopping) {
			t.Errorf("after shut: %v", err)
		}
	})
}

// From Start on the dice decide, with the odds that sshd's MaxStartups has.
func TestStartupsAreRefusedAtRandom(t *testing.T) { // B-16
	s := Startups{10, 30, 100}
	for _, test := range []struct{ waiting, odds int }{{0, 0}, {9, 0}, {10, 30}, {55, 65}, {99, 99}, {100, 100}, {1000, 100}} {
		refused := 0
		for drawn := range 100 {
			if s.refuses(test.waiting, drawn) {
				refused++
			}
		}
		if refused != test.odds {
			t.Errorf("with %d waiting %d of 100 are refused, want %d", test.waiting, refused, test.odds)
		}
	}
	d := newCrowd(t, Limits{Startups: Startups{2, 50, 4}})
	d.draw = func() int { return 49 }
	d.visits(2, "192.0.2.1")
	if err := d.refused("192.0.2.2"); !errors.Is(err, errCrowded) {
		t.Errorf("the third, with bad luck: %v", err)
	}
}

func TestStartupsText(t *testing.T) {
	for _, test := range []struct {
		text string
		want Startups
	}{
		{"10:30:100", Startups{10, 30, 100}}, {"64", Startups{64, 100, 64}}, {"5:100:5", Startups{5, 100, 5}},
		{"", Startups{}}, {"0", Startups{}}, {"10:30", Startups{}}, {"10:101:100", Startups{}}, {"11:30:10", Startups{}}, {"-1:1:1", Startups{}},
		{"1:1:1:1", Startups{}}, {"10:30:100 ", Startups{}},
	} {
		var got Startups
		err := got.Set(test.text)
		if got != test.want || (err == nil) != (test.want != Startups{}) {
			t.Errorf("Set(%q) = %v, %v, want %v", test.text, got, err, test.want)
		}
	}
}

// Who only fails is refused for some time, and then forgiven.
func TestFailuresOfAnAddressAddUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newCrowd(t, Limits{})
		fail := func(source string, by time.Duration) {
			t.Helper()
			v, _, err := d.visit(source)
			if err != nil {
				t.Fatalf("%s: %v", source, err)
			}
			d.leave(v)
			d.penalise(v, by)
		}
		for range 3 {
			fail("192.0.2.1", penaltyKeys)
		}
		fail("[2001:db8::1]", penaltyTimeout)
		for _, source := range []string{"192.0.2.1", "[2001:db8::2]"} {
			if err := d.refused(source); !errors.Is(err, errPenalised) {
				t.Errorf("%s, after too many failures: %v", source, err)
			}
		}
		if _, n := d.state(); n != 2 {
			t.Errorf("%d are penalised, want 2", n)
		}
		d.visits(1, "192.0.2.2")
		time.Sleep(14 * time.Second)
		if err := d.refused("192.0.2.1"); !errors.Is(err, errPenalised) {
			t.Errorf("before it ran out: %v", err)
		}
		// One that had come in before fails: it is no shorter for that.
		d.penalise(&visitor{source: sourceOf(addr("192.0.2.1:1"))}, penaltyNothing)
		time.Sleep(time.Second)
		if err := d.refused("192.0.2.1"); !errors.Is(err, errPenalised) {
			t.Errorf("after one failure more: %v", err)
		}
		time.Sleep(time.Second)
		d.visits(1, "192.0.2.1")
		for range 100 { // a mistake now and then is none
			fail("192.0.2.3", penaltyKeys)
			time.Sleep(3 * time.Second)
			fail("192.0.2.3", penaltyNothing)
			time.Sleep(4 * time.Second)
		}
		for range 14 { // more in a row than anybody is refused for
			fail("192.0.2.4", penaltyNothing)
		}
		for range 100 {
			v := &visitor{source: sourceOf(addr("192.0.2.5:1"))}
			d.penalise(v, penaltyPanic)
		}
		time.Sleep(penaltyMost - time.Millisecond)
		if err := d.refused("192.0.2.5"); !errors.Is(err, errPenalised) {
			t.Errorf("the worst, after 10 minutes: %v", err)
		}
		time.Sleep(time.Millisecond)
		d.visits(1, "192.0.2.5")
	})
}

// Behind one address there may be many hosts, one of them with a key that is
// gone. And on the loopback interface addresses are free.
func TestNoPenaltiesForOurOwn(t *testing.T) {
	d := newCrowd(t, Limits{})
	v, _, err := d.visit("192.0.2.1")
	if err != nil || d.admit(v, true) != nil {
		t.Fatalf("the first: %v", err)
	}
	for _, source := range []string{"192.0.2.1", "127.3.2.1", "[::1]"} {
		d.penalise(&visitor{source: sourceOf(addr(source + ":1"))}, penaltyPanic)
		if err := d.refused(source); err != nil {
			t.Errorf("%s: %v", source, err)
		}
	}
	d.leave(v)
	if err := d.refused("192.0.2.1"); !errors.Is(err, errPenalised) {
		t.Errorf("when nobody of it is inside any more: %v", err)
	}
}

func TestWhatIsRememberedIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := penalties{sources: map[netip.Prefix]*penalty{}}
		punish := func(first, count int) {
			for i := range count {
				ip := netip.AddrFrom4([4]byte{10, byte((first + i) >> 16), byte((first + i) >> 8), byte(first + i)})
				p.add(netip.PrefixFrom(ip, 32), penaltyTimeout, time.Now())
			}
		}
		punish(0, 2*maxSources)
		if len(p.sources) > maxSources || p.count(time.Now()) == 0 {
			t.Errorf("%d sources are remembered", len(p.sources))
		}
		time.Sleep(time.Minute)
		punish(3*maxSources, 1)
		if len(p.sources) != 1 {
			t.Errorf("%d sources are remembered after all have run out but one", len(p.sources))
		}
	})
}

func TestFailuresCostWhatTheyShould(t *testing.T) {
	for _, test := range []struct {
		err  error
		want time.Duration
	}{
		{io.EOF, penaltyNothing},
		{&ssh.ServerAuthError{Errors: []error{ssh.ErrNoAuth}}, penaltyNothing},
		{&ssh.ServerAuthError{Errors: []error{ssh.ErrNoAuth, errors.New("unknown key")}}, penaltyKeys},
		{fmt.Errorf("%w: 20s", errTimeout), penaltyTimeout},
	} {
		if got := penaltyFor(test.err); got != test.want {
			t.Errorf("penaltyFor(%v) = %v, want %v", test.err, got, test.want)
		}
	}
}

// A fleet fills the registry, but keeps no operator out.
func TestTheLastPlacesAreForOperators(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDaemon(t, func(o *Options) { o.Limits.Connections = 16 })
		p := d.serveInMemory()
		var all []*ssh.Client
		for i := range 15 {
			all = append(all, d.member(t, p.connect(fmt.Sprintf("192.0.2.%d:1", i+1)), AgentUser, d.agent))
		}
		synctest.Wait() // a client knows that it is in before it has its place
		if c, err := d.client(t, p.connect("192.0.2.100:1"), AgentUser, d.agent); err == nil {
			if _, _, err := c.SendRequest("x", true, nil); err == nil {
				t.Error("an agent took the last place")
			}
		}
		synctest.Wait()
		all = append(all, d.member(t, p.connect("192.0.2.101:1"), "anna", d.operator))
		if _, err := d.client(t, p.connect("192.0.2.102:1"), "anna", d.operator); err == nil {
			t.Error("there was one place more than there are")
		}
		synctest.Wait()
		if got := d.Stats().Refused["full"]; got != 2 {
			t.Errorf("%d were refused because all is full, want 2", got)
		}
		for _, c := range all {
			c.Close()
		}
		d.end(t)
	})
}

// What a stranger sees, and what he cannot do about it.
func TestPenalisedConnectionIsTurnedAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDaemon(t)
		p := d.serveInMemory()
		for range 3 {
			if _, err := d.client(t, p.connect("192.0.2.1:1"), "anna", newKey(t)); err == nil {
				t.Fatal("a stranger is in")
			}
			synctest.Wait()
		}
		line, err := io.ReadAll(p.connect("192.0.2.1:1"))
		if want := "error: " + errPenalised.Error() + "\r\n"; string(line) != want || err != nil {
			t.Errorf("the fourth time: %q, %v, want %q", line, err, want)
		}
		refused := d.Stats().Refused
		if refused["authentication"] != 3 || refused["penalised"] != 1 {
			t.Errorf("refused %v", refused)
		}
		d.end(t)
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
		for range 16 {
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
		for range 16 {
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
