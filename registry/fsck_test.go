package registry_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"deploytools/layers/digest"
	"deploytools/registry"
	"deploytools/registry/enginetest"
)

// populated is a world with something of everything in it.
func populated(t *testing.T) *world {
	t.Helper()
	w := newWorld()
	r := w.open(t)
	for _, v := range []string{"v1", "v2", "v3"} {
		add(t, r, "code", v, "code "+v)
		add(t, r, "config", v, "config "+v)
	}
	addver(t, r, "copy", "v1", "code v1")
	for _, name := range []string{"web", "db", "gone"} {
		_, err := r.AddConfiguration(t.Context(), act, name, []registry.LayerRef{{Component: "code", Version: "v1"}, {Component: "config", Version: "v1"}}, registry.Checks{Checks: tcp("localhost:25")}, false)
		if err == nil {
			_, err = r.BumpConfiguration(t.Context(), act, name, []string{"code", "config"})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(deleteConfiguration(t.Context(), r, "gone"), deleteVersion(t.Context(), r, "code", "v2")); err != nil {
		t.Fatal(err)
	}
	verdict(t, r, upload(t, r, "waiting"))
	verdict(t, r, upload(t, r, "bad archive"))
	w.fsck(t)
	return w
}

// records returns all records of w.
func (w *world) records(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := w.meta.View(t.Context(), func(tx registry.Tx) error {
		clear(out)
		for k, v := range tx.Scan("") {
			out[k] = string(v)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// set gives key a value, or takes it away.
func (w *world) set(t *testing.T, key string, value *string) {
	t.Helper()
	err := w.meta.Update(t.Context(), func(tx registry.Tx) error {
		if value == nil {
			return tx.Delete(key)
		}
		return tx.Put(key, []byte(*value))
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) faults(t *testing.T, readData bool) []registry.Fault {
	t.Helper()
	r := registry.New(w.options())
	defer r.Close()
	got, err := r.Fsck(t.Context(), registry.FsckOptions{ReadData: readData})
	if err != nil {
		t.Fatalf("Fsck = %v", err)
	}
	for _, f := range got.Faults {
		if f.Do == "" || f.Text == "" {
			t.Errorf("fault without a text or a way out: %+v", f)
		}
	}
	return got.Faults
}

// TestFsckFindsEveryRecordThatIsLost takes each record away in turn, garbles it,
// gives it the value of its neighbour and makes one more of it.
func TestFsckFindsEveryRecordThatIsLost(t *testing.T) {
	w := populated(t)
	all := w.records(t)
	keys := slices.Sorted(maps.Keys(all))
	if len(keys) < 40 {
		t.Fatalf("%d records are too few to prove anything", len(keys))
	}
	for i, key := range keys {
		old, garbled := all[key], "{"
		changes := map[string]*string{"lost": nil}
		if old != "" {
			changes["garbled"] = &garbled
		}
		neighbour := keys[(i+1)%len(keys)]
		if other := all[neighbour]; other != old && strings.Split(neighbour, "/")[0] == strings.Split(key, "/")[0] && !strings.HasPrefix(key, "doomed/") {
			changes["exchanged"] = &other
		}
		for what, value := range changes {
			w.set(t, key, value)
			spare := what == "lost" && strings.HasPrefix(key, "blob/") && all["doomed/"+key[len("blob/"):]] != ""
			if len(w.faults(t, false)) == 0 && !spare {
				t.Errorf("the record %s is %s, and Fsck finds nothing", key, what)
			}
			w.set(t, key, &old)
		}
		if group, _, found := strings.Cut(key, "/"); found {
			extra := group + "/nonsense"
			w.set(t, extra, &old)
			if group != "doomed" && len(w.faults(t, false)) == 0 {
				t.Errorf("there is a record %s, and Fsck finds nothing", extra)
			}
			w.set(t, extra, nil)
		}
	}
	w.wantSound(t)
}

// TestFsckFindsEveryBlobThatIsLost takes each blob away in turn, and spoils it.
func TestFsckFindsEveryBlobThatIsLost(t *testing.T) {
	w := populated(t)
	blobs := w.blobs.(*enginetest.MemoryBlobs)
	all := w.records(t)
	content := map[digest.Digest][]byte{}
	for b := range blobs.List(t.Context()) {
		open, err := blobs.Open(t.Context(), b.Digest)
		if err != nil {
			t.Fatal(err)
		}
		content[b.Digest] = make([]byte, b.Size)
		open.ReadAt(content[b.Digest], 0)
	}
	needed := func(d digest.Digest) bool {
		return slices.ContainsFunc(slices.Collect(maps.Keys(all)), func(k string) bool { return strings.HasPrefix(k, "ref/"+d.String()) })
	}
	for d, old := range content {
		other := slices.Clone(old)
		other[len(other)/2] ^= 1
		for what, spoil := range map[string]func(){
			"lost":      func() { blobs.Delete(t.Context(), d) },
			"flipped":   func() { blobs.Spoil(d, other) },
			"cut":       func() { blobs.Spoil(d, old[1:]) },
			"empty":     func() { blobs.Spoil(d, nil) },
			"untouched": func() {},
		} {
			spoil()
			want := needed(d) && what != "untouched"
			for _, f := range w.faults(t, true) {
				if f.Digest != d {
					t.Errorf("blob %s is %s, and Fsck finds %+v", d, what, f)
				}
			}
			if got := len(w.faults(t, true)) > 0; got != want {
				t.Errorf("blob %s is %s: Fsck finds it: %t, want %t", d, what, got, want)
			}
			if got := len(w.faults(t, false)) > 0; got != want {
				t.Errorf("blob %s is %s: a second Fsck, without reading, knows it: %t, want %t", d, what, got, want)
			}
			blobs.Spoil(d, old)
			w.wantSound(t) // it is whole again: reading it takes the mark back
		}
	}
}

func TestFsckFindsWhatNothingRefersTo(t *testing.T) {
	w := populated(t)
	d := digest.Of([]byte("stray"))
	if err := w.blobs.Put(t.Context(), d, strings.NewReader("stray")); err != nil {
		t.Fatal(err)
	}
	got := w.faults(t, true)
	if len(got) != 1 || got[0].Kind != registry.UnreferencedFault || got[0].Digest != d {
		t.Errorf("Fsck = %+v, want the blob %s", got, d)
	}
	r := w.open(t)
	if _, err := r.Collect(t.Context(), registry.CollectOptions{}); err != nil { // the way out
		t.Fatal(err)
	}
	w.wantSound(t)
	w.clock.advance(24*time.Hour + 1)
	if got, err := r.Collect(t.Context(), registry.CollectOptions{}); err != nil || !slices.ContainsFunc(got.Gone, func(i registry.Item) bool { return i.Name == d.String() }) {
		t.Errorf("Collect after the grace = %+v, %v, want %s gone", got.Gone, err, d)
	}
}

// lying is a Blobs that has not yet, or has no more, what it will have.
type lying struct {
	registry.Blobs
	before func()
}

func (l lying) Open(ctx context.Context, d digest.Digest) (registry.Blob, error) {
	l.before()
	return l.Blobs.Open(ctx, d)
}

// TestFsckIsNotFooledByWhatGoesOn: a version is deleted and its blobs are
// collected between the look at the records and the look at the blobs.
func TestFsckIsNotFooledByWhatGoesOn(t *testing.T) {
	w := newWorld()
	r := w.open(t)
	add(t, r, "code", "v1", "content")
	d := digest.Of([]byte("content"))
	if err := w.blobs.Delete(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	o, done := w.options(), false
	o.Blobs = lying{w.blobs, func() {
		if done {
			return
		}
		done = true
		if err := deleteVersion(t.Context(), r, "code", "v1"); err != nil {
			t.Error(err)
		}
		w.clock.advance(48 * time.Hour)
		if _, err := r.Sweep(t.Context()); err != nil {
			t.Error(err)
		}
	}}
	other := start(t, o)
	got, err := other.Fsck(t.Context(), registry.FsckOptions{})
	if err != nil || len(got.Faults) > 0 || !done {
		t.Errorf("Fsck = %+v, %v, want no faults", got.Faults, err)
	}
	w.wantSound(t)
	for key := range w.records(t) {
		if group, _, _ := strings.Cut(key, "/"); group != "seq" && group != "audit" && group != "chain" {
			t.Errorf("the record %s is left", key)
		}
	}
}
