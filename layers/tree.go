package layers

import (
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"deploytools/layers/digest"
	"deploytools/layers/manifest"
)

// node is one name in the tree that the layers so far make.
type node struct {
	name     string
	parent   *node
	children map[string]*node // directories only

	layer      int  // that made it or, for a directory, last spoke of it
	number     int  // of the entry; 0: a directory that no entry of the layer named
	as         kind // of the entry
	kind       kind // what it became: never hardLink
	mode       uint32
	uid        int
	gid        int
	mtime      time.Time
	target     string // of a symlink
	capability string // of a file, see entry

	content *content // of a file; hard links share it
	handle  *os.Root // a directory's, while a disk has it open
}

// content is a file's inode. Its digest is there when writer.settle returned.
type content struct {
	size   int64
	digest digest.Digest
	links  int
	node   *node // whose mode, owner and time it has
}

// tree holds the rules between entries: docs/layer-format.md, 4 to 7.
type tree struct {
	top   *node
	layer int
	a     *archive // the layer being read
	w     writer
}

// writer makes on disk what the tree decides. Its calls come in an order in
// which each can be done at once: parents exist, names are free.
type writer interface {
	mkdir(n *node) error
	// file makes n with the content that comes from the archive. It may
	// finish, and set n.content.digest, after it returned.
	file(n *node, e *entry, a *archive) error
	symlink(n *node) error
	link(n, to *node) error
	// remove deletes n and what is below it.
	remove(n *node) error
	// settle waits for all files.
	settle() error
}

func newTree(w writer) *tree {
	top := &node{as: dir, kind: dir, mode: 0o755, children: map[string]*node{}}
	return &tree{top: top, w: w}
}

// add puts e of the current layer into the tree.
func (t *tree) add(e *entry) error {
	if len(e.path) == 0 {
		return nil // the top directory: its mode and owner are the root's own affair
	}
	parent, err := t.parents(e.path[:len(e.path)-1])
	if err != nil {
		return err
	}
	name := e.path[len(e.path)-1]
	old := parent.children[name]
	if old != nil && old.layer == t.layer && old.as != e.kind {
		return t.a.refuse("is %s here, but already %s (%s)", kindNames[e.kind], kindNames[old.as], t.which(old))
	}
	if old != nil && old.kind == dir && e.kind == dir {
		t.describe(old, e)
		return nil
	}
	n := &node{name: name, parent: parent, as: e.kind, kind: e.kind}
	var to *node
	if e.kind == hardLink {
		// Looked up before the old node goes, so that a link to itself is seen.
		if to, err = t.linkTarget(e, old); err != nil {
			return err
		}
	}
	if old != nil {
		if err := t.w.remove(old); err != nil {
			return err
		}
	}
	parent.children[name] = n
	t.describe(n, e)
	switch e.kind {
	case dir:
		n.children = map[string]*node{}
		return t.w.mkdir(n)
	case symlink:
		n.target = e.target
		return t.w.symlink(n)
	case hardLink:
		return t.link(n, to)
	}
	n.capability = e.capability
	n.content = &content{links: 1, size: e.size, node: n}
	return t.w.file(n, e, t.a)
}

func (t *tree) describe(n *node, e *entry) {
	n.layer, n.number, n.mode, n.uid, n.gid, n.mtime = t.layer, e.number, e.mode, e.uid, e.gid, e.mtime
}

// parents walks down to the directory that holds an entry, and makes what is
// missing on the way. Nothing is followed.
func (t *tree) parents(path []string) (*node, error) {
	at := t.top
	for i, name := range path {
		n := at.children[name]
		if n != nil && n.kind != dir {
			if n.kind == symlink || n.layer == t.layer {
				return nil, t.a.refuse("goes through %s %q (%s)", theKind[n.kind], strings.Join(path[:i+1], "/"), t.which(n))
			}
			if err := t.w.remove(n); err != nil {
				return nil, err
			}
			n = nil
		}
		if n == nil {
			n = &node{name: name, parent: at, as: dir, kind: dir, mode: 0o755, layer: t.layer, children: map[string]*node{}}
			at.children[name] = n
			if err := t.w.mkdir(n); err != nil {
				return nil, err
			}
		}
		// A directory that this layer passes through is this layer's: a later
		// entry of it cannot take its place.
		n.layer, n.number = t.layer, t.numberIn(n)
		at = n
	}
	return at, nil
}

func (t *tree) numberIn(n *node) int {
	if n.layer == t.layer {
		return n.number
	}
	return 0
}

var theKind = map[kind]string{file: "the file", symlink: "the symlink"}

// which says where n comes from.
func (t *tree) which(n *node) string {
	switch {
	case n.layer != t.layer:
		return "of an earlier layer"
	case n.number == 0:
		return "because an earlier entry lies in it"
	}
	return "entry " + strconv.Itoa(n.number)
}

// linkTarget finds what a hard link names: a file or symlink that this layer
// made before. old is what the link replaces.
func (t *tree) linkTarget(e *entry, old *node) (*node, error) {
	n := t.top
	for _, name := range e.linkTo {
		if n = n.children[name]; n == nil {
			break
		}
	}
	switch {
	case n == nil || n.layer != t.layer || n.kind == dir:
		return nil, t.a.refuse("target %q of the hard link is no earlier file or symlink of this layer", strings.Join(e.linkTo, "/"))
	case n == old:
		return nil, t.a.refuse("hard link to itself")
	case n.content != nil && n.content.links >= t.a.o.Limits.Links:
		return nil, t.a.refuse("more than %d links to one file (limit Links)", t.a.o.Limits.Links)
	}
	return n, nil
}

func (t *tree) link(n, to *node) error {
	if to.content == nil {
		// A link to a symlink is one more symlink with the same text.
		n.kind, n.target, n.mtime = symlink, to.target, to.mtime
		return t.w.symlink(n)
	}
	to.content.links++
	n.kind, n.content = file, to.content
	if err := t.w.settle(); err != nil {
		return err
	}
	return t.w.link(n, to)
}

// path returns the slash-separated path from the top.
func (n *node) path() string {
	if n.parent == nil || n.parent.parent == nil {
		return n.name
	}
	return n.parent.path() + "/" + n.name
}

// walk calls fn for each node below n, parents first.
func (n *node) walk(path string, fn func(path string, n *node) error) error {
	for _, name := range slices.Sorted(maps.Keys(n.children)) {
		c := n.children[name]
		p := path + name
		if err := fn(p, c); err != nil {
			return err
		}
		if err := c.walk(p+"/", fn); err != nil {
			return err
		}
	}
	return nil
}

// manifest lists the tree; its files must have settled.
func (t *tree) manifest() manifest.Manifest {
	var m manifest.Manifest
	t.top.walk("", func(path string, n *node) error {
		e := manifest.Entry{Path: path, Type: manifest.Type(n.kind), Mode: n.mode, UID: n.uid, GID: n.gid, Target: n.target}
		if n.kind == symlink {
			e.Mode = 0o777
		}
		if c := n.content; c != nil {
			e.Size, e.Digest = c.size, c.digest
			e.Mode, e.UID, e.GID = c.node.mode, c.node.uid, c.node.gid
		}
		m = append(m, e)
		return nil
	})
	m.Sort()
	return m
}
