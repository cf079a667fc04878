package agent

import (
	"io"
	"iter"
	"os"
	"syscall"
	"time"

	"deploytools/layers/manifest"
)

// twin is a root that was filled later than the one that is compared, and has files of
// it as hard links. Each was looked at when it was linked, which has changed its inode.
type twin struct {
	root  *os.Root
	text  io.Closer // its manifest
	since time.Time // How.Since of this one

	pull func() (manifest.Entry, error, bool)
	stop func()
	at   manifest.Entry // the last that was pulled
	end  bool
}

// newTwin returns r as the twin of others in the directory dir of an agent; nil: it
// cannot be one. The caller calls close.
func newTwin(dir, text string, since time.Time) *twin {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil
	}
	f, err := os.Open(text)
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
// twin's directory of the same path; nil: there is none. The entries come in their
// order.
func (t *twin) vouches(dir *os.Root, name string, st *syscall.Stat_t, e manifest.Entry) bool {
	if t == nil || dir == nil || !time.Unix(st.Ctim.Unix()).Before(t.since) {
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
