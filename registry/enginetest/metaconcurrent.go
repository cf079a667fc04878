package enginetest

import (
	"context"
	"errors"
	"iter"
	"runtime"
	"slices"
	"strconv"
	"sync"
	syncatomic "sync/atomic"
	"testing"
	"time"

	"deploytools/registry"
)

func metaSnapshot(t *testing.T, m registry.Meta) {
	put(t, m, "a=1", "b=1")
	view(t, m, func(tx registry.Tx) error {
		wantGet(t, tx, "a", []byte("1"))
		// Another goroutine, as an Update inside a View is not allowed.
		done := make(chan error)
		go func() {
			done <- m.Update(t.Context(), func(tx registry.Tx) error {
				return errors.Join(putAll(tx, "a=2", "c=2"), tx.Delete("b"))
			})
		}()
		if err := <-done; err != nil {
			return err
		}
		wantGet(t, tx, "a", []byte("1"))
		wantGet(t, tx, "b", []byte("1"))
		if got := scan(tx, ""); !slices.Equal(got, []string{"a=1", "b=1"}) {
			t.Errorf("Scan in a view = %q after an Update elsewhere", got)
		}
		return nil
	})
	wantAll(t, m, "a=2", "c=2")
}

func metaLostUpdate(t *testing.T, m registry.Meta) {
	const goroutines, each = 8, 20
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for range each {
				if err := m.Update(t.Context(), func(tx registry.Tx) error {
					runtime.Gosched()
					return increment(tx, "n")
				}); err != nil {
					t.Errorf("Update = %v", err)
				}
			}
		})
	}
	wg.Wait()
	wantAll(t, m, "n="+strconv.Itoa(goroutines*each))
}

// metaWriteSkew: of two Updates that each take the last item away from the
// other, only one may.
func metaWriteSkew(t *testing.T, m registry.Meta) {
	takeIfBoth := func(mine, other string) error {
		return m.Update(t.Context(), func(tx registry.Tx) error {
			v, err := tx.Get(other)
			runtime.Gosched()
			if err != nil || v == nil {
				return err
			}
			return tx.Delete(mine)
		})
	}
	for range 50 {
		put(t, m, "a=1", "b=1")
		var wg sync.WaitGroup
		wg.Go(func() { wantStored(t, takeIfBoth("a", "b")) })
		wg.Go(func() { wantStored(t, takeIfBoth("b", "a")) })
		wg.Wait()
		view(t, m, func(tx registry.Tx) error {
			if got := scan(tx, ""); len(got) != 1 {
				t.Errorf("of a and b remain %q, want one", got)
			}
			return nil
		})
	}
}

func wantStored(t *testing.T, err error) {
	if err != nil {
		t.Errorf("Update = %v", err)
	}
}

// metaPhantom: goroutines that each take the number after the highest one take
// different numbers.
func metaPhantom(t *testing.T, m registry.Meta) {
	const goroutines, each = 4, 10
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for range each {
				wantStored(t, m.Update(t.Context(), func(tx registry.Tx) error {
					n := 1000 + len(scan(tx, "n/"))
					runtime.Gosched()
					return tx.Put("n/"+strconv.Itoa(n), []byte("x"))
				}))
			}
		})
	}
	wg.Wait()
	view(t, m, func(tx registry.Tx) error {
		if got := len(scan(tx, "n/")); got != goroutines*each {
			t.Errorf("%d updates took %d numbers", goroutines*each, got)
		}
		return nil
	})
}

func metaCancelledBefore(t *testing.T, m registry.Meta) {
	cause := errors.New("no more time")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	ran := func(tx registry.Tx) error {
		t.Error("the function ran")
		return nil
	}
	for range 20 { // an engine that waits for several things may pick any
		if err := m.View(ctx, ran); !errors.Is(err, cause) {
			t.Errorf("View = %v, want the cause of the context", err)
		}
		if err := m.Update(ctx, ran); !errors.Is(err, cause) {
			t.Errorf("Update = %v, want the cause of the context", err)
		}
		live, stop := context.WithTimeout(t.Context(), 10*time.Second)
		if err := m.Update(live, func(tx registry.Tx) error { return tx.Put("a", nil) }); err != nil {
			t.Fatalf("the next Update = %v", err)
		}
		stop()
	}
}

func metaCancelledWithin(t *testing.T, m registry.Meta) {
	ctx, cancel := context.WithCancel(t.Context())
	err := m.Update(ctx, func(tx registry.Tx) error {
		cancel()
		return tx.Put("a", nil)
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Update = %v, want context.Canceled", err)
	}
	wantAll(t, m)
}

func metaCloseWaits(t *testing.T, m registry.Meta) {
	put(t, m, "a=1")
	var ended syncatomic.Bool
	closing, closed := make(chan struct{}), make(chan struct{})
	view(t, m, func(tx registry.Tx) error {
		go func() {
			close(closing)
			if err := m.Close(); err != nil {
				t.Errorf("Close = %v", err)
			}
			if !ended.Load() {
				t.Error("Close returned before the view ended")
			}
			close(closed)
		}()
		<-closing
		for range 1000 {
			runtime.Gosched()
		}
		wantGet(t, tx, "a", []byte("1"))
		ended.Store(true)
		return nil
	})
	<-closed
}

func metaClosed(t *testing.T, m registry.Meta) {
	for range 2 {
		if err := m.Close(); err != nil {
			t.Errorf("Close = %v", err)
		}
	}
	ran := func(tx registry.Tx) error {
		t.Error("the function ran")
		return nil
	}
	if m.View(t.Context(), ran) == nil {
		t.Error("View succeeds")
	}
	if m.Update(t.Context(), ran) == nil {
		t.Error("Update succeeds")
	}
}

func metaTxEnded(t *testing.T, m registry.Meta) {
	put(t, m, "a=1", "b=1")
	var txs []registry.Tx
	var nexts []func() (string, []byte, bool)
	keep := func(tx registry.Tx) error {
		next, stop := iter.Pull2(tx.Scan(""))
		t.Cleanup(stop)
		next()
		txs, nexts = append(txs, tx), append(nexts, next)
		return nil
	}
	view(t, m, keep)
	update(t, m, keep)
	update(t, m, func(tx registry.Tx) error { return errors.Join(tx.Put("c", []byte("1")), keep(tx)) })
	for i, tx := range txs {
		if v, err := tx.Get("a"); err == nil || v != nil {
			t.Errorf("Get = %q, %v, want an error", v, err)
		}
		if tx.Put("a", []byte("2")) == nil || tx.Delete("b") == nil {
			t.Error("Put or Delete succeed")
		}
		if got := scan(tx, ""); got != nil {
			t.Errorf("Scan yields %q", got)
		}
		if k, _, ok := nexts[i](); ok {
			t.Errorf("a scan that had begun goes on with %q", k)
		}
	}
	put(t, m, "d=1")
	wantAll(t, m, "a=1", "b=1", "c=1", "d=1")
}
