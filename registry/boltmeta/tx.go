package boltmeta

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync"

	bolt "go.etcd.io/bbolt"

	"deploytools/registry"
)

var (
	errTxEnded  = errors.New("transaction has ended")
	errViewOnly = errors.New("a view cannot write")
)

// tx is a registry.Tx. It writes to bbolt only when its function has ended:
// the cursors of a loop stay valid whatever the loop writes.
type tx struct {
	path     string
	writes   registry.Writes
	writable bool

	mu   sync.Mutex   // bbolt's pages may be unmapped after the end: nobody is to be reading then
	keys *bolt.Bucket // nil after the end
	bad  error        // a page of the file could not be read
}

func newTx(b *bolt.Tx) (t *tx) {
	t = &tx{path: b.DB().Path(), writable: b.Writable()}
	defer t.caught()
	t.keys = b.Bucket(bucketKeys)
	return t
}

func (t *tx) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.keys = nil
}

func (t *tx) ended() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.keys == nil
}

// caught is deferred round every look into the file. A page that cannot be read,
// because the disk fails or somebody has cut the file, is a fault there, and what
// makes no sense is a panic of bbolt's: either ends the transaction and not the
// registry.
func (t *tx) caught() {
	if v := recover(); v != nil {
		t.bad = fmt.Errorf("cannot read %s: %w", t.path, damaged{fmt.Errorf("%v", v)})
	}
}

// whole returns err, or that the file turned out to be damaged.
func (t *tx) whole(err error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.bad != nil {
		return t.bad
	}
	return err
}

func (t *tx) Get(key string) (value []byte, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	defer func() {
		if t.bad != nil {
			value, err = nil, t.bad
		}
	}()
	defer t.caught()
	if t.keys == nil {
		return nil, errTxEnded
	}
	if v, ok := t.writes.Get(key); ok {
		return v, nil
	}
	return bytes.Clone(t.keys.Get([]byte(key))), nil
}

func (t *tx) Scan(prefix string) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		for k, v := range t.writes.Over(t.stored(prefix), prefix) {
			if t.ended() || !yield(k, v) {
				return
			}
		}
	}
}

// stored yields the pairs that are in the file.
func (t *tx) stored(prefix string) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		var c *bolt.Cursor
		k, v, ok := t.step(func() ([]byte, []byte) {
			c = t.keys.Cursor()
			return c.Seek([]byte(prefix))
		})
		for ok && strings.HasPrefix(k, prefix) && yield(k, v) {
			k, v, ok = t.step(c.Next)
		}
	}
}

// step returns copies of where move gets to.
func (t *tx) step(move func() (key, value []byte)) (key string, value []byte, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	defer t.caught()
	if t.keys == nil {
		return "", nil, false
	}
	k, v := move()
	return string(k), bytes.Clone(v), k != nil
}

func (t *tx) Put(key string, value []byte) error {
	if err := t.mayWrite(); err != nil {
		return err
	}
	return t.writes.Put(key, value)
}

func (t *tx) Delete(key string) error {
	if err := t.mayWrite(); err != nil {
		return err
	}
	return t.writes.Delete(key)
}

func (t *tx) mayWrite() error {
	switch {
	case t.ended():
		return errTxEnded
	case !t.writable:
		return errViewOnly
	}
	return nil
}
