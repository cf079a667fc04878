package registry_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"deploytools/layers/digest"
	"deploytools/layers/manifest"
	"deploytools/registry"
)

// ledger is what the checks of a registry have: each takes a byte of memory for
// each byte of its archive, and a second at the end of it. The first byte says
// whose it is.
type ledger struct {
	mu    sync.Mutex // guards the following
	taken int64
	most  int64
	ended []string // the archives, in order
}

func (l *ledger) add(n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.taken += n
	l.most = max(l.most, l.taken)
}

func (l *ledger) check(_ context.Context, r io.Reader, room func(int64) error) (registry.Archive, error) {
	var b []byte
	defer func() { l.add(-int64(len(b))) }()
	for next := make([]byte, 1); ; {
		if _, err := io.ReadFull(r, next); err == io.EOF {
			break
		} else if err != nil {
			return registry.Archive{}, err
		}
		if err := room(1); err != nil {
			return registry.Archive{}, err
		}
		b = append(b, next[0])
		l.add(1)
	}
	time.Sleep(time.Second)
	l.mu.Lock()
	l.ended = append(l.ended, string(b))
	l.mu.Unlock()
	m := manifest.Manifest{{Path: "f", Type: manifest.File, Size: int64(len(b)), Digest: digest.Of(b)}}
	return registry.Archive{Size: int64(len(b)), Manifest: m.All()}, nil
}

// scarce returns a registry whose checks have so little memory.
func scarce(t *testing.T, w *world, bytes int64) (*registry.Registry, *ledger) {
	t.Helper()
	l := &ledger{}
	o := w.options()
	o.Check, o.CheckMemory = l.check, bytes
	return start(t, o), l
}

// begin writes content as an upload of the key that its first byte names.
func begin(t *testing.T, r *registry.Registry, content string) *registry.Incoming {
	t.Helper()
	in, err := r.Receive(t.Context(), registry.Caller{User: "x", Role: registry.Admin, Fingerprint: content[:1]}, "/"+content)
	if err != nil {
		t.Fatal(err)
	}
	write(t, in, content, 0)
	return in
}

func TestChecksHaveNoMoreThanTheirMemoryAndOneWhatItNeeds(t *testing.T) {
	const total, largest = 20, 40
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			r, l := scarce(t, w, total)
			rnd := rand.New(rand.NewPCG(seed, 4))
			var wg sync.WaitGroup
			for i := range 30 {
				in := begin(t, r, string("abc"[rnd.IntN(3)])+strings.Repeat(string(rune('0'+i)), rnd.IntN(largest)))
				late := rnd.IntN(5)
				wg.Go(func() {
					time.Sleep(time.Duration(late) * time.Second)
					if u := verdict(t, r, finish(t, in)); u.Verdict != registry.Accepted {
						t.Errorf("the verdict is %q", u.Verdict)
					}
				})
			}
			wg.Wait()
			if l.most > total+largest {
				t.Errorf("seed %d: the checks had %d bytes, want %d at most", seed, l.most, total+largest)
			}
			w.wantClosed(t)
		})
	}
}

func TestNobodyHoldsUpOthersBySendingNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, l := scarce(t, newWorld(), 20)
		for i := range 10 { // more than there is, and never complete
			defer begin(t, r, fmt.Sprintf("a%d holds all of it", i)).Abort(t.Context())
		}
		synctest.Wait()
		began := time.Now()
		in := begin(t, r, "b is small")
		synctest.Wait()
		if want := []string(nil); !slices.Equal(l.ended, want) || l.taken != 20 {
			t.Errorf("%q ended, and %d bytes are taken", l.ended, l.taken)
		}
		if _, waiting := r.Checks(); waiting != 10 {
			t.Errorf("%d checks wait, want those of the other key", waiting)
		}
		verdict(t, r, finish(t, in))
		verdict(t, r, finish(t, begin(t, r, "b is larger than all that there is")))
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("two checks took %v, want one second each", took)
		}
	})
}

func TestWhatACheckHadIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := scarce(t, newWorld(), 20)
		for i := range 10 {
			verdict(t, r, finish(t, begin(t, r, fmt.Sprintf("a%d small", i))))
		}
		for _, content := range []string{"a arrives", "b arrives"} { // and must have room for that
			defer begin(t, r, content).Abort(t.Context())
		}
		synctest.Wait()
		if running, waiting := r.Checks(); running != 2 || waiting != 0 {
			t.Errorf("Checks() = %d, %d, want 2, 0", running, waiting)
		}
	})
}

func TestKeysTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, l := scarce(t, newWorld(), 1)
		var all []registry.UploadState
		for _, content := range []string{"a 1 needs more", "a 2 needs more", "a 3 needs more", "b 1 needs more", "b 2 needs more", "c 1 needs more"} {
			all = append(all, finish(t, begin(t, r, content)))
			synctest.Wait()
		}
		for _, u := range all {
			verdict(t, r, u)
		}
		var order []string
		for _, content := range l.ended {
			order = append(order, content[:3])
		}
		if want := []string{"a 1", "b 1", "c 1", "a 2", "b 2", "a 3"}; !slices.Equal(order, want) {
			t.Errorf("they were checked in the order %q, want %q", order, want)
		}
	})
}

func TestWhoAsksIsToldThatACheckWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := scarce(t, newWorld(), 1)
		var last registry.UploadState
		for _, content := range []string{"the first", "the second", "the third"} {
			last = finish(t, begin(t, r, content))
			synctest.Wait()
		}
		if all, err := r.Uploads(t.Context()); err != nil || all[0].Waiting || !all[1].Waiting || !all[2].Waiting {
			t.Errorf("Uploads = %+v, %v, want that all but the first wait", all, err)
		}
		if running, waiting := r.Checks(); running != 1 || waiting != 2 {
			t.Errorf("Checks() = %d, %d, want 1, 2", running, waiting)
		}
		time.Sleep(500 * time.Millisecond)
		var told []registry.CheckProgress
		_, err := r.Verdict(t.Context(), last.ID, func(p registry.CheckProgress) { told = append(told, p) })
		if want := []registry.CheckProgress{{Done: 1, Total: 9, Waiting: true}, {Done: 9, Total: 9}}; err != nil || !slices.Equal(told, want) {
			t.Errorf("Verdict = %v, told %v, want %v", err, told, want)
		}
		if all, err := r.Uploads(t.Context()); err != nil || all[2].Waiting {
			t.Errorf("Uploads = %+v, %v, want that nobody waits", all, err)
		}
	})
}

// TestACheckThatWaitsEndsWithItsUpload: else the bubble does not end.
func TestACheckThatWaitsEndsWithItsUpload(t *testing.T) {
	for name, end := range map[string]func(r *registry.Registry, in *registry.Incoming) error{
		"aborted": func(_ *registry.Registry, in *registry.Incoming) error { return in.Abort(context.Background()) },
		"suspended, and removed": func(r *registry.Registry, in *registry.Incoming) error {
			return errors.Join(in.Suspend(context.Background()), r.RemoveUpload(context.Background(), in.ID()))
		},
		"complete, and removed": func(r *registry.Registry, in *registry.Incoming) error {
			_, err := in.Finish(context.Background())
			return errors.Join(err, r.RemoveUpload(context.Background(), in.ID()))
		},
		"complete, written anew, and removed": func(r *registry.Registry, in *registry.Incoming) error {
			_, err := in.WriteAt([]byte("B"), 0)
			_, failed := in.Finish(context.Background())
			return errors.Join(err, failed, r.RemoveUpload(context.Background(), in.ID()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				r, _ := scarce(t, w, 4)
				first := begin(t, r, "a takes it")
				finish(t, first)
				synctest.Wait()
				began := time.Now()
				in := begin(t, r, "b waits")
				synctest.Wait()
				if err := end(r, in); err != nil {
					t.Error(err)
				}
				synctest.Wait()
				if _, waiting := r.Checks(); waiting != 0 || !time.Now().Equal(began) {
					t.Errorf("%d checks wait, after %v", waiting, time.Since(began))
				}
				if err := r.RemoveUpload(t.Context(), first.ID()); err != nil {
					t.Error(err)
				}
				time.Sleep(time.Minute)
				wantGone(t, w)
			})
		})
	}
}

func TestWhoWaitsForACheckHearsThatTheUploadWasRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := scarce(t, newWorld(), 2)
		finish(t, begin(t, r, "a takes it"))
		u := finish(t, begin(t, r, "b waits"))
		told := make(chan error)
		go func() {
			_, err := r.Verdict(t.Context(), u.ID, nil)
			told <- err
		}()
		synctest.Wait()
		if err := r.RemoveUpload(t.Context(), u.ID); err != nil {
			t.Fatal(err)
		}
		wantKind(t, "Verdict of a removed upload", <-told, registry.ErrNotFound)
	})
}

func TestCloseEndsTheChecksThatWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r, _ := scarce(t, w, 2)
		complete := []registry.UploadState{finish(t, begin(t, r, "a takes it")), finish(t, begin(t, r, "b waits"))}
		arriving := begin(t, r, "c waits, too")
		synctest.Wait()
		began := time.Now()
		r.Close()
		if took := time.Since(began); took > time.Second { // the end of a's
			t.Errorf("Close took %v", took)
		}
		if err := arriving.Suspend(t.Context()); err != nil {
			t.Error(err)
		}
		w.wantClosed(t)
		second, _ := scarce(t, w, 2)
		for _, u := range complete {
			verdict(t, second, u)
		}
		w.wantClosed(t)
	})
}
