package layers

import (
	"hash/maphash"
	"iter"
)

// lookup is what finding a node by its name needs of it. It is always in memory: the
// names that follow each other in an archive are anywhere.
type lookup struct {
	next ref    // the next of the bucket's nodes; 0: none
	hash uint32 // of directory and name
}

func (t *tree) hash(dir ref, name string) uint32 {
	type within struct {
		dir  ref
		name string
	}
	return uint32(maphash.Comparable(t.seed, within{dir, name}))
}

// bucket returns where the nodes whose hash is h begin.
func (t *tree) bucket(h uint32) *ref { return &t.buckets[h%uint32(len(t.buckets))] }

// child returns the node of a name in a directory; top: it has none.
func (t *tree) child(dir ref, name string) ref {
	h := t.hash(dir, name)
	i := *t.bucket(h)
	for i != top {
		l := t.lookups.at(i)
		if l.hash == h {
			if n := t.nodes.at(i); n.parent == dir && string(t.texts.at(n.name)) == name {
				break
			}
		}
		i = l.next
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
	h := t.hash(dir, name)
	d, b := t.dirs.at(dir), t.bucket(h)
	i := t.nodes.add(node{name: at, parent: dir, sibling: d.first})
	t.lookups.add(lookup{next: *b, hash: h})
	d.first, *b = i, i
	return i, nil
}

// spread doubles the buckets.
func (t *tree) spread() {
	t.buckets = make([]ref, 2*len(t.buckets))
	for i := ref(1); int(i) < t.lookups.used; i++ {
		l := t.lookups.at(i)
		b := t.bucket(l.hash)
		l.next, *b = *b, i
	}
}

// children yields the nodes of a directory, in no order.
func (t *tree) children(dir ref) iter.Seq[ref] {
	return func(yield func(ref) bool) {
		i := t.dirs.at(dir).first
		for n := 0; i != top && n < t.nodes.used && yield(i); n++ { // what a disk has lost may end nowhere
			t.scratch.step()
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
