package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"deploytools/cmd/internal/cli"
	"deploytools/registry/wire"
)

// Handler does what a request asks for. note tells the caller something on the
// way. An error may have a status and a hint of package cli. It is called by many
// goroutines; ctx ends with the connection and with the Server.
type Handler func(ctx context.Context, verb string, args json.RawMessage, note func(string)) (result any, err error)

// Server answers at the socket of one directory.
type Server struct {
	dir     string
	l       *net.UnixListener
	handler Handler
	ctx     context.Context // of all requests
	cancel  context.CancelCauseFunc
	serving sync.WaitGroup
	open    chan struct{} // a token for each connection
	working chan struct{} // a token for each request that is worked on

	mu   sync.Mutex      // guards what follows
	idle []*net.UnixConn // that have not asked yet, the oldest first
}

// Limits of the socket: whoever may use it is trusted, but a script may be stuck.
const (
	maxCallers = 32   // that are served at a time; the next one waits
	maxIdle    = 64   // that have not asked yet; one more takes the place of the oldest
	maxOpen    = 1024 // connections in all; the next one waits
	patience   = 10 * time.Second
)

// errEnding is why requests are not done when the agent ends.
var errEnding = errors.New("the agent is ending")

// hidden is the socket until it has its mode.
const hidden = ".control.sock.new"

// Listen opens the socket of the directory, of which the caller holds the lock,
// in place of what is left of another agent's. The socket needs no sync: after a
// power cut nobody listens there.
func Listen(dir string, handler Handler) (*Server, error) {
	var l *net.UnixListener
	err := at(dir, hidden, func(path string) (err error) {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
		l, err = net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			return err
		}
		l.SetUnlinkOnClose(false) // by then the path is another's
		return os.Chmod(path, 0o600)
	})
	if err == nil {
		err = rename(dir)
	}
	if err != nil {
		if l != nil {
			l.Close()
		}
		return nil, fmt.Errorf("cannot listen at %s: %w", Name, err)
	}
	s := &Server{dir: dir, l: l, handler: handler, open: make(chan struct{}, maxOpen), working: make(chan struct{}, maxCallers)}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	s.serving.Go(s.accept)
	return s, nil
}

func rename(dir string) error {
	d, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Rename(hidden, Name)
}

// Close removes the socket, cancels what is asked, and returns when all has been
// answered. The caller still holds the lock.
func (s *Server) Close() {
	if d, err := os.OpenRoot(s.dir); err == nil {
		d.Remove(Name) // else the next agent replaces it
		d.Close()
	}
	s.cancel(errEnding)
	s.l.Close()
	s.serving.Wait()
}

func (s *Server) accept() {
	for {
		select {
		case s.open <- struct{}{}:
		case <-s.ctx.Done():
			return
		}
		c, err := s.l.AcceptUnix()
		switch {
		case s.ctx.Err() != nil:
			if err == nil {
				c.Close()
			}
			return
		case err != nil: // no descriptor left: those who are served give theirs back
			<-s.open
			if !pause(s.ctx) {
				return
			}
			continue
		}
		s.await(c)
		s.serving.Go(func() {
			defer func() { <-s.open }()
			defer c.Close()
			s.serve(c)
		})
	}
}

// await notes a connection that has not asked yet. Those who never ask keep
// nobody out: of too many the oldest goes.
func (s *Server) await(c *net.UnixConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.idle = append(s.idle, c)
	if len(s.idle) > maxIdle {
		s.idle[0].Close()
		s.idle = slices.Delete(s.idle, 0, 1)
	}
}

// asked notes that the connection has asked, or has gone.
func (s *Server) asked(c *net.UnixConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.idle, c); i >= 0 {
		s.idle = slices.Delete(s.idle, i, i+1)
	}
}

func pause(ctx context.Context) bool {
	timer := time.NewTimer(100 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// serve answers one connection.
func (s *Server) serve(c *net.UnixConn) {
	stop := context.AfterFunc(s.ctx, func() { c.SetReadDeadline(time.Now()) })
	defer stop()
	defer s.asked(c)
	if err := allowed(c); err != nil {
		answer(c, reply{Done: true, Status: wire.Denied, Error: err.Error()})
		return
	}
	c.SetReadDeadline(time.Now().Add(patience))
	in := bufio.NewReader(io.LimitReader(c, maxRequest))
	line, err := in.ReadBytes('\n')
	if err != nil {
		return // gone, silent or too long: there was no request
	}
	s.asked(c)
	var r request
	if err := json.Unmarshal(line, &r); err != nil || r.Verb == "" {
		answer(c, reply{Done: true, Status: wire.Usage, Error: "not a request"})
		return
	}
	ctx, cancel := context.WithCancelCause(s.ctx)
	defer cancel(nil)
	c.SetReadDeadline(time.Time{})
	if s.ctx.Err() != nil { // the deadline above may have taken the place of Close's
		c.SetReadDeadline(time.Now())
	}
	s.serving.Go(func() { // ends when the caller goes, or with serve, which closes c
		io.Copy(io.Discard, c)
		cancel(errors.New("the caller has gone"))
	})
	select {
	case s.working <- struct{}{}:
		defer func() { <-s.working }()
	case <-ctx.Done():
	}
	var notes sync.Mutex
	result, err := s.handler(ctx, r.Verb, r.Args, func(text string) {
		notes.Lock()
		defer notes.Unlock()
		answer(c, reply{Note: text})
	})
	last := reply{Done: true}
	if result != nil {
		b, e := encode(result)
		last.Result, err = b, errors.Join(err, e)
	}
	if err != nil {
		last.Status, last.Error, last.Hint = cli.StatusOf(err), err.Error(), cli.HintOf(err)
	}
	answer(c, last)
}

func encode(v any) (json.RawMessage, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSpace(b.Bytes()), err
}

// answer writes a line. A caller that does not take it in time loses it.
func answer(c *net.UnixConn, r reply) {
	b, err := encode(r)
	if err != nil {
		return
	}
	c.SetWriteDeadline(time.Now().Add(patience))
	c.Write(append(b, '\n'))
}

// allowed refuses whoever is not root or our own user. The kernel says who it
// was that connected.
func allowed(c *net.UnixConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var peer *unix.Ucred
	var peerErr error
	if err := raw.Control(func(fd uintptr) {
		peer, peerErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return err
	}
	if peerErr != nil {
		return peerErr
	}
	if !permitted(peer.Uid, uint32(os.Geteuid())) {
		return fmt.Errorf("user %d may not command this agent: only root and its own user may", peer.Uid)
	}
	return nil
}

func permitted(peer, own uint32) bool { return peer == 0 || peer == own }
