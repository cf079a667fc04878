package registry_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"deploytools/layers/digest"
	"deploytools/registry"
)

// In these tests a bubble ends only when all goroutines in it have: one that is
// left behind fails the test.

func TestAnUploadIsHashedAndChecked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := w.open(t)
		in := receive(t, r, "/web.tar.gz", "content")
		if n := in.Size(); n != 7 {
			t.Errorf("Size() = %d, want 7", n)
		}
		u := finish(t, in)
		if u.Digest != digest.Of([]byte("content")) || u.Size != 7 || !u.Complete || u.Path != "/web.tar.gz" || u.User != "ann" || u.Fingerprint != "SHA256:ann" {
			t.Errorf("Finish = %+v", u)
		}
		if u = verdict(t, r, u); u.Verdict != registry.Accepted || u.Entries != 1 || u.Unpacked != 7 || u.Manifest.IsZero() {
			t.Errorf("Verdict = %+v", u)
		}
		w.wantClosed(t)
		w.fsck(t)
	})
}

func TestARefusalKeepsItsReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := w.open(t)
		u := verdict(t, r, upload(t, r, "bad content"))
		if u.Verdict != registry.Refused || !strings.Contains(u.Reason, "begins with bad") {
			t.Errorf("Verdict = %+v", u)
		}
		_, err := addVersion(t.Context(), r, "code", "v1", u.Digest)
		wantKind(t, "AddVersion of a refused upload", err, registry.ErrRefused)
		w.wantClosed(t)
		w.fsck(t)
	})
}

func TestPiecesInAnyOrderFromManyAtOnce(t *testing.T) {
	content := strings.Repeat("0123456789abcdef", 8192)
	const piece = 1000
	for seed := range uint64(5) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			r := w.open(t)
			in, err := r.Receive(t.Context(), caller, "/x")
			if err != nil {
				t.Fatal(err)
			}
			pieces := make(chan int, len(content)/piece+1)
			for _, i := range rand.New(rand.NewPCG(seed, 2)).Perm(len(content)/piece + 1) {
				pieces <- i * piece
			}
			close(pieces)
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					for off := range pieces {
						write(t, in, content[off:min(off+piece, len(content))], int64(off))
					}
				})
			}
			wg.Wait()
			if u := finish(t, in); u.Digest != digest.Of([]byte(content)) {
				t.Errorf("seed %d: the digest is %s, want that of the content", seed, u.Digest)
			} else if u = verdict(t, r, u); u.Verdict != registry.Accepted {
				t.Errorf("seed %d: the verdict is %q", seed, u.Verdict)
			}
			w.wantClosed(t)
		})
	}
}

func TestTheDigestIsOfWhatIsThereAtTheEnd(t *testing.T) {
	for name, test := range map[string]struct {
		change func(t *testing.T, in *registry.Incoming)
		want   string
	}{
		"overwritten after being read": {func(t *testing.T, in *registry.Incoming) { write(t, in, "XY", 1) }, "aXYdef"},
		"cut":                          {func(t *testing.T, in *registry.Incoming) { truncate(t, in, 3) }, "abc"},
		"cut and written again":        {func(t *testing.T, in *registry.Incoming) { truncate(t, in, 0); write(t, in, "new", 0) }, "new"},
		"cut to its length, as scp does": {func(t *testing.T, in *registry.Incoming) { truncate(t, in, 6) },
			"abcdef"},
		"made longer":  {func(t *testing.T, in *registry.Incoming) { truncate(t, in, 8) }, "abcdef\x00\x00"},
		"a hole":       {func(t *testing.T, in *registry.Incoming) { write(t, in, "z", 8) }, "abcdef\x00\x00z"},
		"nothing more": {func(t *testing.T, in *registry.Incoming) { write(t, in, "", 50) }, "abcdef"},
		"turned bad":   {func(t *testing.T, in *registry.Incoming) { write(t, in, "bad", 0) }, "baddef"},
		"emptied":      {func(t *testing.T, in *registry.Incoming) { truncate(t, in, 0) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				r := w.open(t)
				in := receive(t, r, "/x", "abcdef")
				synctest.Wait() // all of it is hashed and checked
				test.change(t, in)
				u := verdict(t, r, finish(t, in))
				if u.Digest != digest.Of([]byte(test.want)) || u.Size != int64(len(test.want)) {
					t.Errorf("the upload has %d bytes and the digest %s, want %q", u.Size, u.Digest, test.want)
				}
				if refused := u.Verdict == registry.Refused; refused != strings.HasPrefix(test.want, "bad") {
					t.Errorf("the verdict on %q is %q", test.want, u.Verdict)
				}
				wantStored(t, r, u, test.want)
				w.wantClosed(t)
			})
		})
	}
}

func truncate(t *testing.T, in *registry.Incoming, size int64) {
	t.Helper()
	if err := in.Truncate(size); err != nil {
		t.Fatalf("Truncate(%d) = %v", size, err)
	}
}

// wantStored expects content in the spool.
func wantStored(t *testing.T, r *registry.Registry, u registry.UploadState, content string) {
	t.Helper()
	f, err := r.OpenUpload(t.Context(), u.ID)
	if err != nil {
		t.Fatalf("OpenUpload = %v", err)
	}
	defer f.Close()
	if got, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<40)); string(got) != content || err != nil {
		t.Errorf("the upload holds %q, %v, want %q", got, err, content)
	}
}

// TestWritesAndCutsAtOnce: the length that is recorded is that of the file,
// whatever the order was in which a write and a cut came through.
func TestWritesAndCutsAtOnce(t *testing.T) {
	for range 100 {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			w.spool = yielding{w.spool}
			r := w.open(t)
			in := receive(t, r, "/x", "0123456789")
			var wg sync.WaitGroup
			for i := range int64(8) {
				wg.Go(func() { in.WriteAt([]byte("abcdefghij"), i*7) })
				wg.Go(func() { in.Truncate(1 + i*5) }) // without its beginning it is refused
			}
			wg.Wait()
			u := finish(t, in)
			f, err := r.OpenUpload(t.Context(), u.ID)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			b, _ := io.ReadAll(io.NewSectionReader(f, 0, 1<<40))
			if int64(len(b)) != u.Size || digest.Of(b) != u.Digest {
				t.Errorf("the record says %d bytes, %s; the file has %d, %s", u.Size, u.Digest, len(b), digest.Of(b))
			}
			verdict(t, r, u)
		})
	}
}

// yielding is a spool whose writers and cutters let others go first once they
// are done.
type yielding struct{ registry.Spool }

type yieldingUpload struct{ registry.Upload }

func (y yielding) Create(ctx context.Context, name string) (registry.Upload, error) {
	u, err := y.Spool.Create(ctx, name)
	return yieldingUpload{u}, err
}

func (u yieldingUpload) WriteAt(p []byte, off int64) (int, error) {
	defer u.yield()
	return u.Upload.WriteAt(p, off)
}

func (u yieldingUpload) Truncate(size int64) error {
	defer u.yield()
	return u.Upload.Truncate(size)
}

func (yieldingUpload) yield() {
	for range rand.IntN(20) {
		runtime.Gosched()
	}
}

func TestTooManyPiecesFailTheUpload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		in := receive(t, w.open(t), "/x", "")
		var err error
		for i := int64(1); err == nil && i < 10_000; i++ {
			_, err = in.WriteAt([]byte("x"), 2*i)
		}
		wantKind(t, "WriteAt in too many pieces", err, registry.ErrRefused)
		wantFailed(t, w, in, registry.ErrRefused)
	})
}

// wantFailed expects that an upload with a failed write takes nothing more, and
// that its end is that failure and leaves nothing behind.
func wantFailed(t *testing.T, w *world, in *registry.Incoming, kind error) {
	t.Helper()
	if _, err := in.WriteAt([]byte("x"), 0); !errors.Is(err, kind) {
		t.Errorf("WriteAt after a failure = %v, want %v", err, kind)
	}
	if err := in.Truncate(0); !errors.Is(err, kind) {
		t.Errorf("Truncate after a failure = %v, want %v", err, kind)
	}
	if _, err := in.Finish(t.Context()); !errors.Is(err, kind) {
		t.Errorf("Finish after a failure = %v, want %v", err, kind)
	}
	wantGone(t, w)
}

// wantGone expects that nothing of any upload is left.
func wantGone(t *testing.T, w *world) {
	t.Helper()
	w.wantClosed(t)
	w.wantSpooled(t, 0)
	if all, err := registry.New(w.options()).Uploads(t.Context()); len(all) != 0 || err != nil {
		t.Errorf("Uploads() = %+v, %v, want none", all, err)
	}
}

func TestUploadsAreLimited(t *testing.T) {
	for name, test := range map[string]struct {
		limit func(o *registry.Options)
		act   func(in *registry.Incoming) error
	}{
		"a write past the limit": {
			func(o *registry.Options) { o.MaxUpload = 10 },
			func(in *registry.Incoming) error { _, err := in.WriteAt([]byte("abc"), 8); return err },
		},
		"a write at the end of all offsets": {
			func(o *registry.Options) {},
			func(in *registry.Incoming) error { _, err := in.WriteAt([]byte("abc"), 1<<63-2); return err },
		},
		"a write before the beginning": {
			func(o *registry.Options) {},
			func(in *registry.Incoming) error { _, err := in.WriteAt([]byte("abc"), -1); return err },
		},
		"a cut past the limit": {
			func(o *registry.Options) { o.MaxUpload = 10 },
			func(in *registry.Incoming) error { return in.Truncate(11) },
		},
		"no space": {
			func(o *registry.Options) { o.Spool = full{o.Spool} },
			func(in *registry.Incoming) error { _, err := in.WriteAt([]byte("abc"), 0); return err },
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				o := w.options()
				test.limit(&o)
				in, err := start(t, o).Receive(t.Context(), caller, "/x")
				if err != nil {
					t.Fatal(err)
				}
				wantKind(t, name, test.act(in), registry.ErrRefused)
				wantFailed(t, w, in, registry.ErrRefused)
			})
		})
	}
}

// full is a spool on a full disk.
type full struct{ registry.Spool }

func (full) Free(context.Context) (int64, error) { return 1000, nil }

func TestAFailedWriteIsNeverACompleteUpload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		o := w.options()
		o.Spool = failing{w.spool}
		in, err := start(t, o).Receive(t.Context(), caller, "/x")
		if err != nil {
			t.Fatal(err)
		}
		write(t, in, "begin", 0)
		if _, err := in.WriteAt([]byte("disk"), 5); !errors.Is(err, errDisk) {
			t.Errorf("WriteAt = %v, want the disk's error", err)
		}
		wantFailed(t, w, in, errDisk)
	})
}

var errDisk = errors.New("disk is broken")

// failing is a spool on which nothing can be written at offset 5 and beyond.
type failing struct{ registry.Spool }

func (f failing) Create(ctx context.Context, name string) (registry.Upload, error) {
	u, err := f.Spool.Create(ctx, name)
	return failingUpload{u}, err
}

type failingUpload struct{ registry.Upload }

func (u failingUpload) WriteAt(p []byte, off int64) (int, error) {
	if off >= 5 {
		u.Upload.WriteAt(p[:len(p)/2], off) // half of it came through
		return len(p) / 2, errDisk
	}
	return u.Upload.WriteAt(p, off)
}

func TestAbortLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		in := receive(t, w.open(t), "/x", "half of")
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // the session is gone
		for range 2 {
			if err := in.Abort(ctx); err != nil {
				t.Errorf("Abort = %v", err)
			}
		}
		if _, err := in.Finish(t.Context()); err == nil {
			t.Error("Finish after Abort succeeds")
		}
		if _, err := in.WriteAt([]byte("x"), 0); err == nil {
			t.Error("WriteAt after Abort succeeds")
		}
		wantGone(t, w)
	})
}

func TestAnUploadEndsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := w.open(t)
		in := receive(t, r, "/x", "content")
		u := finish(t, in)
		if _, err := in.Finish(t.Context()); err == nil {
			t.Error("a second Finish succeeds")
		}
		if err := in.Abort(t.Context()); err != nil {
			t.Errorf("Abort after Finish = %v", err)
		}
		if _, err := in.WriteAt([]byte("X"), 0); err == nil {
			t.Error("WriteAt after Finish succeeds")
		}
		if err := in.Truncate(0); err == nil {
			t.Error("Truncate after Finish succeeds")
		}
		verdict(t, r, u)
		wantStored(t, r, u, "content")
		w.wantClosed(t)
	})
}

func TestAnUploadRemovedWhileItArrivesStaysGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := w.open(t)
		in := receive(t, r, "/x", "content")
		if err := r.RemoveUpload(t.Context(), in.ID()); err != nil {
			t.Fatal(err)
		}
		_, err := in.Finish(t.Context())
		wantKind(t, "Finish of a removed upload", err, registry.ErrNotFound)
		wantGone(t, w)
	})
}

func TestTheVerdictComesAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		o := w.options()
		o.Check = func(ctx context.Context, r io.Reader, _ func(int64) error) (registry.Archive, error) {
			io.Copy(io.Discard, r)
			<-ctx.Done() // a long check
			return registry.Archive{}, ctx.Err()
		}
		first := start(t, o)
		good, bad := upload(t, first, "good"), upload(t, first, "bad")
		first.Close() // while both checks run
		w.wantClosed(t)

		second := w.open(t)
		if u := verdict(t, second, good); u.Verdict != registry.Accepted {
			t.Errorf("the verdict is %q", u.Verdict)
		}
		if u := verdict(t, second, bad); u.Verdict != registry.Refused {
			t.Errorf("the verdict is %q", u.Verdict)
		}
		addver(t, second, "code", "v1", "good")
		w.wantClosed(t)
		w.fsck(t)
	})
}

func TestCloseEndsWhatArrives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := w.open(t)
		in := receive(t, r, "/x", "half of")
		r.Close()
		if _, err := in.WriteAt([]byte("x"), 7); err == nil {
			t.Error("WriteAt after Close of the registry succeeds")
		}
		if _, err := in.Finish(t.Context()); err == nil {
			t.Error("Finish after Close of the registry succeeds")
		}
		if _, err := r.Receive(t.Context(), caller, "/y"); err == nil {
			t.Error("Receive after Close succeeds")
		}
		wantGone(t, w)
	})
}

// TestCloseAtAnyTime closes the registry beside everything that an upload does.
func TestCloseAtAnyTime(t *testing.T) {
	for seed := range uint64(100) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			r := w.open(t)
			var wg sync.WaitGroup
			for i := range 4 {
				wg.Go(func() {
					in, err := r.Receive(t.Context(), caller, "/x")
					if err != nil {
						return
					}
					in.WriteAt([]byte("abc"), 0)
					in.WriteAt([]byte("abc"), 0)
					if i == 0 {
						in.Abort(t.Context())
						return
					}
					u, err := in.Finish(t.Context())
					if err == nil {
						r.Verdict(t.Context(), u.ID, nil)
					}
				})
			}
			for range rand.New(rand.NewPCG(seed, 3)).IntN(200) {
				_, _ = r.Components(t.Context()) // some time passes
			}
			r.Close()
			wg.Wait()
			w.wantClosed(t)
			second := w.open(t)
			all, err := second.Uploads(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, u := range all { // what Finish promised is there
				if !u.Complete {
					t.Errorf("an upload that did not end is left: %+v", u)
				}
				verdict(t, second, u)
			}
			w.wantSpooled(t, len(all))
			w.wantClosed(t)
		})
	}
}

func TestManyWaitForOneCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		u := upload(t, w.open(t), "content")
		var runs int
		proceed := make(chan struct{})
		var mu sync.Mutex
		o := w.options()
		o.Check = func(ctx context.Context, r io.Reader, _ func(int64) error) (registry.Archive, error) {
			mu.Lock()
			runs++
			mu.Unlock()
			<-proceed
			return check(ctx, r, nil)
		}
		o.Spool = slowSpool{w.spool}
		// The first registry has had no time to judge: its record says so.
		forgetVerdict(t, w, u.ID)
		r := start(t, o)
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if got, err := r.Verdict(t.Context(), u.ID, nil); err != nil || got.Verdict != registry.Accepted {
					t.Errorf("Verdict = %+v, %v", got, err)
				}
			})
		}
		time.Sleep(time.Minute) // all have opened the upload
		close(proceed)
		wg.Wait()
		if runs != 1 {
			t.Errorf("%d checks ran, want 1", runs)
		}
		w.wantClosed(t)
	})
}

// slowSpool takes a second to open an upload.
type slowSpool struct{ registry.Spool }

func (s slowSpool) Resume(ctx context.Context, name string) (registry.Upload, error) {
	time.Sleep(time.Second) // of the bubble's
	return s.Spool.Resume(ctx, name)
}

// afterUpdate calls act once the update of that number is stored.
type afterUpdate struct {
	registry.Meta
	left int
	act  func()
}

func (m *afterUpdate) Update(ctx context.Context, fn func(registry.Tx) error) error {
	err := m.Meta.Update(ctx, fn)
	if m.left--; m.left == 0 {
		m.act()
	}
	return err
}

func TestCloseBetweenTheRecordAndTheVerdict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		o := w.options()
		meta := &afterUpdate{Meta: w.meta, left: 2} // Receive's, then Finish's
		o.Meta = meta
		r := start(t, o)
		meta.act = r.Close
		in := receive(t, r, "/x", "content")
		synctest.Wait() // it is hashed as far as it goes
		u := finish(t, in)
		w.wantClosed(t)
		if u = verdict(t, w.open(t), u); u.Verdict != registry.Accepted {
			t.Errorf("the verdict is %q", u.Verdict)
		}
		w.wantClosed(t)
	})
}

// forgetVerdict makes the upload one whose check never ended.
func forgetVerdict(t *testing.T, w *world, id string) {
	t.Helper()
	synctest.Wait()
	err := w.meta.Update(t.Context(), func(tx registry.Tx) error {
		b, err := tx.Get("upload/" + id)
		if err != nil {
			return err
		}
		return tx.Put("upload/"+id, []byte(strings.Replace(string(b), `"accepted"`, `""`, 1)))
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestVerdictTellsHowFarItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		o := w.options()
		o.Check = func(ctx context.Context, r io.Reader, _ func(int64) error) (registry.Archive, error) {
			first := make([]byte, 4)
			io.ReadFull(r, first)
			time.Sleep(2500 * time.Millisecond)
			a, err := check(ctx, io.MultiReader(strings.NewReader(string(first)), r), nil)
			return a, err
		}
		r := start(t, o)
		u := upload(t, r, "12345678")
		var told []string
		_, err := r.Verdict(t.Context(), u.ID, func(p registry.CheckProgress) { told = append(told, fmt.Sprint(p)) })
		if want := []string{"{4 8 false}", "{4 8 false}"}; err != nil || !slices.Equal(told, want) {
			t.Errorf("Verdict = %v, told %q, want %q", err, told, want)
		}
	})
}

func TestVerdictStopsWaitingWhenItsCallerDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		o := w.options()
		o.Check = func(ctx context.Context, r io.Reader, _ func(int64) error) (registry.Archive, error) {
			<-ctx.Done()
			return registry.Archive{}, ctx.Err()
		}
		r := start(t, o)
		u := upload(t, r, "content")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := r.Verdict(ctx, u.ID, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Verdict = %v, want the deadline", err)
		}
		r.Close()
	})
}

func TestAPanickingCheckIsNoVerdict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		o := w.options()
		o.Check = func(context.Context, io.Reader, func(int64) error) (registry.Archive, error) { panic("boom") }
		r := start(t, o)
		u := upload(t, r, "content")
		if got, err := r.Verdict(t.Context(), u.ID, nil); err == nil || got.Verdict != registry.Unchecked {
			t.Errorf("Verdict = %+v, %v, want an error", got, err)
		}
		w.wantClosed(t)
	})
}

func TestNoVerdictOnWhatIsNotComplete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := w.open(t)
		in := receive(t, r, "/x", "half of")
		_, err := r.Verdict(t.Context(), in.ID(), nil)
		wantKind(t, "Verdict", err, registry.ErrConflict)
		_, err = r.Verdict(t.Context(), "nosuch", nil)
		wantKind(t, "Verdict of nothing", err, registry.ErrNotFound)
		if err := in.Abort(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestUploadsExpireAfterTheirLastWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // the engine in memory has the bubble's time
		w := newWorld()
		o := w.options()
		o.Now = time.Now
		r := start(t, o)
		upload(t, r, "old")
		slow := receive(t, r, "/slow", "begun")
		time.Sleep(20 * time.Hour)
		young := upload(t, r, "young")
		time.Sleep(10 * time.Hour)
		got, err := r.Sweep(t.Context())
		if err != nil || got.Uploads != 1 {
			t.Errorf("Sweep = %+v, %v, want one upload", got, err)
		}
		all, _ := r.Uploads(t.Context())
		if len(all) != 2 || all[0].ID != slow.ID() || all[1].ID != young.ID {
			t.Errorf("Uploads() = %+v, want the slow and the young one", all)
		}
		finish(t, slow)
		w.wantSpooled(t, 2)
		time.Sleep(100 * time.Hour)
		if _, err := r.Sweep(t.Context()); err != nil {
			t.Error(err)
		}
		wantGone(t, w)
		w.fsck(t)
	})
}
