package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"deploytools/layers/digest"
	"deploytools/registry/client"
	"deploytools/registry/wire"
)

func configuration(name string) *wire.Configuration {
	c := &wire.Configuration{Name: name, Layers: []wire.Layer{{Name: "code", Version: "v1", Hash: digest.Of([]byte("layer"))}}}
	c.Seal()
	return c
}

func encode(t *testing.T, c *wire.Configuration) []byte {
	t.Helper()
	b, err := c.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestPoll(t *testing.T) {
	s := newServer(t)
	want := wire.PollState{Name: "site", Revision: 7, Digest: digest.Of([]byte("x"))}
	s.global = polls(func(q wire.PollRequest) wire.PollReply {
		if q.Names[0] != "site" {
			return wire.PollReply{Configurations: []wire.PollState{{Name: q.Names[0]}}}
		}
		return wire.PollReply{Configurations: []wire.PollState{want}}
	})
	c := s.client()
	for range 3 {
		if got, err := c.Poll(t.Context(), "site"); got != want || err != nil {
			t.Errorf("Poll(site) = %v, %v, want %v", got, err, want)
		}
	}
	if got, err := c.Poll(t.Context(), "other"); got.Revision != 0 || err != nil {
		t.Errorf("Poll(other) = %v, %v, want revision 0", got, err)
	}
	if n := s.count(&s.connections); n != 1 {
		t.Errorf("%d connections, want one that is held", n)
	}
	if n := s.count(&s.sessions); n != 0 {
		t.Errorf("%d SFTP sessions for polls, want none", n)
	}
}

func TestPollOfSeveralIsOneRequest(t *testing.T) {
	s := newServer(t)
	asked, refused := 0, ""
	s.global = func(_ ssh.Conn, r *ssh.Request) {
		asked++
		q, err := wire.DecodePollRequest(r.Payload)
		if err != nil {
			t.Error(err)
		}
		var reply wire.PollReply
		for i, name := range q.Names {
			if name == refused {
				r.Reply(false, nil)
				return
			}
			reply.Configurations = append(reply.Configurations, wire.PollState{Name: name, Revision: uint64(i + 1), Digest: digest.Of([]byte(name))})
		}
		payload, _ := wire.EncodePoll(reply)
		r.Reply(true, payload)
	}
	names := []string{"a", "b", "c"}
	c := s.client()
	states, errs := c.PollAll(t.Context(), names)
	for i, name := range names {
		if states[i].Name != name || states[i].Revision != uint64(i+1) || errs[i] != nil {
			t.Errorf("PollAll[%d] = %v, %v", i, states[i], errs[i])
		}
	}
	if asked != 1 {
		t.Errorf("asked %d times about three", asked)
	}

	// What our key may not see is nobody else's fault.
	asked, refused = 0, "b"
	for range 3 {
		states, errs = c.PollAll(t.Context(), names)
		if states[0].Revision != 1 || states[2].Revision != 1 || errs[0] != nil || errs[2] != nil || states[1].Revision != 0 {
			t.Errorf("PollAll with one refused = %v, %v", states, errs)
		}
	}
	if want := 1 + 3 + 2 + 2; asked != want {
		t.Errorf("asked %d times, want %d: once about all, once about b, and each time about the others", asked, want)
	}
	s.global = func(c ssh.Conn, _ *ssh.Request) { c.Close() }
	if _, errs = c.PollAll(t.Context(), names); errs[0] == nil || errs[1] == nil || errs[2] == nil {
		t.Errorf("PollAll = %v, where the connection is lost", errs)
	}
}

func TestPollOfAnotherNameIsRefused(t *testing.T) {
	s := newServer(t)
	s.global = polls(func(wire.PollRequest) wire.PollReply {
		return wire.PollReply{Configurations: []wire.PollState{{Name: "evil", Revision: 1, Digest: digest.Of(nil)}}}
	})
	_, err := s.client().Poll(t.Context(), "site")
	wants(t, err, wire.ErrPoll, "evil")
}

func TestPollOfOriginalRegistryReadsTheConfiguration(t *testing.T) {
	s := newServer(t)
	asked := 0
	s.global = func(_ ssh.Conn, r *ssh.Request) {
		asked++
		r.Reply(false, nil)
	}
	conf := configuration("site")
	s.files.set("configs/site.json", encode(t, conf))
	c := s.client()
	for range 2 {
		got, err := c.Poll(t.Context(), "site")
		if want := (wire.PollState{Name: "site", Digest: conf.Digest}); got != want || err != nil {
			t.Errorf("Poll = %v, %v, want %v", got, err, want)
		}
	}
	conf.Hold = &wire.Hold{Reason: "sale"}
	s.files.set("configs/site.json", encode(t, conf))
	if got, err := c.Poll(t.Context(), "site"); err != nil || got.Hold == nil || *got.Hold != *conf.Hold {
		t.Errorf("Poll of what is held = %+v, %v", got, err)
	}
	if got, err := c.Poll(t.Context(), "other"); got != (wire.PollState{Name: "other"}) || err != nil {
		t.Errorf("Poll(other) = %v, %v, want no digest", got, err)
	}
	if asked != 2 {
		t.Errorf("asked %d times, want once about each name", asked)
	}
	if n := s.count(&s.sessions); n != 1 {
		t.Errorf("%d SFTP sessions, want one that is kept for a while", n)
	}
}

func TestConfiguration(t *testing.T) {
	s := newServer(t)
	conf := configuration("site")
	conf.Revision = 9
	s.files.set("configs/site.json", encode(t, conf))
	s.files.set("configs/alias.json", encode(t, conf))
	s.files.set("configs/old.json", encode(t, configuration("old")))
	s.files.set("configs/big.json", make([]byte, wire.MaxConfigurationBytes+1))
	s.files.set("configs/empty.json", nil)
	c := s.client()
	got, err := c.Configuration(t.Context(), "site")
	if err != nil || got.Revision != 9 || got.Digest != conf.Digest {
		t.Errorf("Configuration = %+v, %v", got, err)
	}
	if got, err := c.Configuration(t.Context(), "old"); err != nil || got.Revision != 0 || got.Digest.IsZero() {
		t.Errorf("Configuration without a revision = %+v, %v", got, err)
	}
	for name, kind := range map[string]error{
		"none": wire.ErrNotFound, "alias": wire.ErrConfiguration, "big": wire.ErrConfiguration,
		"empty": wire.ErrConfiguration, "../site": wire.ErrName,
	} {
		_, err := c.Configuration(t.Context(), name)
		wants(t, err, kind)
	}
	s.files.denied = true
	_, err = c.Configuration(t.Context(), "site")
	wants(t, err, wire.ErrDenied)
	if n := s.count(&s.sessions); n != 1 {
		t.Errorf("%d SFTP sessions, want the same for all", n)
	}
}

// The registry's host dies while a call waits: that call fails, and the next
// connects anew.
func TestBrokenConnectionIsReplaced(t *testing.T) {
	s := newServer(t)
	crash := true
	s.global = func(conn ssh.Conn, r *ssh.Request) {
		if crash {
			crash = false
			s.cut()
			return
		}
		polls(func(wire.PollRequest) wire.PollReply {
			return wire.PollReply{Configurations: []wire.PollState{{Name: "site"}}}
		})(conn, r)
	}
	c := s.client()
	_, err := c.Poll(t.Context(), "site")
	wants(t, err, wire.ErrUnreachable, s.addr())
	if _, err := c.Poll(t.Context(), "site"); err != nil {
		t.Errorf("Poll after the crash: %v", err)
	}
	if n := s.count(&s.connections); n != 2 {
		t.Errorf("%d connections, want 2", n)
	}
}

// refusing returns an address that is taken, so that nobody else can have it, and
// where nobody listens.
func refusing(t *testing.T) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", name.(*unix.SockaddrInet4).Port)
}

func TestUnreachable(t *testing.T) {
	s := newServer(t)
	o := s.options()
	o.Addr = refusing(t)
	_, err := newClient(t, o).Poll(t.Context(), "site")
	wants(t, err, wire.ErrUnreachable, o.Addr, "connection refused")
	if strings.Count(err.Error(), o.Addr) != 1 {
		t.Errorf("have %q, want the address once", err)
	}
}

// silent accepts connections and says nothing on them.
func silent(t *testing.T) (addr string, accepted <-chan net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ch := make(chan net.Conn, 10)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			ch <- c
		}
	}()
	t.Cleanup(func() { l.Close() })
	return l.Addr().String(), ch
}

func TestSilentServerEndsTheHandshake(t *testing.T) {
	o := newServer(t).options()
	o.Addr, _ = silent(t)
	o.Timeouts.Handshake = 50 * time.Millisecond
	_, err := newClient(t, o).Poll(t.Context(), "site")
	wants(t, err, wire.ErrUnreachable, "no answer within 50ms")
}

func TestContextEndsTheHandshake(t *testing.T) {
	o := newServer(t).options()
	addr, accepted := silent(t)
	o.Addr = addr
	ctx, cancel := context.WithCancel(t.Context())
	var held net.Conn // else its finalizer would end the handshake
	go func() {
		held = <-accepted
		held.Read(make([]byte, 1)) // the handshake has begun
		cancel()
	}()
	start := time.Now()
	if _, err := newClient(t, o).Poll(ctx, "site"); err != context.Canceled || time.Since(start) > 10*time.Second {
		t.Errorf("Poll = %v after %v, want %v at once", err, time.Since(start), context.Canceled)
	}
	<-ctx.Done()
	held.Close()
}

// A registry that hangs after the handshake holds neither a poll nor its
// caller's context up.
func TestHangingRegistry(t *testing.T) {
	s := newServer(t)
	asked := make(chan struct{}, 10)
	s.global = func(_ ssh.Conn, r *ssh.Request) { asked <- struct{}{} }
	c := s.client(func(o *client.Options) { o.Timeouts.Reply = 50 * time.Millisecond })
	_, err := c.Poll(t.Context(), "site")
	wants(t, err, wire.ErrUnreachable, "no answer within 50ms")
	<-asked

	c = s.client()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	if _, err := c.Poll(ctx, "site"); err != context.Canceled {
		t.Errorf("Poll = %v, want %v", err, context.Canceled)
	}
}

func TestClose(t *testing.T) {
	s := newServer(t)
	asked := make(chan struct{})
	s.global = func(ssh.Conn, *ssh.Request) { close(asked) }
	c := s.client()
	go func() {
		<-asked
		c.Close()
	}()
	if _, err := c.Poll(t.Context(), "site"); err == nil || errors.Is(err, wire.ErrUnreachable) {
		t.Errorf("Poll = %v, want an error that blames nobody else", err)
	}
	if _, err := c.Poll(t.Context(), "site"); err == nil {
		t.Error("Poll of a closed client: no error")
	}
}

// A registry that freezes is noticed without anybody waiting for it.
func TestKeepaliveEndsTheConnectionOfAFrozenRegistry(t *testing.T) {
	s := newServer(t)
	s.exec = func(_ string, ch ssh.Channel) (uint32, bool) {
		io.Copy(io.Discard, ch)
		return 0, false
	}
	s.global = func(ssh.Conn, *ssh.Request) {} // no reply, as if stopped
	c := s.client(func(o *client.Options) { o.Timeouts.Keepalive = 20 * time.Millisecond })
	hold, release := io.Pipe()
	defer release.Close()
	_, err := c.Exec(t.Context(), "watch", hold, io.Discard, io.Discard)
	wants(t, err, wire.ErrUnreachable, "no byte moved")
}

// One that only has nothing to say stays connected for longer than the misses
// would allow.
func TestKeepaliveKeepsASilentRegistry(t *testing.T) {
	s := newServer(t)
	asked := make(chan struct{})
	s.global = func(_ ssh.Conn, r *ssh.Request) {
		r.Reply(false, nil)
		asked <- struct{}{}
	}
	s.exec = func(_ string, ch ssh.Channel) (uint32, bool) {
		for range 10 {
			<-asked
		}
		return 3, true
	}
	c := s.client(func(o *client.Options) { o.Timeouts.Keepalive = 10 * time.Millisecond })
	if status, err := c.Exec(t.Context(), "watch", nil, io.Discard, io.Discard); status != 3 || err != nil {
		t.Errorf("Exec = %v, %v, want 3", status, err)
	}
	go func() {
		for range asked { // until the connection ends
		}
	}()
	c.Close()
}

func TestOptions(t *testing.T) {
	good := "SHA256:" + strings.Repeat("A", 43)
	for _, o := range []client.Options{
		{},
		{Addr: "host", Fingerprints: []string{"MD5:aa"}},
		{Addr: "host", Fingerprints: []string{"SHA256:short"}},
		{Addr: "host", Fingerprints: []string{good, ""}},
	} {
		if _, err := client.New(o); err == nil {
			t.Errorf("New(%+v): no error", o)
		}
	}
	if _, err := client.New(client.Options{Addr: "host", Fingerprints: []string{good, strings.ToLower(good[:6]) + good[6:] + "="}}); err != nil {
		t.Errorf("New: %v", err)
	}
}

func TestDefaultPort(t *testing.T) {
	for addr, want := range map[string]string{
		"reg": "reg:2022", "reg:22": "reg:22", "::1": "[::1]:2022", "[::1]": "[::1]:2022", "[::1]:7": "[::1]:7",
	} {
		var got string
		o := newServer(t).options()
		o.Addr = addr
		o.Dial = func(_ context.Context, _, addr string) (net.Conn, error) {
			got = addr
			return nil, io.EOF
		}
		newClient(t, o).Connect(t.Context())
		if got != want {
			t.Errorf("Addr %q dials %q, want %q", addr, got, want)
		}
	}
}
