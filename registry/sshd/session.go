package sshd

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"deploytools/registry"
	"deploytools/registry/console"
	"deploytools/registry/keys"
	"deploytools/registry/sshio"
	"deploytools/registry/wire"
)

// session is one channel. A client asks for at most one thing on it: a command,
// a shell or SFTP.
type session struct {
	c        *conn
	ch       ssh.Channel
	stdout   *outlet
	stderr   *outlet
	terminal *terminal // what the client has asked for; nil: none
	started  bool
}

// session serves a channel until the client has closed it.
func (c *conn) session(ctx context.Context, nc ssh.NewChannel) {
	ch, requests, err := nc.Accept()
	if err != nil {
		return
	}
	s := &session{c: c, ch: ch, stdout: newOutlet(c, ch), stderr: newOutlet(c, ch.Stderr())}
	ctx, end := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer end()
	// Requests are always read: one that waits holds up the whole connection,
	// and with it what the session needs to go on.
	for r := range requests {
		ok, then := s.request(ctx, r)
		r.Reply(ok, nil) // before it runs, since what runs closes the channel
		if then != nil {
			c.running.Add(1)
			c.streams.Add(1)
			running.Add(1)
			c.spawn(func() {
				defer running.Done()
				defer c.running.Add(-1)
				defer c.streams.Add(-1)
				s.run(ctx, then)
			})
		}
	}
}

// request says whether a request is granted, and what then runs.
func (s *session) request(ctx context.Context, r *ssh.Request) (ok bool, then func(context.Context) wire.Status) {
	operator := s.c.id.caller.Role != registry.Agent
	switch r.Type {
	case "pty-req":
		if !operator || s.c.id.noPTY || s.started || s.terminal != nil {
			return false, nil
		}
		s.terminal = parseTerminal(r.Payload)
		return s.terminal != nil, nil
	case "window-change":
		return s.terminal != nil && s.terminal.resize(r.Payload), nil
	case "exec", "shell", "subsystem":
	default: // env and signal are of no use here
		return false, nil
	}
	if s.started || s.c.s.isStopping() {
		return false, nil
	}
	var text struct{ Value string }
	if r.Type != "shell" && ssh.Unmarshal(r.Payload, &text) != nil {
		return false, nil
	}
	if r.Type != "subsystem" && !operator {
		s.c.denied(ctx, "agents run no commands", r.Type, text.Value)
		return false, nil
	}
	forced := s.c.id.command
	switch {
	case r.Type == "subsystem":
		switch {
		case text.Value != "sftp":
		case forced == "" || forced == keys.CommandSFTP:
			then = s.sftp
		default:
			then = func(ctx context.Context) wire.Status {
				return s.only(ctx, "your key is for one command only", r.Type, text.Value)
			}
		}
	case forced == keys.CommandSFTP:
		then = func(ctx context.Context) wire.Status {
			return s.only(ctx, "your key is for sftp and scp only", r.Type, text.Value)
		}
	case forced != "":
		then = func(ctx context.Context) wire.Status { return s.exec(ctx, forced) }
	case r.Type == "exec":
		then = func(ctx context.Context) wire.Status { return s.exec(ctx, text.Value) }
	case r.Type == "shell" && s.terminal == nil:
		then = s.script
	case r.Type == "shell":
		then = s.interactive
	}
	s.started = then != nil
	return s.started, then
}

// run runs what the client asked for, and tells it the outcome.
func (s *session) run(ctx context.Context, then func(context.Context) wire.Status) {
	status := wire.Failed
	func() {
		defer s.c.s.guard(s.c.net.RemoteAddr(), func() { io.WriteString(s.stderr, "error: internal error\n") })
		s.c.answered(ctx)
		status = then(ctx)
	}()
	s.c.active.now()
	s.ch.CloseWrite()
	s.ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{uint32(status)}))
	s.ch.Close()
}

// console returns the session as the console sees it.
func (s *session) console() *console.Session {
	return &console.Session{
		Registry: s.c.s.o.Registry, Caller: s.c.id.caller, Build: s.c.s.o.Build, Daemon: s.c.s,
		Stdin: &inlet{s.c, s.ch}, Stdout: s.stdout, Stderr: s.stderr, Ran: s.ran,
	}
}

func (s *session) ran(line string, took time.Duration, status wire.Status) {
	s.c.ran(line, took, status)
}

func (c *conn) ran(line string, took time.Duration, status wire.Status) {
	c.s.count.ran(line, took, status)
	c.log.Info("command run", "command", clean(line, maxLogged), "status", int(status), "duration_ms", took.Milliseconds())
}

func (s *session) exec(ctx context.Context, line string) wire.Status {
	defer s.c.work.begin(clean(line, maxDoing))()
	if isSCP(line) {
		io.WriteString(s.stderr, "error: this registry does not speak the old protocol of scp: use scp without -O, or sftp\n")
		s.ran(line, 0, wire.Usage)
		return wire.Usage
	}
	if s.terminal == nil {
		return s.c.s.front.exec(ctx, s.console(), line)
	}
	return s.execOnTerminal(ctx, line)
}

// only tells a client what alone its key allows.
func (s *session) only(ctx context.Context, reason, what, line string) wire.Status {
	s.c.denied(ctx, reason, what, line)
	io.WriteString(s.stderr, "error: "+reason+"\n")
	return wire.Denied
}

func (s *session) script(ctx context.Context) wire.Status {
	defer s.c.work.begin("script")()
	return s.c.s.front.script(ctx, s.console())
}

const maxDoing = 120 // runes of a command line that are shown to others

// isSCP tells what scp -O runs on the far side from a command of ours.
func isSCP(line string) bool {
	words := strings.Fields(line)
	return len(words) > 1 && words[0] == "scp" && strings.HasPrefix(words[1], "-")
}

// sftp serves SFTP. A request may wait for the disk longer than Options.Idle, so
// it is counted from its arrival to its answer.
func (s *session) sftp(ctx context.Context) wire.Status {
	defer s.c.work.begin("sftp")()
	started := time.Now()
	s.c.running.Add(-1) // a session without a request is not running
	defer s.c.running.Add(1)
	stream := newSFTPStream(s)
	defer stream.end()
	var handlers sftp.Handlers
	if s.c.id.caller.Role == registry.Agent {
		handlers = s.c.s.front.agent(ctx, s.c.s.o.Registry, s.c.id.caller, s.report)
		handlers.FileGet = witness{handlers.FileGet, s.c}
	} else {
		handlers = s.c.s.front.operator(ctx, s.c.s.o.Registry, s.c.id.caller, s.stderr, s.report)
	}
	handlers = limitFiles(handlers, &s.c.files, s.c.s.files)
	err := sftp.NewRequestServer(stream, handlers,
		sftp.WithRSAllocator(), sftp.WithRSMaxTxPacket(256<<10), sftp.WithStartDirectory("/")).Serve()
	status := wire.OK
	if err != nil && !errors.Is(err, io.EOF) {
		status = wire.Failed
	}
	s.ran("sftp", time.Since(started), status)
	return status
}

// report is told what went wrong on our side while SFTP was served: errors of
// the engines, and panics with their stack.
func (s *session) report(err error) { s.c.internal(err) }

// sftpStream is the channel as the SFTP server sees it. One goroutine at a time
// reads, one writes.
type sftpStream struct {
	s       *session
	ahead   sshio.Ahead // of the channel: each read of that may cost a packet, which widens its window
	in, out packets
	held    []byte // answers that wait for company

	mu       sync.Mutex // guards the following
	answered sync.Cond  // open is less, or ended
	open     int64      // requests without an answer
	ended    bool       // the server of SFTP, or the way to the client
}

func newSFTPStream(s *session) *sftpStream {
	f := &sftpStream{s: s, ahead: sshio.Ahead{R: s.ch}}
	f.answered.L = &f.mu
	return f
}

// Types of packets (draft-ietf-secsh-filexfer-02, section 3) that make handles.
const fxOpen, fxOpendir = 3, 11

// Read gives what opens a file only after the answers to all before it, and what
// follows only after its answer. The end comes behind all answers: the library drops
// those that it has not written by then. The library's data races are reached by naming a
// handle before, which clients cannot know yet; but they can guess it.
func (f *sftpStream) Read(p []byte) (int, error) {
	if f.in.left > 0 && !f.in.begun && len(p) > 1 {
		p = p[:1] // first, what it is
	}
	between := f.in.have == 0 && f.in.left == 0
	if (between || f.in.begun && f.in.left > 0) && (f.in.kind == fxOpen || f.in.kind == fxOpendir) {
		f.awaitAnswers()
	}
	n, err := f.ahead.Read(p)
	f.s.c.active.now()
	f.count(int64(f.in.see(p[:n])))
	if n == 0 && err != nil { // with bytes there may be a request that nobody has yet
		f.awaitAnswers()
	}
	return n, err
}

func (f *sftpStream) awaitAnswers() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.open > 0 && !f.ended {
		f.answered.Wait()
	}
}

// maxHeld is how many bytes of answers wait for the next one: about 20, of the
// 64 writes that OpenSSH's client has under way.
const maxHeld = 512

// Write holds a short answer back while there is another request without one,
// so that those to many small writes leave together. A client that waits gets
// them all.
func (f *sftpStream) Write(p []byte) (int, error) {
	answers := int64(f.out.see(p))
	if len(f.held)+len(p) <= maxHeld && (answers == 0 || f.unanswered() > answers) {
		f.held = append(f.held, p...)
		f.count(-answers)
		return len(p), nil
	}
	rest := p
	if len(p) <= maxHeld {
		f.held, rest = append(f.held, p...), nil
	}
	_, err := f.s.stdout.Write(f.held)
	f.held = f.held[:0]
	if err == nil {
		_, err = f.s.stdout.Write(rest)
	}
	f.count(-answers)
	if err != nil {
		f.end()
	}
	return len(p), err
}

// unanswered returns how many answers are sure to be written yet.
func (f *sftpStream) unanswered() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended {
		return 0
	}
	return f.open
}

func (f *sftpStream) count(n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.ended {
		f.open += n
		f.s.c.running.Add(n)
		f.answered.Broadcast()
	}
}

// end forgets what was not answered. It may be called again.
func (f *sftpStream) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.ended {
		f.ended = true
		f.s.c.running.Add(-f.open)
		f.answered.Broadcast()
	}
}

// Close ends the session, for the server's own reasons.
func (f *sftpStream) Close() error { return f.s.ch.Close() }
