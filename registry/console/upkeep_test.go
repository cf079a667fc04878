package console

import (
	"bytes"
	"strings"
	"testing"

	"deploytools/layers/digest"
	"deploytools/registry"
	"deploytools/registry/wire"
)

// A backup is the bytes that the domain wrote, and nothing else; its story is on
// stderr, and -json is refused in every spelling.
func TestBackup(t *testing.T) {
	d := newDesk(t).walk()
	stdout, stderr, status := d.run("backup")
	if status != wire.OK || !strings.HasPrefix(stderr, "backup is whole: ") {
		t.Fatalf("backup: exit status %s, stderr %q", status, stderr)
	}
	got, err := registry.VerifyBackup(t.Context(), strings.NewReader(stdout))
	if err != nil || len(got.Faults) > 0 || got.Blobs != 10 {
		t.Errorf("what was printed is %+v, %v", got, err)
	}
	for _, line := range []string{"backup -json", "backup --json"} {
		if stdout, stderr, status := d.run(line); status != wire.Usage || stdout != "" || !strings.Contains(stderr, "knows no -json") {
			t.Errorf("%s: exit status %s, stdout of %d bytes, stderr %q", line, status, len(stdout), stderr)
		}
	}
}

// What fsck found is shown although it is an error, as text and as JSON.
func TestFsckShowsWhatItFound(t *testing.T) {
	d := newDesk(t)
	stray := []byte("stray")
	if err := d.blobs.Put(t.Context(), digest.Of(stray), bytes.NewReader(stray)); err != nil {
		t.Fatal(err)
	}
	stdout, stderr, status := d.run("fsck")
	if status != wire.Failed || !strings.Contains(stdout, "unreferenced: content "+digest.Of(stray).String()+": nothing refers to it\n    to do: run gc") || stderr != "error: fsck found 1 faults\n" {
		t.Errorf("fsck: exit status %s, stdout %q, stderr %q", status, stdout, stderr)
	}
	stdout, stderr, status = d.run("fsck -json")
	if status != wire.Failed || !strings.Contains(stdout, `"kind":"unreferenced"`) || !strings.Contains(stderr, `"error":"fsck found 1 faults"`) {
		t.Errorf("fsck -json: exit status %s, stdout %q, stderr %q", status, stdout, stderr)
	}
}
