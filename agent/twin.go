package agent

import (
	"io"
	"iter"
	"os"
	"syscall"
	"time"

	"deploytools/layers/digest"
	"deploytools/layers/manifest"
)

// twin is a root that was filled later than the one that is compared, and has files of
// it as hard links. Each was looked at just before it was linked, which has changed its
// inode.
type twin struct {
	root  *os.Root
	text  io.Closer // its manifest
	since time.Time // How.Since of this one

	pull func() (manifest.Entry, error, bool)
	stop func()
	at   manifest.Entry // the last that was pulled
	end  bool
}

// newTwin returns the root in the directory dir, with the manifest in the file text,
// as the twin of others; nil: it cannot be one. The caller calls close.
func newTwin(dir, text string, d digest.Digest, since time.Time) *twin {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil
	}
	f, err := openManifest(text, d)
	if err != nil {
		root.Close()
		return nil
	}
	t := &twin{root: root, text: f, since: since}
	t.pull, t.stop = iter.Pull2(manifest.Read(f))
	return t
}

func (t *twin) close() {
	if t != nil {
		t.stop()
		t.text.Close()
		t.root.Close()
	}
}

func (t *twin) top() *os.Root {
	if t == nil {
		return nil
	}
	return t.root
}

// vouches reports whether the twin has the file, as the entry wants it. dir is the
// twin's directory of the same path; nil: there is none. Nobody may have written to the
// file since the compared root was filled, which linking does not do: so also who
// writes between the link and the end of the twin's unpacking is noticed. The entries
// come in their order.
func (t *twin) vouches(dir *os.Root, name string, st *syscall.Stat_t, e manifest.Entry, filled time.Time) bool {
	if t == nil || dir == nil || !time.Unix(st.Ctim.Unix()).Before(t.since) || !time.Unix(st.Mtim.Unix()).Before(filled) {
		return false
	}
	for !t.end && t.at.Path < e.Path {
		one, err, ok := t.pull()
		t.at, t.end = one, !ok || err != nil
	}
	if t.end || t.at.Path != e.Path || t.at.Digest != e.Digest {
		return false
	}
	info, err := dir.Lstat(name)
	if err != nil {
		return false
	}
	is := info.Sys().(*syscall.Stat_t)
	return is.Ino == st.Ino && is.Dev == st.Dev
}
