package sshd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/time/rate"

	"deploytools/registry"
	"deploytools/registry/sshio"
	"deploytools/registry/wire"
)

// conn is an authenticated connection.
type conn struct {
	number uint64 // of this connection; unique while the server runs
	since  time.Time
	s      *Server
	net    *meter
	ssh    ssh.Conn
	queue  backlog
	id     identity
	log    *slog.Logger // knows the caller
	wg     sync.WaitGroup

	barrier chan chan struct{} // see answered

	active   instant      // when something was last done for the client
	channels atomic.Int64 // open
	files    quota        // open over SFTP
	work     work
	fetches  fetches
	streams  atomic.Int64           // sessions and fetches that run, but for interactive ones
	refusals atomic.Int64           // of what is no command
	running  atomic.Int64           // commands, requests of SFTP and polls under way; not what waits for the client
	instance atomic.Pointer[string] // of those with its key, as it says; nil: it has not

	// Used by the one goroutine that answers global requests.
	pollsRefused, reportsRefused int64
	reports                      *rate.Limiter // nil before the first one

	once   sync.Once
	reason error // why it was cut; set once
}

// letIn has a new connection stand at the door, or closes it.
func (s *Server) letIn(nc *gate) (*visitor, bool) {
	v, err := s.door.enter(nc)
	if err != nil {
		s.refused(nc.RemoteAddr(), err)
		turnAway(nc, err)
		nc.Close()
	}
	return v, err == nil
}

// handle owns the connection nc: it returns when nc is closed and everything
// that it started has ended.
func (s *Server) handle(ctx context.Context, nc *gate, v *visitor) {
	defer nc.Close()
	defer s.guard(nc.RemoteAddr(), func() {})
	defer s.door.leave(v)
	c, channels, requests, err := s.handshake(nc, v)
	if err != nil {
		s.refused(nc.RemoteAddr(), err)
		return
	}
	c.serve(ctx, channels, requests)
}

// turnAway tells somebody who may see it why nobody listens: a line before the
// version is allowed (RFC 4253 section 4.2). It never waits: a new connection
// has room for it.
func turnAway(nc net.Conn, reason error) {
	nc.SetWriteDeadline(time.Now().Add(time.Second))
	io.WriteString(nc, "error: "+reason.Error()+"\r\n") // who is gone misses it
}

// handshake has the visitor authenticate. What it fails by may cost its source
// something.
func (s *Server) handshake(nc *gate, v *visitor) (c *conn, channels <-chan ssh.NewChannel, requests <-chan *ssh.Request, err error) {
	var queue backlog
	penalty := penaltyPanic
	defer func() {
		if penalty > 0 {
			s.door.penalise(v, penalty)
		}
		if c == nil {
			nc.Close()
			discard(channels, requests)
			queue.drain()
		}
	}()
	config := *s.ssh
	config.PreAuthConnCallback = func(pre ssh.ServerPreAuthConn) {
		queue = backlogOf(pre)
		nc.accept()
	}
	// Before the client knows: from then on it may send as much as it likes.
	config.AuthLogCallback = func(_ ssh.ConnMetadata, _ string, err error) {
		if err == nil {
			nc.passed.Store(true)
		}
	}
	m := &meter{Conn: sshio.NewAheadConn(nc), stall: s.o.Stall, count: s.count}
	m.heard.now()
	late := time.AfterFunc(s.o.Handshake, func() { nc.Close() })
	defer late.Stop()
	var sc *ssh.ServerConn
	sc, channels, requests, err = ssh.NewServerConn(sshio.Join(bestCipher(m, &config)), &config)
	if !late.Stop() {
		err = fmt.Errorf("%w: %v", errTimeout, s.o.Handshake)
	}
	if err != nil {
		penalty = penaltyFor(err)
		return nil, channels, requests, err
	}
	id, ok := sc.Permissions.ExtraData[identityOf{}].(identity)
	if !ok {
		panic("an authenticated connection of nobody")
	}
	penalty = 0
	if err := s.door.admit(v, id.caller.Role == registry.Agent); err != nil {
		return nil, channels, requests, err
	}
	c = &conn{
		number: s.lastID.Add(1), since: time.Now(), s: s, net: m, ssh: sc, queue: queue, id: id, barrier: make(chan chan struct{}),
		files: quota{limit: int64(s.o.Limits.Files)},
	}
	c.log = s.o.Log.With(append(id.logged(), "remote", nc.RemoteAddr().String())...)
	return c, channels, requests, nil
}

// discard takes what a connection that is closed has still to say: the library
// waits for somebody to take it.
func discard(channels <-chan ssh.NewChannel, requests <-chan *ssh.Request) {
	for channels != nil || requests != nil {
		select {
		case _, ok := <-channels:
			if !ok {
				channels = nil
			}
		case _, ok := <-requests:
			if !ok {
				requests = nil
			}
		}
	}
}

func (c *conn) serve(ctx context.Context, channels <-chan ssh.NewChannel, requests <-chan *ssh.Request) {
	ctx, end := context.WithCancel(ctx)
	defer c.wg.Wait()
	defer end()
	defer c.queue.drain()
	defer c.net.Close()
	if !c.s.enlist(c) {
		c.net.Close()
		discard(channels, requests)
		return
	}
	defer c.s.delist(c)
	// Keys that were read anew before we were on the list have to be looked at.
	c.recheck(time.Now())
	c.active.now()
	c.log.Info("connection opened", "role", c.id.caller.Role.String())
	a := announcement{keys: c.s.o.HostKeys}
	a.send(c.ssh) // before a session opens: see answered
	c.spawn(func() { c.watch(ctx) })
	c.spawn(func() { c.answer(ctx, requests, &a) })
	c.open(ctx, channels)
	end()
	c.wg.Wait()
	reason := c.ended()
	if c.net.gaveUp.Load() {
		reason = errStalled
	}
	c.cut(reason)
	attrs := []any{"duration_ms", time.Since(c.since).Milliseconds()}
	if c.reason != nil {
		attrs = append(attrs, "error", clean(c.reason.Error(), maxLogged))
	}
	c.log.Info("connection closed", attrs...)
}

// ended returns why the library has ended the connection; nil: one of both sides
// closed it.
func (c *conn) ended() error {
	c.net.Close()
	c.queue.drain() // for which the library waits
	end := make(chan error, 1)
	go func() { end <- c.ssh.Wait() }()
	var err error
	select {
	case err = <-end:
	case <-time.After(time.Minute): // it has another queue than we know
		return errors.New("the library does not end the connection")
	}
	// What clients send that have nothing more to say (RFC 4253 section 11.1).
	const byApplication = "ssh: disconnect, reason 11:"
	if err == io.EOF || errors.Is(err, net.ErrClosed) || strings.HasPrefix(err.Error(), byApplication) {
		return nil
	}
	return err
}

// spawn runs f in a goroutine of the connection.
func (c *conn) spawn(f func()) {
	c.wg.Go(func() {
		defer c.s.guard(c.net.RemoteAddr(), func() { c.cut(errors.New("internal error")) })
		f()
	})
}

// cut ends the connection; the first reason is the one that is told.
func (c *conn) cut(reason error) {
	c.once.Do(func() { c.reason = reason })
	c.net.Close()
}

// settled reports whether nobody would miss the connection: nothing runs on it.
// In the middle of a stream nothing runs either, but not for long.
func (c *conn) settled() bool {
	const pause = 2 * time.Second
	return c.running.Load() == 0 && (c.streams.Load() == 0 || c.active.ago() > pause)
}

// watch cuts the connection when its peer is gone, or has had nothing done for
// too long.
func (c *conn) watch(ctx context.Context) {
	alive := time.NewTicker(keepaliveEvery)
	defer alive.Stop()
	expiry := time.NewTimer(time.Until(c.id.until))
	defer expiry.Stop()
	if c.id.until.IsZero() {
		expiry.Stop()
	}
	limit := c.s.o.Idle
	idle := time.NewTimer(limit)
	defer idle.Stop()
	if limit < 0 {
		idle.Stop()
	}
	var asked atomic.Bool
	for {
		select {
		case <-ctx.Done():
			return
		case <-alive.C:
			// Whatever comes is a sign of life: the answer may stand behind a
			// long queue of data.
			if c.net.heard.ago() >= (keepaliveMisses+1)*keepaliveEvery {
				c.cut(fmt.Errorf("no answer to %d keepalives", keepaliveMisses))
				return
			}
			if !asked.Swap(true) {
				c.spawn(func() {
					c.ssh.SendRequest("keepalive@openssh.com", true, nil)
					asked.Store(false)
				})
			}
		case <-expiry.C:
			c.recheck(time.Now())
			expiry.Reset(max(time.Until(c.id.until), time.Second)) // the clock may have been set back
		case <-idle.C:
			left := limit - c.active.ago()
			if c.running.Load() > 0 {
				left = limit
			}
			if left <= 0 {
				c.cut(fmt.Errorf("nothing was done for %v", limit))
				return
			}
			idle.Reset(left)
		}
	}
}

// open serves the channels that the client opens, until the connection ends.
func (c *conn) open(ctx context.Context, channels <-chan ssh.NewChannel) {
	refusals := 0
	refuse := func(ch ssh.NewChannel, reason ssh.RejectionReason, text string) {
		ch.Reject(reason, text)
		if refusals++; refusals >= maxRefusals {
			c.cut(fmt.Errorf("%d channels refused", refusals))
		}
	}
	for ch := range channels {
		serve := c.session
		if c.mayFetch(ch.ChannelType()) {
			serve = c.lane
		}
		switch {
		case ch.ChannelType() != "session" && !c.mayFetch(ch.ChannelType()):
			refuse(ch, ssh.UnknownChannelType, "only sessions are served")
			c.denied(ctx, "only sessions are served", "open", ch.ChannelType())
		case c.s.isStopping():
			refuse(ch, ssh.ResourceShortage, errStopping.Error())
		case c.channels.Load() >= int64(c.s.o.Limits.Sessions):
			refuse(ch, ssh.ResourceShortage, fmt.Sprintf("%d sessions are open", c.s.o.Limits.Sessions))
		default:
			c.channels.Add(1)
			c.spawn(func() {
				defer c.channels.Add(-1)
				serve(ctx, ch)
			})
		}
	}
}

// answer serves the global requests, one after the other.
func (c *conn) answer(ctx context.Context, requests <-chan *ssh.Request, a *announcement) {
	for {
		select {
		case r, ok := <-requests:
			if !ok {
				return
			}
			c.global(ctx, r, a)
		case done := <-c.barrier:
			for range len(requests) {
				c.global(ctx, <-requests, a)
			}
			close(done)
		}
	}
}

// global serves one global request. Of those that others know, only the proof
// of host keys is of use here; refusing a keepalive answers it as well.
func (c *conn) global(ctx context.Context, r *ssh.Request, a *announcement) {
	switch {
	case r == nil: // the last one has come
	case r.Type == wire.PollRequestType && c.id.caller.Role == registry.Agent:
		c.poll(ctx, r)
	case r.Type == wire.ReportRequestType && c.id.caller.Role == registry.Agent:
		c.report(ctx, r)
	case r.Type == proveRequest:
		proof, ok := a.prove(c.ssh.SessionID(), r.Payload)
		r.Reply(ok, proof)
	default:
		r.Reply(false, nil)
	}
}

// answered returns when the global requests have their answers that came before
// now. OpenSSH's ssh asks for the proof of a host key before it starts a command,
// and does not wait for it when the command ends.
func (c *conn) answered(ctx context.Context) {
	done := make(chan struct{})
	select {
	case c.barrier <- done:
	case <-ctx.Done():
		return
	}
	select {
	case <-done:
	case <-ctx.Done():
	}
}

func (c *conn) poll(ctx context.Context, r *ssh.Request) {
	c.s.count.polls.Add(1)
	c.running.Add(1)
	defer c.running.Add(-1)
	// Who is refused a poll would take us for a registry of the original kind,
	// and read files instead. But a poll keeps nobody from stopping.
	if !c.s.isStopping() {
		c.active.now()
	}
	ctx, cancel := context.WithTimeout(ctx, pollTimeout)
	defer cancel()
	reply, err := c.pollReply(ctx, r.Payload)
	if err != nil {
		c.pollRefused(ctx, err)
	}
	r.Reply(err == nil, reply)
}

// pollRefused tells the log, and once the record. An agent that may not read its
// configuration asks again for ever: ever fewer lines of one connection are logged.
func (c *conn) pollRefused(ctx context.Context, err error) {
	c.pollsRefused++
	if n := c.pollsRefused; n&(n-1) == 0 {
		c.log.Warn("poll refused", "error", clean(err.Error(), maxLogged), "times", n)
	}
	if c.pollsRefused == 1 && errors.Is(err, registry.ErrDenied) {
		c.denied(ctx, err.Error(), "poll")
	}
}

// denied puts on record that the client was refused something outside of the
// console. After too many of that it is cut.
func (c *conn) denied(ctx context.Context, reason string, words ...string) {
	if n := c.refusals.Add(1); n >= maxRefusals {
		c.cut(fmt.Errorf("%d requests refused", n))
		return
	}
	for i := range words {
		words[i] = clean(words[i], maxLogged)
	}
	act := registry.Act{Caller: c.id.caller, Command: slices.DeleteFunc(words, func(w string) bool { return w == "" })}
	c.spawn(func() {
		if err := c.s.o.Registry.Refused(context.WithoutCancel(ctx), act, "", wire.Denied, clean(reason, maxLogged)); err != nil {
			c.log.Error("refusal not on record", "error", clean(err.Error(), maxLogged))
		}
	})
}

func (c *conn) pollReply(ctx context.Context, payload []byte) ([]byte, error) {
	q, err := wire.DecodePollRequest(payload)
	if err != nil {
		return nil, err
	}
	reply, err := c.s.o.Registry.Poll(ctx, c.id.caller, q)
	if err != nil {
		return nil, err
	}
	c.saw(q, reply)
	return wire.EncodePoll(reply)
}
