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

func TestMemoryBlobs(t *testing.T) {
	Blobs(t, func(*testing.T) registry.Blobs {
		b, _ := NewBlobs()
		return b
	})
}

func TestMemoryBlobsThatCopy(t *testing.T) {
	Blobs(t, func(*testing.T) registry.Blobs {
		b, _ := NewCopyingBlobs()
		return b
	})
	b, _ := NewCopyingBlobs()
	if _, ok := b.(registry.Adopter); ok {
		t.Error("NewCopyingBlobs can adopt")
	}
}

func TestMemorySpool(t *testing.T) {
	Spool(t, func(*testing.T) registry.Spool {
		_, s := NewBlobs()
		return s
	})
}

func TestMemoryAdopter(t *testing.T) {
	Adopter(t, func(*testing.T) (registry.Blobs, registry.Spool) { return NewBlobs() })
}
