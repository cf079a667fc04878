package layers

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"runtime"
	"testing"
)

// The tree, its index and its manifest were in memory at the same time: of a layer
// with many small files that is most of what an agent needs.
func TestTreeGoesAsItsManifestComes(t *testing.T) {
	const files = 20000
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
	tr := newTree(&hasher{unwanted: true})
	a := openArchive(t.Context(), "many", bytes.NewReader(b.Bytes()), Options{})
	if err := a.whole(tr.read(a, &Info{}, nil)); err != nil {
		t.Fatal(err)
	}
	tree := live() - before
	m := tr.manifest()
	both := live() - before
	if len(m) != files+files/100 || cap(m) != len(m) {
		t.Errorf("the manifest has %d entries, and room for %d", len(m), cap(m))
	}
	t.Logf("bytes an entry: %d as a tree, %d as a manifest", tree/files, both/files)
	if both > tree {
		t.Errorf("%d bytes an entry with the manifest, and %d before: the tree is still there", both/files, tree/files)
	}
	runtime.KeepAlive(m)
	runtime.KeepAlive(tr)
	runtime.KeepAlive(a)
}
