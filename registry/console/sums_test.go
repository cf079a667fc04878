package console

import (
	"strings"
	"testing"

	"deploytools/registry/wire"
)

// The sums are those of the programs with these names, for "content" and for
// nothing.
func TestSums(t *testing.T) {
	for name, want := range map[string][2]string{
		"md5sum":    {"9a0364b9e99bb480dd25e1f0284c8555", "d41d8cd98f00b204e9800998ecf8427e"},
		"sha1sum":   {"040f06fd774092478d450774f5ba30c5da78acc8", "da39a3ee5e6b4b0d3255bfef95601890afd80709"},
		"sha256sum": {"ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
	} {
		d := newDesk(t)
		d.upload("content")
		for line, out := range map[string]string{
			name + " /upload":                want[0] + "  /upload\n",
			name + " upload ./upload":        want[0] + "  upload\n" + want[0] + "  ./upload\n",
			name:                             want[1] + "  -\n", // what rclone tries first
			name + " /upload -json":          `{"schema":1,"sums":[{"sum":"` + want[0] + `","path":"/upload"}]}` + "\n",
			name + ` -- /upl\o''ad`:          want[0] + "  /upload\n",
			name + " ../../../upload":        want[0] + "  ../../../upload\n",
			name + " /x/../upload/../upload": want[0] + "  /x/../upload/../upload\n",
		} {
			if got := d.must(line); got != out {
				t.Errorf("%s: printed %q, want %q", line, got, out)
			}
		}
		d.session.Stdin = strings.NewReader("content")
		if got := d.must(name); got != want[0]+"  -\n" {
			t.Errorf("%s of standard input: printed %q", name, got)
		}
	}
}

func TestSumsAreOfOnesOwnUploads(t *testing.T) {
	d := newDesk(t)
	d.upload("content")
	if _, stderr, status := d.run("md5sum /nope"); status != wire.NotFound || !strings.Contains(stderr, "/nope not found") {
		t.Errorf("md5sum of nothing: exit status %s, stderr %q", status, stderr)
	}
	if _, _, status := d.run("md5sum /"); status != wire.Conflict {
		t.Errorf("md5sum of a directory: exit status %s", status)
	}
	d.session.Caller.Fingerprint = "SHA256:other"
	if _, _, status := d.run("md5sum /upload"); status != wire.NotFound {
		t.Errorf("md5sum of another key's upload: exit status %s", status)
	}
}
