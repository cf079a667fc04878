package registry_test

import (
	"context"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"deploytools/layers/digest"
	"deploytools/registry"
)

func TestCollectionWaitsForTheGrace(t *testing.T) {
	w := newWorld()
	r := w.open(t)
	add(t, r, "code", "v1", "content")
	if err := deleteVersion(t.Context(), r, "code", "v1"); err != nil {
		t.Fatal(err)
	}
	w.clock.advance(24*time.Hour - time.Second)
	if got, err := r.Sweep(t.Context()); got.Blobs != 0 || err != nil {
		t.Errorf("Sweep within the grace = %+v, %v", got, err)
	}
	w.clock.advance(time.Second)
	if got, err := r.Sweep(t.Context()); got.Blobs != 2 || err != nil {
		t.Errorf("Sweep = %+v, %v, want the layer and its manifest", got, err)
	}
	wantCollected(t, w, r, 0)
}

func TestWhatIsTakenBackStays(t *testing.T) {
	w := newWorld()
	r := w.open(t)
	add(t, r, "code", "v1", "content")
	if err := deleteVersion(t.Context(), r, "code", "v1"); err != nil {
		t.Fatal(err)
	}
	addver(t, r, "code", "v2", "content") // within the grace: no upload is needed
	wantCollected(t, w, r, 2)
}

// What two versions share goes with the second.
func TestSharedContentStays(t *testing.T) {
	w := newWorld()
	r := w.open(t)
	add(t, r, "code", "v1", "content")
	addver(t, r, "code", "v2", "content")
	if err := deleteVersion(t.Context(), r, "code", "v1"); err != nil {
		t.Fatal(err)
	}
	wantCollected(t, w, r, 2)
	if err := deleteVersion(t.Context(), r, "code", "v2"); err != nil {
		t.Fatal(err)
	}
	wantCollected(t, w, r, 0)
}

// Two archives of one tree have one manifest.
func TestASharedManifestStays(t *testing.T) {
	w := newWorld()
	o := w.options()
	o.Check = func(ctx context.Context, r io.Reader, _ func(int64) error) (registry.Archive, error) {
		a, err := check(ctx, r, nil)
		a.Manifest = nil
		return a, err
	}
	r := start(t, o)
	add(t, r, "code", "v1", "packed")
	add(t, r, "code", "v2", "packed well")
	if err := deleteVersion(t.Context(), r, "code", "v1"); err != nil {
		t.Fatal(err)
	}
	wantCollected(t, w, r, 2)
}

// TestAnUploadOutlivesNoManifest: the manifest of an accepted upload is doomed
// until a version comes. It may not go before the upload does.
func TestAnUploadOutlivesNoManifest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		o := w.options()
		o.Now, o.Grace, o.UploadExpiry = time.Now, time.Hour, 48*time.Hour
		r := start(t, o)
		verdict(t, r, upload(t, r, "content"))
		time.Sleep(40 * time.Hour)
		if _, err := r.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		addver(t, r, "code", "v1", "content")
		w.fsck(t)
	})
}

// TestAManifestThatIsGoneIsMadeAgain: the mark of the manifest is older than
// that of its layer, and the layer alone is of no use.
func TestAManifestThatIsGoneIsMadeAgain(t *testing.T) {
	w := newWorld()
	r := w.open(t)
	v := add(t, r, "code", "v1", "content").Version
	if err := deleteVersion(t.Context(), r, "code", "v1"); err != nil {
		t.Fatal(err)
	}
	// A crash after the manifest was collected, and before the layer was.
	err := w.meta.Update(t.Context(), func(tx registry.Tx) error { return tx.Delete("doomed/" + v.Manifest.String()) })
	if err == nil {
		err = w.blobs.Delete(t.Context(), v.Manifest)
	}
	if err != nil {
		t.Fatal(err)
	}
	_, err = addVersion(t.Context(), r, "code", "v2", v.Digest)
	wantKind(t, "AddVersion without the manifest", err, registry.ErrNotFound)
	w.fsck(t)
	add(t, r, "code", "v2", "content")
	wantCollected(t, w, r, 2)
}

// TestALayerAndItsManifestAreDoomedTogether: the manifest is as old as the
// verdict, the layer as the attempt to make a version of it.
func TestALayerAndItsManifestAreDoomedTogether(t *testing.T) {
	d := digest.Of([]byte("content"))
	for n := 0; ; n++ {
		w := newWorld()
		r := w.open(t)
		verdict(t, r, upload(t, r, "content"))
		w.clock.advance(23 * time.Hour)
		o, _ := w.crashing(n)
		if _, err := addVersion(t.Context(), start(t, o), "code", "v1", d); err == nil {
			t.Fatal("AddVersion never stops between the layer and the version")
		}
		if stored, err := r.HasLayer(t.Context(), d); err != nil || !stored {
			continue
		}
		w.clock.advance(2 * time.Hour)
		if _, err := r.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		addver(t, r, "code", "v1", "content")
		wantCollected(t, w, r, 2)
		return
	}
}

// blockedDelete is a Blobs whose Delete waits.
type blockedDelete struct {
	registry.Blobs
	proceed chan struct{}
}

func (b blockedDelete) Delete(ctx context.Context, d digest.Digest) error {
	<-b.proceed
	return b.Blobs.Delete(ctx, d)
}

// TestWhatIsBeingDeletedIsNotTakenBack: the file goes outside of any Update.
func TestWhatIsBeingDeletedIsNotTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		o := w.options()
		blocked := blockedDelete{w.blobs, make(chan struct{})}
		o.Blobs = blocked
		r := start(t, o)
		d := add(t, r, "code", "v1", "content").Version.Digest
		if err := deleteVersion(t.Context(), r, "code", "v1"); err != nil {
			t.Fatal(err)
		}
		w.clock.advance(48 * time.Hour)
		swept := make(chan error)
		go func() {
			_, err := r.Sweep(t.Context())
			swept <- err
		}()
		synctest.Wait()
		if ok, err := r.HasLayer(t.Context(), d); ok || err != nil {
			t.Errorf("HasLayer = %t, %v while it is being collected", ok, err)
		}
		if _, err := addVersion(t.Context(), r, "code", "v2", d); err == nil {
			t.Error("AddVersion takes back what is being deleted")
		}
		close(blocked.proceed)
		if err := <-swept; err != nil {
			t.Error(err)
		}
		add(t, r, "code", "v2", "content")
		wantCollected(t, w, r, 2)
	})
}

// TestABlobDoomedAnewHasItsWholeGrace: between the look at the marks and the
// deletion of the first blob, the second one is stored again.
func TestABlobDoomedAnewHasItsWholeGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		o := w.options()
		blocked := blockedDelete{w.blobs, make(chan struct{})}
		o.Blobs = blocked
		r := start(t, o)
		contents := []string{"one", "two", "three", "four"}
		for _, c := range contents {
			add(t, r, "code", c, c)
			if err := deleteVersion(t.Context(), r, "code", c); err != nil {
				t.Fatal(err)
			}
		}
		w.clock.advance(48 * time.Hour)
		swept := make(chan error)
		go func() {
			_, err := r.Sweep(t.Context())
			swept <- err
		}()
		synctest.Wait()
		saved := 0
		for _, c := range contents { // added and deleted again: doomed anew
			if _, err := addVersion(t.Context(), r, "code", c, digest.Of([]byte(c))); err == nil {
				saved++
				if err := deleteVersion(t.Context(), r, "code", c); err != nil {
					t.Error(err)
				}
			}
		}
		close(blocked.proceed)
		if err := <-swept; err != nil {
			t.Error(err)
		}
		for _, c := range contents {
			if ok, err := r.HasLayer(t.Context(), digest.Of([]byte(c))); err != nil {
				t.Error(err)
			} else if ok {
				saved--
			}
		}
		if saved != 0 {
			t.Errorf("%d layers were collected within their grace", saved)
		}
		w.fsck(t)
	})
}

// TestCollectionBesideEverything sweeps while versions come and go: at no time
// is a version without its content (I7).
func TestCollectionBesideEverything(t *testing.T) {
	for seed := range uint64(10) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			o := w.options()
			o.Grace, o.UploadExpiry = 1, 1 // everything is due at once
			o.Now = time.Now
			r := start(t, o)
			var wg sync.WaitGroup
			for i := range 4 {
				wg.Go(func() {
					rnd := rand.New(rand.NewPCG(seed, uint64(i)))
					for range 15 {
						content := string(rune('a' + rnd.IntN(3)))
						time.Sleep(time.Duration(rnd.IntN(4)))
						switch rnd.IntN(4) {
						case 0:
							r.Sweep(t.Context())
						case 1:
							deleteVersion(t.Context(), r, "code", content)
						default:
							if in, err := r.Receive(t.Context(), caller, "/x"); err == nil {
								in.WriteAt([]byte(content), 0)
								in.Finish(t.Context())
							}
							addVersion(t.Context(), r, "code", content, digest.Of([]byte(content)))
						}
					}
				})
			}
			wg.Wait()
			synctest.Wait()
			w.fsck(t)
			versions, _ := r.Versions(t.Context(), "code")
			time.Sleep(time.Hour)
			for range 2 {
				if _, err := r.Sweep(t.Context()); err != nil {
					t.Error(err)
				}
				time.Sleep(time.Hour)
			}
			w.fsck(t)
			n := 0
			for range w.blobs.List(t.Context()) {
				n++
			}
			if n != 2*len(versions) {
				t.Errorf("seed %d: %d blobs for %d versions", seed, n, len(versions))
			}
			w.wantClosed(t)
		})
	}
}
