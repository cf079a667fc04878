package registry

import (
	"cmp"
	"context"
	"slices"
	"sync"
)

// memory is shared out to the checks that run. Together they have no more than
// total, and those of one key no more than half of it, but for one check: it
// has what it needs, so that every check comes to its end. It is one of a
// complete upload, since that goes on without its client: nobody holds this
// place by sending nothing.
type memory struct {
	total int64

	mu    sync.Mutex // guards the following
	taken int64
	owned map[string]int64  // parts of taken, by fingerprint
	begun uint64            // checks
	queue []*request        // in the order in which their checks began
	alone *share            // of the check that has what it needs; nil: none has
	turn  uint64            // of being alone
	turns map[string]uint64 // the last of each key, by fingerprint
}

// share is what one check has.
type share struct {
	m      *memory
	owner  string // fingerprint
	number uint64 // of those that began
	bytes  int64  // guarded by m.mu
}

// request is a check that waits.
type request struct {
	share    *share
	bytes    int64
	complete bool          // its upload
	granted  chan struct{} // closed when it is
}

func newMemory(total int64) *memory {
	return &memory{total: total, owned: map[string]int64{}, turns: map[string]uint64{}}
}

// join returns the share of a check that begins.
func (m *memory) join(owner string) *share {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.begun++
	return &share{m: m, owner: owner, number: m.begun}
}

// grow takes bytes more, and waits for them as long as ctx and data go on.
func (s *share) grow(ctx context.Context, data *arriving, bytes int64) error {
	q := &request{share: s, bytes: bytes, granted: make(chan struct{})}
	s.m.change(func() {
		i, _ := slices.BinarySearchFunc(s.m.queue, s.number, func(o *request, n uint64) int { return cmp.Compare(o.share.number, n) })
		s.m.queue = slices.Insert(s.m.queue, i, q)
	})
	over := data.over
	for {
		var err error
		select {
		case <-q.granted:
			return nil
		case <-ctx.Done():
			err = context.Cause(ctx)
		case <-over:
			over, err = nil, data.settled()
		}
		if err != nil {
			s.m.change(func() { s.m.queue = slices.DeleteFunc(s.m.queue, func(o *request) bool { return o == q }) })
			return err
		}
		s.m.change(func() { q.complete = true })
	}
}

// leave gives everything back. The check does not grow any more.
func (s *share) leave() {
	s.m.change(func() {
		s.m.taken -= s.bytes
		if s.m.owned[s.owner] -= s.bytes; s.m.owned[s.owner] == 0 {
			delete(s.m.owned, s.owner)
		}
		s.bytes = 0
		if s.m.alone == s {
			s.m.alone = nil
		}
	})
}

// waits reports whether the check waits.
func (s *share) waits() bool {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	return slices.ContainsFunc(s.m.queue, func(q *request) bool { return q.share == s })
}

// waiting returns how many checks wait.
func (m *memory) waiting() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.queue)
}

// change does what can let checks go on, and then lets them.
func (m *memory) change(do func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	do()
	m.queue = slices.DeleteFunc(m.queue, m.grant)
	if m.alone != nil {
		return
	}
	if q := m.next(); q != nil {
		m.turn++
		m.alone, m.turns[q.share.owner] = q.share, m.turn
		m.queue = slices.DeleteFunc(m.queue, m.grant)
	}
}

// grant lets q go on, if there is room for it.
func (m *memory) grant(q *request) bool {
	s := q.share
	if s != m.alone {
		if m.taken+q.bytes > m.total || m.owned[s.owner]+q.bytes > m.total/2 {
			return false
		}
		s.bytes += q.bytes
		m.taken += q.bytes
		m.owned[s.owner] += q.bytes
	}
	close(q.granted)
	return true
}

// next returns the first of a complete upload, of the keys whose turn was longest
// ago: nobody's many uploads keep out others.
func (m *memory) next() (first *request) {
	for _, q := range m.queue {
		if q.complete && (first == nil || m.turns[q.share.owner] < m.turns[first.share.owner]) {
			first = q
		}
	}
	return first
}
