package fsblobs

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"deploytools/layers/digest"
	"deploytools/registry"
)

// wantWhole expects that each blob of b has its digest, and returns them.
func wantWhole(t *testing.T, b *Blobs) map[digest.Digest]bool {
	t.Helper()
	all := map[digest.Digest]bool{}
	for info, err := range b.List(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		c, err := os.ReadFile(b.path(info.Digest))
		if err != nil || digest.Of(c) != info.Digest {
			t.Fatalf("blob %s has %d bytes that do not match, %v", info.Digest, len(c), err)
		}
		all[info.Digest] = true
	}
	return all
}

// names returns what is in the directory.
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// TestAcknowledgedSurvivesKill kills a process that stores, adopts and deletes
// at many moments: what it said to be done is done, and the task that was cut
// is done, not begun, or can be finished.
func TestAcknowledgedSurvivesKill(t *testing.T) {
	dir, random, cuts := t.TempDir(), rand.New(rand.NewPCG(5, 6)), map[string]int{}
	for next, round := 1, 0; round < 40; round++ {
		cmd, lines := startChild(t, "work", dir, next)
		done := next - 1
		for i := random.IntN(12); lines.Scan(); i-- {
			done, _ = strconv.Atoi(lines.Text())
			if i <= 0 {
				for range random.IntN(3000) { // not always at the same place
					runtime.Gosched()
				}
				cmd.Process.Kill()
			}
		}
		cmd.Wait()
		if done < next {
			t.Fatalf("the child did nothing from task %d on", next)
		}
		b, s := open(t, dir)
		before := len(names(t, b.s.files))
		if err := b.Sweep(); err != nil {
			t.Fatal(err)
		}
		if len(names(t, b.s.files)) != before {
			cuts["in a put"]++
		}
		blobs := wantWhole(t, b)
		for n := next; n <= done; n++ {
			if want := n%3 != 2; blobs[digest.Of(content(n))] != want {
				t.Fatalf("task %d was acknowledged, but its blob is there: %t", n, !want)
			}
		}
		for info, err := range s.List(t.Context()) {
			if err != nil || info.Name != uploadName(done+1) {
				t.Fatalf("the spool has %+v, %v after task %d", info, err, done)
			}
			cuts["in an upload"]++
		}
		if (done+1)%3 == 1 {
			finish(t, b, s, done+1)
		}
		for _, name := range names(t, b.s.files) {
			if _, err := digest.Parse(name); err != nil {
				t.Fatalf("%s is left after Sweep", name)
			}
		}
		next = done + 2
	}
	t.Logf("cuts: %v", cuts)
}

// finish brings the upload of task n, which was cut, to its end.
func finish(t *testing.T, b *Blobs, s *Spool, n int) {
	t.Helper()
	u, err := s.Resume(t.Context(), uploadName(n))
	if errors.Is(err, registry.ErrNoUpload) {
		return // not begun, or adopted: wantWhole has seen it
	}
	if err != nil {
		t.Fatal(err)
	}
	_, err = u.WriteAt(content(n), 0)
	if err := errors.Join(err, u.Close(), b.Adopt(t.Context(), uploadName(n), digest.Of(content(n)))); err != nil {
		t.Fatal(err)
	}
	if !wantWhole(t, b)[digest.Of(content(n))] {
		t.Fatalf("upload %d was adopted, but there is no blob", n)
	}
}

func TestPutKilledWhileReadingLeavesNothing(t *testing.T) {
	for _, n := range []int{1, 2, 8, 9} { // the last Read is the one that ends
		dir := t.TempDir()
		cmd, _ := startChild(t, "die reading", dir, n)
		if err := cmd.Wait(); err == nil {
			t.Fatalf("the child outlived Read %d", n)
		}
		b, _ := open(t, dir)
		if all := wantWhole(t, b); len(all) != 0 {
			t.Errorf("killed in Read %d: there are %d blobs", n, len(all))
		}
		if left := names(t, b.s.files); len(left) != 1 {
			t.Errorf("killed in Read %d: files/ has %q, want the one unfinished file", n, left)
		}
		if err := b.Sweep(); err != nil {
			t.Error(err)
		}
		if left := names(t, b.s.files); left != nil {
			t.Errorf("killed in Read %d: files/ has %q after Sweep", n, left)
		}
	}
}

func TestFullDiskLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	cmd, _ := startChild(t, "full disk", dir, 300_000)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("child: %v", err)
	}
	b, _ := open(t, dir)
	if all := wantWhole(t, b); len(all) != 1 || len(names(t, b.s.files)) != 1 {
		t.Errorf("files/ has %q, want the one blob that fits", names(t, b.s.files))
	}
}

func TestUploadThatCannotBeSyncedLeavesTheSpool(t *testing.T) {
	cause := errors.New("input/output error")
	for _, name := range []string{"Sync", "Adopt"} {
		b, s := open(t, t.TempDir())
		u, err := s.Create(t.Context(), "u1")
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		u.WriteAt([]byte("abc"), 0)
		b.s.sync = func(*os.File) error { return cause }
		if name == "Sync" {
			err = u.Sync()
		} else {
			err = b.Adopt(t.Context(), "u1", digest.Of([]byte("abc")))
		}
		if !errors.Is(err, cause) || !strings.Contains(err.Error(), "anew") {
			t.Errorf("%s = %v, want the cause and what to do", name, err)
		}
		b.s.sync = (*os.File).Sync // as the kernel says to a second fsync
		if err := u.Sync(); !errors.Is(err, registry.ErrNoUpload) {
			t.Errorf("Sync after it = %v, want ErrNoUpload", err)
		}
		if err := b.Adopt(t.Context(), "u1", digest.Of([]byte("abc"))); !errors.Is(err, registry.ErrNoUpload) {
			t.Errorf("Adopt after it = %v, want ErrNoUpload", err)
		}
		if all := wantWhole(t, b); len(all) != 0 {
			t.Errorf("there are blobs: %v", all)
		}
	}
}

// TestAdoptSyncsTheBytesItNames: the upload was never synced by its writer.
func TestAdoptSyncsTheBytesItNames(t *testing.T) {
	b, s := open(t, t.TempDir())
	u, err := s.Create(t.Context(), "u1")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	var synced []string
	b.s.sync = func(f *os.File) error {
		synced = append(synced, f.Name())
		if all := wantWhole(t, b); len(all) != 0 {
			t.Error("the blob has its name before its bytes are synced")
		}
		return f.Sync()
	}
	if err := b.Adopt(t.Context(), "u1", digest.Of(nil)); err != nil {
		t.Fatal(err)
	}
	if want := []string{filepath.Join(b.s.uploads, "u1")}; !slices.Equal(synced, want) {
		t.Errorf("Adopt synced %q, want %q", synced, want)
	}
}

func TestFailedSyncOfADirectoryEndsAllChanges(t *testing.T) {
	b, s := open(t, t.TempDir())
	ctx, d := t.Context(), digest.Of([]byte("abc"))
	u, err := s.Create(ctx, "u1")
	if err := errors.Join(err, b.Put(ctx, d, strings.NewReader("abc"))); err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	b.s.settled(errUnsynced)
	_, createErr := s.Create(ctx, "u2")
	for name, err := range map[string]error{
		"Put":    b.Put(ctx, digest.Of([]byte("x")), strings.NewReader("x")),
		"Delete": b.Delete(ctx, d),
		"Adopt":  b.Adopt(ctx, "u1", digest.Of(nil)),
		"Create": createErr,
		"Remove": s.Remove(ctx, "u1"),
		"Sync":   u.Sync(),
	} {
		if !errors.Is(err, registry.ErrReadOnly) || !errors.Is(err, errUnsynced) {
			t.Errorf("%s = %v, want ErrReadOnly and the cause", name, err)
		}
	}
	if blob, err := b.Open(ctx, d); err != nil {
		t.Errorf("Open = %v", err)
	} else if p := make([]byte, 3); true {
		blob.ReadAt(p, 0)
		blob.Close()
		if !bytes.Equal(p, []byte("abc")) {
			t.Errorf("the blob reads %q", p)
		}
	}
	if all := wantWhole(t, b); len(all) != 1 {
		t.Errorf("there are %d blobs, want 1", len(all))
	}
}
