package layers

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// openBytes is a Layer.Open over b.
func openBytes(b []byte) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }
}

// sampleTree makes a tree with every kind of entry that a layer may hold.
func sampleTree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	big := bytes.Repeat([]byte("0123456789abcdef"), 200_000) // larger than a batch and a member
	for name, content := range map[string][]byte{"etc/motd": []byte("hello\n"), "bin/big": big, "empty": nil, "etc/deep/er/still": []byte("x")} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Chmod(filepath.Join(dir, "bin/big"), 0o755))
	must(os.Symlink("/absolute/and dangling", filepath.Join(dir, "etc/link")))
	must(os.Link(filepath.Join(dir, "etc/motd"), filepath.Join(dir, "etc/motd2")))
	must(os.Chmod(filepath.Join(dir, "etc/deep"), 0o555))
	return dir
}

func pack(t *testing.T, dir string, o PackOptions) ([]byte, *Info) {
	t.Helper()
	var b bytes.Buffer
	info, err := Pack(t.Context(), &b, dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), info
}

func TestPackAndUnpackRoundTrip(t *testing.T) {
	archive, packed := pack(t, sampleTree(t), PackOptions{})
	into := t.TempDir()
	info, err := Unpack(t.Context(), into, []Layer{{Name: "a", Digest: packed.Digest, Open: openBytes(archive)}}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(listed(t, packed), listed(t, info)); diff != "" {
		t.Errorf("manifest of the archive and of the tree differ: -archive +tree\n%s", diff)
	}
	again, _ := pack(t, into, PackOptions{})
	if !bytes.Equal(archive, again) {
		t.Error("packing the unpacked tree gives other bytes")
	}
	a, _ := os.Stat(filepath.Join(into, "etc/motd"))
	b, _ := os.Stat(filepath.Join(into, "etc/motd2"))
	if !os.SameFile(a, b) {
		t.Error("the hard link is a file of its own")
	}
}

func TestTarAndGzipReadWhatPackWrites(t *testing.T) {
	dir := sampleTree(t)
	archive, _ := pack(t, dir, PackOptions{})
	into := t.TempDir()
	cmd := exec.Command("tar", "xzf", "-", "-C", into)
	cmd.Stdin = bytes.NewReader(archive)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	if out, err := exec.Command("diff", "-r", "--no-dereference", dir, into).CombinedOutput(); err != nil {
		t.Errorf("tar unpacks another tree: %v\n%s", err, out)
	}
}
