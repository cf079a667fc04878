package registry_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"deploytools/layers/digest"
	"deploytools/registry"
	"deploytools/registry/enginetest"
)

// spoil flips a bit of the blob d.
func (w *world) spoil(t *testing.T, d digest.Digest) {
	t.Helper()
	b, err := w.blobs.Open(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	content := make([]byte, b.Size())
	b.ReadAt(content, 0)
	content[0] ^= 1
	w.blobs.(*enginetest.MemoryBlobs).Spoil(d, content)
}

// TestDamageIsNamedAndMendedByTheSameContent, whether it hits the layer or its
// manifest, spoils or loses it, and whichever name is given to what mends it.
func TestDamageIsNamedAndMendedByTheSameContent(t *testing.T) {
	for _, what := range []string{"layer", "manifest"} {
		for _, how := range []string{"spoiled", "lost"} {
			for _, version := range []string{"v1", "v2"} {
				t.Run(what+" "+how+" "+version, func(t *testing.T) {
					w := newWorld()
					r := w.open(t)
					v := add(t, r, "code", "v1", "content").Version
					d := v.Digest
					if what == "manifest" {
						d = v.Manifest
					}
					if w.spoil(t, d); how == "lost" {
						w.blobs.Delete(t.Context(), d)
					}
					if got := w.faults(t, true); len(got) != 1 || got[0].Digest != d {
						t.Fatalf("Fsck = %+v, want %s", got, d)
					}
					if got, err := r.Damaged(t.Context()); err != nil || len(got) != 1 || got[0].Digest != d {
						t.Errorf("Damaged = %+v, %v, want %s", got, err, d)
					}
					if _, _, err := r.OpenLayer(t.Context(), "", v.Digest); what == "layer" {
						wantKind(t, "OpenLayer of what is damaged", err, registry.ErrDamaged)
					} else if err != nil {
						t.Errorf("OpenLayer, where only the manifest is damaged = %v", err)
					}
					_, err := addVersion(t.Context(), r, "code", version, v.Digest)
					wantKind(t, "AddVersion of damaged content without an upload", err, registry.ErrNotFound)

					add(t, r, "code", version, "content")
					b, _, err := r.OpenLayer(t.Context(), "", v.Digest)
					if err != nil {
						t.Fatalf("OpenLayer of what was mended = %v", err)
					}
					got := make([]byte, b.Size())
					b.ReadAt(got, 0)
					if string(got) != "content" {
						t.Errorf("the mended layer holds %q", got)
					}
					w.wantSpooled(t, 0)
					w.fsck(t)
				})
			}
		}
	}
}

// An upload that was accepted before its manifest was damaged cannot mend it,
// and says so; the next one can.
func TestAnOlderUploadDoesNotMendItsManifest(t *testing.T) {
	w := newWorld()
	r := w.open(t)
	u := verdict(t, r, upload(t, r, "content"))
	addver(t, r, "code", "v1", "content")
	older := verdict(t, r, upload(t, r, "content"))
	w.spoil(t, u.Manifest)
	w.faults(t, true)
	if _, err := addVersion(t.Context(), r, "code", "v1", older.Digest); !errors.Is(err, registry.ErrDamaged) {
		t.Errorf("AddVersion = %v, want ErrDamaged", err)
	}
	add(t, r, "code", "v1", "content")
	w.fsck(t)
}

// scrub scrubs until stop is called.
func scrub(t *testing.T, r *registry.Registry, o registry.ScrubOptions) (stop func()) {
	t.Helper()
	if o.Damaged == nil {
		o.Damaged = func(d digest.Digest, reason string) { t.Errorf("the scrub finds %s damaged: %s", d, reason) }
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Scrub(ctx, o) }()
	return func() {
		t.Helper()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Scrub = %v", err)
		}
	}
}

// TestScrubFindsDamageAndKeepsItsPace: one round takes the period, each blob has
// its place in it, and what was spoiled is named once a round.
func TestScrubFindsDamageAndKeepsItsPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		o := w.options()
		o.Now = time.Now
		r := start(t, o)
		for _, c := range []string{"a", "b", "c"} {
			add(t, r, "code", c, c)
		}
		d := digest.Of([]byte("b"))
		w.spoil(t, d)
		var found []digest.Digest
		stop := scrub(t, r, registry.ScrubOptions{Period: 70 * time.Hour, Damaged: func(d digest.Digest, _ string) { found = append(found, d) }})
		time.Sleep(time.Minute) // reading takes its time
		for hour := 1; hour <= 69; hour++ {
			time.Sleep(time.Hour)
			synctest.Wait()
			s, err := r.Scrubbed(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if want := hour / 10; s.Blobs != min(want, 6) {
				t.Errorf("after %d hours of 70, %d of 6 blobs were read, want %d", hour, s.Blobs, want)
			}
		}
		if !slices.Equal(found, []digest.Digest{d}) {
			t.Errorf("the scrub found %v, want %s", found, d)
		}
		if _, _, err := r.OpenLayer(t.Context(), "", d); !errors.Is(err, registry.ErrDamaged) {
			t.Errorf("OpenLayer after the scrub = %v, want ErrDamaged", err)
		}
		add(t, r, "code", "b", "b")
		time.Sleep(73 * time.Hour)
		stop()
		if s, err := r.Scrubbed(t.Context()); err != nil || s.Ended.IsZero() || s.Bad != 0 {
			t.Errorf("Scrubbed = %+v, %v, want a second round without damage", s, err)
		}
	})
}

// TestScrubGoesOnAfterARestart where it was: no blob is read twice in a round,
// and none is left out.
func TestScrubGoesOnAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		o := w.options()
		o.Now = time.Now
		reads := map[digest.Digest]int{}
		for _, c := range []string{"a", "b", "c", "d"} {
			add(t, start(t, o), "code", c, c)
		}
		o.Blobs = reading{w.blobs, reads}
		for range 9 { // restarts, 10 hours apart
			r := registry.New(o)
			ctx, stop := context.WithCancel(t.Context())
			done := make(chan error)
			go func() {
				done <- r.Scrub(ctx, registry.ScrubOptions{Period: 90 * time.Hour, Damaged: func(digest.Digest, string) {}})
			}()
			time.Sleep(10*time.Hour - time.Second)
			stop()
			<-done
			r.Close()
			time.Sleep(time.Second)
		}
		if len(reads) != 8 {
			t.Errorf("%d blobs were read, want 8", len(reads))
		}
		for d, n := range reads {
			if n != 1 {
				t.Errorf("blob %s was read %d times in one round", d, n)
			}
		}
	})
}

// TestScrubIsSlow: even a round that is long overdue reads at its rate at most.
func TestScrubIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		o := w.options()
		o.Now = time.Now
		r := start(t, o)
		content := string(make([]byte, 4<<20))
		finish(t, receive(t, r, "/big", content))
		addver(t, r, "code", "v1", content)
		stop := scrub(t, r, registry.ScrubOptions{Period: 1, Rate: 1 << 20})
		time.Sleep(4 * time.Second)
		stop()
		if s, err := r.Scrubbed(t.Context()); err != nil || s.Bytes > 4<<20 || s.Ended != (time.Time{}) {
			t.Errorf("after 4 s, 1 MiB/s has read %+v, %v", s, err)
		}
	})
}

// reading counts who opens which blob.
type reading struct {
	registry.Blobs
	opened map[digest.Digest]int
}

func (r reading) Open(ctx context.Context, d digest.Digest) (registry.Blob, error) {
	r.opened[d]++
	return r.Blobs.Open(ctx, d)
}

// TestDamageIsNamedWhereNothingCanBeStored: a registry whose disk refuses writes
// can still be looked at, and backed up.
func TestDamageIsNamedWhereNothingCanBeStored(t *testing.T) {
	w := populated(t)
	d, lost := digest.Of([]byte("code v1")), digest.Of([]byte("config v1"))
	w.spoil(t, d)
	w.blobs.Delete(t.Context(), lost)
	o := w.options()
	o.Meta = broken{w.meta}
	r := start(t, o)
	got, err := r.Fsck(t.Context(), registry.FsckOptions{ReadData: true})
	if err != nil || len(got.Faults) != 2 || got.Faults[0].Digest != lost || got.Faults[1].Digest != d {
		t.Errorf("Fsck = %+v, %v, want %s and %s", got.Faults, err, lost, d)
	}
	info, err := r.Backup(t.Context(), io.Discard, registry.BackupOptions{})
	if err != nil || !slices.Contains(info.Damaged, d) || !slices.Contains(info.Damaged, lost) {
		t.Errorf("Backup = %+v, %v, want %s and %s named", info, err, lost, d)
	}
}

// A damaged manifest tells nobody what a layer holds.
func TestADamagedManifestIsNotShown(t *testing.T) {
	w := newWorld()
	r := w.open(t)
	v := add(t, r, "code", "v1", "content").Version
	w.spoil(t, v.Manifest)
	w.faults(t, true)
	for _, err := range r.Files(t.Context(), "", registry.Side{Name: "code:v1", Digest: v.Digest}) {
		wantKind(t, "Files of a layer with a damaged manifest", err, registry.ErrDamaged)
	}
}
