package layers

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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

// BenchmarkReuse unpacks a layer in full and with an earlier root that has it,
// in turn, and reports how many times as fast the second is: x-full, and
// x-full-synced when both are also synced to the disk.
func BenchmarkReuse(b *testing.B) {
	for name, tree := range map[string]string{"modules": modules(b), "binaries": binaries(b)} {
		var packed bytes.Buffer
		info, err := Pack(b.Context(), &packed, tree, PackOptions{})
		must(b, err)
		l := Layer{Name: "a", Digest: info.Digest, Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(packed.Bytes())), nil }}
		for _, way := range []string{"clone xfs", "link xfs", "link ext4"} {
			b.Run(name+"/"+way, func(b *testing.B) {
				how, kind, _ := strings.Cut(way, " ")
				l := l
				l.Link = how == "link"
				reuse(b, onImage(b, kind, "6G"), l)
			})
		}
	}
}

func reuse(b *testing.B, dir string, l Layer) {
	var full, again [2][]time.Duration
	n := 0
	unpack := func(took *[2][]time.Duration, r *Reuse) (string, *Info) {
		n++
		into := filepath.Join(dir, fmt.Sprint(n))
		must(b, os.Mkdir(into, 0o755))
		d, err := os.Open(into)
		must(b, err)
		defer d.Close()
		must(b, unix.Syncfs(int(d.Fd())))
		start := time.Now()
		info, err := Unpack(b.Context(), into, []Layer{l}, Options{Reuse: r})
		must(b, err)
		took[0] = append(took[0], time.Since(start))
		must(b, unix.Syncfs(int(d.Fd())))
		took[1] = append(took[1], time.Since(start))
		return into, info
	}
	for b.Loop() {
		old, info := unpack(&full, &Reuse{})
		unpack(&again, &Reuse{Dir: old, Index: joined(info.Index)})
	}
	for i, unit := range []string{"x-full", "x-full-synced"} {
		slices.Sort(full[i])
		slices.Sort(again[i])
		b.ReportMetric(float64(full[i][len(full[i])/2])/float64(again[i][len(again[i])/2]), unit)
		b.ReportMetric(float64(again[i][len(again[i])/2].Milliseconds()), "ms-"+unit[2:])
	}
	b.ReportMetric(0, "ns/op") // of both, which says nothing
}
