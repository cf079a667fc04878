package atomic

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
)

// Journal returns what the journal says of the set, for who keeps a copy of it
// elsewhere: see [Store.Adopt]. It is complete once the set is prepared.
func (set *Set) Journal() ([]byte, error) { return json.Marshal(set.journal) }

// Adopt is [Store.Prepared] for a set whose journal the store has lost, as when
// somebody has removed its directory. The set is made of what [Set.Journal] had
// returned, and taken to have come to state: Undoing or Committed. How far each
// file has come shows on the disk, where the old ones lie. To go back takes no
// space here either. If nothing of the set lies there, or another one is under
// way, the error wraps fs.ErrNotExist. The caller closes the set.
func (s *Store) Adopt(ctx context.Context, copied []byte, state State) (*Set, error) {
	j := &journal{}
	if err := json.Unmarshal(copied, j); err != nil {
		return nil, fmt.Errorf("cannot read the copy of a journal: %w", err)
	}
	lock, err := s.hold(ctx)
	if err != nil {
		return nil, err
	}
	under, p, err := s.read()
	if err == nil && (under != nil || p.Try == j.Try) {
		err = fs.ErrNotExist
	}
	if err == nil {
		err = s.disk.left(j)
	}
	j.State = state
	if err == nil && state == Committed {
		err = s.disk.writeJSON(s.path(journalName), j) // who finishes it tidies up, also after a crash
	}
	if err != nil {
		lock.Release()
		return nil, fmt.Errorf("set %s: %w", j.ID, err)
	}
	return s.take(ctx, lock, j, p)
}

// left is fs.ErrNotExist if nothing on the disk is the journal's: no hidden name,
// and no new content.
func (d disk) left(j *journal) error {
	for _, it := range j.Items {
		for _, name := range []string{it.Path, it.Aside, it.Aside + "~"} {
			n, err := d.node(name)
			if err != nil {
				return err
			}
			if it.Action != actSame && n.exists && (name != it.Path || it.isNew(n)) {
				return nil
			}
		}
	}
	return fs.ErrNotExist
}
