package enginetest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"deploytools/registry"
)

func metaLimitsKept(t *testing.T, m registry.Meta) {
	key := func(i int) string { return fmt.Sprintf("%0*d", registry.MaxKeyBytes-1, i) }
	value := bytes.Repeat([]byte{0xff}, registry.MaxValueBytes-1)
	update(t, m, func(tx registry.Tx) error {
		for i := range registry.MaxWrites {
			v := []byte{}
			if i < 3 {
				v = value
			}
			if err := tx.Put(key(i), v); err != nil {
				return err
			}
		}
		return nil
	})
	view(t, m, func(tx registry.Tx) error {
		for i := range 3 {
			if v, err := tx.Get(key(i)); err != nil || !bytes.Equal(v, value) {
				t.Errorf("Get(%d) = %d bytes, %v", i, len(v), err)
			}
		}
		if n := len(scan(tx, "0")); n != registry.MaxWrites {
			t.Errorf("%d keys, want %d", n, registry.MaxWrites)
		}
		return nil
	})
}

// wantRefused expects that write makes an Update fail with an error for which
// is holds, also when its function passes over it, and that nothing is stored.
func wantRefused(t *testing.T, m registry.Meta, is func(error) bool, write func(registry.Tx) error) {
	t.Helper()
	put(t, m, "a=1")
	for name, outcome := range map[string]func(error) error{
		"the function returns the error":  func(err error) error { return err },
		"the function drops the error":    func(error) error { return nil },
		"the function writes on after it": func(error) error { return nil },
	} {
		err := m.Update(t.Context(), func(tx registry.Tx) error {
			tx.Put("before", nil)
			err := write(tx)
			if !is(err) {
				t.Errorf("%s: the write = %v", name, err)
			}
			if strings.Contains(name, "writes on") {
				tx.Delete("a")
			}
			return outcome(err)
		})
		if !is(err) {
			t.Errorf("%s: Update = %v", name, err)
		}
	}
	wantAll(t, m, "a=1")
}

func isTooLarge(err error) bool { return errors.Is(err, registry.ErrTooLarge) }
func isError(err error) bool    { return err != nil }

func metaTooManyWrites(t *testing.T, m registry.Meta) {
	for name, write := range map[string]func(registry.Tx, int) error{
		"of one key":    func(tx registry.Tx, _ int) error { return tx.Put("b", nil) },
		"of many keys":  func(tx registry.Tx, i int) error { return tx.Put(fmt.Sprint(i), nil) },
		"deletions":     func(tx registry.Tx, i int) error { return tx.Delete(fmt.Sprint(i)) },
		"with the last": func(tx registry.Tx, i int) error { return tx.Put(fmt.Sprint(max(i, 50)), nil) },
	} {
		t.Run(name, func(t *testing.T) {
			wantRefused(t, m, isTooLarge, func(tx registry.Tx) error {
				for i := range registry.MaxWrites - 1 { // one is written already
					if err := write(tx, i); err != nil {
						t.Errorf("write %d = %v", i+2, err)
					}
				}
				return write(tx, registry.MaxWrites)
			})
		})
	}
}

func metaValueTooLarge(t *testing.T, m registry.Meta) {
	wantRefused(t, m, isTooLarge, func(tx registry.Tx) error {
		return tx.Put("b", make([]byte, registry.MaxValueBytes))
	})
}

func metaKeyTooLarge(t *testing.T, m registry.Meta) {
	long := strings.Repeat("k", registry.MaxKeyBytes)
	wantRefused(t, m, isTooLarge, func(tx registry.Tx) error { return tx.Put(long, nil) })
	wantRefused(t, m, isTooLarge, func(tx registry.Tx) error { return tx.Delete(long) })
}

func metaEmptyKey(t *testing.T, m registry.Meta) {
	wantRefused(t, m, isError, func(tx registry.Tx) error { return tx.Put("", []byte("1")) })
	wantRefused(t, m, isError, func(tx registry.Tx) error { return tx.Delete("") })
}

func metaKeyFoundNowhere(t *testing.T, m registry.Meta) {
	put(t, m, "a=1")
	long := strings.Repeat("a", 1<<17)
	look := func(tx registry.Tx) error {
		wantGet(t, tx, "", nil)
		wantGet(t, tx, long, nil)
		if got := scan(tx, long); got != nil {
			t.Errorf("Scan of a long prefix = %q", got)
		}
		return nil
	}
	view(t, m, look)
	update(t, m, look)
}

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
