package atomic

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"
)

// A Drift is a difference between what was published at a path and what is
// there.
type Drift struct {
	Path string
	What string // what differs, for people: "missing", "content", "mode 0644, published 0640"
}

// Drift compares what is published with what lies there: bytes, mode, owner and
// group. It takes no lock and changes nothing; during a Commit it may name what
// is about to be right.
func (s *Store) Drift(ctx context.Context) ([]Drift, error) {
	p := &published{}
	if _, err := s.disk.readJSON(s.path(publishedName), p); err != nil {
		return nil, err
	}
	var all []Drift
	for _, e := range p.Files {
		what, err := s.differs(ctx, e)
		if err != nil {
			return all, fmt.Errorf("cannot compare %s: %w", e.Path, err)
		}
		for _, w := range what {
			all = append(all, Drift{Path: e.Path, What: w})
		}
	}
	return all, nil
}

func (s *Store) differs(ctx context.Context, e publishedEntry) (what []string, err error) {
	c := e.Content
	if c == nil { // removed: it is nobody's business what comes there later
		return nil, nil
	}
	n, err := s.disk.node(e.Path)
	switch {
	case err != nil:
		return nil, err
	case !n.exists:
		return []string{"missing"}, nil
	case n.kind != unix.S_IFREG:
		return []string{"not a regular file"}, nil
	}
	digest, err := s.disk.digest(ctx, e.Path)
	if err != nil {
		return nil, err
	}
	if digest != c.Digest {
		what = append(what, "content")
	}
	if n.mode != c.Mode {
		what = append(what, fmt.Sprintf("mode %04o, published %04o", uint32(n.mode), uint32(c.Mode)))
	}
	if n.uid != c.UID {
		what = append(what, fmt.Sprintf("owner %d, published %d", n.uid, c.UID))
	}
	if n.gid != c.GID {
		what = append(what, fmt.Sprintf("group %d, published %d", n.gid, c.GID))
	}
	return what, nil
}
