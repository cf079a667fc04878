package atomic

import (
	"os"
	"testing"
)

func TestFileShowsOnlyWhenCommitted(t *testing.T) {
	dir := t.TempDir()
	must(os.WriteFile(dir+"/f", []byte("old"), 0o600))
	f, err := Create(dir+"/f", 0o600)
	must(err)
	f.Write([]byte("new"))
	if b, _ := os.ReadFile(dir + "/f"); string(b) != "old" {
		t.Errorf("before Commit readers see %q", b)
	}
	must(f.Commit())
	if b, _ := os.ReadFile(dir + "/f"); string(b) != "new" {
		t.Errorf("after Commit readers see %q", b)
	}
}

func TestAbortedFileLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	f, err := Create(dir+"/f", 0o600)
	must(err)
	f.Write([]byte("new"))
	must(f.Abort())
	if seen, left := world(t, dir); seen != nil || left != nil {
		t.Errorf("after Abort there is %q and %q", seen, left)
	}
}

func TestEndedFileTakesNoMore(t *testing.T) {
	dir := t.TempDir()
	for name, end := range map[string]func(*File) error{"Commit": (*File).Commit, "Abort": (*File).Abort} {
		f, err := Create(dir+"/"+name, 0o600)
		must(err)
		must(end(f))
		if _, err := f.Write([]byte("x")); err == nil {
			t.Errorf("Write after %s succeeds", name)
		}
		if f.Commit() == nil {
			t.Errorf("Commit after %s succeeds", name)
		}
		if err := f.Abort(); err != nil {
			t.Errorf("Abort after %s = %v", name, err)
		}
	}
	seen, left := world(t, dir)
	if len(seen) != 1 || left != nil {
		t.Errorf("there is %q and %q, want the one file that was committed", seen, left)
	}
}

// A program that passes over the error of Write must not get the rest.
func TestFileWithAFailedWriteIsNotCommitted(t *testing.T) {
	dir := t.TempDir()
	f, err := disk{gate: &crashing{n: 3, once: true}}.createFile(dir+"/f", 0o600)
	must(err)
	if _, err := f.Write([]byte("lost")); err == nil {
		t.Fatal("Write succeeds, want the error of the disk")
	}
	f.Write([]byte("kept"))
	if f.Commit() == nil {
		t.Error("Commit succeeds after a failed Write")
	}
	if seen, left := world(t, dir); seen != nil || left != nil {
		t.Errorf("there is %q and %q", seen, left)
	}
}
