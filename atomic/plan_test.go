package atomic

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
)

func TestPlanIsCheckedBeforeAnythingIsTouched(t *testing.T) {
	s := newSite(t)
	before, _ := s.furnish(t)
	must(os.Symlink(s.etc, s.etc+"/../alias"))
	file := func(path string) Target { return Target{Path: path} }
	for name, c := range map[string]struct {
		p    Plan
		want string
	}{
		"no files":       {Plan{ID: "x"}, "no files"},
		"no id":          {Plan{Files: []Target{file("/x")}}, `id ""`},
		"id with slash":  {Plan{ID: "a/b", Files: []Target{file("/x")}}, `id "a/b"`},
		"hidden id":      {Plan{ID: ".a", Files: []Target{file("/x")}}, `id ".a"`},
		"relative":       {Plan{ID: "x", Files: []Target{file("etc/x")}}, "not an absolute path"},
		"root":           {Plan{ID: "x", Files: []Target{file("/")}}, "names a directory"},
		"slash":          {Plan{ID: "x", Files: []Target{file("/x/")}}, "names a directory"},
		"not UTF-8":      {Plan{ID: "x", Files: []Target{file("/\xff")}}, "UTF-8"},
		"twice":          {Plan{ID: "x", Files: []Target{file(s.etc + "/a"), file(s.etc + "//a")}}, "named twice"},
		"two names":      {Plan{ID: "x", Files: []Target{file(s.etc + "/a"), file(s.etc + "/../alias/a")}}, "are one file"},
		"nested":         {Plan{ID: "x", Files: []Target{file(s.etc + "/a"), file(s.etc + "/a/b")}}, "is to be a file"},
		"no directory":   {Plan{ID: "x", Files: []Target{file(s.etc + "/no/a")}}, "no such file"},
		"in the store":   {Plan{ID: "x", Files: []Target{file(s.dir + "/published.json")}}, "lies in the store"},
		"two contents":   {Plan{ID: "x", Files: []Target{{Path: "/x", Bytes: []byte{}, Remove: true}}}, "more than one"},
		"bad digest":     {Plan{ID: "x", Files: []Target{{Path: "/x", Digest: "ABC"}}}, "64 lower-case"},
		"other digest":   {Plan{ID: "x", Files: []Target{{Path: s.etc + "/x", Digest: strings.Repeat("0", 64)}}}, "not 000000"},
		"type in mode":   {Plan{ID: "x", Files: []Target{{Path: "/x", Metadata: Metadata{Mode: fs.ModeDir}}}}, "no file can have"},
		"type in deflt":  {Plan{ID: "x", Defaults: Metadata{Mode: 0o4755}, Files: []Target{file("/x")}}, "no file can have"},
		"unknown owner":  {Plan{ID: "x", Files: []Target{{Path: s.etc + "/x", Metadata: Metadata{Owner: []string{"no-such-user"}}}}}, "no-such-user"},
		"digest of open": {Plan{ID: "x", Files: []Target{{Path: s.etc + "/x", Digest: strings.Repeat("0", 64), Open: func() (io.ReadCloser, error) { return &zeros{1}, nil }}}}, "not 000000"},
	} {
		_, err := s.Prepare(t.Context(), c.p)
		if !errors.Is(err, ErrPlanInvalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: Prepare = %v, want %q", name, err, c.want)
		}
	}
	if seen := s.names(t); !slices.Equal(seen, []string{"cert", "gone"}) {
		t.Errorf("%q is there, want what was there before: %q", seen, before)
	}
}

// names lists all that lies in the directory.
func (s site) names(t *testing.T) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(s.etc)
	must(err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
