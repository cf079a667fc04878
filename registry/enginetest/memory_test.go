package enginetest

import (
	"testing"

	"deploytools/registry"
)

func TestMemoryMeta(t *testing.T) {
	for name, o := range map[string]MetaOptions{"plain": {}, "every update runs twice": {Rerun: 1}, "every third": {Rerun: 3}} {
		t.Run(name, func(t *testing.T) {
			Meta(t, func(t *testing.T) registry.Meta { return NewMeta(o) })
		})
	}
}

func TestRerunRunsClosuresTwice(t *testing.T) {
	m, runs := NewMeta(MetaOptions{Rerun: 2}), 0
	for range 4 {
		update(t, m, func(tx registry.Tx) error {
			runs++
			return increment(tx, "n")
		})
	}
	if runs != 6 {
		t.Errorf("4 updates ran %d times, want 6", runs)
	}
	wantAll(t, m, "n=4")
}
