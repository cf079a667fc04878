package sshd

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"deploytools/registry"
	"deploytools/registry/console"
	"deploytools/registry/wire"
)

func TestStopLetsWorkFinish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDaemon(t)
		d.front.exec = func(ctx context.Context, s *console.Session, _ string) wire.Status {
			select {
			case <-time.After(20 * time.Second):
				io.WriteString(s.Stdout, "done\n")
				return wire.OK
			case <-ctx.Done():
				return wire.Failed
			}
		}
		p := d.serveInMemory()
		busy := d.member(t, p.connect("192.0.2.1:1"), "anna", d.operator)
		idle := p.connect("192.0.2.2:1")
		prompt := p.connect("192.0.2.3:1")
		stranger := p.connect("192.0.2.4:1")
		d.member(t, idle, AgentUser, d.agent)
		typing := session1(t, d.member(t, prompt, "anna", d.operator))
		typing.RequestPty("xterm", 24, 80, nil)
		typing.StdinPipe()
		typing.Shell()
		working := session1(t, busy)
		type result struct {
			out []byte
			err error
		}
		done := make(chan result, 1)
		go func() {
			out, err := working.Output("work")
			done <- result{out, err}
		}()
		waiting := session1(t, busy)
		synctest.Wait()
		d.stop()
		time.Sleep(time.Second)
		synctest.Wait()
		if !isClosed(idle) || !isClosed(prompt) || !isClosed(stranger) {
			t.Errorf("a second after the stop: idle agent closed: %t, prompt: %t, stranger: %t, want all", isClosed(idle), isClosed(prompt), isClosed(stranger))
		}
		if _, err := busy.NewSession(); err == nil {
			t.Error("a new session was opened")
		}
		if err := waiting.Start("work"); err == nil {
			t.Error("a new command was started")
		}
		if r := <-done; r.err != nil || string(r.out) != "done\n" {
			t.Errorf("the command that ran: %q, %v", r.out, r.err)
		}
		if err := <-d.ended; err != nil {
			t.Errorf("Serve = %v", err)
		}
	})
}

func TestStopCutsWhatTakesTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDaemon(t)
		d.front.exec = func(ctx context.Context, _ *console.Session, _ string) wire.Status {
			<-ctx.Done()
			return wire.Failed
		}
		p := d.serveInMemory()
		s := session1(t, d.member(t, p.connect("192.0.2.1:1"), "anna", d.operator))
		s.Start("x")
		started := time.Now()
		d.end(t)
		if took := time.Since(started); took < 30*time.Second || took > 31*time.Second {
			t.Errorf("Serve ended after %v, want 30 s", took)
		}
		if err := s.Wait(); err == nil {
			t.Error("the command was not cut")
		}
	})
}

// slowFile is a file of 100 blocks; a read takes some time.
type slowFile struct{ delay time.Duration }

func (f slowFile) Fileread(*sftp.Request) (io.ReaderAt, error) { return f, nil }

func (f slowFile) ReadAt(p []byte, off int64) (int, error) {
	time.Sleep(f.delay)
	left := max(0, 100*1000-off)
	n := min(int64(len(p)), left)
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

// B-36: upstream cut running transfers when it stopped.
func TestStopLetsTransfersFinish(t *testing.T) {
	for name, pause := range map[string]struct{ server, client time.Duration }{
		"the client is slow":   {0, 100 * time.Millisecond},
		"the registry is slow": {5 * time.Second, 0}, // longer than any pause between requests
	} {
		synctest.Test(t, func(t *testing.T) {
			d := newDaemon(t, func(o *Options) { o.Drain = time.Hour })
			d.front.agent = func(context.Context, *registry.Registry, registry.Caller, func(error)) sftp.Handlers {
				return sftp.Handlers{FileGet: slowFile{pause.server}}
			}
			p := d.serveInMemory()
			nc := p.connect("192.0.2.1:1")
			c, err := sftp.NewClient(d.member(t, nc, AgentUser, d.agent))
			if err != nil {
				t.Fatal(err)
			}
			f, err := c.Open("/files/x")
			if err != nil {
				t.Fatal(err)
			}
			d.stop()
			n := 0
			for b := make([]byte, 1000); err == nil; time.Sleep(pause.client) {
				var k int
				k, err = f.Read(b)
				n += k
			}
			if n != 100*1000 || err != io.EOF {
				t.Errorf("%s: %d bytes, %v, want the whole file", name, n, err)
			}
			f.Close()
			time.Sleep(5 * time.Second)
			synctest.Wait()
			if !isClosed(nc) {
				t.Errorf("%s: the connection is still there after the transfer", name)
			}
			if err := <-d.ended; err != nil {
				t.Errorf("Serve = %v", err)
			}
		})
	}
}

// An agent that polls all the time and keeps its SFTP session for the next fetch
// does not hold a stop up, and is not taken for one of an older registry either.
func TestPollsDoNotHoldAStopUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDaemon(t, func(o *Options) { o.Drain = time.Hour })
		p := d.serveInMemory()
		nc := p.connect("192.0.2.1:1")
		client := d.member(t, nc, AgentUser, d.agent)
		if _, err := sftp.NewClient(client); err != nil {
			t.Fatal(err)
		}
		poll, err := wire.EncodePoll(wire.PollRequest{Names: []string{"web"}})
		if err != nil {
			t.Fatal(err)
		}
		d.stop()
		began := time.Now()
		for !isClosed(nc) && time.Since(began) < 10*time.Second {
			if ok, _, err := client.SendRequest(wire.PollRequestType, true, poll); err == nil && !ok {
				t.Fatal("a poll was refused")
			}
			time.Sleep(300 * time.Millisecond)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("the connection was closed after %v", took)
		}
		<-d.ended
	})
}

// An SFTP request that takes longer than Options.Idle is work, too.
func TestSFTPRequestIsWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDaemon(t)
		d.front.agent = func(context.Context, *registry.Registry, registry.Caller, func(error)) sftp.Handlers {
			return sftp.Handlers{FileGet: slowFile{2 * time.Hour}}
		}
		p := d.serveInMemory()
		nc := p.connect("192.0.2.1:1")
		client := d.member(t, nc, AgentUser, d.agent)
		c, err := sftp.NewClient(client)
		if err != nil {
			t.Fatal(err)
		}
		f, err := c.Open("/files/x")
		if err != nil {
			t.Fatal(err)
		}
		if n, err := f.Read(make([]byte, 1000)); n != 1000 || err != nil {
			t.Errorf("Read = %d, %v", n, err)
		}
		time.Sleep(61 * time.Minute)
		synctest.Wait()
		if !isClosed(nc) {
			t.Error("an open file that nobody reads kept the connection")
		}
		d.end(t)
	})
}

func TestSeveralListeners(t *testing.T) {
	d := newDaemon(t)
	d.front.exec = echo
	four, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	six, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { d.ended <- d.Serve(d.ctx, four, six) }()
	for _, l := range []net.Listener{four, six} {
		d.addr = l.Addr().String()
		c := d.mustDial(t, "anna", d.operator)
		if out, err := session1(t, c).Output("x"); err != nil {
			t.Errorf("%s: %q, %v", d.addr, out, err)
		}
		c.Close()
	}
	d.end(t)
	if _, err := net.Dial("tcp", d.addr); err == nil {
		t.Error("the listener is still open")
	}
	if l := d.log.lines(t, "connection opened"); len(l) != 2 || !strings.HasPrefix(l[1]["remote"].(string), "[::1]:") {
		t.Errorf("log %v", l)
	}
}

func TestNewWantsWhatItNeeds(t *testing.T) {
	d := newDaemon(t)
	for name, remove := range map[string]func(*Options){
		"registry": func(o *Options) { o.Registry = nil },
		"host key": func(o *Options) { o.HostKeys = nil },
		"nobody":   func(o *Options) { o.Operators, o.Agents = nil, nil },
	} {
		o := d.o
		remove(&o)
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("New without %s = %v", name, err)
		}
	}
	o := Options{Registry: d.o.Registry, HostKeys: []ssh.Signer{d.host}, Operators: d.o.Operators}
	if _, err := New(o); err != nil {
		t.Errorf("New with the least = %v", err)
	}
}
