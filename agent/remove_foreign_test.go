package agent

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// What people have put between what is ours was removed with it.
func TestRemoveLeavesWhatIsForeign(t *testing.T) {
	for _, point := range []string{"", "removal hid some of roots", "removal hid some of cache", "removal hid some of deployments", "removal of roots"} {
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
