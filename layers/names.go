package layers

import (
	"bytes"
	"hash/maphash"
	"iter"
	"slices"

	"deploytools/layers/manifest"
)

// bucket returns the bucket of a name in a directory.
func (t *tree) bucket(dir ref, name string) *ref {
	type within struct {
		dir  ref
		name string
	}
	h := maphash.Comparable(t.seed, within{dir, name})
	return &t.buckets[h%uint64(len(t.buckets))]
}

// child returns the node of a name in a directory; top: it has none.
func (t *tree) child(dir ref, name string) ref {
	i := *t.bucket(dir, name)
	for i != top {
		n := t.nodes.at(i)
		if n.parent == dir && string(t.texts.at(n.name)) == name {
			break
		}
		i = n.next
	}
	return i
}

// enter makes a node for a name that the directory does not have.
func (t *tree) enter(dir ref, name string) (ref, error) {
	at, err := t.texts.add(name)
	if err != nil {
		return 0, err
	}
	if t.nodes.used == 2*len(t.buckets) {
		t.spread()
	}
	d, b := t.dirs.at(dir), t.bucket(dir, name)
	i := t.nodes.add(node{name: at, parent: dir, sibling: d.first, next: *b})
	d.first, *b = i, i
	return i, nil
}

// spread doubles the buckets.
func (t *tree) spread() {
	t.buckets = make([]ref, 2*len(t.buckets))
	for i := ref(1); int(i) < t.nodes.used; i++ {
		n := t.nodes.at(i)
		b := t.bucket(n.parent, t.name(n))
		n.next, *b = *b, i
	}
}

// children yields the nodes of a directory, in no order.
func (t *tree) children(dir ref) iter.Seq[ref] {
	return func(yield func(ref) bool) {
		for i := t.dirs.at(dir).first; i != top && yield(i); {
			i = t.nodes.at(i).sibling
		}
	}
}

// find returns what lies at the path; nil: nothing.
func (t *tree) find(path []string) *node {
	n := t.nodes.at(top)
	for _, name := range path {
		if n.kind != dir {
			return nil
		}
		i := t.child(n.what, name)
		if i == top {
			return nil
		}
		n = t.nodes.at(i)
	}
	return n
}

func (t *tree) name(n *node) string { return string(t.texts.at(n.name)) }

// path returns the slash-separated path from the top.
func (t *tree) path(n *node) string {
	if n.parent == top {
		return t.name(n)
	}
	return t.path(t.nodes.at(t.dirs.at(n.parent).node)) + "/" + t.name(n)
}

// manifest yields the entries of the tree, by path, as often as it is wanted.
// The files must have settled, and nothing can be added any more.
func (t *tree) manifest() iter.Seq2[manifest.Entry, error] {
	t.buckets, t.a, t.w = nil, nil, nil
	return func(yield func(manifest.Entry, error) bool) {
		t.list(top, "", yield)
	}
}

// place is where something of a node stands in the order of paths: itself or, for
// a directory, what it holds, since "a-b" lies between "a" and "a/x".
type place struct {
	node    ref
	content bool
}

// list yields what lies in a directory whose path ends with a slash, and returns
// whether more is wanted.
func (t *tree) list(at ref, path string, yield func(manifest.Entry, error) bool) bool {
	var all []place
	for i := range t.children(at) {
		all = append(all, place{i, false})
		if t.nodes.at(i).kind == dir {
			all = append(all, place{i, true})
		}
	}
	var x, y [maxComponent + 1]byte
	slices.SortFunc(all, func(a, b place) int { return bytes.Compare(t.key(a, x[:0]), t.key(b, y[:0])) })
	for _, p := range all {
		n := t.nodes.at(p.node)
		below := path + t.name(n)
		more := false
		if p.content {
			more = t.list(n.what, below+"/", yield)
		} else {
			more = yield(t.entry(below, n), nil)
		}
		if !more {
			return false
		}
	}
	return true
}

// key returns what p is sorted by; buf is room for it.
func (t *tree) key(p place, buf []byte) []byte {
	name := t.texts.at(t.nodes.at(p.node).name)
	if !p.content {
		return name
	}
	return append(append(buf, name...), '/')
}

// entry says what the manifest has of n.
func (t *tree) entry(path string, n *node) manifest.Entry {
	e := manifest.Entry{Path: path, Type: manifest.Type(n.kind)}
	var a attributes
	switch n.kind {
	case dir:
		a = t.dirs.at(n.what).attributes
	case symlink:
		s := t.symlinks.at(n.what)
		a, e.Target = s.attributes, string(t.texts.at(s.target))
	case file:
		f := t.files.at(n.what)
		a, e.Size, e.Digest = f.attributes, f.size, f.digest
	}
	e.Mode, e.UID, e.GID = uint32(a.mode), int(a.uid), int(a.gid)
	return e
}
