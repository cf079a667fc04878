package sshd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
	"golang.org/x/time/rate"

	"deploytools/registry"
	"deploytools/registry/console"
	"deploytools/registry/keys"
	"deploytools/registry/sftpfs"
	"deploytools/registry/wire"
)

// Options say what a Server serves, to whom, and how long it waits.
type Options struct {
	Registry *registry.Registry
	// HostKeys are the keys of this registry: at least one. Of each kind the
	// first is shown to clients; all are announced to them.
	HostKeys []ssh.Signer

	// Operators and Agents return the keys that count now, and Revoked what
	// counts no more. They are asked for each connection anew; Recheck asks them
	// for those that are open. Agents may be among the operators' keys, too, but
	// not the other way round. Nil: there are none.
	Operators, Agents func() *keys.Set
	Revoked           func() *keys.Revoked

	Log   *slog.Logger // nil: none
	Build wire.Build   // of this program, for the console

	Limits Limits

	// Handshake is how long a client may take to authenticate; 0: 30 s.
	Handshake time.Duration
	// Idle is how long a connection may do nothing. What moves bytes or runs a
	// command does something, however long it takes. 0: 30 min; negative: for
	// ever.
	Idle time.Duration
	// Stall is how long a client may take nothing of what is sent to it; 0: 5
	// min. A slow client takes something.
	Stall time.Duration
	// Drain is how long transfers and commands may still run after the context
	// of Serve has ended; 0: 30 s.
	Drain time.Duration
}

// Limits that nobody has needed to change.
const (
	keepaliveEvery  = 30 * time.Second
	keepaliveMisses = 3
	maxRefusals     = 64 // of channels, then the connection is cut
	pollTimeout     = 30 * time.Second
)

// frontEnds is what sessions are connected to.
type frontEnds struct {
	exec     func(context.Context, *console.Session, string) wire.Status
	script   func(context.Context, *console.Session) wire.Status
	complete func(ctx context.Context, s *console.Session, line string, pos int) (string, int, []string)
	operator func(context.Context, *registry.Registry, registry.Caller, io.Writer, func(error)) sftp.Handlers
	agent    func(context.Context, *registry.Registry, registry.Caller, func(error)) sftp.Handlers
}

// Server serves SSH connections.
type Server struct {
	o      Options
	ssh    *ssh.ServerConfig
	front  frontEnds
	door   *door
	files  *quota // of all connections together
	count  *counters
	sparse *rate.Limiter // of log lines about those who never authenticated
	seen   seen

	started time.Time
	lastID  atomic.Uint64 // of a connection

	mu       sync.Mutex
	conns    map[*conn]bool
	stopping bool // no more connections and sessions
	unlogged int  // connections refused without a log line
}

// New checks the options and returns a Server that does nothing yet.
func New(o Options) (*Server, error) {
	if o.Registry == nil {
		return nil, errors.New("sshd: no registry")
	}
	if len(o.HostKeys) == 0 {
		return nil, errors.New("sshd: no host key")
	}
	if o.Operators == nil && o.Agents == nil {
		return nil, errors.New("sshd: nobody could log in: there are neither operators nor agents")
	}
	if o.Operators == nil {
		o.Operators = func() *keys.Set { return nil }
	}
	if o.Agents == nil {
		o.Agents = func() *keys.Set { return nil }
	}
	if o.Revoked == nil {
		o.Revoked = func() *keys.Revoked { return nil }
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Handshake = cmp.Or(o.Handshake, 30*time.Second)
	o.Idle = cmp.Or(o.Idle, 30*time.Minute)
	o.Stall = cmp.Or(o.Stall, 5*time.Minute)
	o.Drain = cmp.Or(o.Drain, 30*time.Second)
	share := newBudget()
	o.Limits = o.Limits.complete(share)
	s := &Server{
		o:       o,
		front:   frontEnds{console.Exec, console.Script, console.Complete, sftpfs.Operator, sftpfs.Agent},
		door:    newDoor(o.Limits),
		files:   &quota{limit: int64(share.files)},
		count:   newCounters(),
		sparse:  rate.NewLimiter(1, 20),
		started: time.Now().UTC().Truncate(time.Second),
		conns:   map[*conn]bool{},
	}
	s.ssh = s.config()
	return s, nil
}

// Serve takes connections from the listeners until ctx ends, and closes them.
// Then it waits for transfers and commands that run, at most Options.Drain, and
// cuts the rest. It returns when all its goroutines have ended: nil after ctx
// has ended, else why a listener is gone. It is called once.
func (s *Server) Serve(ctx context.Context, listeners ...net.Listener) error {
	// Commands outlive ctx, for as long as draining takes.
	work, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	accepting, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var accepts, served sync.WaitGroup
	served.Go(func() { s.storeSeen(work) })
	for _, l := range listeners {
		accepts.Go(func() {
			stop(s.accept(accepting, l, func(nc net.Conn) {
				// Not beside it: while many are turned away there may be no
				// file descriptors left.
				g := newGate(nc)
				if v, ok := s.letIn(g); ok {
					served.Go(func() { s.handle(work, g, v) })
				}
			}))
		})
	}
	<-accepting.Done()
	for _, l := range listeners {
		l.Close()
	}
	accepts.Wait()
	s.drain()
	cut()
	served.Wait()
	s.lastSeen()
	if ctx.Err() != nil {
		return nil
	}
	return context.Cause(accepting)
}

// accept hands over connections until ctx ends or l is closed. Nothing else
// that goes wrong with accepting ends it: out of file descriptors, for one, is a
// state that passes.
func (s *Server) accept(ctx context.Context, l net.Listener, handle func(net.Conn)) error {
	const shortest, longest = 5 * time.Millisecond, time.Second
	wait, last := shortest, ""
	var failed time.Time
	for {
		nc, err := l.Accept()
		switch {
		case err == nil:
			wait = shortest
			if last != "" && time.Since(failed) >= longest { // else the next one may fail again
				s.o.Log.Info("connections are accepted again")
				last = ""
			}
			s.count.accepted.Add(1)
			handle(nc)
			continue
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("listener %s is gone: %w", l.Addr(), err)
		}
		failed = time.Now()
		if err.Error() != last {
			last = err.Error()
			s.o.Log.Error("connections are not accepted", "error", last)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		wait = min(2*wait, longest)
	}
}

// drain refuses what is new, closes what does nothing, and waits for the rest.
func (s *Server) drain() {
	s.mu.Lock()
	s.stopping = true
	s.mu.Unlock()
	s.door.shut()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	end := time.Now().Add(s.o.Drain)
	for {
		left := s.connections()
		for _, c := range left {
			if c.settled() {
				c.cut(errStopping)
			}
		}
		if len(left) == 0 {
			return
		}
		if !time.Now().Before(end) {
			for _, c := range left {
				c.cut(fmt.Errorf("%w, and it took longer than %v", errStopping, s.o.Drain))
			}
			return
		}
		<-tick.C
	}
}

var errStopping = errors.New("registry is stopping")

func (s *Server) connections() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.conns))
}

// enlist reports false when the server is stopping.
func (s *Server) enlist(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.stopping {
		s.conns[c] = true
	}
	return !s.stopping
}

func (s *Server) delist(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

func (s *Server) isStopping() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopping
}

// refused logs that a connection ended before anybody authenticated. Strangers
// decide how often that is, so some get no line: the next line that is written
// tells how many.
func (s *Server) refused(remote net.Addr, err error) {
	s.count.refuse(err)
	s.mu.Lock()
	if !s.sparse.Allow() {
		s.unlogged++
		s.mu.Unlock()
		return
	}
	more := s.unlogged
	s.unlogged = 0
	s.mu.Unlock()
	reason := clean(err.Error(), maxLogged)
	if more > 0 {
		reason += fmt.Sprintf(" (and %d others before it)", more)
	}
	s.o.Log.Info("connection refused", "remote", remote.String(), "error", reason)
}

// guard turns a panic of the goroutine into a log line, and into the end of
// what it was about.
func (s *Server) guard(remote net.Addr, end func()) {
	if p := recover(); p != nil {
		s.count.errors.Add(1)
		s.o.Log.Error("internal error", "remote", remote.String(), "error", fmt.Sprint(p), "stack", string(debug.Stack()))
		end()
	}
}

const maxLogged = 1000 // runes of a client's text in one log line
