package layers

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"testing"

	"deploytools/layers/digest"

	gocmp "github.com/google/go-cmp/cmp"
)

// FuzzUnpack takes tar archives, which it packs itself, so that what is mutated
// is what matters.
func FuzzUnpack(f *testing.F) {
	seed := func(archive []byte) {
		if b, err := gunzipAll(archive); err == nil && len(b) < 64<<10 {
			f.Add(b)
		}
	}
	for _, table := range []map[string]attack{breakouts("/x"), streams(f), headers()} {
		for _, a := range table {
			for _, archive := range a.archives {
				seed(archive)
			}
		}
	}
	for _, l := range limits() {
		seed(l.bad)
		seed(l.good)
	}
	seed(modes())
	f.Add(plain())
	o := Options{Limits: Limits{Unpacked: 1 << 20, Entries: 200, Names: 64 << 10}, Privileged: true}
	f.Fuzz(func(t *testing.T, b []byte) {
		archive := gz(b)
		w := newWorld(t)
		info, err := w.stack(t, o, archive)
		w.intact(t)
		checked, checkErr := Check(t.Context(), "web:1", bytes.NewReader(archive), o)
		if err != nil || checkErr != nil {
			if err == nil || checkErr == nil || err.Error() != checkErr.Error() || !errors.Is(err, ErrRefused) {
				t.Fatalf("Unpack = %v\nCheck = %v", err, checkErr)
			}
			return
		}
		theirs, ours := listed(t, checked), listed(t, info)
		for i := range theirs {
			theirs[i].UID, theirs[i].GID = os.Geteuid(), os.Getegid() // who unpacks owns the files
		}
		if diff := gocmp.Diff(theirs, ours); diff != "" {
			t.Fatalf("Check and Unpack see different trees: -check +unpack\n%s", diff)
		}
		onDisk := slices.Sorted(maps.Keys(snapshot(t, w.root, false)))
		var names []string
		for _, e := range ours {
			names = append(names, e.Path)
		}
		if diff := gocmp.Diff(secondOpinion(t, b), names); diff != "" {
			t.Errorf("another reader sees other names: -theirs +manifest\n%s", diff)
		}
		if diff := gocmp.Diff(onDisk, names); diff != "" {
			t.Errorf("the manifest is not what is on disk: -disk +manifest\n%s", diff)
		}
	})
}

// secondOpinion returns the names that archive/tar alone finds, with the
// directories that they lie in.
func secondOpinion(t *testing.T, b []byte) []string {
	t.Helper()
	names := map[string]bool{}
	for r := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("accepted, but archive/tar says: %v", err)
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		for name := path.Clean(h.Name); name != "."; name = path.Dir(name) {
			if !filepath.IsLocal(name) {
				t.Fatalf("accepted the name %q", h.Name)
			}
			names[name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

func gunzipAll(b []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(r, 1<<20))
}

// FuzzGunzip compares the reader of gzip with that of the standard library.
func FuzzGunzip(f *testing.F) {
	for _, a := range streams(f) {
		f.Add(a.archives[0])
	}
	f.Add(gz(plain()))
	f.Add(member(f, plain()))
	f.Fuzz(func(t *testing.T, b []byte) {
		z := newGunzip(&source{ctx: t.Context(), r: bytes.NewReader(b), hash: digest.NewWriter()}, 200)
		defer z.Close()
		got, err := io.ReadAll(io.LimitReader(z, 4<<20))
		if err != nil {
			// Ours refuses more where a size or a ratio is wrong.
			if _, theirs := gunzipAll(b); theirs == nil && len(got) < ratioFree && !bytes.Contains(b, memberHeader) {
				t.Fatalf("refused what gzip takes: %v", err)
			}
			return
		}
		r, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			t.Fatalf("accepted what is no gzip: %v", err)
		}
		want, err := io.ReadAll(io.LimitReader(r, 4<<20))
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("accepted other bytes than gzip: %d bytes, %d, %v", len(got), len(want), err)
		}
	})
}
