package layers

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"deploytools/layers/digest"
	"deploytools/layers/manifest"
)

// world is a directory with the place for a tree and, beside it, what nobody
// may touch.
type world struct {
	dir, root, outside string
	before             map[string]string
}

func newWorld(t testing.TB) *world {
	t.Helper()
	dir := t.TempDir()
	w := &world{dir: dir, root: filepath.Join(dir, "root"), outside: filepath.Join(dir, "outside")}
	must(t, os.Mkdir(w.root, 0o755))
	must(t, os.Mkdir(w.outside, 0o755))
	must(t, os.WriteFile(filepath.Join(w.outside, "secret"), []byte("secret"), 0o600))
	w.before = w.beside(t)
	return w
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// beside describes all that is not in the root: names, inodes, modes, owners,
// link counts, times, content.
func (w *world) beside(t testing.TB) map[string]string {
	t.Helper()
	all := snapshot(t, w.dir, true)
	maps.DeleteFunc(all, func(path, _ string) bool { return path == "root" || strings.HasPrefix(path, "root/") })
	return all
}

// intact fails if anything beside the root has changed.
func (w *world) intact(t testing.TB) {
	t.Helper()
	if diff := gocmp.Diff(w.before, w.beside(t)); diff != "" {
		t.Errorf("something outside the root has changed: -before +after\n%s", diff)
	}
}

// snapshot describes what lies in dir, by path. Without inodes two trees can be
// compared: files with several names then name the first of them.
func snapshot(t testing.TB, dir string, inodes bool) map[string]string {
	t.Helper()
	out, first := map[string]string{}, map[uint64]string{}
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		st := info.Sys().(*syscall.Stat_t)
		content := ""
		switch {
		case info.Mode().IsRegular():
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			content = fmt.Sprintf("%d %x", len(b), sha256.Sum256(b))
		case info.Mode()&fs.ModeSymlink != 0:
			if content, err = os.Readlink(path); err != nil {
				return err
			}
		}
		id := fmt.Sprint(st.Ino)
		if !inodes {
			if id = ""; !d.IsDir() && st.Nlink > 1 {
				first[st.Ino] = cmp.Or(first[st.Ino], rel)
				id = "= " + first[st.Ino]
			}
		}
		out[rel] = fmt.Sprintf("%v %d:%d %d.%09d %q %s", info.Mode(), st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec, content, id)
		return nil
	}))
	return out
}

// stack unpacks the archives, each as the layer web:1, web:2 and so on.
func (w *world) stack(t testing.TB, o Options, archives ...[]byte) (*Info, error) {
	t.Helper()
	var ls []Layer
	for i, a := range archives {
		ls = append(ls, Layer{Name: fmt.Sprintf("web:%d", i+1), Digest: digest.Of(a), Open: openBytes(a)})
	}
	return Unpack(t.Context(), w.root, ls, o)
}

// refused asserts that the last of the archives is refused with the message
// want, by Check as well (where it is the only one), and that nothing happened
// but in the root.
func (w *world) refused(t *testing.T, o Options, want string, archives ...[]byte) {
	t.Helper()
	info, err := w.stack(t, o, archives...)
	if info != nil || err == nil || err.Error() != want || !errors.Is(err, ErrRefused) {
		t.Errorf("Unpack = %v, %v\nwant the refusal %s", info, err, want)
	}
	w.intact(t)
	if len(archives) > 1 {
		return
	}
	info, err = Check(t.Context(), "web:1", strings.NewReader(string(archives[0])), o)
	if err == nil || err.Error() != want || !errors.Is(err, ErrRefused) {
		t.Errorf("Check = %v\nwant the refusal %s", err, want)
	}
	if info.Digest != digest.Of(archives[0]) || info.Size != int64(len(archives[0])) || info.Manifest != nil {
		t.Errorf("Check of a refused archive: digest %s, size %d, a manifest: %t", info.Digest, info.Size, info.Manifest != nil)
	}
}

// accepted asserts that the archives unpack and that, where there is only one,
// Check finds the same tree.
func (w *world) accepted(t testing.TB, o Options, archives ...[]byte) *Info {
	t.Helper()
	info, err := w.stack(t, o, archives...)
	if err != nil {
		t.Fatalf("Unpack = %v", err)
	}
	w.intact(t)
	if len(archives) == 1 {
		checked, err := Check(t.Context(), "web:1", strings.NewReader(string(archives[0])), o)
		if err != nil {
			t.Fatalf("Check = %v", err)
		}
		want := listed(t, checked)
		for i := range want { // who unpacks owns the files
			if !o.Owner {
				want[i].UID, want[i].GID = os.Geteuid(), os.Getegid()
			}
		}
		if diff := gocmp.Diff(want, listed(t, info)); diff != "" {
			t.Errorf("Check and Unpack see different trees: -check +unpack\n%s", diff)
		}
	}
	return info
}

// listed returns the manifest of info.
func listed(t testing.TB, info *Info) manifest.Manifest {
	t.Helper()
	m, err := manifest.Collect(info.Manifest)
	must(t, err)
	return m
}

// tree describes the root: "path: mode content", symlinks with their targets.
func (w *world) tree(t testing.TB) string {
	t.Helper()
	var b strings.Builder
	must(t, filepath.WalkDir(w.root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == w.root {
			return err
		}
		rel, _ := filepath.Rel(w.root, path)
		info, err := d.Info()
		if err != nil {
			return err
		}
		content := ""
		switch {
		case info.Mode().IsRegular():
			c, err := os.ReadFile(path)
			must(t, err)
			content = " " + string(c)
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			must(t, err)
			content = " -> " + target
		}
		fmt.Fprintf(&b, "%s %v%s\n", rel, info.Mode(), content)
		return nil
	}))
	return b.String()
}

// readCloser and noContext keep the tests' imports short.
type readCloser = io.ReadCloser

var noContext = context.Background()
