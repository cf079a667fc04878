package layers

import (
	"maps"
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

	content *content // of a file or symlink; hard links share it
}

// content is an inode. The digest is there when writer.settle returned.
type content struct {
	size   int64 // of a file
	digest digest.Digest
	links  int
	node   *node // whose mode, owner and time it has
}

// tree holds the rules between entries: docs/layer-format.md, 4 to 7.
type tree struct {
	top *node
	w   writer

	a       *archive // the layer being read
	layer   int      // its number
	implied int      // directories that it made without an entry of their own
	names   int64    // bytes of its paths and targets
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

// begin starts the next layer.
func (t *tree) begin(a *archive) {
	t.a, t.implied, t.names = a, 0, 0
	t.layer++
}

// add puts e of the current layer into the tree.
func (t *tree) add(e *entry) error {
	if err := t.count(e.path, e.target); err != nil {
		return err
	}
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
	n := &node{name: strings.Clone(name), parent: parent, as: e.kind, kind: e.kind}
	var to *node
	if e.kind == hardLink {
		// Before the old node goes, so that a link to itself is seen.
		if to, err = t.linkTarget(e, old); err != nil {
			return err
		}
	}
	if old != nil {
		if err := t.w.remove(old); err != nil {
			return err
		}
	}
	parent.children[n.name] = n
	t.describe(n, e)
	return t.make(n, e, to)
}

// make has the writer make n. to is what a hard link names.
func (t *tree) make(n *node, e *entry, to *node) error {
	switch e.kind {
	case dir:
		n.children = map[string]*node{}
		return t.w.mkdir(n)
	case hardLink:
		return t.link(n, to)
	}
	n.content = &content{links: 1, size: e.size, node: n}
	if e.kind == symlink {
		n.target = strings.Clone(e.target) // it is a part of the extension header
		return t.w.symlink(n)
	}
	n.capability = strings.Clone(e.capability)
	return t.w.file(n, e, t.a)
}

// count counts what a path costs, whoever keeps the tree in memory.
func (t *tree) count(path []string, target string) error {
	for _, name := range path {
		t.names += int64(len(name)) + 1
	}
	t.names += int64(len(target))
	switch l := t.a.o.Limits; {
	case t.a.number+t.implied > l.Entries:
		return t.a.refuse("more than %d entries with the directories around them (limit Entries)", l.Entries)
	case t.names > l.Names:
		return t.a.refuse("names and targets of more than %d bytes (limit Names)", l.Names)
	}
	return t.a.room.need(known(t.a.number+t.implied, t.names))
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
			t.implied++
			if err := t.count(path[:i+1], ""); err != nil {
				return nil, err
			}
			n = &node{name: strings.Clone(name), parent: at, as: dir, kind: dir, mode: 0o755, layer: t.layer, children: map[string]*node{}}
			at.children[n.name] = n
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
	n := t.top.find(e.linkTo)
	switch {
	case n == nil || n.layer != t.layer || n.kind == dir:
		return nil, t.a.refuse("target %q of the hard link is no earlier file or symlink of this layer", strings.Join(e.linkTo, "/"))
	case n == old:
		return nil, t.a.refuse("hard link to itself")
	case n.content.links >= t.a.o.Limits.Links:
		return nil, t.a.refuse("more than %d links to one file (limit Links)", t.a.o.Limits.Links)
	}
	return n, nil
}

// find returns what lies below n; nil: nothing.
func (n *node) find(path []string) *node {
	for _, name := range path {
		if n = n.children[name]; n == nil {
			return nil
		}
	}
	return n
}

// link makes n one more name of to: of the symlink itself, where it is one.
func (t *tree) link(n, to *node) error {
	to.content.links++
	n.kind, n.target, n.content = to.kind, to.target, to.content
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

// count returns how many nodes are below n.
func (n *node) count() int {
	all := len(n.children)
	for _, c := range n.children {
		all += c.count()
	}
	return all
}

// drain calls fn for each node below n, parents first, and takes it out of the
// tree.
func (n *node) drain(path string, fn func(path string, n *node)) {
	for _, name := range slices.Sorted(maps.Keys(n.children)) {
		c := n.children[name]
		p := path + name
		fn(p, c)
		c.drain(p+"/", fn)
	}
	n.children = nil
}

// manifest lists the tree, whose files must have settled. Nothing is left of the
// tree: of a million files each of the two takes hundreds of megabytes.
func (t *tree) manifest() manifest.Manifest {
	m := make(manifest.Manifest, 0, t.top.count())
	t.top.drain("", func(path string, n *node) {
		e := manifest.Entry{Path: path, Type: manifest.Type(n.kind), Target: n.target}
		from := n
		if c := n.content; c != nil {
			from, e.Size, e.Digest = c.node, c.size, c.digest
		}
		e.Mode, e.UID, e.GID = from.mode, from.uid, from.gid
		if n.kind == symlink {
			e.Mode = 0o777
		}
		m = append(m, e)
	})
	m.Sort()
	return m
}
