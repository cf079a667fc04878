package layers

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"deploytools/layers/digest"

	"golang.org/x/sys/unix"
)

// The benchmarks compare with GNU tar, and where they are installed with pigz, igzip
// and bsdtar, in rounds that alternate within one run,
// and report how many times as fast we are: x-tar, the median over the rounds.
// Each round has a directory of its own and none is deleted before the end: ext4
// is slow to reuse inodes that were just deleted, for minutes, so that tests
// which ran before spoil the figures. TMPDIR on a fresh file system helps.

// modules makes a tree such as npm installs: 3,000 directories with 21,000
// files, of which 79 % are under 4 KB, and a few large ones: 150 MB. It is the
// same every time.
func modules(b *testing.B) string {
	b.Helper()
	dir := b.TempDir()
	r := rand.New(rand.NewPCG(1, 2))
	words := make([][]byte, 4096)
	for i := range words {
		words[i] = fmt.Appendf(nil, "%x ", r.Uint64()>>(8*r.IntN(8)))
	}
	text := func(n int) []byte {
		var t []byte
		for len(t) < n {
			t = append(t, words[int(math.Abs(r.NormFloat64())*600)%len(words)]...)
		}
		return t[:n]
	}
	for i := range 3000 {
		sub := filepath.Join(dir, fmt.Sprintf("m%03d", i/10), []string{"", "lib", "dist/esm", "src", "test", "types", "bin", "docs", "lib/util", "dist/cjs"}[i%10])
		must(b, os.MkdirAll(sub, 0o755))
		for j := range 7 {
			n := int(1000 * math.Exp(1.75*r.NormFloat64())) // median 1 KB
			must(b, os.WriteFile(filepath.Join(sub, fmt.Sprintf("file-%d.js", j)), text(min(n, 1<<20)), 0o644))
		}
	}
	for i, n := range []int{30 << 20, 15 << 20, 4 << 20} {
		must(b, os.WriteFile(filepath.Join(dir, fmt.Sprintf("binary-%d", i)), text(n), 0o755))
	}
	return dir
}

// rival is another tool that does the same.
type rival struct {
	name string
	does func(dir string)
}

// against runs ours and those of the rivals in turn, each with a fresh directory
// in dirs, and reports how many times as fast ours is as each, and how many times
// when both are also synced to the disk.
func against(b *testing.B, dirs string, ours func(dir string), rivals ...rival) {
	b.Helper()
	type took struct{ done, synced []time.Duration }
	all := append([]rival{{"ours", ours}}, rivals...)
	times := make([]took, len(all))
	timed := func(t *took, r rival) {
		dir := filepath.Join(dirs, fmt.Sprintf("%s-%d", r.name, len(t.done)))
		must(b, os.Mkdir(dir, 0o755))
		d, err := os.Open(dir)
		must(b, err)
		defer d.Close()
		sync := func() { must(b, unix.Syncfs(int(d.Fd()))) }
		sync() // what another has left to write is not of this one
		start := time.Now()
		r.does(dir)
		t.done = append(t.done, time.Since(start))
		sync()
		t.synced = append(t.synced, time.Since(start))
	}
	for b.Loop() {
		for i, r := range all {
			timed(&times[i], r)
		}
	}
	median := func(t []time.Duration) float64 { slices.Sort(t); return float64(t[len(t)/2]) }
	for i, r := range rivals {
		b.ReportMetric(median(times[i+1].done)/median(times[0].done), "x-"+r.name)
		b.ReportMetric(median(times[i+1].synced)/median(times[0].synced), "x-"+r.name+"-synced")
	}
	b.ReportMetric(0, "ns/op") // of all, which says nothing
}

// unpackers are the rivals of Unpack that are installed.
func unpackers(b *testing.B, file string) []rival {
	all := []rival{{"tar", func(dir string) { run(b, dir, nil, "tar", "xzf", file) }}}
	for name, argv := range map[string][]string{"pigz": {"tar", "-I", "pigz", "-xf", file}, "igzip": {"tar", "-I", "igzip -d", "-xf", file}, "bsdtar": {"bsdtar", "-xf", file}} {
		if _, err := exec.LookPath(name); err == nil {
			all = append(all, rival{name, func(dir string) { run(b, dir, nil, argv...) }})
		}
	}
	return all
}

// bigPrograms makes a tree of a few large programs: 120 MB or more.
func bigPrograms(b *testing.B) string {
	b.Helper()
	dir := b.TempDir()
	exe, err := os.Executable()
	must(b, err)
	program, err := os.ReadFile(exe)
	must(b, err)
	for i := range 4 {
		file := bytes.Repeat(program, 1+(30<<20)/len(program))
		for j := range file { // each is another, and as hard to pack
			file[j] ^= byte(i)
		}
		must(b, os.WriteFile(filepath.Join(dir, fmt.Sprintf("program-%d", i)), file, 0o755))
	}
	return dir
}

func BenchmarkUnpack(b *testing.B) {
	for _, kind := range []struct {
		name string
		tree func(*testing.B) string
	}{{"files", modules}, {"programs", bigPrograms}} {
		b.Run(kind.name, func(b *testing.B) {
			tree, dirs := kind.tree(b), b.TempDir()
			var packed bytes.Buffer
			if _, err := Pack(b.Context(), &packed, tree, PackOptions{}); err != nil {
				b.Fatal(err)
			}
			for name, archive := range map[string][]byte{"gzip": run(b, tree, nil, "tar", "czf", "-", "."), "pack": packed.Bytes()} {
				file, dirs := filepath.Join(dirs, name+".tar.gz"), filepath.Join(dirs, name)
				must(b, os.Mkdir(dirs, 0o755))
				must(b, os.WriteFile(file, archive, 0o600))
				b.Run(name, func(b *testing.B) {
					against(b, dirs, func(dir string) {
						if _, err := Unpack(b.Context(), dir, []Layer{{Name: "a", Open: func() (readCloser, error) { return os.Open(file) }}}, Options{}); err != nil {
							b.Fatal(err)
						}
					}, unpackers(b, file)...)
				})
			}
		})
	}
}

func BenchmarkPack(b *testing.B) {
	tree := modules(b)
	against(b, b.TempDir(), func(dir string) {
		f, err := os.Create(filepath.Join(dir, "archive"))
		must(b, err)
		defer f.Close()
		if _, err := Pack(b.Context(), f, tree, PackOptions{}); err != nil {
			b.Fatal(err)
		}
	}, rival{"tar", func(dir string) {
		must(b, exec.Command("tar", "czf", filepath.Join(dir, "archive"), "-C", tree, ".").Run())
	}})
}

func BenchmarkCheck(b *testing.B) {
	var packed bytes.Buffer
	if _, err := Pack(b.Context(), &packed, modules(b), PackOptions{}); err != nil {
		b.Fatal(err)
	}
	plain, err := gunzipWhole(packed.Bytes())
	must(b, err)
	for name, archive := range map[string][]byte{"gzip": gz(plain), "pack": packed.Bytes()} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(plain)))
			for b.Loop() {
				if _, err := Check(b.Context(), "a", bytes.NewReader(archive), Options{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func gunzipWhole(b []byte) ([]byte, error) {
	z := newGunzip(&source{ctx: noContext, r: bytes.NewReader(b), hash: digest.NewWriter()}, 200)
	defer z.Close()
	return io.ReadAll(z)
}
