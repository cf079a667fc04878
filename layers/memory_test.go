package layers

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"runtime"
	"testing"
	"unsafe"

	"deploytools/layers/manifest"
)

// What is known of each name is in memory until its manifest was written: of a
// layer with many small files that is most of what an agent needs.
func TestManyNamesTakeLittleMemory(t *testing.T) {
	if name, look, file := unsafe.Sizeof(node{}), unsafe.Sizeof(lookup{}), unsafe.Sizeof(regular{}); name+look > 32 || file > 56 {
		t.Errorf("records of %d and %d bytes, want 32 and 56", name+look, file)
	}
	// Both records, a name with its length, and a place in a bucket; the rest is what
	// the tables have in reserve.
	const files, most = 20000, 32 + 56 + 30 + 4 + 10
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	for i := range files {
		w.Write(head('0', fmt.Sprintf("d%03d/a-name-of-some-length-%07d", i/100, i)))
	}
	w.Write(make([]byte, 1024))
	w.Close()
	live := func() uint64 {
		runtime.GC()
		runtime.GC() // pools are emptied by the second
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}

	before := live()
	info, err := Check(t.Context(), "many", bytes.NewReader(b.Bytes()), Options{})
	must(t, err)
	each := (live() - before) / files
	t.Logf("%d bytes a name", each)
	if each > most {
		t.Errorf("%d bytes a name, want %d at most", each, most)
	}
	next, dirs := 0, 0
	for e := range info.Manifest {
		if e.Type == manifest.Dir {
			dirs++
			continue
		}
		if want := fmt.Sprintf("d%03d/a-name-of-some-length-%07d", next/100, next); e.Path != want {
			t.Fatalf("path %d of the manifest is %s, want %s", next, e.Path, want)
		}
		next++
	}
	if next != files || dirs != files/100 {
		t.Errorf("%d files and %d directories in the manifest, want %d and %d", next, dirs, files, files/100)
	}
}
