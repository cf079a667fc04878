package layers

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestLaterLayersWin(t *testing.T) {
	for name, test := range map[string]struct {
		layers [][]byte
		want   string
	}{
		"directories merge": {
			[][]byte{tarball(folder("d/"), reg("d/a", "1")), tarball(folder("d/"), reg("d/b", "2"))},
			"d drwxr-xr-x\nd/a -rw-r--r-- 1\nd/b -rw-r--r-- 2\n"},
		"a directory takes the later mode": {
			[][]byte{tarball(folder("d/", mode(0o755)), reg("d/a", "1")), tarball(folder("d/", mode(0o1770)))},
			"d dtrwxrwx---\nd/a -rw-r--r-- 1\n"},
		"a path leaves the mode alone": {
			[][]byte{tarball(folder("d/", mode(0o500)), reg("d/a", "1")), tarball(reg("d/b", "2"))},
			"d dr-x------\nd/a -rw-r--r-- 1\nd/b -rw-r--r-- 2\n"},
		"a file replaces a tree": {
			[][]byte{tarball(reg("d/e/f/g", "1"), folder("d/e/h/", mode(0)), sym("d/e/s", "x"), hard("d/e/k", "d/e/f/g")), tarball(reg("d", "2"))},
			"d -rw-r--r-- 2\n"},
		"a symlink replaces a tree": {
			[][]byte{tarball(reg("d/e", "1")), tarball(sym("d", "e"))},
			"d Lrwxrwxrwx -> e\n"},
		"a hard link replaces a tree": {
			[][]byte{tarball(reg("d/e", "1")), tarball(reg("a", "2"), hard("d", "a"))},
			"a -rw-r--r-- 2\nd -rw-r--r-- 2\n"},
		"a tree replaces what replaced it": {
			[][]byte{tarball(reg("d/e", "1")), tarball(reg("d", "2")), tarball(reg("d/f", "3"))},
			"d drwxr-xr-x\nd/f -rw-r--r-- 3\n"},
		"a tree that comes again has nothing of what it was": {
			[][]byte{tarball(reg("d/a", "1"), reg("d/e/f", "1")), tarball(reg("d", "2")), tarball(reg("d/e/f", "3"))},
			"d drwxr-xr-x\nd/e drwxr-xr-x\nd/e/f -rw-r--r-- 3\n"},
		"what a directory holds comes behind names that go on with less than a slash": {
			[][]byte{tarball(reg("a/x", "1"), reg("a-b", "1"))},
			"a drwxr-xr-x\na/x -rw-r--r-- 1\na-b -rw-r--r-- 1\n"},
		"what is linked lives on": {
			[][]byte{tarball(reg("d/a", "1"), hard("b", "d/a")), tarball(sym("d", "x"))},
			"b -rw-r--r-- 1\nd Lrwxrwxrwx -> x\n"},
		"three layers": {
			[][]byte{tarball(reg("a", "1"), reg("b", "1"), reg("c", "1")), tarball(reg("b", "2"), reg("c", "2")), tarball(reg("c", "3"))},
			"a -rw-r--r-- 1\nb -rw-r--r-- 2\nc -rw-r--r-- 3\n"},
		"a layer may say again what an earlier said": {
			[][]byte{tarball(reg("a", "1"), hard("b", "a")), tarball(reg("a", "1"), hard("b", "a"))},
			"a -rw-r--r-- 1\nb -rw-r--r-- 1\n"},
		"a type changes from layer to layer only": {
			[][]byte{tarball(reg("a", "1")), tarball(sym("a", "x")), tarball(folder("a/"))},
			"a drwxr-xr-x\n"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			info := w.accepted(t, Options{}, test.layers...)
			if got := w.tree(t); got != test.want {
				t.Errorf("tree\n%swant\n%s", got, test.want)
			}
			var paths []string
			for e := range info.Manifest {
				paths = append(paths, e.Path)
			}
			if onDisk := slices.Sorted(maps.Keys(snapshot(t, w.root, false))); !slices.Equal(paths, onDisk) {
				t.Errorf("%q in the manifest, %q on disk", paths, onDisk)
			}
		})
	}
}

func TestInfoSumsTheLayers(t *testing.T) {
	w := newWorld(t)
	a, b := tarball(reg("a", "12345"), reg("b", "1")), tarball(pax("SCHILY.xattr.user.x=y"), reg("a", "123"))
	info := w.accepted(t, Options{}, a, b)
	if info.Size != int64(len(a)+len(b)) || info.Unpacked != 9 || info.Entries != 3 || len(listed(t, info)) != 2 || !info.Digest.IsZero() {
		t.Errorf("Info = %+v", info)
	}
	want := `layer web:2: extended attributes and ACLs are not applied (entry 1 "a" is the first that has some)`
	if len(info.Warnings) != 1 || info.Warnings[0] != want {
		t.Errorf("Warnings = %q, want %q", info.Warnings, want)
	}
}

// Names that nobody asked for must not be followed on the way to a file that an
// earlier layer made: each file is a new inode.
func TestEveryFileIsANewInode(t *testing.T) {
	w := newWorld(t)
	// A hard link waits for the files before it.
	lower, upper := tarball(reg("a", "old"), hard("b", "a")), tarball(reg("a", "new"))
	ls := []Layer{{Name: "1", Open: openBytes(lower)}, {Name: "2", Open: openBytes(upper)}}
	kept := filepath.Join(w.outside, "kept")
	open := ls[1].Open
	ls[1].Open = func() (r readCloser, err error) { // between the layers
		must(t, os.Link(filepath.Join(w.root, "a"), kept))
		return open()
	}
	if _, err := Unpack(t.Context(), w.root, ls, Options{}); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(kept); string(b) != "old" {
		t.Errorf("the lower layer's inode holds %q, %v, want it as it was", b, err)
	}
}

func TestManyDirectoriesNeedFewDescriptors(t *testing.T) {
	const many, limit = 600, 256 // limit leaves room for a quarter of it
	var parts [][]byte
	for i := range many {
		name := "d" + string(rune('a'+i%26)) + "/" + string(rune('a'+i/26)) + "/"
		parts = append(parts, folder(name), reg(name+"f", "x"), sym(name+"s", "f"), hard(name+"h", name+"f"))
	}
	var old, few unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &old))
	few = old
	few.Cur = limit
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &few))
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &old)
	w := newWorld(t)
	info := w.accepted(t, Options{}, tarball(parts...), tarball(parts...))
	if n := len(listed(t, info)); n < 4*many {
		t.Errorf("%d entries in the manifest", n)
	}
}
