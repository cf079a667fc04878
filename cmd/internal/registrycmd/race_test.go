package registrycmd

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"deploytools/layers"
	"deploytools/layers/digest"
	"deploytools/registry"
)

// archive returns a layer of one file.
func archive(t *testing.T, content string) []byte {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := layers.Pack(t.Context(), &b, dir, layers.PackOptions{}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestCollectionAgainstAddVersionOnDisk races collections that have no mercy
// against versions that come and go: registry.TestCollectionAgainstAddVersion
// with the engines that a registry has.
func TestCollectionAgainstAddVersionOnDisk(t *testing.T) {
	s := &settings{dir: t.TempDir(), maxUpload: 1 << 20, minFree: 1, upkeep: upkeep{expiry: time.Millisecond, grace: time.Millisecond}}
	reg, closeStore, err := s.open(t.Context(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer closeStore()
	content := [][]byte{archive(t, "one"), archive(t, "two")}
	who := registry.Caller{Role: registry.Admin}
	added := 0
	for i := range 80 {
		layer := content[i%len(content)]
		d := digest.Of(layer)
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() { reg.Collect(t.Context(), registry.CollectOptions{}) })
		}
		version := fmt.Sprint("v", i)
		if in, err := reg.Receive(t.Context(), who, "/x"); err == nil {
			in.WriteAt(layer, 0)
			in.Finish(t.Context())
		}
		_, err := reg.AddVersion(t.Context(), registry.Act{Caller: who}, registry.NewVersion{Component: "code", Version: version, Digest: d}, nil)
		wg.Wait()
		if err != nil {
			continue // collected on its way, which its error says
		}
		added++
		blob, _, err := reg.OpenLayer(t.Context(), "", d)
		if err != nil {
			t.Fatalf("race %d: the version is there, and its content is not: %v", i, err)
		}
		blob.Close()
		if _, err := reg.DeleteVersion(t.Context(), registry.Act{Caller: who}, "code", version, false); err != nil {
			t.Fatal(err)
		}
	}
	if added < 8 {
		t.Errorf("only %d of 80 versions were added: the race proves little", added)
	}
	got, err := reg.Fsck(t.Context(), registry.FsckOptions{ReadData: true})
	if err != nil || len(got.Faults) > 0 {
		t.Errorf("Fsck = %+v, %v", got.Faults, err)
	}
}
