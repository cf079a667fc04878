package registry_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"deploytools/layers/digest"
	"deploytools/registry"
)

func suspend(t *testing.T, in *registry.Incoming) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // the session is gone
	if err := in.Suspend(ctx); err != nil {
		t.Fatalf("Suspend = %v", err)
	}
}

func resume(t *testing.T, r *registry.Registry, id string) *registry.Incoming {
	t.Helper()
	in, err := r.Resume(t.Context(), caller, id)
	if err != nil {
		t.Fatalf("Resume = %v", err)
	}
	return in
}

// only returns the one upload that is there.
func only(t *testing.T, r *registry.Registry) registry.UploadState {
	t.Helper()
	all, err := r.Uploads(t.Context())
	if err != nil || len(all) != 1 {
		t.Fatalf("Uploads() = %+v, %v, want one", all, err)
	}
	return all[0]
}

// TestAnUploadGoesOn: the same whether the registry was stopped meanwhile.
func TestAnUploadGoesOn(t *testing.T) {
	for name, restart := range map[string]bool{"the connection was cut": false, "the registry was restarted": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				r := w.open(t)
				in := receive(t, r, "/x", "half of")
				write(t, in, "beyond a gap", 20) // lost: it is not known to be gapless
				synctest.Wait()
				suspend(t, in)
				w.wantClosed(t)
				if restart {
					r.Close()
					r = w.open(t)
				}
				u := only(t, r)
				if u.Complete || u.Receiving || !u.Suspended || u.Size != 7 {
					t.Errorf("the upload is %+v, want 7 bytes that can go on", u)
				}
				_, err := addVersion(t.Context(), r, "code", "v1", digest.Of([]byte("half of")))
				wantKind(t, "AddVersion of a part", err, registry.ErrNotFound)
				in = resume(t, r, u.ID)
				if n := in.Size(); n != 7 {
					t.Errorf("Size() = %d after Resume, want 7", n)
				}
				write(t, in, " it", 7)
				if u = verdict(t, r, finish(t, in)); u.Digest != digest.Of([]byte("half of it")) || u.Suspended {
					t.Errorf("the upload is %+v, want the digest of all", u)
				}
				wantStored(t, r, u, "half of it")
				addver(t, r, "code", "v1", "half of it")
				w.wantClosed(t)
				w.fsck(t)
			})
		})
	}
}

// A dead registry leaves a file whose end may have gaps, as far as the window
// goes, and a record that says nothing.
func TestWhatADeadRegistryLeavesCanGoOn(t *testing.T) {
	const window = 16 << 20
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		dead := registry.New(w.options())
		content := strings.Repeat("0123456789abcdef", (window+1000)/16)
		in := receive(t, dead, "/x", content)
		if u := only(t, dead); !u.Receiving || u.Size != int64(len(content)) {
			t.Errorf("while it comes, the upload is %+v", u)
		}
		r := w.open(t)
		u := only(t, r)
		if u.Receiving || u.Complete || u.Size != int64(len(content))-window {
			t.Errorf("after the death: receiving %t, %d bytes, want %d that are surely there", u.Receiving, u.Size, len(content)-window)
		}
		again := resume(t, r, u.ID)
		if again.Size() != u.Size {
			t.Errorf("Size() = %d after Resume, want %d", again.Size(), u.Size)
		}
		write(t, again, content[u.Size:], u.Size)
		if u = finish(t, again); u.Digest != digest.Of([]byte(content)) {
			t.Errorf("the digest is %s, want that of the content", u.Digest)
		}
		verdict(t, r, u)
		in.Abort(t.Context()) // what is left of the dead one in this bubble
		dead.Close()
	})
}

func TestWhatIsRefusedGoesOnInPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := w.open(t)
		bad, good := verdict(t, r, upload(t, r, "bad")), verdict(t, r, upload(t, r, "good"))
		_, err := r.Resume(t.Context(), caller, good.ID)
		wantKind(t, "Resume of an acceptable upload", err, registry.ErrConflict)
		in := resume(t, r, bad.ID)
		_, err = addVersion(t.Context(), r, "code", "v1", bad.Digest)
		wantKind(t, "AddVersion of what goes on", err, registry.ErrNotFound)
		write(t, in, "fine", 0)
		if u := verdict(t, r, finish(t, in)); u.Verdict != registry.Accepted || u.Digest != digest.Of([]byte("fine")) || u.Reason != "" {
			t.Errorf("the upload is %+v, want an accepted one", u)
		}
		w.wantClosed(t)
		w.fsck(t)
	})
}

func TestResumeIsBoundToTheKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := w.open(t)
		in := receive(t, r, "/x", "half of")
		suspend(t, in)
		bob := registry.Caller{User: "ann", Role: registry.Admin, Fingerprint: "SHA256:bob"}
		_, err := r.Resume(t.Context(), bob, in.ID())
		wantKind(t, "Resume by another key", err, registry.ErrNotFound)
		if u := only(t, r); !u.Suspended || u.Size != 7 {
			t.Errorf("the upload is %+v after it", u)
		}
		w.wantClosed(t)
	})
}

// Half-open connections last for minutes: whoever comes back sooner goes on all
// the same, but nobody takes an upload from a writer that writes.
func TestAStalledUploadIsTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := w.open(t)
		old := receive(t, r, "/x", "half of")
		_, err := r.Resume(t.Context(), caller, old.ID())
		wantKind(t, "Resume of what is being written", err, registry.ErrConflict)
		w.clock.advance(11 * time.Second)
		in := resume(t, r, old.ID())
		if _, err := old.WriteAt([]byte("late"), 7); err == nil {
			t.Error("the old session still writes")
		}
		if _, err := old.Finish(t.Context()); err == nil {
			t.Error("the old session ends the upload")
		}
		if err := old.Suspend(t.Context()); err != nil {
			t.Errorf("Suspend of the old session = %v", err)
		}
		write(t, in, " it", 7)
		if u := finish(t, in); u.Digest != digest.Of([]byte("half of it")) {
			t.Errorf("the digest is %s, want that of all", u.Digest)
		}
	})
}

// TestOneGoesOn lets many sessions resume the same upload at once.
func TestOneGoesOn(t *testing.T) {
	for name, prepare := range map[string]func(*testing.T, *world) string{
		"suspended": func(t *testing.T, w *world) string {
			in := receive(t, w.open(t), "/x", "half of")
			suspend(t, in)
			return in.ID()
		},
		"left by a dead registry": func(t *testing.T, w *world) string {
			r := w.open(t)
			in := receive(t, r, "/x", "half of")
			suspend(t, in)
			forgetSuspension(t, w, in.ID())
			return in.ID()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				id := prepare(t, w)
				w.spool = slowSpool{w.spool}
				r := w.open(t)
				var mu sync.Mutex
				var got []*registry.Incoming
				var wg sync.WaitGroup
				for range 8 {
					wg.Go(func() {
						in, err := r.Resume(t.Context(), caller, id)
						mu.Lock()
						defer mu.Unlock()
						if err == nil {
							got = append(got, in)
						} else if !errors.Is(err, registry.ErrConflict) {
							t.Errorf("Resume = %v, want a conflict", err)
						}
					})
				}
				wg.Wait()
				if len(got) != 1 {
					t.Fatalf("%d sessions go on with it, want 1", len(got))
				}
				write(t, got[0], "all of it", 0)
				finish(t, got[0])
			})
		})
	}
}

// forgetSuspension makes the upload one whose registry died.
func forgetSuspension(t *testing.T, w *world, id string) {
	t.Helper()
	err := w.meta.Update(t.Context(), func(tx registry.Tx) error {
		b, err := tx.Get("upload/" + id)
		if err != nil {
			return err
		}
		return tx.Put("upload/"+id, bytes.Replace(b, []byte(`"Suspended":true,`), nil, 1))
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestNothingCannotGoOn(t *testing.T) {
	for name, act := range map[string]func(t *testing.T, in *registry.Incoming){
		"nothing has come":     func(t *testing.T, in *registry.Incoming) { truncate(t, in, 0) },
		"it begins with a gap": func(t *testing.T, in *registry.Incoming) { truncate(t, in, 0); write(t, in, "x", 5) },
		"a write has failed":   func(t *testing.T, in *registry.Incoming) { in.WriteAt([]byte("x"), -1) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				in := receive(t, w.open(t), "/x", "abc")
				act(t, in)
				suspend(t, in)
				wantGone(t, w)
			})
		})
	}
}

// The one rule for sparse uploads and for those in disorder.
func TestTheWindow(t *testing.T) {
	const window = 16 << 20
	for name, test := range map[string]struct {
		act  func(in *registry.Incoming) error
		want error
	}{
		"the farthest write": {func(in *registry.Incoming) error { _, err := in.WriteAt([]byte("x"), 3+window); return err }, nil},
		"one too far":        {func(in *registry.Incoming) error { _, err := in.WriteAt([]byte("x"), 4+window); return err }, registry.ErrRefused},
		"a petabyte away":    {func(in *registry.Incoming) error { _, err := in.WriteAt([]byte("x"), 1<<33); return err }, registry.ErrRefused},
		"the size first":     {func(in *registry.Incoming) error { return in.Truncate(1 << 33) }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				in := receive(t, w.open(t), "/x", "abc")
				if err := test.act(in); !errors.Is(err, test.want) {
					t.Errorf("= %v, want %v", err, test.want)
				}
				if err := in.Abort(t.Context()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestAnUploadWithAGapIsRefused(t *testing.T) {
	for name, act := range map[string]func(t *testing.T, in *registry.Incoming){
		"its end was never written":       func(t *testing.T, in *registry.Incoming) { write(t, in, "abc", 0); truncate(t, in, 1<<33) },
		"its beginning was never written": func(t *testing.T, in *registry.Incoming) { write(t, in, "abc", 100) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				in := receive(t, w.open(t), "/x", "")
				act(t, in)
				_, err := in.Finish(t.Context())
				wantKind(t, "Finish", err, registry.ErrRefused)
				wantGone(t, w)
			})
		})
	}
}

func TestSizeFirstThenContent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := w.open(t)
		in := receive(t, r, "/x", "")
		truncate(t, in, 7)
		if in.Size() != 7 {
			t.Errorf("Size() = %d, want the one that was set", in.Size())
		}
		write(t, in, "con", 0)
		write(t, in, "tent", 3)
		if u := verdict(t, r, finish(t, in)); u.Digest != digest.Of([]byte("content")) {
			t.Errorf("the digest is %s, want that of the content", u.Digest)
		}
	})
}

func TestWhatIsLeftExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.clock.set(time.Now()) // the spool has the bubble's time
		r := w.open(t)
		suspend(t, receive(t, r, "/x", "half of"))
		if err := r.MakeDir(t.Context(), caller, "/dir"); err != nil {
			t.Fatal(err)
		}
		w.clock.advance(23 * time.Hour)
		if _, err := r.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		only(t, r)
		w.clock.advance(2 * time.Hour)
		if _, err := r.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantGone(t, w)
		if b, err := r.DropBox(t.Context(), caller); err != nil || b.IsDir("/dir") {
			t.Errorf("DropBox = %+v, %v, want none", b, err)
		}
	})
}

// A crash before the first byte leaves a record without content.
func TestNothingIsThereToGoOnWith(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := w.open(t)
		in := receive(t, r, "/x", "half of")
		suspend(t, in)
		if err := w.spool.Remove(t.Context(), in.ID()); err != nil {
			t.Fatal(err)
		}
		_, err := r.Resume(t.Context(), caller, in.ID())
		wantKind(t, "Resume without content", err, registry.ErrNotFound)
		putAt(t, r, "/x", "content")
		if u := only(t, r); !u.Complete {
			t.Errorf("left is %+v, want the complete upload", u)
		}
		synctest.Wait()
		w.wantClosed(t)
	})
}

// The end of the file, which is not trusted, does not come back.
func TestWhatIsNotSurelyThereIsCutOff(t *testing.T) {
	const window = 16 << 20
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		dead := registry.New(w.options())
		in := receive(t, dead, "/x", strings.Repeat("x", window+3))
		r := w.open(t)
		again := resume(t, r, in.ID())
		if u := finish(t, again); u.Size != 3 || u.Digest != digest.Of([]byte("xxx")) {
			t.Errorf("the upload is %+v, want the first 3 bytes", u)
		}
		in.Abort(t.Context())
		dead.Close()
	})
}

// lostSync is a spool whose disk fails when it is to be sure.
type lostSync struct{ registry.Spool }

type lostSyncUpload struct{ registry.Upload }

func (s lostSync) Create(ctx context.Context, name string) (registry.Upload, error) {
	u, err := s.Spool.Create(ctx, name)
	return lostSyncUpload{u}, err
}

func (lostSyncUpload) Sync() error { return errDisk }

// A power cut after the record of a part must not take what it says is there.
func TestAPartIsDurableOrNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		o := w.options()
		o.Spool = lostSync{o.Spool}
		in := receive(t, start(t, o), "/x", "half of")
		if err := in.Suspend(t.Context()); !errors.Is(err, errDisk) {
			t.Errorf("Suspend = %v, want the disk's error", err)
		}
		wantGone(t, w)
	})
}
