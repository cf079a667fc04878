package boltmeta

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	bolt "go.etcd.io/bbolt"

	"deploytools/registry"
)

// DB is a registry.Meta. Safe for concurrent use.
type DB struct {
	bolt *bolt.DB
	path string
	turn chan struct{} // holds one token while an Update runs; a mutex that ctx can end the wait for
	// broken is why nothing is stored any more. Whoever has the turn may use it.
	broken error
}

func newDB(b *bolt.DB) *DB {
	return &DB{bolt: b, path: b.Path(), turn: make(chan struct{}, 1)}
}

// View is registry.Meta's. Long ones keep old pages from being used again, and
// the file grows.
func (db *DB) View(ctx context.Context, fn func(registry.Tx) error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	b, err := db.bolt.Begin(false)
	if err != nil {
		return fmt.Errorf("cannot read %s: %w", db.path, err)
	}
	defer b.Rollback()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true)) // see tx.caught
	tx := newTx(b)
	defer tx.end()
	return tx.whole(fn(tx))
}

// Update is registry.Meta's. Updates take turns. One that wrote nothing costs
// no sync.
func (db *DB) Update(ctx context.Context, fn func(registry.Tx) error) error {
	select {
	case db.turn <- struct{}{}:
		defer func() { <-db.turn }()
	case <-ctx.Done():
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if db.broken != nil {
		return db.broken
	}
	b, err := db.bolt.Begin(true)
	if err != nil {
		return fmt.Errorf("cannot store in %s: %w", db.path, err)
	}
	defer b.Rollback()                                       // after a Commit it does nothing
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true)) // see tx.caught
	tx := newTx(b)
	defer tx.end()
	if err := tx.whole(fn(tx)); err != nil {
		return err
	}
	tx.end()
	if err := tx.writes.Err(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return db.store(b, &tx.writes)
}

// store commits writes. It counts as failed until it is known to have
// succeeded, so that a panic in bbolt ends the storing as well.
func (db *DB) store(b *bolt.Tx, writes *registry.Writes) (err error) {
	keys, dirty := b.Bucket(bucketKeys), false
	db.broken = db.readOnly(errors.New("interrupted"))
	defer func() {
		if v := recover(); v != nil { // bbolt's, or a page that cannot be read
			db.broken = db.readOnly(damaged{fmt.Errorf("%v", v)})
			err = db.broken
		}
	}()
	for k, v := range writes.All() {
		dirty = true
		if err := set(keys, []byte(k), v); err != nil {
			db.broken = db.readOnly(err)
			return db.broken
		}
	}
	if dirty {
		if err := b.Commit(); err != nil {
			db.broken = db.readOnly(err)
			return db.broken
		}
	}
	db.broken = nil
	return nil
}

func set(keys *bolt.Bucket, key, value []byte) error {
	if value == nil {
		return keys.Delete(key)
	}
	return keys.Put(key, value)
}

func (db *DB) readOnly(cause error) error {
	return fmt.Errorf("cannot store in %s: %w: %w", db.path, registry.ErrReadOnly, cause)
}

// Close is registry.Meta's.
func (db *DB) Close() error { return db.bolt.Close() }
