package enginetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"deploytools/registry"
)

// Meta proves that the engine open returns keeps the contract of
// registry.Meta.
func Meta(t *testing.T, open func(t *testing.T) registry.Meta) {
	run(t, open, []claim[registry.Meta]{
		{"an empty engine has nothing", metaEmpty},
		{"an update reads its own writes", metaOwnWrites},
		{"what was stored is there for later calls", metaStored},
		{"an empty value is not an absent one", metaEmptyValue},
		{"values are copies on the way in", metaCopiesIn},
		{"values are copies on the way out", metaCopiesOut},
		{"an error of the function stores nothing and comes back as it is", metaAbort},
		{"a panic of the function stores nothing and ends nothing", metaPanic},
		{"a view cannot write", metaViewWrite},
		{"a view sees one moment", metaSnapshot},
		{"no increment is lost", metaLostUpdate},
		{"no update decides on what another one changed", metaWriteSkew},
		{"no update decides on a scan another one changed", metaPhantom},
		{"a cancelled context stops calls before they begin", metaCancelledBefore},
		{"a context cancelled in an update stores nothing", metaCancelledWithin},
		{"closing waits for what runs", metaCloseWaits},
		{"calls after closing fail", metaClosed},
		{"a transaction is of no use after its function", metaTxEnded},
		{"an update at the limits is stored", metaLimitsKept},
		{"one write too many stores nothing", metaTooManyWrites},
		{"a value too large stores nothing", metaValueTooLarge},
		{"a key too large stores nothing", metaKeyTooLarge},
		{"an empty key stores nothing", metaEmptyKey},
		{"a key that cannot be is found nowhere", metaKeyFoundNowhere},
		{"a scan is in byte order for any bytes", scanOrder},
		{"a scan has what starts with its prefix and no more", scanPrefix},
		{"a scan in an update has its writes", scanOwnWrites},
		{"a scan does not see writes of its own loop", scanWhileWriting},
		{"a scan can be left and begun again", scanBreak},
		{"scans can be nested", scanNested},
		{"any updates leave what a map would hold", metaModel},
	})
}

// claim is one subtest of a suite over engines of type E.
type claim[E any] struct {
	name string
	test func(*testing.T, E)
}

func run[E any](t *testing.T, open func(*testing.T) E, claims []claim[E]) {
	for _, c := range claims {
		t.Run(c.name, func(t *testing.T) { c.test(t, open(t)) })
	}
}

// update runs fn and expects no error.
func update(t *testing.T, m registry.Meta, fn func(registry.Tx) error) {
	t.Helper()
	if err := m.Update(t.Context(), fn); err != nil {
		t.Fatalf("Update = %v", err)
	}
}

// view runs fn and expects no error.
func view(t *testing.T, m registry.Meta, fn func(registry.Tx) error) {
	t.Helper()
	if err := m.View(t.Context(), fn); err != nil {
		t.Fatalf("View = %v", err)
	}
}

// put stores pairs written "key=value" in one Update.
func put(t *testing.T, m registry.Meta, pairs ...string) {
	t.Helper()
	update(t, m, func(tx registry.Tx) error { return putAll(tx, pairs...) })
}

func putAll(tx registry.Tx, pairs ...string) error {
	for _, p := range pairs {
		k, v, _ := strings.Cut(p, "=")
		if err := tx.Put(k, []byte(v)); err != nil {
			return err
		}
	}
	return nil
}

// scan returns the pairs under prefix as putAll takes them.
func scan(tx registry.Tx, prefix string) []string {
	var pairs []string
	for k, v := range tx.Scan(prefix) {
		pairs = append(pairs, k+"="+string(v))
	}
	return pairs
}

// wantAll expects that the engine holds exactly pairs.
func wantAll(t *testing.T, m registry.Meta, pairs ...string) {
	t.Helper()
	var got []string
	view(t, m, func(tx registry.Tx) error {
		got = scan(tx, "")
		return nil
	})
	if !slices.Equal(got, pairs) {
		t.Errorf("the engine holds %.300q, want %.300q", got, pairs)
	}
}

// wantGet expects that key has value, or none when value is nil.
func wantGet(t *testing.T, tx registry.Tx, key string, value []byte) {
	t.Helper()
	got, err := tx.Get(key)
	if err != nil || (got == nil) != (value == nil) || string(got) != string(value) {
		t.Errorf("Get(%.80q) = %#v, %v, want %#v", key, got, err, value)
	}
}

func metaEmpty(t *testing.T, m registry.Meta) {
	wantAll(t, m)
	view(t, m, func(tx registry.Tx) error {
		wantGet(t, tx, "a", nil)
		return nil
	})
	update(t, m, func(tx registry.Tx) error { return tx.Delete("a") })
	wantAll(t, m)
}

func metaOwnWrites(t *testing.T, m registry.Meta) {
	put(t, m, "old=1", "gone=1")
	update(t, m, func(tx registry.Tx) error {
		if err := errors.Join(putAll(tx, "old=2", "new=1", "twice=1", "twice=2", "brief=1"), tx.Delete("gone"), tx.Delete("brief")); err != nil {
			return err
		}
		wantGet(t, tx, "old", []byte("2"))
		wantGet(t, tx, "new", []byte("1"))
		wantGet(t, tx, "twice", []byte("2"))
		wantGet(t, tx, "gone", nil)
		wantGet(t, tx, "brief", nil)
		return tx.Put("gone", []byte("again"))
	})
	wantAll(t, m, "gone=again", "new=1", "old=2", "twice=2")
}

func metaStored(t *testing.T, m registry.Meta) {
	put(t, m, "a=1", "b=2")
	put(t, m, "b=3", "c=4")
	update(t, m, func(tx registry.Tx) error { return tx.Delete("a") })
	wantAll(t, m, "b=3", "c=4")
}

func metaEmptyValue(t *testing.T, m registry.Meta) {
	look := func(tx registry.Tx) error {
		wantGet(t, tx, "nil", []byte{})
		wantGet(t, tx, "empty", []byte{})
		wantGet(t, tx, "absent", nil)
		for k, v := range tx.Scan("") {
			if v == nil {
				t.Errorf("Scan yields a nil value for %q", k)
			}
		}
		return nil
	}
	update(t, m, func(tx registry.Tx) error {
		return errors.Join(tx.Put("nil", nil), tx.Put("empty", []byte{}), look(tx))
	})
	view(t, m, look)
	update(t, m, look)
	wantAll(t, m, "empty=", "nil=")
}

func metaCopiesIn(t *testing.T, m registry.Meta) {
	v := []byte("value")
	update(t, m, func(tx registry.Tx) error {
		copy(v, "value")
		err := tx.Put("a", v)
		copy(v, "xxxxx")
		wantGet(t, tx, "a", []byte("value"))
		return err
	})
	copy(v, "yyyyy")
	wantAll(t, m, "a=value")
}

func metaCopiesOut(t *testing.T, m registry.Meta) {
	put(t, m, "a=value")
	var kept [][]byte
	spoil := func(tx registry.Tx) error {
		v, err := tx.Get("a")
		copy(v, "xxxxx")
		kept = append(kept, v)
		for _, v := range tx.Scan("a") {
			copy(v, "yyyyy")
			kept = append(kept, v)
		}
		wantGet(t, tx, "a", []byte("value"))
		return err
	}
	view(t, m, spoil)
	update(t, m, spoil)
	update(t, m, func(tx registry.Tx) error { return errors.Join(tx.Put("a", []byte("value")), spoil(tx)) })
	for i := range 50 { // give an engine reason to use its memory again
		put(t, m, fmt.Sprintf("b=%d", i))
	}
	for _, v := range kept {
		if s := string(v); s != "xxxxx" && s != "yyyyy" {
			t.Errorf("a value that was kept turned into %q", v)
		}
	}
	wantAll(t, m, "a=value", "b=49")
}

func metaAbort(t *testing.T, m registry.Meta) {
	put(t, m, "a=1")
	want := errors.New("stop")
	err := m.Update(t.Context(), func(tx registry.Tx) error {
		return errors.Join(putAll(tx, "a=2", "b=2"), tx.Delete("a"), want)
	})
	if !errors.Is(err, want) {
		t.Errorf("Update = %v, want an error that is %v", err, want)
	}
	if err := m.Update(t.Context(), func(registry.Tx) error { return want }); err != want {
		t.Errorf("Update = %v, want %v itself", err, want)
	}
	if err := m.View(t.Context(), func(registry.Tx) error { return want }); err != want {
		t.Errorf("View = %v, want %v itself", err, want)
	}
	wantAll(t, m, "a=1")
}

func metaPanic(t *testing.T, m registry.Meta) {
	put(t, m, "a=1")
	for name, call := range map[string]func(context.Context, func(registry.Tx) error) error{"Update": m.Update, "View": m.View} {
		func() {
			defer func() {
				if v := recover(); v != "stop" {
					t.Errorf("%s: recover = %v, want the panic of its function", name, v)
				}
			}()
			call(t.Context(), func(tx registry.Tx) error {
				tx.Put("a", []byte("2"))
				panic("stop")
			})
		}()
	}
	put(t, m, "b=1")
	wantAll(t, m, "a=1", "b=1")
}

func metaViewWrite(t *testing.T, m registry.Meta) {
	put(t, m, "a=1")
	view(t, m, func(tx registry.Tx) error {
		if err := tx.Put("b", nil); err == nil {
			t.Error("Put in a view succeeds")
		}
		if err := tx.Delete("a"); err == nil {
			t.Error("Delete in a view succeeds")
		}
		wantGet(t, tx, "a", []byte("1"))
		return nil
	})
	wantAll(t, m, "a=1")
}

// increment adds one to the number under key.
func increment(tx registry.Tx, key string) error {
	v, err := tx.Get(key)
	if err != nil {
		return err
	}
	n, _ := strconv.Atoi(string(v))
	return tx.Put(key, strconv.AppendInt(nil, int64(n+1), 10))
}
