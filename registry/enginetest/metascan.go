package enginetest

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"deploytools/registry"
)

// hostile are keys in byte order around the bytes that are easily got wrong:
// the ends of prefixes, zeros, separators, no UTF-8.
var hostile = []string{
	"\x00", "\x00\x00", "\x00\xff", "a", "a\x00", "a/", "a/\x00", "a/b", "a/b/c", "a/\xff", "a/\xff\xff", "a0", "ab",
	"b", "\u00e9", "\xfe", "\xfe\xff", "\xff", "\xff\x00", "\xff\xfe", "\xff\xff", "\xff\xff\x01",
}

func scanOrder(t *testing.T, m registry.Meta) {
	want := make([]string, len(hostile))
	update(t, m, func(tx registry.Tx) error {
		for i := range hostile { // 7 has no divisor in common with their number
			k := hostile[i*7%len(hostile)]
			if err := tx.Put(k, []byte(k)); err != nil {
				return err
			}
		}
		return nil
	})
	for i, k := range hostile {
		want[i] = k + "=" + k
	}
	wantAll(t, m, want...)
}

func scanPrefix(t *testing.T, m registry.Meta) {
	look := func(tx registry.Tx) error {
		for _, prefix := range append(hostile, "c", "a/\xff\xff\xff", "\xff\xff\xff") {
			var want []string
			for _, k := range hostile {
				if strings.HasPrefix(k, prefix) {
					want = append(want, k+"="+k)
				}
			}
			if got := scan(tx, prefix); !slices.Equal(got, want) {
				t.Errorf("Scan(%q) = %q, want %q", prefix, got, want)
			}
		}
		return nil
	}
	update(t, m, func(tx registry.Tx) error {
		for _, k := range hostile {
			if err := tx.Put(k, []byte(k)); err != nil {
				return err
			}
		}
		return look(tx)
	})
	view(t, m, look)
	update(t, m, look)
}

func scanOwnWrites(t *testing.T, m registry.Meta) {
	put(t, m, "b=1", "d=1", "f=1", "h=1")
	update(t, m, func(tx registry.Tx) error {
		err := errors.Join(putAll(tx, "a=2", "d=2", "e=2", "z=2"), tx.Delete("b"), tx.Delete("h"), tx.Delete("none"))
		want := []string{"a=2", "d=2", "e=2", "f=1", "z=2"}
		if got := scan(tx, ""); !slices.Equal(got, want) {
			t.Errorf("Scan = %q, want %q", got, want)
		}
		return err
	})
}

func scanWhileWriting(t *testing.T, m registry.Meta) {
	put(t, m, "n/1=1", "n/2=1", "n/3=1", "n/5=1")
	update(t, m, func(tx registry.Tx) error {
		if err := tx.Put("n/4", []byte("1")); err != nil {
			return err
		}
		var seen []string
		for k, v := range tx.Scan("n/") {
			seen = append(seen, k+"="+string(v))
			if err := errors.Join(tx.Delete(k), tx.Put(k+"x", []byte("2")), tx.Put("n/9", []byte("2")), tx.Put("n/5", []byte("2"))); err != nil {
				return err
			}
		}
		if want := []string{"n/1=1", "n/2=1", "n/3=1", "n/4=1", "n/5=1"}; !slices.Equal(seen, want) {
			t.Errorf("a loop that writes saw %q, want %q", seen, want)
		}
		return nil
	})
	// The loop over n/5 deleted it and wrote it again.
	wantAll(t, m, "n/1x=2", "n/2x=2", "n/3x=2", "n/4x=2", "n/5=2", "n/5x=2", "n/9=2")
}

func scanBreak(t *testing.T, m registry.Meta) {
	put(t, m, "a=1", "c=1")
	look := func(tx registry.Tx) error {
		all := tx.Scan("")
		for range 2 {
			for k := range all {
				if k != "a" {
					t.Errorf("the first key is %q", k)
				}
				break
			}
		}
		return nil
	}
	view(t, m, look)
	update(t, m, func(tx registry.Tx) error {
		err := tx.Put("b", []byte("1"))
		look(tx)
		for k := range tx.Scan("") {
			if k == "b" {
				break
			}
		}
		return err
	})
}

func scanNested(t *testing.T, m registry.Meta) {
	put(t, m, "a=1", "b=1", "c=1")
	look := func(tx registry.Tx) error {
		n := 0
		for range tx.Scan("") {
			for k := range tx.Scan("") {
				wantGet(t, tx, k, []byte("1"))
				n++
			}
		}
		if n != 9 {
			t.Errorf("a loop in a loop over 3 pairs came round %d times", n)
		}
		return nil
	}
	view(t, m, look)
	update(t, m, look)
}

// metaModel makes random updates, some of which end in an error, to the engine
// and to a map, and compares every look at them.
func metaModel(t *testing.T, m registry.Meta) {
	random := rand.New(rand.NewPCG(7, 8))
	pick := func() string { return hostile[random.IntN(len(hostile))] }
	stop, model := errors.New("stop"), map[string]string{}
	for range 150 {
		seed, next := random.Uint64(), maps.Clone(model)
		err := m.Update(t.Context(), func(tx registry.Tx) error {
			random, next = rand.New(rand.NewPCG(seed, 0)), maps.Clone(model) // the same when it runs again
			for range random.IntN(12) {
				k, v := pick(), fmt.Sprint(random.IntN(1000))
				if random.IntN(3) == 0 {
					delete(next, k)
					if err := tx.Delete(k); err != nil {
						return err
					}
					continue
				}
				next[k] = v
				if err := tx.Put(k, []byte(v)); err != nil {
					return err
				}
				prefix := k[:random.IntN(len(k)+1)]
				if got, want := scan(tx, prefix), under(next, prefix); !slices.Equal(got, want) {
					t.Errorf("Scan(%q) = %q, want %q", prefix, got, want)
				}
			}
			if random.IntN(4) == 0 {
				return stop
			}
			return nil
		})
		if err == nil {
			model = next
		} else if err != stop {
			t.Fatalf("Update = %v", err)
		}
		wantAll(t, m, under(model, "")...)
	}
}

// under returns the pairs of model as scan does.
func under(model map[string]string, prefix string) []string {
	var pairs []string
	for _, k := range slices.Sorted(maps.Keys(model)) {
		if strings.HasPrefix(k, prefix) {
			pairs = append(pairs, k+"="+model[k])
		}
	}
	return pairs
}
