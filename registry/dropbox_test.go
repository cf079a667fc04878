package registry_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"deploytools/layers/digest"
	"deploytools/registry"
)

// tree returns what the caller sees, a line each: directories end in a slash,
// files show their digest's first characters, or how far they have come.
func tree(t *testing.T, r *registry.Registry) string {
	t.Helper()
	b, err := r.DropBox(t.Context(), caller)
	if err != nil {
		t.Fatalf("DropBox = %v", err)
	}
	var lines []string
	for p := range b.Dirs {
		lines = append(lines, p+"/")
	}
	for p, u := range b.Files {
		switch {
		case u.Complete:
			lines = append(lines, p+" "+u.Digest.String()[:4])
		case u.Receiving:
			lines = append(lines, p+" receiving")
		default:
			lines = append(lines, fmt.Sprintf("%s %d", p, u.Size))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, ", ")
}

func short(content string) string { return digest.Of([]byte(content)).String()[:4] }

// put uploads content to path.
func putAt(t *testing.T, r *registry.Registry, path, content string) registry.UploadState {
	t.Helper()
	return finish(t, receive(t, r, path, content))
}

func TestDropBoxOperations(t *testing.T) {
	type act func(t *testing.T, r *registry.Registry) error
	mkdir := func(p string) act {
		return func(t *testing.T, r *registry.Registry) error { return r.MakeDir(t.Context(), caller, p) }
	}
	rmdir := func(p string) act {
		return func(t *testing.T, r *registry.Registry) error { return r.RemoveDir(t.Context(), caller, p) }
	}
	rm := func(p string) act {
		return func(t *testing.T, r *registry.Registry) error { return r.RemoveFile(t.Context(), caller, p) }
	}
	move := func(from, to string, replace bool) act {
		return func(t *testing.T, r *registry.Registry) error {
			return r.Move(t.Context(), caller, from, to, replace)
		}
	}
	put := func(p, content string) act {
		return func(t *testing.T, r *registry.Registry) error { putAt(t, r, p, content); return nil }
	}
	partial := func(p string) act {
		return func(t *testing.T, r *registry.Registry) error { suspend(t, receive(t, r, p, "half")); return nil }
	}
	for name, test := range map[string]struct {
		before []act
		act    act
		want   string // the tree
		kind   error
	}{
		"mkdir":                         {nil, mkdir("/d"), "/d/", nil},
		"mkdir below":                   {nil, mkdir("/d/e"), "/d/e/", nil},
		"mkdir of what is there":        {[]act{mkdir("/d")}, mkdir("/d"), "/d/", registry.ErrConflict},
		"mkdir of what is implied":      {[]act{put("/d/f", "x")}, mkdir("/d"), "/d/f " + short("x"), registry.ErrConflict},
		"mkdir of the root":             {nil, mkdir("/"), "", registry.ErrConflict},
		"mkdir over a file":             {[]act{put("/f", "x")}, mkdir("/f"), "/f " + short("x"), registry.ErrConflict},
		"mkdir in a file":               {[]act{put("/f", "x")}, mkdir("/f/d"), "/f " + short("x"), registry.ErrConflict},
		"rmdir":                         {[]act{mkdir("/d")}, rmdir("/d"), "", nil},
		"rmdir of nothing":              {nil, rmdir("/d"), "", registry.ErrNotFound},
		"rmdir of a file":               {[]act{put("/d", "x")}, rmdir("/d"), "/d " + short("x"), registry.ErrConflict},
		"rmdir of a full one":           {[]act{mkdir("/d"), put("/d/f", "x")}, rmdir("/d"), "/d/, /d/f " + short("x"), registry.ErrConflict},
		"rmdir of one with a directory": {[]act{mkdir("/d"), mkdir("/d/e")}, rmdir("/d"), "/d/, /d/e/", registry.ErrConflict},
		"rmdir, a namesake is not in it": {
			[]act{mkdir("/d"), put("/d2", "x")}, rmdir("/d"), "/d2 " + short("x"), nil,
		},
		"rm":                                {[]act{put("/f", "x")}, rm("/f"), "", nil},
		"rm of a part":                      {[]act{partial("/f")}, rm("/f"), "", nil},
		"rm of a directory":                 {[]act{mkdir("/d")}, rm("/d"), "/d/", registry.ErrNotFound},
		"rm takes what was replaced too":    {[]act{put("/f", "x"), put("/f", "y")}, rm("/f"), "", nil},
		"rm leaves the directory":           {[]act{put("/d/f", "x")}, rm("/d/f"), "/d/", nil},
		"put replaces what is shown":        {[]act{put("/f", "x")}, put("/f", "y"), "/f " + short("y"), nil},
		"put ends a part":                   {[]act{partial("/f")}, put("/f", "y"), "/f " + short("y"), nil},
		"a part hides what was complete":    {[]act{put("/f", "x")}, partial("/f"), "/f 4", nil},
		"move":                              {[]act{put("/f", "x")}, move("/f", "/g", false), "/g " + short("x"), nil},
		"move of a part":                    {[]act{partial("/f")}, move("/f", "/g", false), "/g 4", nil},
		"move of nothing":                   {nil, move("/f", "/g", false), "", registry.ErrNotFound},
		"move to itself":                    {[]act{put("/f", "x")}, move("/f", "/f", false), "/f " + short("x"), nil},
		"move over a file":                  {[]act{put("/f", "x"), put("/g", "y")}, move("/f", "/g", false), "/f " + short("x") + ", /g " + short("y"), registry.ErrConflict},
		"posix move over a file":            {[]act{put("/f", "x"), put("/g", "y")}, move("/f", "/g", true), "/g " + short("x"), nil},
		"posix move over a newer part":      {[]act{put("/f", "x"), partial("/g")}, move("/f", "/g", true), "/g " + short("x"), nil},
		"posix move over a directory":       {[]act{put("/f", "x"), mkdir("/d")}, move("/f", "/d", true), "/d/, /f " + short("x"), registry.ErrConflict},
		"posix move of a directory on file": {[]act{put("/f", "x"), mkdir("/d")}, move("/d", "/f", true), "/d/, /f " + short("x"), registry.ErrConflict},
		"move out of a directory":           {[]act{put("/d/f", "x")}, move("/d/f", "/f", false), "/d/, /f " + short("x"), nil},
		"move into a file":                  {[]act{put("/f", "x"), put("/g", "y")}, move("/f", "/g/f", false), "/f " + short("x") + ", /g " + short("y"), registry.ErrConflict},
		"what was replaced stays hidden":    {[]act{put("/f", "x"), put("/f", "y")}, move("/f", "/g", false), "/g " + short("y"), nil},
		"move of a directory": {
			[]act{mkdir("/d"), mkdir("/d/e"), put("/d/e/f", "x"), partial("/d/p"), put("/d2", "y")}, move("/d", "/new", false),
			"/d2 " + short("y") + ", /new/, /new/e/, /new/e/f " + short("x") + ", /new/p 4", nil,
		},
		"move of a directory into itself": {[]act{mkdir("/d")}, move("/d", "/d/e", false), "/d/", registry.ErrConflict},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				r := w.open(t)
				for _, a := range test.before {
					if err := a(t, r); err != nil {
						t.Fatal(err)
					}
				}
				err := test.act(t, r)
				if test.kind == nil && err != nil {
					t.Errorf("= %v", err)
				} else if test.kind != nil {
					wantKind(t, name, err, test.kind)
				}
				if got := tree(t, r); got != test.want {
					t.Errorf("the tree is %q, want %q", got, test.want)
				}
				synctest.Wait()
				w.wantClosed(t)
				if other, err := r.DropBox(t.Context(), registry.Caller{Fingerprint: "SHA256:bob"}); err != nil || len(other.Files)+len(other.Dirs) != 0 {
					t.Errorf("another key sees %+v, %v", other, err)
				}
			})
		})
	}
}

// B-03: what is replaced under its name can still become a version.
func TestWhatIsReplacedIsKnownByItsDigest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := w.open(t)
		putAt(t, r, "/f", "one")
		putAt(t, r, "/f", "two")
		putAt(t, r, "/g", "three")
		if err := r.Move(t.Context(), caller, "/g", "/f", true); err != nil {
			t.Fatal(err)
		}
		for _, content := range []string{"one", "two", "three"} {
			addver(t, r, "code", content, content)
		}
		if got := tree(t, r); got != "" {
			t.Errorf("the tree is %q, want nothing", got)
		}
		w.fsck(t)
	})
}

func TestTwoReceiveTheSameAtOnce(t *testing.T) { // B-03
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := w.open(t)
		bob := registry.Caller{User: "bob", Role: registry.Publisher, Fingerprint: "SHA256:bob"}
		first := receive(t, r, "/f", "con")
		second, err := r.Receive(t.Context(), bob, "/f")
		if err != nil {
			t.Fatal(err)
		}
		write(t, second, "content", 0)
		if got := tree(t, r); got != "/f receiving" {
			t.Errorf("the tree is %q", got)
		}
		write(t, first, "tent", 3)
		finish(t, first)
		finish(t, second)
		addver(t, r, "code", "v1", "content")
		if a := addver(t, r, "code", "v2", "content"); a.Existed {
			t.Errorf("AddVersion = %+v, want a new version", a)
		}
		w.wantSpooled(t, 0)
		w.fsck(t)
	})
}

func TestWhatIsBeingWrittenIsNotMoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := w.open(t)
		in := receive(t, r, "/d/f", "con")
		wantKind(t, "Move of it", r.Move(t.Context(), caller, "/d/f", "/g", true), registry.ErrConflict)
		wantKind(t, "Move of its directory", r.Move(t.Context(), caller, "/d", "/e", false), registry.ErrConflict)
		wantKind(t, "RemoveFile", r.RemoveFile(t.Context(), caller, "/d/f"), registry.ErrConflict)
		wantKind(t, "RemoveDir", r.RemoveDir(t.Context(), caller, "/d"), registry.ErrConflict)
		finish(t, in)
		if got, want := tree(t, r), "/d/f "+short("con"); got != want {
			t.Errorf("the tree is %q, want %q", got, want)
		}
	})
}

func TestADirectoryWithTooManyEntriesIsNotMoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := w.open(t)
		for i := range 32 {
			if err := r.MakeDir(t.Context(), caller, fmt.Sprintf("/d/%d", i)); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.Move(t.Context(), caller, "/d", "/e", false); err != nil {
			t.Errorf("Move of 32 directories = %v", err)
		}
		putAt(t, r, "/e/f", "x")
		wantKind(t, "Move of 33 entries", r.Move(t.Context(), caller, "/e", "/g", false), registry.ErrConflict)
		if b, err := r.DropBox(t.Context(), caller); err != nil || len(b.Dirs) != 32 || slices.ContainsFunc(slices.Collect(maps.Keys(b.Dirs)), func(p string) bool { return strings.HasPrefix(p, "/g") }) {
			t.Errorf("DropBox = %+v, %v, want all in /e", b, err)
		}
	})
}

func TestManyDirectoriesExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := w.open(t)
		for i := range 2*registry.MaxWrites + 1 {
			if err := r.MakeDir(t.Context(), caller, fmt.Sprint("/", i)); err != nil {
				t.Fatal(err)
			}
		}
		w.clock.advance(25 * time.Hour)
		if err := r.MakeDir(t.Context(), caller, "/new"); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := tree(t, r); got != "/new/" {
			t.Errorf("the tree is %q, want the new directory alone", got)
		}
	})
}
