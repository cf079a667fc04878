package layers

import (
	"hash/maphash"
	"strconv"
	"strings"
	"time"

	"deploytools/layers/digest"
)

// node is one name in the tree that the layers so far make.
type node struct {
	name    ref // in tree.texts
	parent  ref // in tree.dirs
	sibling ref // the next of the directory's nodes; 0: none
	what    ref // in the table of its kind; hard links to a file or symlink share it

	number uint32 // of the entry; 0: a directory that no entry of the layer named
	layer  uint16 // that made it or, for a directory, last spoke of it
	as     kind   // of the entry
	kind   kind   // what it became: never hardLink
}

// attributes are what an inode has, whatever its kind.
type attributes struct {
	uid, gid uint32
	mode     uint16
}

type directory struct {
	attributes
	node  ref // its name
	first ref // of its nodes; 0: none
	mtime instant
}

// instant is a time.Time without a pointer.
type instant struct {
	sec  int64
	nsec int32
}

func instantOf(t time.Time) instant { return instant{t.Unix(), int32(t.Nanosecond())} }

func (i instant) time() time.Time { return time.Unix(i.sec, int64(i.nsec)) }

type regular struct {
	attributes
	names  uint32 // hard links
	size   int64
	digest digest.Digest // there when writer.settle returned
}

type symbolic struct {
	attributes
	names  uint32 // hard links
	target ref    // in tree.texts
}

// tree holds the rules between entries: docs/layer-format.md, 4 to 7. It forgets
// nothing: what a later entry replaces stays in the tables. A name that is there
// keeps its node; a directory that comes again is another one, so that nobody
// finds what the earlier one held.
type tree struct {
	nodes    table[node]      // 0: the top directory's, which is nobody's child
	dirs     table[directory] // 0: the top
	files    table[regular]
	symlinks table[symbolic]
	texts    texts
	scratch  *scratch // where they lie; nil: in memory

	buckets []ref         // the first node of each, by a hash of directory and name
	lookups table[lookup] // of nodes, under their numbers
	seed    maphash.Seed

	w    writer
	self *attributes // who owns everything; nil: whom the archives name

	a       *archive // the layer being read
	layer   uint16   // its number
	implied int      // directories that it made without an entry of their own
	names   int64    // bytes of its paths and targets
}

// writer makes on disk what the tree decides. Its calls come in an order in
// which each can be done at once: parents exist, names are free.
type writer interface {
	mkdir(n *node) error
	// file makes n with the content that comes from the archive, and sets its digest.
	// It may finish after it returned.
	file(n *node, to *digest.Digest, e *entry, a *archive) error
	symlink(n *node, e *entry) error
	link(n, to *node) error
	// remove deletes n and what is below it.
	remove(n *node) error
	// settle waits for all files.
	settle() error
}

const top = ref(0)

// newTree returns an empty tree, whose tables lie in s. The caller gives it a
// writer.
func newTree(s *scratch) *tree {
	t := &tree{
		nodes: table[node]{scratch: s}, dirs: table[directory]{scratch: s}, files: table[regular]{scratch: s},
		symlinks: table[symbolic]{scratch: s}, texts: texts{scratch: s}, scratch: s,
		seed: maphash.MakeSeed(), buckets: make([]ref, recordsAtOnce),
	}
	t.texts.add("") // the top's name
	t.nodes.add(node{as: dir, kind: dir})
	t.lookups.add(lookup{})
	t.dirs.add(directory{attributes: attributes{mode: 0o755}})
	return t
}

// begin starts the next layer.
func (t *tree) begin(a *archive) {
	t.a, t.implied, t.names = a, 0, 0
	t.layer++
}

// add puts e of the current layer into the tree.
func (t *tree) add(e *entry) error {
	t.scratch.step()
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
	i := t.child(parent, e.name())
	var old *node
	if i != top {
		old = t.nodes.at(i)
		if old.layer == t.layer && old.as != e.kind {
			return t.a.refuse("is %s here, but already %s (%s)", kindNames[e.kind], kindNames[old.as], t.which(old))
		}
		if old.kind == dir && e.kind == dir {
			old.layer, old.number = t.layer, uint32(e.number)
			d := t.dirs.at(old.what)
			d.attributes, d.mtime = t.attributes(e), instantOf(e.mtime)
			return nil
		}
	}
	var to *node
	if e.kind == hardLink {
		// Before the old content goes, so that a link to itself is seen.
		if to, err = t.linkTarget(e, old); err != nil {
			return err
		}
	}
	if old != nil {
		err = t.w.remove(old)
	} else {
		i, err = t.enter(parent, e.name())
	}
	if err != nil {
		return err
	}
	return t.make(i, e, to)
}

// make has the writer make the node i as e says. to is what a hard link names.
func (t *tree) make(i ref, e *entry, to *node) (err error) {
	n := t.nodes.at(i)
	n.layer, n.number, n.as, n.kind = t.layer, uint32(e.number), e.kind, e.kind
	switch e.kind {
	case dir:
		n.what = t.dirs.add(directory{attributes: t.attributes(e), mtime: instantOf(e.mtime), node: i})
		return t.w.mkdir(n)
	case hardLink:
		return t.link(n, to)
	case symlink:
		target, err := t.texts.add(e.target)
		if err != nil {
			return err
		}
		n.what = t.symlinks.add(symbolic{attributes: t.attributes(e), names: 1, target: target})
		return t.w.symlink(n, e)
	}
	n.what = t.files.add(regular{attributes: t.attributes(e), names: 1, size: e.size})
	return t.w.file(n, &t.files.at(n.what).digest, e, t.a)
}

// attributes returns what the manifest is to say of e.
func (t *tree) attributes(e *entry) attributes {
	a := attributes{uint32(e.uid), uint32(e.gid), uint16(e.mode)}
	if e.kind == symlink {
		a.mode = 0o777
	}
	if t.self != nil {
		a.uid, a.gid = t.self.uid, t.self.gid
	}
	return a
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

// parents walks down to the directory that holds an entry, and makes what is
// missing on the way. Nothing is followed.
func (t *tree) parents(path []string) (ref, error) {
	at := top
	for i, name := range path {
		child := t.child(at, name)
		n := t.nodes.at(child)
		if child != top && n.kind != dir {
			if n.kind == symlink || n.layer == t.layer {
				return 0, t.a.refuse("goes through %s %q (%s)", theKind[n.kind], strings.Join(path[:i+1], "/"), t.which(n))
			}
			if err := t.w.remove(n); err != nil {
				return 0, err
			}
		}
		if child == top || n.kind != dir {
			var err error
			if n, err = t.imply(at, child, path[:i+1]); err != nil {
				return 0, err
			}
		}
		if n.layer != t.layer {
			// A directory that this layer passes through is this layer's: a later
			// entry of it cannot take its place.
			n.layer, n.number = t.layer, 0
		}
		at = n.what
	}
	return at, nil
}

// imply makes a directory that has no entry of its own. child is the node that it
// takes, or top.
func (t *tree) imply(parent, child ref, path []string) (n *node, err error) {
	t.implied++
	if err := t.count(path, ""); err != nil {
		return nil, err
	}
	if child == top {
		if child, err = t.enter(parent, path[len(path)-1]); err != nil {
			return nil, err
		}
	}
	n = t.nodes.at(child)
	n.layer, n.number, n.as, n.kind = t.layer, 0, dir, dir
	n.what = t.dirs.add(directory{attributes: t.attributes(&entry{mode: 0o755}), mtime: instantOf(time.Time{}), node: child})
	return n, t.w.mkdir(n)
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
	return "entry " + strconv.Itoa(int(n.number))
}

// linkTarget finds what a hard link names: a file or symlink that this layer
// made before. old is what the link replaces; nil: nothing.
func (t *tree) linkTarget(e *entry, old *node) (*node, error) {
	n := t.find(e.linkTo)
	switch {
	case n == nil || n.layer != t.layer || n.kind == dir:
		return nil, t.a.refuse("target %q of the hard link is no earlier file or symlink of this layer", strings.Join(e.linkTo, "/"))
	case n == old:
		return nil, t.a.refuse("hard link to itself")
	case int64(*t.namesOf(n)) >= int64(t.a.o.Limits.Links):
		return nil, t.a.refuse("more than %d links to one file (limit Links)", t.a.o.Limits.Links)
	}
	return n, nil
}

// namesOf returns how many names the file or symlink n has.
func (t *tree) namesOf(n *node) *uint32 {
	if n.kind == symlink {
		return &t.symlinks.at(n.what).names
	}
	return &t.files.at(n.what).names
}

// link makes n one more name of to: of the symlink itself, where it is one.
func (t *tree) link(n, to *node) error {
	*t.namesOf(to)++
	n.kind, n.what = to.kind, to.what
	if err := t.w.settle(); err != nil {
		return err
	}
	return t.w.link(n, to)
}
