package agent

import (
	"os"
	"strings"
	"testing"
	"testing/synctest"
)

// The store with the journal of the set is removed by hand in any state after the
// switch: the old files come back themselves, also those that no root has, or the
// new ones stay, and it is said.
func TestPublishStoreRemovedAfterTheSwitch(t *testing.T) {
	states := map[string][]State{"": {Hooking, Verifying, Committing}, failHook: {Hooking, Restoring, Rehooking, Discarding}}
	for bad, removedIn := range states {
		for _, in := range removedIn {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t)
				s.src.put("v1", s.layer("1", "a", ""))
				s.want("v1", nil)
				must(os.WriteFile(s.etc+"/cert.pem", []byte("by hand"), 0o640))
				must(os.WriteFile(s.etc+"/b", []byte("nobody's"), 0o640))
				s.src.put("v2", s.layer("2", "b", bad))
				s.o.Observe.Enter = func(state State) {
					if state == in {
						must(os.RemoveAll(s.dir + "/" + storeName))
					}
				}
				s.run()
				s.o.Observe.Enter = nil
				if bad == "" {
					s.holds(string(in), of("2", "b"))
				} else {
					s.holds(string(in), files{"cert.pem": "by hand", "key.pem": "key 1", "a": "more 1", "b": "nobody's"})
				}
				r := s.agent.Record()
				said := strings.Contains(strings.Join(r.Last.Publishing.Warnings, " "), s.dir+"/"+storeName)
				if w := r.Last.Publishing.Warnings; r.State != Idle || said == (in == Rehooking || in == Discarding) { // these find nothing to do
					t.Errorf("removed in %s: in %s it warns of %q", in, r.State, w)
				}
				if r.Last.SetJournal != nil {
					t.Errorf("removed in %s: the journal stays on record", in)
				}
				must(os.WriteFile(s.etc+"/key.pem", []byte("by hand"), 0o600))
				if st := s.agent.Status(); st.Files[2].Differs != "content" {
					t.Errorf("removed in %s: what is published is not known any more: %+v", in, st.Files)
				}
			})
		}
	}
}
