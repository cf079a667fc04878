package layers

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"iter"
	"runtime"
	"slices"
	"unsafe"

	"deploytools/layers/manifest"
)

// manifest yields the entries of the tree, by path, as often as it is wanted.
// The files must have settled, and nothing can be added any more. An error that is
// not ctx's is of the scratch file.
func (t *tree) manifest(ctx context.Context) (iter.Seq2[manifest.Entry, error], error) {
	t.buckets, t.lookups, t.a, t.w = nil, table[lookup]{}, nil, nil
	err := t.scratch.guard(func() error {
		s := &sorter{t: t}
		for i := range t.dirs.used {
			d := t.dirs.at(ref(i))
			var err error
			if d.first, err = s.sort(ctx, d.first); err != nil {
				return cmp.Or(t.scratch.lost(), err)
			}
		}
		return t.scratch.lost()
	})
	return func(yield func(manifest.Entry, error) bool) {
		more := true
		err := t.scratch.lost()
		if err == nil {
			err = t.scratch.guard(func() error {
				more = t.list(top, "", yield)
				return t.scratch.lost()
			})
		}
		if err != nil && more {
			yield(manifest.Entry{}, err)
		}
		runtime.KeepAlive(t) // and with it the scratch file
	}, err
}

// list yields what lies in a directory whose path ends with a slash, and returns
// whether more is wanted. What a directory holds comes where its name with a slash
// stands in the order, since "a-b" lies between "a" and "a/x".
func (t *tree) list(at ref, path string, yield func(manifest.Entry, error) bool) bool {
	var open []*node // directories whose content is to come: each name begins with the one before
	content := func() bool {
		n := open[len(open)-1]
		open = open[:len(open)-1]
		return t.list(n.what, path+t.name(n)+"/", yield)
	}
	for i := range t.children(at) {
		n := t.nodes.at(i)
		name := t.name(n)
		for len(open) > 0 && t.name(open[len(open)-1])+"/" < name {
			if !content() {
				return false
			}
		}
		if !yield(t.entry(path+name, n), nil) {
			return false
		}
		if n.kind == dir {
			open = append(open, n)
		}
	}
	for len(open) > 0 {
		if !content() {
			return false
		}
	}
	return true
}

// sorter puts the nodes of directories in the order of their names. They stay
// where they are, and little else is needed: names are sorted as many at a time as
// fit into names, and then those lists are merged.
type sorter struct {
	t     *tree
	all   []named
	names []byte
}

// named is a node, and where its name lies in sorter.names.
type named struct {
	node     ref
	from, to int32
}

// sortBytes is how much a sorter takes, at least.
const sortBytes = 1 << 20

var errLost = errors.New("internal error: a name is in a directory twice")

// sort returns the first of the sorted nodes, given the first.
func (s *sorter) sort(ctx context.Context, rest ref) (ref, error) {
	var lists [32]ref // lists[i] is of 1<<i parts, or empty
	for n := 0; rest != top; n += len(s.all) {
		if n > s.t.nodes.used {
			return top, errLost
		}
		if ctx.Err() != nil {
			return top, context.Cause(ctx)
		}
		var list ref
		list, rest = s.part(rest)
		i := 0
		for ; lists[i] != top; i++ {
			list, lists[i] = s.t.merge(lists[i], list), top
		}
		lists[i] = list
	}
	all := top
	for _, list := range lists {
		all = s.t.merge(list, all)
	}
	return all, nil
}

// part sorts as many of the nodes as it can.
func (s *sorter) part(rest ref) (list, left ref) {
	s.all, s.names = s.all[:0], s.names[:0]
	for rest != top && len(s.all)*int(unsafe.Sizeof(named{}))+len(s.names) < sortBytes {
		s.t.scratch.step()
		n := s.t.nodes.at(rest)
		from := len(s.names)
		s.names = append(s.names, s.t.texts.at(n.name)...)
		s.all = append(s.all, named{rest, int32(from), int32(len(s.names))})
		rest = n.sibling
	}
	slices.SortFunc(s.all, func(a, b named) int { return bytes.Compare(s.names[a.from:a.to], s.names[b.from:b.to]) })
	for _, n := range slices.Backward(s.all) {
		s.t.scratch.step()
		s.t.nodes.at(n.node).sibling = list
		list = n.node
	}
	return list, rest
}

// merge makes two sorted lists one.
func (t *tree) merge(a, b ref) (all ref) {
	end := &all
	for n := 0; a != top && b != top && n < t.nodes.used; n++ {
		if t.less(b, a) {
			a, b = b, a
		}
		*end = a
		end = &t.nodes.at(a).sibling
		a = *end
	}
	*end = max(a, b) // the other is top
	return all
}

// less compares the names of two nodes.
func (t *tree) less(a, b ref) bool {
	t.scratch.step()
	return bytes.Compare(t.texts.at(t.nodes.at(a).name), t.texts.at(t.nodes.at(b).name)) < 0
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
