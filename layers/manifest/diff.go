package manifest

import "iter"

// Change is one path in which two trees differ. Old is nil where the path was
// added, New where it was removed.
type Change struct {
	Path     string
	Old, New *Entry
}

// All yields the entries.
func (m Manifest) All() iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for _, e := range m {
			if !yield(e, nil) {
				return
			}
		}
	}
}

// Diff yields the changes that lead from old to new, by path, and holds no more
// of either than an entry. Both must be sorted. The first error of one of them
// ends the loop.
func Diff(old, new iter.Seq2[Entry, error]) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		was, stopWas := puller(old)
		defer stopWas()
		is, stopIs := puller(new)
		defer stopIs()
		a, failed := was()
		b, err := is()
		for a != nil || b != nil || failed != nil || err != nil {
			if failed != nil {
				err = failed
			}
			if err != nil {
				yield(Change{}, err)
				return
			}
			var c Change
			switch {
			case b == nil || a != nil && a.Path < b.Path:
				c = Change{a.Path, a, nil}
			case a == nil || b.Path < a.Path:
				c = Change{b.Path, nil, b}
			default:
				c = Change{a.Path, a, b}
			}
			if (c.Old == nil || c.New == nil || *a != *b) && !yield(c, nil) {
				return
			}
			if c.Old != nil {
				a, failed = was()
			}
			if c.New != nil {
				b, err = is()
			}
		}
	}
}

// puller returns a function that returns the next entry, or nil at the end.
func puller(seq iter.Seq2[Entry, error]) (next func() (*Entry, error), stop func()) {
	pull, stop := iter.Pull2(seq)
	return func() (*Entry, error) {
		e, err, ok := pull()
		if err != nil || !ok {
			return nil, err
		}
		return &e, nil
	}, stop
}
