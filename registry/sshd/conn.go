package sshd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"deploytools/registry"
	"deploytools/registry/wire"
)

// conn is an authenticated connection.
type conn struct {
	s   *Server
	net *meter
	ssh ssh.Conn
	id  identity
	log *slog.Logger // knows the caller
	wg  sync.WaitGroup

	barrier chan chan struct{} // see answered

	active   instant      // when something was last done for the client
	channels atomic.Int64 // open
	streams  atomic.Int64 // sessions that run, but for interactive ones
	running  atomic.Int64 // commands, requests of SFTP and polls under way; not what waits for the client

	once   sync.Once
	reason error // why it was cut; set once
}

// handle owns the connection nc: it returns when nc is closed and everything
// that it started has ended.
func (s *Server) handle(ctx context.Context, nc net.Conn) {
	defer nc.Close()
	defer s.guard(nc.RemoteAddr(), func() {})
	v, err := s.door.enter(nc)
	if err != nil {
		s.refused(nc.RemoteAddr(), err)
		return
	}
	defer s.door.leave(v)
	m := &meter{Conn: &ahead{Conn: nc}, stall: s.o.Stall}
	m.heard.now()
	late := time.AfterFunc(s.o.Handshake, func() { nc.Close() })
	defer late.Stop()
	sc, channels, requests, err := ssh.NewServerConn(m, s.ssh)
	if !late.Stop() {
		err = fmt.Errorf("not authenticated within %v", s.o.Handshake)
	}
	if err != nil {
		s.refused(nc.RemoteAddr(), err)
		return
	}
	s.door.leave(v)
	id, ok := sc.Permissions.ExtraData[identityOf{}].(identity)
	if !ok {
		panic("an authenticated connection of nobody")
	}
	c := &conn{s: s, net: m, ssh: sc, id: id, barrier: make(chan chan struct{})}
	c.log = s.o.Log.With(append(id.logged(), "remote", nc.RemoteAddr().String())...)
	c.serve(ctx, channels, requests)
}

func (c *conn) serve(ctx context.Context, channels <-chan ssh.NewChannel, requests <-chan *ssh.Request) {
	ctx, end := context.WithCancel(ctx)
	defer c.wg.Wait()
	defer end()
	defer c.ssh.Close()
	if !c.s.enlist(c) {
		return
	}
	defer c.s.delist(c)
	// Keys that were read anew before we were on the list have to be looked at.
	c.recheck(time.Now())
	started := time.Now()
	c.active.now()
	c.log.Info("connection opened", "role", c.id.caller.Role.String())
	a := announcement{keys: c.s.o.HostKeys}
	a.send(c.ssh) // before a session opens: see answered
	c.spawn(func() { c.watch(ctx) })
	c.spawn(func() { c.answer(ctx, requests, &a) })
	c.open(ctx, channels)
	end()
	c.wg.Wait()
	c.cut(nil)
	attrs := []any{"duration_ms", time.Since(started).Milliseconds()}
	if c.reason != nil {
		attrs = append(attrs, "error", c.reason.Error())
	}
	c.log.Info("connection closed", attrs...)
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
		switch {
		case ch.ChannelType() != "session":
			refuse(ch, ssh.UnknownChannelType, "only sessions are served")
		case c.s.isStopping():
			refuse(ch, ssh.ResourceShortage, errStopping.Error())
		case c.channels.Load() >= maxChannels:
			refuse(ch, ssh.ResourceShortage, fmt.Sprintf("%d sessions are open", maxChannels))
		default:
			c.channels.Add(1)
			c.spawn(func() {
				defer c.channels.Add(-1)
				c.session(ctx, ch)
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
		c.log.Warn("poll refused", "error", clean(err.Error(), maxLogged))
	}
	r.Reply(err == nil, reply)
}

func (c *conn) pollReply(ctx context.Context, payload []byte) ([]byte, error) {
	q, err := wire.DecodePollRequest(payload)
	if err != nil {
		return nil, err
	}
	reply, err := c.s.o.Registry.Poll(ctx, c.id.caller.Configs, q)
	if err != nil {
		return nil, err
	}
	return wire.EncodePoll(reply)
}
