package enginetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"deploytools/layers/digest"
	"deploytools/registry"
)

// Blobs proves that the engine open returns keeps the contract of
// registry.Blobs.
func Blobs(t *testing.T, open func(t *testing.T) registry.Blobs) {
	run(t, open, []claim[registry.Blobs]{
		{"an empty engine has nothing", blobsEmpty},
		{"what was put is read whole", blobsPut},
		{"a blob is read by many at once", blobsReadAt},
		{"content that does not match leaves nothing", blobsMismatch},
		{"a reader that fails leaves nothing", blobsReaderFails},
		{"a blob does not show before it is whole", blobsHidden},
		{"putting again is no error", blobsPutAgain},
		{"a put that fails keeps the blob that is there", blobsPutKeeps},
		{"putting the same at once is no error", blobsPutAtOnce},
		{"a blob deleted while open stays readable", blobsDeleteOpen},
		{"deleting again is no error", blobsDeleteAgain},
		{"a list has each blob once with its size", blobsList},
		{"a loop over a list may delete", blobsListDelete},
		{"a cancelled context stops every call", blobsCancelled},
		{"a context cancelled in a put leaves nothing", blobsCancelledWithin},
	})
}

// contents are what blobs are made of: nothing, little, more than any buffer.
var contents = [][]byte{{}, []byte("layer"), bytes.Repeat([]byte("0123456789abcde\n"), 3<<20/16+1)}

func putBlob(t *testing.T, b registry.Blobs, content []byte) digest.Digest {
	t.Helper()
	d := digest.Of(content)
	if err := b.Put(t.Context(), d, bytes.NewReader(content)); err != nil {
		t.Fatalf("Put = %v", err)
	}
	return d
}

func openBlobOf(t *testing.T, b registry.Blobs, d digest.Digest) registry.Blob {
	t.Helper()
	blob, err := b.Open(t.Context(), d)
	if err != nil {
		t.Fatalf("Open = %v", err)
	}
	t.Cleanup(func() { blob.Close() })
	return blob
}

// wantContent expects that blob has content.
func wantContent(t *testing.T, blob registry.Blob, content []byte) {
	t.Helper()
	got, err := io.ReadAll(io.NewSectionReader(blob, 0, 1<<40))
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("the blob reads as %d bytes, %v, want %d bytes of other content", len(got), err, len(content))
	}
	if blob.Size() != int64(len(content)) {
		t.Errorf("Size() = %d, want %d", blob.Size(), len(content))
	}
}

// wantBlobs expects that the engine has these blobs and no other.
func wantBlobs(t *testing.T, b registry.Blobs, contents ...[]byte) {
	t.Helper()
	var got, want []string
	for info, err := range b.List(t.Context()) {
		if err != nil {
			t.Fatalf("List = %v", err)
		}
		got = append(got, info.Digest.String())
	}
	for _, c := range contents {
		want = append(want, digest.Of(c).String())
		blob, err := b.Open(t.Context(), digest.Of(c))
		if err != nil {
			t.Errorf("Open = %v", err)
			continue
		}
		wantContent(t, blob, c)
		if err := blob.Close(); err != nil {
			t.Errorf("Close = %v", err)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the engine lists %q, want %q", got, want)
	}
}

// wantNoBlob expects that d is not there, in any way of looking.
func wantNoBlob(t *testing.T, b registry.Blobs, d digest.Digest) {
	t.Helper()
	if blob, err := b.Open(t.Context(), d); !errors.Is(err, registry.ErrNoBlob) {
		t.Errorf("Open = %v, %v, want ErrNoBlob", blob, err)
	}
	for info, err := range b.List(t.Context()) {
		if err != nil || info.Digest == d {
			t.Errorf("List yields %+v, %v", info, err)
		}
	}
}

func blobsEmpty(t *testing.T, b registry.Blobs) {
	wantBlobs(t, b)
	wantNoBlob(t, b, digest.Of(nil))
	if err := b.Delete(t.Context(), digest.Of(nil)); err != nil {
		t.Errorf("Delete = %v", err)
	}
}

func blobsPut(t *testing.T, b registry.Blobs) {
	for i, c := range contents {
		r := io.Reader(bytes.NewReader(c))
		if i == 1 {
			r = iotest.DataErrReader(iotest.OneByteReader(r))
		}
		if err := b.Put(t.Context(), digest.Of(c), r); err != nil {
			t.Errorf("Put = %v", err)
		}
	}
	wantBlobs(t, b, contents...)
}

func blobsReadAt(t *testing.T, b registry.Blobs) {
	content := contents[2]
	blob := openBlobOf(t, b, putBlob(t, b, content))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for off := i * 1000; off < len(content); off += 150_000 {
				p := make([]byte, 5000)
				n, err := blob.ReadAt(p, int64(off))
				want := content[off:min(off+len(p), len(content))]
				if !bytes.Equal(p[:n], want) || (err != nil) != (n < len(p)) {
					t.Errorf("ReadAt(%d) = %d, %v", off, n, err)
				}
			}
		})
	}
	wg.Wait()
	if n, err := blob.ReadAt(make([]byte, 1), blob.Size()); n != 0 || err != io.EOF {
		t.Errorf("ReadAt at the end = %d, %v, want 0, EOF", n, err)
	}
}

func blobsMismatch(t *testing.T, b registry.Blobs) {
	for name, c := range map[string][]byte{"other": []byte("other"), "shorter": []byte("laye"), "longer": []byte("layer "), "none": nil} {
		if err := b.Put(t.Context(), digest.Of([]byte("layer")), bytes.NewReader(c)); !errors.Is(err, digest.ErrMismatch) {
			t.Errorf("%s: Put = %v, want digest.ErrMismatch", name, err)
		}
		wantNoBlob(t, b, digest.Of([]byte("layer")))
	}
	wantBlobs(t, b)
}

func blobsReaderFails(t *testing.T, b registry.Blobs) {
	cause := errors.New("line is cut")
	for _, c := range contents {
		for _, n := range []int{0, len(c) / 2, len(c)} {
			r := io.MultiReader(bytes.NewReader(c[:n]), iotest.ErrReader(cause))
			if err := b.Put(t.Context(), digest.Of(c), r); !errors.Is(err, cause) {
				t.Errorf("Put = %v, want the error of the reader", err)
			}
			wantNoBlob(t, b, digest.Of(c))
		}
	}
}

// readerFunc calls itself at each Read.
type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func blobsHidden(t *testing.T, b registry.Blobs) {
	d, whole := digest.Of(contents[2]), bytes.NewReader(contents[2])
	err := b.Put(t.Context(), d, readerFunc(func(p []byte) (int, error) {
		wantNoBlob(t, b, d)
		wantBlobs(t, b)
		return whole.Read(p[:min(len(p), 1<<19)])
	}))
	if err != nil {
		t.Errorf("Put = %v", err)
	}
	wantBlobs(t, b, contents[2])
}

func blobsPutAgain(t *testing.T, b registry.Blobs) {
	for range 2 {
		putBlob(t, b, contents[1])
	}
	wantBlobs(t, b, contents[1])
}

func blobsPutKeeps(t *testing.T, b registry.Blobs) {
	d := putBlob(t, b, contents[1])
	for _, r := range []io.Reader{strings.NewReader("other"), iotest.ErrReader(errors.New("line is cut"))} {
		if err := b.Put(t.Context(), d, r); err == nil {
			t.Error("Put of a blob that is there does not look at the content")
		}
	}
	wantBlobs(t, b, contents[1])
}

func blobsPutAtOnce(t *testing.T, b registry.Blobs) {
	d := digest.Of(contents[2])
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := b.Put(t.Context(), d, bytes.NewReader(contents[2])); err != nil {
				t.Errorf("Put = %v", err)
			}
			if blob, err := b.Open(t.Context(), d); err != nil {
				t.Errorf("Open after Put = %v", err)
			} else {
				blob.Close()
			}
		})
	}
	wg.Wait()
	wantBlobs(t, b, contents[2])
}

func blobsDeleteOpen(t *testing.T, b registry.Blobs) {
	d := putBlob(t, b, contents[2])
	blob := openBlobOf(t, b, d)
	if err := b.Delete(t.Context(), d); err != nil {
		t.Fatalf("Delete = %v", err)
	}
	wantNoBlob(t, b, d)
	wantContent(t, blob, contents[2])
}

func blobsDeleteAgain(t *testing.T, b registry.Blobs) {
	d := putBlob(t, b, contents[1])
	for range 2 {
		if err := b.Delete(t.Context(), d); err != nil {
			t.Errorf("Delete = %v", err)
		}
		wantNoBlob(t, b, d)
	}
	putBlob(t, b, contents[1])
	wantBlobs(t, b, contents[1])
}

func blobsList(t *testing.T, b registry.Blobs) {
	sizes, before := map[digest.Digest]int64{}, time.Now().Add(-time.Minute)
	for i := range 600 { // more than one read of a directory
		content := bytes.Repeat([]byte{byte(i), byte(i >> 8)}, i+1)
		sizes[putBlob(t, b, content)] = int64(len(content))
	}
	for info, err := range b.List(t.Context()) {
		if size, ok := sizes[info.Digest]; err != nil || !ok || info.Size != size || info.ModTime.Before(before) {
			t.Fatalf("List yields %+v, %v", info, err)
		}
		delete(sizes, info.Digest)
	}
	if len(sizes) != 0 {
		t.Errorf("List does not have %d blobs", len(sizes))
	}
	for range b.List(t.Context()) {
		break
	}
}

func blobsListDelete(t *testing.T, b registry.Blobs) {
	for i := range 50 {
		putBlob(t, b, []byte{byte(i)})
	}
	for info, err := range b.List(t.Context()) {
		if err == nil {
			err = b.Delete(t.Context(), info.Digest)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	wantBlobs(t, b)
}

func blobsCancelled(t *testing.T, b registry.Blobs) {
	d := putBlob(t, b, contents[1])
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, openErr := b.Open(ctx, d)
	var listErr error
	for info, err := range b.List(ctx) {
		if listErr = err; info != (registry.BlobInfo{}) {
			t.Errorf("List yields %+v", info)
		}
	}
	for name, err := range map[string]error{
		"Put":    b.Put(ctx, digest.Of(contents[2]), bytes.NewReader(contents[2])),
		"Delete": b.Delete(ctx, d),
		"Open":   openErr,
		"List":   listErr,
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s = %v, want context.Canceled", name, err)
		}
	}
	wantBlobs(t, b, contents[1])
}

func blobsCancelledWithin(t *testing.T, b registry.Blobs) {
	ctx, cancel := context.WithCancel(t.Context())
	whole := bytes.NewReader(contents[2])
	err := b.Put(ctx, digest.Of(contents[2]), readerFunc(func(p []byte) (int, error) {
		cancel()
		return whole.Read(p)
	}))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Put = %v, want context.Canceled", err)
	}
	wantBlobs(t, b)
}
