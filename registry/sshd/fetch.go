package sshd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"deploytools/registry"
	"deploytools/registry/keys"
	"deploytools/registry/wire"
)

// fetches are those of a connection of which lanes are still to come.
type fetches struct {
	mu      sync.Mutex
	waiting map[uint64]*fetch // by their ID
}

// fetch is a layer on its way to an agent: see wire.FetchChannelType.
type fetch struct {
	q     wire.FetchRequest // of the lane that came first
	blob  registry.Blob     // comes with lane 0
	lanes []ssh.Channel     // nil: not there yet
	over  bool              // a lane has gone: the others follow it
}

// mayFetch reports whether a channel of this type is for the connection's key.
func (c *conn) mayFetch(channelType string) bool {
	return channelType == wire.FetchChannelType && c.id.caller.Role == registry.Agent &&
		(c.id.command == "" || c.id.command == keys.CommandSFTP)
}

// lane serves one lane until it is closed. The last to come sends.
func (c *conn) lane(ctx context.Context, nc ssh.NewChannel) {
	q, err := wire.DecodeFetch(nc.ExtraData())
	if err != nil {
		nc.Reject(ssh.Prohibited, clean(err.Error(), maxLogged))
		return
	}
	var blob registry.Blob
	if q.Lane == 0 {
		if blob, err = c.openLayer(ctx, q); err != nil {
			nc.Reject(c.fetchRefused(ctx, q, err))
			return
		}
	}
	ch, requests, err := nc.Accept()
	if err != nil {
		closeBlob(blob)
		return
	}
	defer ch.Close()
	f, all := c.fetches.join(q, ch, blob)
	if f == nil { // it does not fit to the others
		closeBlob(blob)
		return
	}
	defer c.fetches.leave(f)
	if all {
		c.streams.Add(1)
		c.spawn(func() {
			defer c.streams.Add(-1)
			c.send(f)
		})
	}
	for r := range requests {
		r.Reply(false, nil)
	}
}

// openLayer opens the layer, within the limits of files that are open.
func (c *conn) openLayer(ctx context.Context, q wire.FetchRequest) (registry.Blob, error) {
	giveBack, err := counted{quotas: []*quota{&c.files, c.s.files}}.take()
	if err != nil {
		return nil, err
	}
	c.running.Add(1)
	defer c.running.Add(-1)
	blob, _, err := c.s.o.Registry.OpenLayer(ctx, c.id.caller.Configs, q.Digest)
	if err != nil {
		giveBack()
		return nil, err
	}
	return countedBlob{blob, giveBack}, nil
}

// countedBlob is an open layer that counts until it is closed.
type countedBlob struct {
	registry.Blob
	giveBack func()
}

func (b countedBlob) Close() error {
	defer b.giveBack()
	return b.Blob.Close()
}

func closeBlob(b registry.Blob) {
	if b != nil {
		b.Close()
	}
}

// fetchRefused says why a layer is not opened. What lies outside of the key's
// scope is missing for it, and on record. What went wrong with us could name our
// files, so only the log has it.
func (c *conn) fetchRefused(ctx context.Context, q wire.FetchRequest, err error) (ssh.RejectionReason, string) {
	e, ours := errors.AsType[*registry.Error](err)
	switch {
	case errors.Is(err, registry.ErrHidden):
		c.denied(ctx, "outside of the key's scope; the client was told: "+e.Text, "fetch", q.Digest.String())
		return ssh.ConnectionFailed, e.Text
	case errors.Is(err, registry.ErrNotFound):
		return ssh.ConnectionFailed, e.Text
	case ours:
		return ssh.Prohibited, e.Text
	case errors.Is(err, sftp.ErrSSHFxFailure): // of a quota
		return ssh.ResourceShortage, err.Error()
	}
	c.internal(fmt.Errorf("cannot open layer %s: %w", q.Digest, err))
	return ssh.Prohibited, "internal error at the registry"
}

// internal is told what went wrong on our side.
func (c *conn) internal(err error) {
	c.s.count.errors.Add(1)
	c.log.Error("internal error", "error", clean(err.Error(), 10*maxLogged))
}

// join adds a lane, and reports whether it was the last that was missing. It
// returns nil where the lane contradicts those that are there.
func (s *fetches) join(q wire.FetchRequest, ch ssh.Channel, blob registry.Blob) (f *fetch, all bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f = s.waiting[q.ID]
	if f == nil {
		f = &fetch{q: q, lanes: make([]ssh.Channel, q.Lanes)}
		if s.waiting == nil {
			s.waiting = map[uint64]*fetch{}
		}
		s.waiting[q.ID] = f
	}
	same := q
	same.Lane = f.q.Lane
	if f.over || same != f.q || f.lanes[q.Lane] != nil {
		return nil, false
	}
	f.lanes[q.Lane] = ch
	if blob != nil {
		f.blob = blob
	}
	all = !slices.Contains(f.lanes, nil)
	if all {
		delete(s.waiting, q.ID)
	}
	return f, all
}

// leave ends a fetch of which a lane has gone. One that is sent ends by itself:
// its next write to the lane fails.
func (s *fetches) leave(f *fetch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting[f.q.ID] != f || f.over {
		return
	}
	f.over = true
	delete(s.waiting, f.q.ID)
	closeBlob(f.blob)
	for _, ch := range f.lanes {
		if ch != nil {
			ch.Close()
		}
	}
}

// send sends the layer, and closes it and the lanes.
func (c *conn) send(f *fetch) {
	what := "fetch " + f.q.Digest.Short()
	defer c.work.begin(what)()
	started := time.Now()
	status := wire.Failed
	defer func() {
		f.blob.Close()
		for _, ch := range f.lanes {
			ch.CloseWrite()
		}
		f.lanes[0].SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{uint32(status)}))
		for _, ch := range f.lanes {
			ch.Close()
		}
		c.ran(what, time.Since(started), status)
	}()
	err := f.stream(c)
	if err == nil {
		status = wire.OK
	}
	if e, ok := errors.AsType[*readError](err); ok {
		c.internal(fmt.Errorf("layer %s: %w", f.q.Digest, e))
	}
}

// readError is ours, and not the client's.
type readError struct{ err error }

func (e *readError) Error() string { return "cannot read layer: " + e.err.Error() }
func (e *readError) Unwrap() error { return e.err }

// fetchAhead is how much is read of a layer at a time: whole units.
const fetchAhead = 8 * wire.FetchUnit

// stream sends the bytes, one unit on each lane in turn. One goroutine does it
// for all lanes, so that they go out in their order.
func (f *fetch) stream(c *conn) error {
	size := f.blob.Size()
	if f.q.Offset > size {
		return fmt.Errorf("has %d bytes, fewer than %d", size, f.q.Offset)
	}
	out := make([]*outlet, len(f.lanes))
	for i, ch := range f.lanes {
		out[i] = newOutlet(c, ch)
	}
	buf := make([]byte, min(fetchAhead, size-f.q.Offset))
	turn := 0
	for at := f.q.Offset; at < size; {
		part := buf[:min(int64(len(buf)), size-at)]
		n, err := f.blob.ReadAt(part, at)
		if n < len(part) {
			return &readError{fmt.Errorf("%d bytes at %d of %d: %w", n, at, size, errors.Join(err, io.ErrUnexpectedEOF))}
		}
		for unit := range slices.Chunk(part, wire.FetchUnit) {
			if _, err := out[turn%len(out)].Write(unit); err != nil {
				return err
			}
			turn++
		}
		at += int64(n)
	}
	return nil
}
