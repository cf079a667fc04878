package registry

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
)

// Writes holds what one Update wrote until its engine stores it. It is the one
// place that knows the limits of Meta. An engine that keeps its writes here
// leaves its data alone while the function of the Update runs: aborting is
// forgetting, and a loop over the data may write.
//
// The zero value is ready. Not safe for concurrent use.
type Writes struct {
	values map[string][]byte // nil = deleted
	calls  int
	err    error
}

var errEmptyKey = errors.New("key is empty")

// Put notes that key gets a copy of value.
func (w *Writes) Put(key string, value []byte) error {
	if len(value) >= MaxValueBytes {
		return w.refuse(fmt.Errorf("value of key %.80q has %d bytes: %w", key, len(value), ErrTooLarge))
	}
	return w.note(key, append([]byte{}, value...))
}

// Delete notes that key goes.
func (w *Writes) Delete(key string) error { return w.note(key, nil) }

func (w *Writes) note(key string, value []byte) error {
	w.calls++
	switch {
	case key == "":
		return w.refuse(errEmptyKey)
	case len(key) >= MaxKeyBytes:
		return w.refuse(fmt.Errorf("key %.80q... has %d bytes: %w", key, len(key), ErrTooLarge))
	case w.calls > MaxWrites:
		return w.refuse(fmt.Errorf("more than %d writes: %w", MaxWrites, ErrTooLarge))
	}
	if w.values == nil {
		w.values = map[string][]byte{}
	}
	w.values[key] = value
	return nil
}

// refuse keeps the first error, so that a function which passes over it cannot
// store a part of what it meant to.
func (w *Writes) refuse(err error) error {
	if w.err == nil {
		w.err = err
	}
	return err
}

// Err returns the first error of Put and Delete. An Update with one is to be
// refused.
func (w *Writes) Err() error { return w.err }

// Get returns a copy of what was written for key: nil when it was deleted. ok
// says whether it was written at all.
func (w *Writes) Get(key string) (value []byte, ok bool) {
	value, ok = w.values[key]
	return bytes.Clone(value), ok
}

// All yields the writes by key in byte order, a deletion with a nil value. The
// values are not copies.
func (w *Writes) All() iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		for _, k := range slices.Sorted(maps.Keys(w.values)) {
			if !yield(k, w.values[k]) {
				return
			}
		}
	}
}

// Over yields the pairs of stored as they are after the writes so far under
// prefix; later writes do not show in it. stored holds the pairs under prefix,
// by key in byte order. Values that were written come as copies, those of
// stored as they are.
func (w *Writes) Over(stored iter.Seq2[string, []byte], prefix string) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		type pair struct {
			key   string
			value []byte
		}
		var own []pair
		for k, v := range w.All() {
			if strings.HasPrefix(k, prefix) {
				own = append(own, pair{k, v})
			}
		}
		next := func() bool { // yields the first of own, unless it is a deletion
			p := own[0]
			own = own[1:]
			return p.value == nil || yield(p.key, bytes.Clone(p.value))
		}
		for k, v := range stored {
			for len(own) > 0 && own[0].key < k {
				if !next() {
					return
				}
			}
			if len(own) > 0 && own[0].key == k {
				if !next() {
					return
				}
				continue
			}
			if !yield(k, v) {
				return
			}
		}
		for len(own) > 0 {
			if !next() {
				return
			}
		}
	}
}
