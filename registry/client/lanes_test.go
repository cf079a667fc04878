package client_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"deploytools/layers/digest"
	"deploytools/registry/client"
	"deploytools/registry/wire"
)

// lanes serves fetches as a registry does.
type lanes struct {
	content map[digest.Digest][]byte
	most    int // lanes that are allowed at a time; 0: any number
	refuse  ssh.RejectionReason
	status  wire.Status   // told at the end
	silent  bool          // no status is told
	sent    func(n int64) // after each unit, with the bytes so far

	mu      sync.Mutex
	open    map[uint64][]ssh.Channel
	asked   []wire.FetchRequest
	refused int
}

func (l *lanes) serve(n ssh.NewChannel) {
	q, err := wire.DecodeFetch(n.ExtraData())
	if err != nil {
		panic(err)
	}
	l.mu.Lock()
	l.asked = append(l.asked, q)
	content, ok := l.content[q.Digest]
	switch {
	case l.refuse != 0:
		n.Reject(l.refuse, "not\nnow")
	case !ok:
		n.Reject(ssh.ConnectionFailed, "no such layer")
	case l.most > 0 && q.Lanes > l.most:
		n.Reject(ssh.ResourceShortage, "too many")
		l.refused++
	}
	if l.refuse != 0 || !ok || l.refused > 0 && q.Lanes > l.most {
		l.mu.Unlock()
		return
	}
	ch, requests, err := n.Accept()
	if err != nil {
		l.mu.Unlock()
		return
	}
	if l.open == nil {
		l.open = map[uint64][]ssh.Channel{}
	}
	all := l.open[q.ID]
	if all == nil {
		all = make([]ssh.Channel, q.Lanes)
		l.open[q.ID] = all
	}
	all[q.Lane] = ch
	complete := !slices.Contains(all, nil)
	if complete {
		delete(l.open, q.ID)
	}
	l.mu.Unlock()
	if complete {
		go l.send(all, content[min(q.Offset, int64(len(content))):])
	}
	ssh.DiscardRequests(requests)
}

// set changes what is served while a client is connected.
func (l *lanes) set(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
}

func (l *lanes) send(all []ssh.Channel, content []byte) {
	turn := 0
	for unit := range slices.Chunk(content, wire.FetchUnit) {
		if _, err := all[turn%len(all)].Write(unit); err != nil {
			return
		}
		if turn++; l.sent != nil {
			l.sent(int64(turn) * wire.FetchUnit)
		}
	}
	for _, ch := range all {
		ch.CloseWrite()
	}
	var status wire.Status
	var silent bool
	l.set(func() { status, silent = l.status, l.silent })
	if !silent {
		all[0].SendRequest("exit-status", false, ssh.Marshal(struct{ S uint32 }{uint32(status)}))
	}
	for _, ch := range all {
		ch.Close()
	}
}

// numbers returns how many lanes each fetch had.
func (l *lanes) numbers() (all []int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, q := range l.asked {
		if q.Lane == 0 {
			all = append(all, q.Lanes)
		}
	}
	return all
}

// newLanes starts a server with one layer.
func newLanes(t testing.TB, content []byte) (*server, digest.Digest) {
	s := newServer(t)
	d := digest.Of(content)
	s.lanes = &lanes{content: map[digest.Digest][]byte{d: content}}
	return s, d
}

// distant makes what the client sends take a while, so that it sees a long line.
func distant(o *client.Options) {
	o.Dial = distantly(o.Dial)
}

func TestFetchOverLanes(t *testing.T) {
	for name, far := range map[string]bool{"near": false, "far": true} {
		s, _ := newLanes(t, nil)
		var change []func(*client.Options)
		if far {
			change = append(change, distant)
		}
		c := s.client(change...)
		const unit = wire.FetchUnit
		for _, size := range []int{0, 1, unit - 1, unit, unit + 1, 8 * unit, 8*unit + 1, 17<<20 + 5} {
			b := blob(size)
			d := digest.Of(b)
			s.lanes.set(func() { s.lanes.content[d] = b })
			for _, offset := range []int{0, 1, size / 2, size} {
				var got bytes.Buffer
				if offset > size {
					continue
				}
				if err := c.Fetch(t.Context(), d, int64(offset), &got); err != nil || !bytes.Equal(got.Bytes(), b[offset:]) {
					t.Errorf("%s: Fetch of %d bytes from %d = %v with %d bytes that are not right", name, size, offset, err, got.Len())
				}
			}
		}
		if n := s.lanes.numbers(); far && slices.Min(n) != wire.MaxFetchLanes || s.count(&s.sessions) > 0 {
			t.Errorf("%s: fetches with %v lanes, %d SFTP sessions", name, n, s.sessions)
		}
	}
}

func TestFetchTakesOneLaneWhereThereAreNotMore(t *testing.T) {
	b := blob(1 << 20)
	s, d := newLanes(t, b)
	s.lanes.most = 1
	var got bytes.Buffer
	if err := s.client(distant).Fetch(t.Context(), d, 0, &got); err != nil || !bytes.Equal(got.Bytes(), b) {
		t.Errorf("Fetch = %v with %d bytes", err, got.Len())
	}
	if n := s.lanes.numbers(); !slices.Equal(n, []int{8, 1}) {
		t.Errorf("fetches with %v lanes, want 8 and then 1", n)
	}
}

func TestFetchOverLanesIsRefused(t *testing.T) {
	s, d := newLanes(t, blob(100))
	c := s.client()
	wants(t, c.Fetch(t.Context(), digest.Of([]byte("other")), 0, io.Discard), wire.ErrNotFound)
	s.lanes.set(func() { s.lanes.refuse = ssh.Prohibited })
	if err := c.Fetch(t.Context(), d, 0, io.Discard); err == nil || errors.Is(err, wire.ErrUnreachable) || bytes.Contains([]byte(err.Error()), []byte("\n")) {
		t.Errorf("Fetch = %v", err)
	}
	s.lanes.set(func() { s.lanes.refuse, s.lanes.status = 0, wire.Failed })
	if err := c.Fetch(t.Context(), d, 0, io.Discard); err == nil || errors.Is(err, wire.ErrUnreachable) {
		t.Errorf("Fetch of what the registry cannot read = %v", err)
	}
	s.lanes.set(func() { s.lanes.silent = true })
	if err := c.Fetch(t.Context(), d, 0, io.Discard); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("Fetch without an end = %v", err)
	}
	if n := s.count(&s.connections); n != 1 {
		t.Errorf("%d connections, want one that survives refusals", n)
	}
}

// A registry of the original kind is asked for lanes once a connection.
func TestFetchWithoutLanesReads(t *testing.T) {
	s := newServer(t)
	b := blob(1 << 20)
	d := digest.Of(b)
	s.files.set(wire.FileName(d), b)
	c := s.client(distant)
	for range 2 {
		var got bytes.Buffer
		if err := c.Fetch(t.Context(), d, 7, &got); err != nil || !bytes.Equal(got.Bytes(), b[7:]) {
			t.Errorf("Fetch = %v with %d bytes", err, got.Len())
		}
	}
	if n := s.count(&s.sessions); n != 1 {
		t.Errorf("%d SFTP sessions, want 1", n)
	}
}

// The connection is cut again and again in the middle, over however many lanes:
// what was sent is written but for what a packet can hold.
func TestCutConnectionLosesOnePacket(t *testing.T) {
	for name, change := range map[string]func(*client.Options){"near": func(*client.Options) {}, "far": distant} {
		b := blob(1<<20 + 5)
		s, d := newLanes(t, b)
		for _, budget := range []int64{64 << 10, 200 << 10, 500 << 10} {
			var got bytes.Buffer
			s.cutAfter(budget)
			c := s.client(change)
			for tries := 0; got.Len() < len(b); tries++ {
				before := int64(got.Len())
				err := c.Fetch(t.Context(), d, before, &got)
				if !bytes.HasPrefix(b, got.Bytes()) || tries > 100 {
					t.Fatalf("%s: after %d tries: %v, and what came is not right", name, tries, err)
				}
				if err == nil {
					break
				}
				// Of the budget some goes to shaking hands.
				if had := int64(got.Len()) - before; had < budget-64<<10 || had == 0 {
					t.Fatalf("%s: of %d bytes %d were kept: %v", name, budget, had, err)
				}
			}
		}
	}
}

func TestFetchOverLanesThatStalls(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	stalling := func() (*server, digest.Digest) {
		s, d := newLanes(t, blob(1<<20))
		s.lanes.sent = func(int64) { <-hang }
		return s, d
	}
	s, d := stalling()
	c := s.client(distant, func(o *client.Options) { o.Timeouts.Stall = 100 * time.Millisecond })
	wants(t, c.Fetch(t.Context(), d, 0, io.Discard), wire.ErrUnreachable, "no byte moved for 100ms")

	s, d = stalling() // which knows nothing of lanes that came before
	ctx, cancel := context.WithCancel(t.Context())
	got := writerFunc(func(p []byte) (int, error) { cancel(); return len(p), nil })
	if err := s.client().Fetch(ctx, d, 0, got); err != context.Canceled {
		t.Errorf("Fetch = %v, want %v", err, context.Canceled)
	}
}

type writerFunc func(p []byte) (int, error)

func (w writerFunc) Write(p []byte) (int, error) { return w(p) }

func TestFetchOverLanesReturnsTheErrorOfItsWriter(t *testing.T) {
	s, d := newLanes(t, blob(20<<20))
	c := s.client(distant)
	full := errors.New("disk full")
	for range 3 { // each with as many lanes as a registry allows
		if err := c.Fetch(t.Context(), d, 0, failingWriter{full}); err != full {
			t.Errorf("Fetch = %v, want %v", err, full)
		}
	}
	if err := c.Fetch(t.Context(), d, 0, io.Discard); err != nil {
		t.Errorf("Fetch on the same connection: %v", err)
	}
	if n := s.count(&s.connections); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}
