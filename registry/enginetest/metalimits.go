package enginetest

import (
	"bytes"
	"errors"
	"fmt"
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
