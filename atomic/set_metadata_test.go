package atomic

import (
	"io/fs"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// after applies one file and returns what lies there.
func (s site) after(t *testing.T, p Plan) node {
	t.Helper()
	must(s.applies(t, p))
	n, err := disk{}.node(p.Files[0].Path)
	must(err)
	return n
}

func (s site) one(m Metadata) Plan {
	return Plan{ID: "set", Files: []Target{{Path: s.etc + "/f", Bytes: []byte("new"), Metadata: m}}}
}

func ownerAndGroupAreIndependent(t *testing.T, s site) {
	needsRoot(t)
	s.write(t, "f", "old", 0o604)
	must(os.Chown(s.etc+"/f", 11, 12))
	for _, c := range []struct {
		name     string
		m        Metadata
		uid, gid int
		mode     octal
	}{
		{"nothing", Metadata{}, 11, 12, 0o604},
		{"owner", Metadata{Owner: []string{"no-such-user", "21"}}, 21, 12, 0o604},
		{"group", Metadata{Group: []string{"root"}}, 21, 0, 0o604},
		{"mode", Metadata{Mode: 0o640}, 21, 0, 0o640},
	} {
		if n := s.after(t, s.one(c.m)); n.uid != c.uid || n.gid != c.gid || n.mode != c.mode {
			t.Errorf("%s: %+v, want %d:%d %o", c.name, n, c.uid, c.gid, c.mode)
		}
	}
	p := s.one(Metadata{})
	p.Defaults = Metadata{Mode: 0o600, Owner: []string{"31"}}
	if n := s.after(t, p); n.uid != 21 || n.mode != 0o640 {
		t.Errorf("defaults change a file that exists: %+v", n)
	}
	must(os.Remove(s.etc + "/f"))
	if n := s.after(t, p); n.uid != 31 || n.gid != os.Getegid() || n.mode != 0o600 {
		t.Errorf("defaults of a new file: %+v", n)
	}
}

func specialBitsSurviveTheOwner(t *testing.T, s site) {
	needsRoot(t)
	m := Metadata{Mode: fs.ModeSetuid | fs.ModeSetgid | 0o755, Owner: []string{"11"}, Group: []string{"12"}}
	if n := s.after(t, s.one(m)); n.mode != unix.S_ISUID|unix.S_ISGID|0o755 || n.uid != 11 {
		t.Errorf("%+v", n)
	}
	if err := s.applies(t, s.one(Metadata{Mode: 0o4755})); err == nil {
		t.Error("0o4755 is taken for a mode, and would lose its setuid bit")
	}
}

func existingSpecialBitsAreKept(t *testing.T, s site) {
	s.write(t, "f", "old", fs.ModeSetgid|0o750)
	if n := s.after(t, s.one(Metadata{})); n.mode != unix.S_ISGID|0o750 {
		t.Errorf("%+v", n)
	}
}
