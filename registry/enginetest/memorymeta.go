package enginetest

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"slices"
	"strings"
	"sync"
	syncatomic "sync/atomic"

	"deploytools/registry"
)

// MetaOptions says how a MemoryMeta behaves. The zero value is ready.
type MetaOptions struct {
	// Rerun makes every Rerun-th Update call its function at least twice, as
	// if another Update had won, to prove that functions can run again: 1 =
	// each Update, 0 = only where another one did win.
	Rerun int
}

// MemoryMeta is a registry.Meta in memory. A transaction reads one immutable
// version of the data. An Update is stored when what it read is the same in
// the newest version, and runs again otherwise.
type MemoryMeta struct {
	options MetaOptions
	updates syncatomic.Int64
	running sync.WaitGroup // Add only with mu held and closed false

	mu     sync.Mutex // guards the following
	newest []entry
	stamp  uint64
	closed bool
}

// entry is one pair. A version of the data is a slice of them in order of
// their keys, never changed once it is in MemoryMeta.newest.
type entry struct {
	key   string
	value []byte
	stamp uint64 // of the Update that stored it
}

var (
	errClosed   = errors.New("memory engine is closed")
	errViewOnly = errors.New("a view cannot write")
	errTxEnded  = errors.New("transaction has ended")
)

// NewMeta returns an empty MemoryMeta.
func NewMeta(o MetaOptions) *MemoryMeta { return &MemoryMeta{options: o} }

// begin returns the newest version; every begin without an error is followed
// by m.running.Done.
func (m *MemoryMeta) begin(ctx context.Context) ([]entry, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, errClosed
	}
	m.running.Add(1)
	return m.newest, nil
}

// View is registry.Meta's.
func (m *MemoryMeta) View(ctx context.Context, fn func(registry.Tx) error) error {
	version, err := m.begin(ctx)
	if err != nil {
		return err
	}
	defer m.running.Done()
	tx := &memoryTx{version: version}
	defer tx.ended.Store(true)
	return fn(tx)
}

// Update is registry.Meta's.
func (m *MemoryMeta) Update(ctx context.Context, fn func(registry.Tx) error) error {
	again := m.options.Rerun > 0 && m.updates.Add(1)%int64(m.options.Rerun) == 0
	for {
		stored, err := m.try(ctx, fn, again)
		if err != nil || stored {
			return err
		}
		again = false
	}
}

// try runs fn once and reports whether its writes are stored; discard throws
// them away as if another Update had won.
func (m *MemoryMeta) try(ctx context.Context, fn func(registry.Tx) error, discard bool) (bool, error) {
	version, err := m.begin(ctx)
	if err != nil {
		return false, err
	}
	defer m.running.Done()
	tx := &memoryTx{version: version, writable: true}
	defer tx.ended.Store(true)
	if err := fn(tx); err != nil {
		return false, err
	}
	if err := tx.writes.Err(); err != nil {
		return false, err
	}
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	if discard {
		return false, nil
	}
	return m.store(tx), nil
}

// store makes the next version out of the newest one and the writes of tx,
// unless what tx read has changed since.
func (m *MemoryMeta) store(tx *memoryTx) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range tx.reads {
		if !slices.EqualFunc(r.of(tx.version), r.of(m.newest), func(a, b entry) bool {
			return a.key == b.key && a.stamp == b.stamp
		}) {
			return false
		}
	}
	m.stamp++
	next := slices.Clone(m.newest)
	for k, v := range tx.writes.All() {
		i, found := find(next, k)
		switch e := (entry{k, v, m.stamp}); {
		case v == nil && found:
			next = slices.Delete(next, i, i+1)
		case v != nil && found:
			next[i] = e
		case v != nil:
			next = slices.Insert(next, i, e)
		}
	}
	m.newest = next
	return true
}

// Close is registry.Meta's.
func (m *MemoryMeta) Close() error {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.running.Wait()
	return nil
}

func find(version []entry, key string) (int, bool) {
	return slices.BinarySearchFunc(version, key, func(e entry, k string) int { return strings.Compare(e.key, k) })
}

// span is the keys from first on that tx looked at: up to last, or, where last
// is empty, as far as they start with first.
type span struct{ first, last string }

func (s span) of(version []entry) []entry {
	from, _ := find(version, s.first)
	rest := version[from:]
	n, _ := slices.BinarySearchFunc(rest, s, func(e entry, s span) int {
		if s.last != "" && e.key <= s.last || s.last == "" && strings.HasPrefix(e.key, s.first) {
			return -1
		}
		return 1
	})
	return rest[:n]
}

// memoryTx is one run of the function of a View or Update.
type memoryTx struct {
	version  []entry
	writable bool
	writes   registry.Writes
	reads    []span
	ended    syncatomic.Bool
}

func (tx *memoryTx) read(s span) {
	if tx.writable {
		tx.reads = append(tx.reads, s)
	}
}

func (tx *memoryTx) Get(key string) ([]byte, error) {
	if tx.ended.Load() {
		return nil, errTxEnded
	}
	if v, ok := tx.writes.Get(key); ok || key == "" {
		return v, nil
	}
	tx.read(span{key, key})
	if i, ok := find(tx.version, key); ok {
		return bytes.Clone(tx.version[i].value), nil
	}
	return nil, nil
}

func (tx *memoryTx) Scan(prefix string) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		for k, v := range tx.writes.Over(tx.stored(prefix), prefix) {
			if tx.ended.Load() || !yield(k, v) {
				return
			}
		}
	}
}

// stored yields the pairs under prefix without the writes of tx, and notes how
// far the loop came.
func (tx *memoryTx) stored(prefix string) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		for _, e := range (span{first: prefix}).of(tx.version) {
			if !yield(e.key, bytes.Clone(e.value)) {
				tx.read(span{prefix, e.key})
				return
			}
		}
		tx.read(span{first: prefix})
	}
}

func (tx *memoryTx) Put(key string, value []byte) error {
	if err := tx.mayWrite(); err != nil {
		return err
	}
	return tx.writes.Put(key, value)
}

func (tx *memoryTx) Delete(key string) error {
	if err := tx.mayWrite(); err != nil {
		return err
	}
	return tx.writes.Delete(key)
}

func (tx *memoryTx) mayWrite() error {
	switch {
	case tx.ended.Load():
		return errTxEnded
	case !tx.writable:
		return errViewOnly
	}
	return nil
}
