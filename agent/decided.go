package agent

import (
	"cmp"
	"fmt"
	"time"
)

// Decided reports whether something has become of the newest revision on this
// host, as of a poll that is not the one at seen: it is live, or err says how it
// ended and wraps ErrRolledBack or ErrBroken. Where it is not decided, waits says
// what is waited for.
func (s *Status) Decided(seen time.Time) (decided bool, waits string, err error) {
	switch n := s.Newest; {
	case s.State == Broken:
		return true, "", fmt.Errorf("%w: %s", ErrBroken, s.Broken)
	case s.Under != nil:
		return false, fmt.Sprintf("revision %d, in %s", s.Under.Revision, s.State), nil
	case s.Looking != nil:
		return false, fmt.Sprintf("revision %d, with whose checks what is live is looked at", s.Looking.Revision), nil
	case s.Wanted != "":
		return false, "the rollback to " + s.Wanted, nil
	case n == nil || n.Polled.Equal(seen):
		return false, cmp.Or(s.inTheWay(), "the next poll"), nil
	case n.Here:
		return true, "", nil
	}
	for _, b := range s.Blocks {
		if b.Kind != BlockFailed {
			continue
		}
		if l := s.Last; l != nil && l.Outcome == NotServing && l.Revision == s.Newest.Revision {
			return true, "", wasBroken(l.Reason)
		}
		return true, "", fmt.Errorf("%w: %s", ErrRolledBack, b.Text)
	}
	return false, cmp.Or(s.inTheWay(), fmt.Sprintf("revision %d", s.Newest.Revision)), nil
}

// inTheWay is the first of what keeps the newest revision away; "": nothing.
func (s *Status) inTheWay() string {
	if len(s.Blocks) == 0 {
		return ""
	}
	return string(s.Blocks[0].Kind) + ": " + s.Blocks[0].Text
}
