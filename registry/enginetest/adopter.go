package enginetest

import (
	"context"
	"errors"
	"testing"

	"deploytools/layers/digest"
	"deploytools/registry"
)

// pair is a Blobs and the Spool that it adopts from.
type pair struct {
	registry.Blobs
	registry.Adopter
	spool registry.Spool
}

// Adopter proves that the blobs open returns keep the contract of
// registry.Adopter for the spool returned with them.
func Adopter(t *testing.T, open func(t *testing.T) (registry.Blobs, registry.Spool)) {
	openPair := func(t *testing.T) pair {
		b, s := open(t)
		a, ok := b.(registry.Adopter)
		if !ok {
			t.Fatalf("%T is no registry.Adopter", b)
		}
		return pair{b, a, s}
	}
	run(t, openPair, []claim[pair]{
		{"an adopted upload is a blob and no upload", adopt},
		{"adopting again is no error", adoptAgain},
		{"adopting what is a blob already takes the upload away", adoptPresent},
		{"a blob that is open stays readable", adoptOpen},
		{"neither upload nor blob is no such upload", adoptNothing},
		{"other names are refused", adoptNames},
		{"a cancelled context changes nothing", adoptCancelled},
	})
}

// adoptAs adopts the upload name, which has content.
func adoptAs(t *testing.T, p pair, name string, content []byte) {
	t.Helper()
	if err := p.Adopt(t.Context(), name, digest.Of(content)); err != nil {
		t.Fatalf("Adopt = %v", err)
	}
}

func adopt(t *testing.T, p pair) {
	for i, c := range contents {
		name := string('a' + rune(i))
		if err := create(t, p.spool, name, c).Close(); err != nil {
			t.Fatal(err)
		}
		adoptAs(t, p, name, c)
		wantNoUpload(t, p.spool, name)
	}
	wantUploads(t, p.spool, nil)
	wantBlobs(t, p.Blobs, contents...)
	for _, c := range contents {
		if err := p.Delete(t.Context(), digest.Of(c)); err != nil {
			t.Errorf("Delete = %v", err)
		}
	}
	wantBlobs(t, p.Blobs)
}

func adoptAgain(t *testing.T, p pair) {
	create(t, p.spool, "u1", contents[1])
	for range 3 {
		adoptAs(t, p, "u1", contents[1])
	}
	wantNoUpload(t, p.spool, "u1")
	wantBlobs(t, p.Blobs, contents[1])
	wantUpload(t, create(t, p.spool, "u1", nil), nil) // the name is free
}

func adoptPresent(t *testing.T, p pair) {
	putBlob(t, p.Blobs, contents[1])
	create(t, p.spool, "u1", contents[1])
	adoptAs(t, p, "u1", contents[1])
	wantUploads(t, p.spool, nil)
	wantBlobs(t, p.Blobs, contents[1])
}

func adoptOpen(t *testing.T, p pair) {
	blob := openBlobOf(t, p.Blobs, putBlob(t, p.Blobs, contents[2]))
	create(t, p.spool, "u1", contents[2])
	adoptAs(t, p, "u1", contents[2])
	wantContent(t, blob, contents[2])
}

func adoptNothing(t *testing.T, p pair) {
	putBlob(t, p.Blobs, contents[1])
	if err := p.Adopt(t.Context(), "u1", digest.Of(contents[2])); !errors.Is(err, registry.ErrNoUpload) {
		t.Errorf("Adopt = %v, want ErrNoUpload", err)
	}
	wantBlobs(t, p.Blobs, contents[1])
}

func adoptNames(t *testing.T, p pair) {
	putBlob(t, p.Blobs, contents[1])
	for _, name := range badNames {
		if p.Adopt(t.Context(), name, digest.Of(contents[1])) == nil {
			t.Errorf("Adopt(%q) succeeds", name)
		}
	}
}

func adoptCancelled(t *testing.T, p pair) {
	create(t, p.spool, "u1", contents[1])
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Adopt(ctx, "u1", digest.Of(contents[1])); !errors.Is(err, context.Canceled) {
		t.Errorf("Adopt = %v, want context.Canceled", err)
	}
	wantBlobs(t, p.Blobs)
	wantUploads(t, p.spool, map[string]int64{"u1": int64(len(contents[1]))})
}
