package agent

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What people have put between what is ours was removed with it.
func TestRemoveLeavesWhatIsForeign(t *testing.T) {
	for _, point := range []string{"", "removal of some of roots", "removal of some of cache", "removal of some of deployments", "removal of roots"} {
		h := removable(t)
		var foreign []string
		for _, name := range []string{"roots/full-foreign/x", "roots/note", "roots/000055-abcdefabcdef/x", "roots/site.json", "cache/note", "cache/.note.partial",
			"deployments/notes/x", "deployments/000001-abcdefabcdef"} {
			path := filepath.Join(h.dir, name)
			must(os.MkdirAll(filepath.Dir(path), 0o755))
			must(os.WriteFile(path, []byte("precious"), 0o600))
			foreign = append(foreign, path)
		}
		must(os.WriteFile(filepath.Join(h.dir, "roots", ".atomic-aaaaaaaaaaaaaaaaaaaaaaaaaa.tmp"), nil, 0o600))
		m, err := h.new().Remains(false)
		must(err)
		if point != "" {
			h.cutOff(false, point)
		}
		a := h.new()
		must(a.Remove(t.Context(), false))
		var left []string
		for _, sub := range []string{"roots", "cache", "deployments"} {
			must(filepath.WalkDir(filepath.Join(h.dir, sub), func(path string, e os.DirEntry, err error) error {
				if err == nil && !e.IsDir() {
					left = append(left, path)
				}
				return err
			}))
		}
		slices.Sort(left)
		slices.Sort(foreign)
		if !slices.Equal(left, foreign) || h.left() != "cache deployments precious roots" {
			t.Errorf("killed at %q: left %q and %q, want %q", point, left, h.left(), foreign)
		}
		stays := []string{h.dir + "/cache/.note.partial", h.dir + "/cache/note", h.dir + "/deployments/000001-abcdefabcdef", h.dir + "/deployments/notes", h.dir + "/lock",
			h.dir + "/precious", h.dir + "/roots/000055-abcdefabcdef", h.dir + "/roots/full-foreign", h.dir + "/roots/note", h.dir + "/roots/site.json"}
		told := slices.DeleteFunc(a.Leftovers(), func(path string) bool { return path == h.dir+"/serving" })
		slices.Sort(told)
		if !slices.Equal(told, stays) {
			t.Errorf("killed at %q: told %q, want %q", point, told, stays)
		}
		for _, path := range m.Gone {
			if _, err := os.Lstat(path); err == nil {
				t.Errorf("killed at %q: %s was to go", point, path)
			}
		}
		for _, path := range stays {
			if filepath.Dir(path) != h.dir && !slices.Contains(m.Stays, path) {
				t.Errorf("%s is not among what stays: %q", path, m.Stays)
			}
		}
		if err := h.run(); err != nil || h.live() != "v2" { // and it may come back
			t.Errorf("Run = %v, %q is live", err, h.live())
		}
	}
}

// bind mounts a directory of somebody over another one, until the test ends.
func bind(t *testing.T, from, to string) (precious string) {
	t.Helper()
	must(errors.Join(os.MkdirAll(from, 0o755), os.MkdirAll(to, 0o755)))
	precious = filepath.Join(from, "precious")
	must(os.WriteFile(precious, []byte("data"), 0o600))
	must(unix.Mount(from, to, "", unix.MS_BIND, ""))
	t.Cleanup(func() { unix.Unmount(to, unix.MNT_DETACH) })
	return precious
}

// Nothing is done where something is mounted in what would go; once it is not, it goes.
func TestRemoveRefusesWhereSomethingIsMounted(t *testing.T) {
	needsRoot(t)
	h := removable(t)
	at := filepath.Join(h.dir, h.agent.Record().Live.Dir, "a mount")
	precious := bind(t, t.TempDir(), at)
	before := h.left()
	m, err := h.new().Remains(false)
	if err != nil || !slices.Equal(m.Mounted, []string{at}) {
		t.Errorf("mounted: %q, %v; want %q", m.Mounted, err, at)
	}
	if m, err := h.new().Remains(true); err != nil || len(m.Mounted) > 0 {
		t.Errorf("with its data kept: mounted %q, %v", m.Mounted, err)
	}
	err = h.new().Remove(t.Context(), false)
	if !errors.Is(err, ErrMounted) || !strings.Contains(err.Error(), at) || h.left() != before || len(h.calls) > 0 {
		t.Errorf("Remove = %v; %d programs ran, left %s", err, len(h.calls), h.left())
	}
	if a, err := Look(h.o); err != nil || a.Record().Removing != nil {
		t.Errorf("the removal is on record, or %v", err)
	}
	must(unix.Unmount(at, 0))
	must(h.new().Remove(t.Context(), false))
	if _, err := os.Stat(precious); err != nil || h.left() != "precious" {
		t.Errorf("left %s, %v", h.left(), err)
	}
}

// What is mounted after that look is not entered either, by a collection as little.
func TestTreesAreNotRemovedThroughMounts(t *testing.T) {
	needsRoot(t)
	dir := t.TempDir()
	precious := bind(t, t.TempDir(), filepath.Join(dir, "tree", "sub", "mount"))
	p := &pace{ctx: t.Context()}
	if err := p.removeTree(dir, "tree"); !errors.Is(err, ErrMounted) || !strings.Contains(err.Error(), "tree/sub/mount") {
		t.Errorf("removeTree = %v, want ErrMounted", err)
	}
	if _, err := os.Stat(precious); err != nil {
		t.Error(err)
	}
}

// People put roots and layers on another disk, by a mount or a link: what is ours there
// goes, and the place itself stays.
func TestRemoveEmptiesWhatLiesElsewhere(t *testing.T) {
	needsRoot(t)
	for _, name := range []string{"roots", "cache", "deployments"} {
		for _, how := range []string{"mount", "link"} {
			h := removable(t)
			place, elsewhere := filepath.Join(h.dir, name), filepath.Join(memoryDir(t), "big")
			must(os.Rename(place, elsewhere))
			if how == "link" {
				must(os.Symlink(elsewhere, place))
			} else {
				bind(t, elsewhere, place)
			}
			must(os.WriteFile(filepath.Join(elsewhere, "precious"), nil, 0o600))
			m, err := h.new().Remains(false)
			must(err)
			if slices.Contains(m.Gone, place) || !slices.Contains(m.Stays, place) || !slices.Contains(m.Stays, filepath.Join(place, "precious")) {
				t.Errorf("%s by %s: goes %q, stays %q", name, how, m.Gone, m.Stays)
			}
			must(h.new().Remove(t.Context(), false))
			entries, err := os.ReadDir(elsewhere)
			if err != nil || len(entries) != 1 || h.left() != strings.Join(slices.Sorted(slices.Values([]string{name, "precious"})), " ") {
				t.Errorf("%s by %s: left %s, there %v, %v", name, how, h.left(), entries, err)
			}
			for _, path := range m.Gone {
				if _, err := os.Lstat(path); err == nil {
					t.Errorf("%s by %s: %s was to go", name, how, path)
				}
			}
		}
	}
}

// What is not as an agent makes it is somebody else's.
func TestRemoveLeavesWhatIsNotAsMade(t *testing.T) {
	h := removable(t)
	for _, name := range []string{".back", "control.sock"} {
		must(os.RemoveAll(filepath.Join(h.dir, name)))
		must(os.MkdirAll(filepath.Join(h.dir, name, "sub"), 0o755))
	}
	must(os.RemoveAll(filepath.Join(h.dir, "cache")))
	must(os.WriteFile(filepath.Join(h.dir, "cache"), nil, 0o600))
	store := filepath.Join(h.dir, storeName)
	must(os.MkdirAll(store, 0o755))
	for _, name := range []string{"notes.txt", "lock"} {
		must(os.WriteFile(filepath.Join(store, name), nil, 0o600))
	}
	must(h.new().Remove(t.Context(), false))
	entries, err := os.ReadDir(store)
	if err != nil || len(entries) != 1 || h.left() != ".back cache control.sock precious published" {
		t.Errorf("left %s, in %s %v, %v", h.left(), store, entries, err)
	}
}

// What comes while a directory is cleared stays as well.
func TestRemoveLeavesWhatComesLate(t *testing.T) {
	h := removable(t)
	late := filepath.Join(h.dir, "cache", "late")
	h.seam = func(point string) {
		if point == "removal of some of cache" {
			must(os.WriteFile(late, nil, 0o600))
		}
	}
	must(h.new().Remove(t.Context(), false))
	if _, err := os.Stat(late); err != nil {
		t.Error(err)
	}
}
