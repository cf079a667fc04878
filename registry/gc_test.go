package registry_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"deploytools/layers/digest"
	"deploytools/registry"
)

func collect(t *testing.T, r *registry.Registry, o registry.CollectOptions) registry.Collection {
	t.Helper()
	got, err := r.Collect(t.Context(), o)
	if err != nil {
		t.Fatalf("Collect(%+v) = %v", o, err)
	}
	return got
}

// TestADryRunSaysWhatACollectionThenDoes, explains everything that stays, and
// changes nothing.
func TestADryRunSaysWhatACollectionThenDoes(t *testing.T) {
	synctest.Test(t, aDryRunSaysWhatACollectionThenDoes) // whose uploads are old
}

func aDryRunSaysWhatACollectionThenDoes(t *testing.T) {
	w := populated(t)
	o := w.options()
	o.MaxVersions = 1
	r := start(t, o)
	if err := deleteVersion(t.Context(), r, "copy", "v1"); err != nil {
		t.Fatal(err)
	}
	w.clock.advance(25 * time.Hour)
	before := w.records(t)
	dry := collect(t, r, registry.CollectOptions{DryRun: true, Explain: true})
	if after := w.records(t); !maps.Equal(before, after) {
		t.Errorf("a dry run changed records: %v, want %v", after, before)
	}
	real := collect(t, r, registry.CollectOptions{})
	if !slices.Equal(dry.Gone, real.Gone) || len(real.Gone) == 0 {
		t.Errorf("Collect removed %+v, the dry run said %+v", real.Gone, dry.Gone)
	}
	for _, kind := range []registry.ItemKind{registry.UploadItem, registry.VersionItem, registry.BlobItem} {
		if real.Count(kind) == 0 {
			t.Errorf("no %s is gone: nothing was tested", kind)
		}
	}
	if len(real.Kept) != 0 {
		t.Errorf("Collect explains without being asked: %+v", real.Kept)
	}
	w.fsck(t)
	why := map[string]string{}
	for _, i := range dry.Kept {
		why[i.Name] = i.Why
	}
	left := w.records(t)
	for key := range left {
		group, name, _ := strings.Cut(key, "/")
		if group == "version" && why[strings.Replace(name, "/", ":", 1)] == "" {
			t.Errorf("nothing explains %s: %v", key, why)
		}
	}
	for b := range w.blobs.List(t.Context()) {
		if why[b.Digest.String()] == "" {
			t.Errorf("nothing explains the blob %s", b.Digest)
		}
	}
	if got := why["code:v1"]; !strings.Contains(got, "revision 1 of ") {
		t.Errorf("code:v1 stays because %q", got)
	}
}

// TestMaxVersionsNeverTakesTheWayBack (U-23): at each time, every revision within
// the window can be rolled back to.
func TestMaxVersionsNeverTakesTheWayBack(t *testing.T) {
	w := newWorld()
	o := w.options()
	o.MaxVersions, o.RollbackWindow = 2, 4
	r := start(t, o)
	for i := range 12 {
		add(t, r, "code", fmt.Sprint("v", i), fmt.Sprint("content ", i))
		if i == 0 {
			if _, err := r.AddConfiguration(t.Context(), act, "web", []registry.LayerRef{{Component: "code", Version: "v0"}}, registry.Checks{}, false); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if i%3 > 0 { // not every version is deployed
			continue
		}
		if _, err := r.BumpConfiguration(t.Context(), act, "web", []string{"code"}); err != nil {
			t.Fatal(err)
		}
		collect(t, r, registry.CollectOptions{})
	}
	// Revisions 1 to 4 have v0, v3, v6 and v9; v10 and v11 are the newest.
	versions, err := r.Versions(t.Context(), "code")
	if err != nil || len(versions) != 6 {
		t.Errorf("versions %v, %v, want those of four revisions and the two newest", versions, err)
	}
	if _, err := r.Rollback(t.Context(), act, "web", 1); err != nil {
		t.Errorf("Rollback to the end of the window = %v", err)
	}
	w.fsck(t)
}

// TestALowerMaxVersionsTakesEffectAtTheNextCollection, however many go.
func TestALowerMaxVersionsTakesEffectAtTheNextCollection(t *testing.T) {
	w := newWorld()
	r := w.open(t)
	for i := range 40 {
		add(t, r, "code", fmt.Sprint("v", i), fmt.Sprint(i))
	}
	o := w.options()
	o.MaxVersions = 3
	if got := collect(t, start(t, o), registry.CollectOptions{}); got.Count(registry.VersionItem) != 37 {
		t.Errorf("Collect removed %d versions, want 37", got.Count(registry.VersionItem))
	}
	w.fsck(t)
}

// TestCollectionAgainstAddVersion races collections that have no mercy against
// versions that come and go, 10,000 times: a version that was acknowledged has
// its content, always.
func TestCollectionAgainstAddVersion(t *testing.T) {
	const times = 10_000
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		o := w.options()
		o.Now, o.Grace, o.UploadExpiry, o.AuditKeep = time.Now, 1, 1, 10
		r := start(t, o)
		added := 0
		for i := range times {
			rnd := rand.New(rand.NewPCG(uint64(i), 0))
			content := fmt.Sprint("content ", rnd.IntN(3))
			wait := [3]time.Duration{time.Duration(rnd.IntN(3)), time.Duration(rnd.IntN(3)), time.Duration(rnd.IntN(3))}
			var acknowledged bool
			var wg sync.WaitGroup
			wg.Go(func() {
				time.Sleep(wait[0])
				if in, err := r.Receive(t.Context(), caller, "/x"); err == nil {
					in.WriteAt([]byte(content), 0)
					in.Finish(t.Context())
				}
				_, err := addVersion(t.Context(), r, "code", "v", digest.Of([]byte(content)))
				acknowledged = err == nil
			})
			for _, d := range wait[1:] {
				wg.Go(func() {
					time.Sleep(d)
					r.Sweep(t.Context())
				})
			}
			wg.Wait()
			if !acknowledged {
				continue
			}
			added++
			b, _, err := r.OpenLayer(t.Context(), "", digest.Of([]byte(content)))
			if err != nil {
				t.Fatalf("race %d: the version is there, and its content is not: %v", i, err)
			}
			b.Close()
			if err := deleteVersion(t.Context(), r, "code", "v"); err != nil {
				t.Fatal(err)
			}
		}
		if added < times/10 {
			t.Errorf("only %d of %d versions were added: the race proves little", added, times)
		}
		t.Logf("%d of %d versions were added", added, times)
		w.wantSound(t)
	})
}
