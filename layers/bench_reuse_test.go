package layers

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"deploytools/layers/manifest"
)

// binaries makes a tree of a few large files.
func binaries(b *testing.B) string {
	b.Helper()
	dir := b.TempDir()
	r := rand.NewChaCha8([32]byte{3})
	for i := range 4 {
		half := make([]byte, 16<<20)
		r.Read(half)
		for j := range half {
			half[j] &= 0x3f // so that it can be compressed
		}
		must(b, os.WriteFile(filepath.Join(dir, fmt.Sprintf("binary-%d", i)), half, 0o755))
	}
	return dir
}

// BenchmarkReuse fills a root from an earlier one that has the layer, and unpacks the
// layer in full, by Unpack and by GNU tar, in turn. Where the earlier root is proven,
// its files are not read again.
func BenchmarkReuse(b *testing.B) {
	for name, tree := range map[string]string{"modules": modules(b), "binaries": binaries(b)} {
		file := filepath.Join(b.TempDir(), "layer.tar.gz")
		f, err := os.Create(file)
		must(b, err)
		info, err := Pack(b.Context(), f, tree, PackOptions{})
		must(b, err)
		must(b, f.Close())
		l := Layer{Name: "a", Digest: info.Digest, Open: func() (io.ReadCloser, error) { return os.Open(file) }}
		for _, way := range []string{"clone xfs", "link xfs", "link ext4"} {
			for _, proven := range []string{"read", "proven"} {
				b.Run(name+"/"+way+"/"+proven, func(b *testing.B) {
					how, kind, _ := strings.Cut(way, " ")
					l := l
					l.Link = how == "link"
					reuse(b, onImage(b, kind, "6G"), file, l, proven == "proven")
				})
			}
		}
	}
}

func reuse(b *testing.B, dir, file string, l Layer, proven bool) {
	unpack := func(into string, r *Reuse) *Info {
		info, err := Unpack(b.Context(), into, []Layer{l}, Options{Reuse: r})
		must(b, err)
		return info
	}
	old := filepath.Join(dir, "old")
	must(b, os.Mkdir(old, 0o755))
	info := unpack(old, &Reuse{})
	from := &Reuse{Dir: old, Index: joined(info.Index), Manifest: manifestOf(b, info)}
	against(b, dir, func(into string) {
		if proven {
			from.Proven = time.Now() // each link changes the inodes
		}
		unpack(into, from)
	}, rival{"full", func(into string) { unpack(into, &Reuse{}) }}, rival{"tar", func(into string) { run(b, into, nil, "tar", "xzf", file) }})
}

// manifestOf returns the text of a tree's manifest, for Reuse.
func manifestOf(t testing.TB, info *Info) func() (io.ReadCloser, error) {
	t.Helper()
	var text bytes.Buffer
	must(t, manifest.Encode(&text, info.Manifest))
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text.Bytes())), nil }
}
