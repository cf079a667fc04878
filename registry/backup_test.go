package registry_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"deploytools/layers/digest"
	"deploytools/registry"
)

func (w *world) backup(t *testing.T) []byte {
	t.Helper()
	o := w.options()
	o.Identity = func() (map[string][]byte, error) { return map[string][]byte{"host_key": []byte("secret")}, nil }
	var b bytes.Buffer
	if _, err := start(t, o).Backup(t.Context(), &b, registry.BackupOptions{}); err != nil {
		t.Fatalf("Backup = %v", err)
	}
	return b.Bytes()
}

// restore fills a new world.
func restore(ctx context.Context, backup io.Reader) (*world, registry.Restored, error) {
	w := newWorld()
	got, err := registry.Restore(ctx, w.meta, w.blobs, backup, nil)
	return w, got, err
}

// TestARestoredRegistryIsTheOldOne but for uploads, and for what collection
// would have taken.
func TestARestoredRegistryIsTheOldOne(t *testing.T) {
	old := populated(t)
	w, got, err := restore(t.Context(), bytes.NewReader(old.backup(t)))
	if err != nil || len(got.Faults) > 0 || string(got.Identity["host_key"]) != "secret" {
		t.Fatalf("Restore = %+v, %v", got, err)
	}
	want := old.records(t)
	for key := range want {
		group, rest, _ := strings.Cut(key, "/")
		switch {
		case group == "upload", group == "received", group == "doomed":
			delete(want, key)
		case group == "blob" && old.records(t)["doomed/"+rest] != "":
			delete(want, key)
		}
	}
	if have := w.records(t); !maps.Equal(have, want) {
		t.Errorf("the restored registry has the records\n%v\nwant\n%v", have, want)
	}
	w.fsck(t)
	r := w.open(t)
	if _, err := r.Rollback(t.Context(), act, "web", 0); err != nil {
		t.Errorf("Rollback after the restore = %v", err)
	}
	add(t, r, "code", "v9", "something new")
	w.fsck(t)
}

// TestABackupIsWholeOrRefused cuts it at every other place, and flips a bit of
// every third byte: what is restored from it is then the old registry, or an error.
func TestABackupIsWholeOrRefused(t *testing.T) {
	w := newWorld()
	add(t, w.open(t), "code", "v1", "content")
	whole := w.backup(t)
	restored, _, err := restore(t.Context(), bytes.NewReader(whole))
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n < len(whole); n += 2 {
		_, err := registry.VerifyBackup(t.Context(), bytes.NewReader(whole[:n]))
		if !errors.Is(err, registry.ErrBackup) {
			t.Fatalf("VerifyBackup of the first %d bytes of %d = %v, want ErrBackup", n, len(whole), err)
		}
		if n%50 == 0 {
			if _, _, err := restore(t.Context(), bytes.NewReader(whole[:n])); err == nil {
				t.Fatalf("Restore of the first %d bytes of %d = nil", n, len(whole))
			}
		}
	}
	if _, err := registry.VerifyBackup(t.Context(), io.MultiReader(bytes.NewReader(whole), strings.NewReader("x"))); !errors.Is(err, registry.ErrBackup) {
		t.Errorf("VerifyBackup with a byte too many = %v", err)
	}
	refused, flips := 0, 0
	for n := 0; n < len(whole); n += 3 {
		flips++
		flipped := bytes.Clone(whole)
		flipped[n] ^= 1 << (n % 8)
		other, _, err := restore(t.Context(), bytes.NewReader(flipped))
		if err != nil {
			refused++
		} else if !maps.Equal(other.records(t), restored.records(t)) {
			t.Errorf("a flipped bit at %d is restored", n)
		}
	}
	if refused < flips/4 { // the rest pads entries to full blocks
		t.Errorf("%d of %d flipped bits were refused", refused, flips)
	}
}

// TestABackupWithDamageHoldsTheRest and says what it lacks, also after restoring.
func TestABackupWithDamageHoldsTheRest(t *testing.T) {
	for _, how := range []string{"spoiled", "lost", "known"} {
		w := populated(t)
		d := digest.Of([]byte("code v3"))
		switch how {
		case "lost":
			w.blobs.Delete(t.Context(), d)
		case "known":
			w.spoil(t, d)
			w.faults(t, true)
		default:
			w.spoil(t, d)
		}
		r := w.open(t)
		var b bytes.Buffer
		info, err := r.Backup(t.Context(), &b, registry.BackupOptions{})
		if err != nil || len(info.Damaged) != 1 || info.Damaged[0] != d {
			t.Fatalf("%s: Backup = %+v, %v, want %s damaged", how, info, err, d)
		}
		if _, _, err := r.OpenLayer(t.Context(), "", d); !errors.Is(err, registry.ErrDamaged) {
			t.Errorf("%s: what the backup found damaged is served: %v", how, err)
		}
		verified, err := registry.VerifyBackup(t.Context(), bytes.NewReader(b.Bytes()))
		if err != nil || len(verified.Faults) != 1 || verified.Faults[0].Digest != d {
			t.Errorf("%s: VerifyBackup = %+v, %v, want one fault", how, verified.Faults, err)
		}
		restored, got, err := restore(t.Context(), bytes.NewReader(b.Bytes()))
		if err != nil || len(got.Faults) != 1 || got.Faults[0].Digest != d {
			t.Fatalf("%s: Restore = %+v, %v, want one fault", how, got.Faults, err)
		}
		add(t, restored.open(t), "code", "v3", "code v3")
		restored.fsck(t)
	}
}

// TestARestoreThatCrashesIsAnError at whichever call of an engine.
func TestARestoreThatCrashesIsAnError(t *testing.T) {
	old := populated(t)
	backup := old.backup(t)
	for n := 0; ; n++ {
		w := newWorld()
		o, c := w.crashing(n)
		_, err := registry.Restore(t.Context(), o.Meta, o.Blobs, bytes.NewReader(backup), nil)
		if c.left.Load() >= 0 {
			if err != nil {
				t.Errorf("Restore without a crash = %v", err)
			}
			if n < 5 {
				t.Errorf("there were only %d calls: nothing was tested", n)
			}
			w.fsck(t)
			return
		}
		if err == nil {
			t.Errorf("Restore that crashed at call %d = nil", n)
		}
	}
}

// slowWriter takes a backup only when it is told to.
type slowWriter struct {
	bytes.Buffer
	proceed chan struct{}
}

func (s *slowWriter) Write(p []byte) (int, error) {
	<-s.proceed
	return s.Buffer.Write(p)
}

// TestNothingIsCollectedUnderABackup: it is of one moment, however long it takes
// and whatever is deleted meanwhile.
func TestNothingIsCollectedUnderABackup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		o := w.options()
		o.Now = time.Now
		r := start(t, o)
		add(t, r, "code", "v1", "content")
		add(t, r, "code", "v2", "more")
		out := &slowWriter{proceed: make(chan struct{})}
		done := make(chan error)
		go func() {
			_, err := r.Backup(t.Context(), out, registry.BackupOptions{})
			done <- err
		}()
		synctest.Wait()
		if _, err := r.DeleteComponent(t.Context(), act, "code"); err != nil {
			t.Fatal(err)
		}
		add(t, r, "later", "v1", "later")
		time.Sleep(100 * time.Hour)
		got := collect(t, r, registry.CollectOptions{})
		if got.Count(registry.BlobItem) != 0 || got.Waits == "" {
			t.Errorf("Collect under a backup = %+v", got)
		}
		close(out.proceed)
		if err := <-done; err != nil {
			t.Fatalf("Backup = %v", err)
		}
		restored, _, err := restore(t.Context(), &out.Buffer)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := restored.open(t).Versions(t.Context(), "code"); err != nil || len(got) != 2 {
			t.Errorf("the backup holds %v, %v, want both versions", got, err)
		}
		restored.fsck(t)
		if got := collect(t, r, registry.CollectOptions{}); got.Count(registry.BlobItem) != 4 {
			t.Errorf("Collect after the backup = %+v, want 4 blobs gone", got)
		}
		w.fsck(t)
	})
}

// A client that goes away leaves no backup, and collection goes on.
func TestABackupThatCannotBeWrittenIsAnError(t *testing.T) {
	w := populated(t)
	r := w.open(t)
	var whole bytes.Buffer
	if _, err := r.Backup(t.Context(), &whole, registry.BackupOptions{}); err != nil {
		t.Fatal(err)
	}
	size := whole.Len()
	for _, n := range []int{0, 1, size / 2, size - 1} {
		if _, err := r.Backup(t.Context(), &fullDisk{left: n}, registry.BackupOptions{}); !errors.Is(err, errFull) {
			t.Errorf("Backup to a writer with room for %d bytes of %d = %v", n, size, err)
		}
	}
	if got := collect(t, r, registry.CollectOptions{DryRun: true}); got.Waits != "" {
		t.Errorf("Collect still waits: %s", got.Waits)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Backup(ctx, io.Discard, registry.BackupOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Backup that is cancelled = %v", err)
	}
}

var errFull = errors.New("no room")

type fullDisk struct{ left int }

func (f *fullDisk) Write(p []byte) (int, error) {
	if f.left -= len(p); f.left < 0 {
		return 0, errFull
	}
	return len(p), nil
}

// TestANewerBackupIsRefused before anything is made of it.
func TestANewerBackupIsRefused(t *testing.T) {
	w := newWorld()
	text := bytes.Replace(w.backup(t), []byte(`"Format": 1`), []byte(`"Format": 2`), 1)
	_, _, err := restore(t.Context(), bytes.NewReader(text))
	if err == nil || !strings.Contains(err.Error(), "newer deploy-registry") {
		t.Errorf("Restore = %v", err)
	}
}
