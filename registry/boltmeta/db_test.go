package boltmeta

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"deploytools/registry"
	"deploytools/registry/enginetest"
)

func statePath(t testing.TB) string { return filepath.Join(t.TempDir(), "state.db") }

func open(t testing.TB, path string) *DB {
	t.Helper()
	db, err := Open(path, Options{})
	if err != nil {
		t.Fatalf("Open = %v", err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func TestMeta(t *testing.T) {
	enginetest.Meta(t, func(t *testing.T) registry.Meta { return open(t, statePath(t)) })
}

// pairs returns all that db holds.
func pairs(t *testing.T, db *DB) map[string]string {
	t.Helper()
	m := map[string]string{}
	if err := db.View(t.Context(), func(tx registry.Tx) error {
		for k, v := range tx.Scan("") {
			m[k] = string(v)
		}
		return nil
	}); err != nil {
		t.Fatalf("View = %v", err)
	}
	return m
}

func TestStoredIsThereAfterReopening(t *testing.T) {
	path := statePath(t)
	db := open(t, path)
	if err := db.Update(t.Context(), func(tx registry.Tx) error {
		tx.Put("empty", nil)
		return tx.Put("a\xff", []byte("\x00"))
	}); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = open(t, path)
	if got := pairs(t, db); len(got) != 2 || got["a\xff"] != "\x00" || got["empty"] != "" {
		t.Errorf("after reopening there is %q", got)
	}
	db.View(t.Context(), func(tx registry.Tx) error {
		if v, _ := tx.Get("empty"); v == nil {
			t.Error("an empty value is absent after reopening")
		}
		return nil
	})
}

// TestAcknowledgedSurvivesKill kills a writer at many moments: what it said to
// be stored is there, nothing is half there, and Open finds the file sound.
func TestAcknowledgedSurvivesKill(t *testing.T) {
	path, random := statePath(t), rand.New(rand.NewPCG(1, 2))
	total := 0
	for range 30 {
		cmd, lines := startChild(t, "count", path)
		acknowledged := total
		for i := random.IntN(40); lines.Scan(); i-- {
			acknowledged, _ = strconv.Atoi(lines.Text())
			if i <= 0 {
				for range random.IntN(3000) { // not always at the same place
					runtime.Gosched()
				}
				cmd.Process.Kill()
			}
		}
		cmd.Wait()
		if acknowledged <= total {
			t.Fatalf("the child counted from %d to %d", total, acknowledged)
		}
		db := open(t, path)
		all := pairs(t, db)
		total, _ = strconv.Atoi(all["n"])
		if total != acknowledged && total != acknowledged+1 {
			t.Fatalf("%d is stored, %d was acknowledged", total, acknowledged)
		}
		for n := max(1, total-49); n <= total; n++ {
			if v, ok := all[trace(n)]; !ok || len(v) != n*37%6000 {
				t.Fatalf("trace of %d is missing or cut", n)
			}
		}
		if want := min(total, 50) + 1; len(all) != want {
			t.Fatalf("%d keys, want %d", len(all), want)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFirstFailureToStoreMakesReadOnly(t *testing.T) {
	path := statePath(t)
	cmd, lines := startChild(t, "full disk", path)
	var said []string
	for lines.Scan() {
		said = append(said, lines.Text())
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("child: %v", err)
	}
	for i, prefix := range []string{"first: ", "later: "} {
		if len(said) != 2 || !strings.HasPrefix(said[i], prefix) || !strings.Contains(said[i], "read-only") ||
			!strings.Contains(said[i], path) || !strings.Contains(said[i], "file too large") {
			t.Errorf("the child said %q, want the file, read-only and the cause", said)
		}
	}
	db := open(t, path) // opened again, it stores again
	if err := db.Update(t.Context(), func(tx registry.Tx) error { return tx.Delete(trace(0)) }); err != nil {
		t.Errorf("Update after reopening = %v", err)
	}
}

func TestWaitingForTheTurnEndsWithTheContext(t *testing.T) {
	db := open(t, statePath(t))
	ctx, cancel := context.WithCancel(t.Context())
	if err := db.Update(t.Context(), func(registry.Tx) error {
		done := make(chan error)
		go func() {
			done <- db.Update(ctx, func(registry.Tx) error {
				t.Error("two Updates run at once")
				return nil
			})
		}()
		cancel()
		if err := <-done; err != context.Canceled {
			t.Errorf("Update = %v, want context.Canceled", err)
		}
		return nil
	}); err != nil {
		t.Errorf("Update = %v", err)
	}
	if err := db.Update(t.Context(), func(tx registry.Tx) error { return tx.Put("a", nil) }); err != nil {
		t.Errorf("Update after it = %v", err)
	}
}

// TestViewDoesNotStopGrowth: while a View is under way, Updates go on even as
// the file outgrows what it was.
func TestViewDoesNotStopGrowth(t *testing.T) {
	db := open(t, statePath(t))
	if err := db.View(t.Context(), func(registry.Tx) error {
		done := make(chan error)
		go func() {
			var err error
			for i := 0; i < 20 && err == nil; i++ {
				err = db.Update(t.Context(), func(tx registry.Tx) error { return tx.Put(fmt.Sprint(i), make([]byte, 500_000)) })
			}
			done <- err
		}()
		return <-done
	}); err != nil {
		t.Error(err)
	}
}

func BenchmarkUpdate(b *testing.B) {
	db := open(b, statePath(b))
	for i := 0; b.Loop(); i++ {
		if err := db.Update(b.Context(), func(tx registry.Tx) error { return tx.Put(fmt.Sprint(i), []byte("value")) }); err != nil {
			b.Fatal(err)
		}
	}
}

// TestAFileThatIsCutWhileItIsOpenIsAnError and no fault that ends the process:
// pages that are missing, or that the disk cannot read, are named.
func TestAFileThatIsCutWhileItIsOpenIsAnError(t *testing.T) {
	path := statePath(t)
	db := open(t, path)
	for i := range 50 {
		if err := db.Update(t.Context(), func(tx registry.Tx) error {
			return tx.Put(fmt.Sprintf("key/%02d", i), make([]byte, 20_000))
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(path, 3*int64(os.Getpagesize())); err != nil {
		t.Fatal(err)
	}
	for name, look := range map[string]func(registry.Tx) error{
		"a scan": func(tx registry.Tx) error {
			for range tx.Scan("key/") {
			}
			return nil
		},
		"a get that passes over it": func(tx registry.Tx) error {
			tx.Get("key/33")
			return nil
		},
		"a get": func(tx registry.Tx) error {
			v, err := tx.Get("key/33")
			if err == nil {
				t.Errorf("Get = %d bytes, nil", len(v))
			}
			return err
		},
	} {
		if err := db.View(t.Context(), look); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), path) {
			t.Errorf("View of %s = %v, want ErrDamaged", name, err)
		}
		if err := db.Update(t.Context(), look); !errors.Is(err, ErrDamaged) {
			t.Errorf("Update of %s = %v, want ErrDamaged", name, err)
		}
	}
	err := db.Update(t.Context(), func(tx registry.Tx) error { return tx.Put("key/33", nil) })
	if !errors.Is(err, registry.ErrReadOnly) && !errors.Is(err, ErrDamaged) {
		t.Errorf("Update that writes = %v, want ErrReadOnly or ErrDamaged", err)
	}
}
