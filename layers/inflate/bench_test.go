package inflate

import (
	"bufio"
	"bytes"
	"compress/flate"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	kpflate "github.com/klauspost/compress/flate"
)

// contents returns what the benchmark decodes, 16 MiB each: the sources of Go,
// its compiler, both in turn, and what no encoder makes smaller.
func contents(b *testing.B) map[string][]byte {
	b.Helper()
	const size = 16 << 20
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		b.Fatal(err)
	}
	var source, binary, mix []byte
	src := filepath.Join(strings.TrimSpace(string(root)), "src")
	err = filepath.WalkDir(src, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if len(source) > size {
			return fs.SkipAll
		}
		text, err := os.ReadFile(path)
		source = append(source, text...)
		return err
	})
	if err == nil {
		binary, err = os.ReadFile(filepath.Join(filepath.Dir(src), "bin", "go"))
	}
	if err != nil || len(source) < size {
		b.Skip("needs the sources and programs of Go: ", err)
	}
	for i := 0; i < size/2 && i < len(binary); i += 1 << 20 {
		mix = append(append(mix, source[i:i+1<<20]...), binary[i:min(i+1<<20, len(binary))]...)
	}
	random := make([]byte, size)
	rand.NewChaCha8([32]byte{}).Read(random)
	return map[string][]byte{"source": source, "binary": binary, "mix": mix, "random": random}
}

// BenchmarkDecode decodes with ours, klauspost's and Go's decoder in turn, and
// reports how many times as fast ours is: the median over the rounds.
func BenchmarkDecode(b *testing.B) {
	for name, content := range contents(b) {
		stream := deflated(b, content, 6, false)
		b.Run(name, func(b *testing.B) {
			var d Decoder
			buf := make([]byte, Window+256<<10)
			decoders := []func(){
				func() { discard(b, &d, buf, stream) },
				func() { io.Copy(io.Discard, kpflate.NewReader(bytes.NewReader(stream))) },
				func() { io.Copy(io.Discard, flate.NewReader(bytes.NewReader(stream))) },
			}
			took := make([][]time.Duration, len(decoders))
			b.SetBytes(int64(len(content)))
			for b.Loop() {
				for i, decode := range decoders {
					start := time.Now()
					decode()
					took[i] = append(took[i], time.Since(start))
				}
			}
			var medians []float64
			for _, t := range took {
				slices.Sort(t)
				medians = append(medians, t[len(t)/2].Seconds())
			}
			b.ReportMetric(medians[1]/medians[0], "x-klauspost")
			b.ReportMetric(medians[2]/medians[0], "x-flate")
			b.ReportMetric(float64(len(content))/medians[0]/1e6, "MB/s")
			b.ReportMetric(0, "ns/op") // of all three, which says nothing
		})
	}
}

func discard(b *testing.B, d *Decoder, buf, stream []byte) {
	d.Reset(bufio.NewReaderSize(bytes.NewReader(stream), 256<<10))
	for n := 0; ; {
		k, err := d.Decode(buf, n)
		if err == io.EOF {
			return
		}
		if err != nil {
			b.Fatal(err)
		}
		n = copy(buf, buf[max(0, k-Window):k])
	}
}
