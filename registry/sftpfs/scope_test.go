package sftpfs

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/pkg/sftp"

	"deploytools/layers/digest"
	"deploytools/registry"
)

// In each tree a caller with a scope sees its configurations and their layers:
// in listings, by stat and by opening. The rest is denied by its name, or not
// there.
func TestScopeOfEveryPath(t *testing.T) {
	r := open(t, options())
	stock(t, r) // web and api have code:v2
	one, two := digest.Of([]byte("code v1")).String(), digest.Of([]byte("code v2")).String()
	narrow := func(role registry.Role, scope registry.Scope) registry.Caller {
		return registry.Caller{User: "x", Role: role, Fingerprint: "SHA256:x", Configs: scope}
	}
	for _, test := range []struct {
		scope          registry.Scope
		configs, files string
	}{
		{"", "api.json web.json", one + " " + two},
		{"web", "web.json", two},
		{"w*,other", "web.json", two},
		{"other", "", ""},
	} {
		for name, h := range map[string]sftp.Handlers{
			"agent":    Agent(t.Context(), r, narrow(registry.Agent, test.scope), nil),
			"operator": Operator(t.Context(), r, narrow(registry.Admin, test.scope), nil, nil),
		} {
			c, _ := dial(t, h)
			for dir, want := range map[string]string{"/configs": test.configs, "/files": test.files} {
				var got []string
				for line := range strings.Lines(ls(t, c, dir)) {
					words := strings.Fields(line)
					got = append(got, words[len(words)-1])
				}
				wanted := strings.Fields(want)
				slices.Sort(wanted) // as a listing is
				if !slices.Equal(got, wanted) {
					t.Errorf("%s with %q: ls %s = %q, want %q", name, test.scope, dir, got, wanted)
				}
			}
			for path, visible := range map[string]bool{
				"/configs/web.json": strings.Contains(test.configs, "web"), "/configs/api.json": strings.Contains(test.configs, "api"),
				"/files/" + one: strings.Contains(test.files, one), "/files/" + two: strings.Contains(test.files, two),
			} {
				want := fs.ErrNotExist
				if strings.HasPrefix(path, configsDir) {
					want = fs.ErrPermission
				}
				_, stat := c.Stat(path)
				_, lstat := c.Lstat(path)
				f, open := c.Open(path)
				if open == nil {
					f.Close()
				}
				for what, err := range map[string]error{"Stat": stat, "Lstat": lstat, "Open": open} {
					if (err == nil) != visible || err != nil && !errors.Is(err, want) {
						t.Errorf("%s with %q: %s(%s) = %v, want it: %t", name, test.scope, what, path, err, visible)
					}
				}
				if _, err := c.ReadDir(path); err == nil || !visible && !errors.Is(err, want) {
					t.Errorf("%s with %q: ReadDir(%s) = %v", name, test.scope, path, err)
				}
			}
			// Whether there is one of this name cannot be told.
			if _, err := c.Stat("/configs/nobody.json"); errors.Is(err, fs.ErrPermission) != (test.scope != "") {
				t.Errorf("%s with %q: Stat of a missing one = %v", name, test.scope, err)
			}
		}
	}
}

// What somebody uploads is his whatever its scope is.
func TestScopeLeavesUploadsAlone(t *testing.T) {
	r := open(t, options())
	stock(t, r)
	c, _, _ := session(t, r, registry.Caller{Role: registry.Publisher, Fingerprint: "SHA256:ci", Configs: "other"})
	put(t, c, "new", "content")
	if got := read(t, c, "new"); got != "content" {
		t.Errorf("new holds %q", got)
	}
}
