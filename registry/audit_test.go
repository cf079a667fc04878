package registry_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"deploytools/layers/digest"
	"deploytools/registry"
	"deploytools/registry/boltmeta"
	"deploytools/registry/wire"
)

// keys returns all that the metadata holds.
func (w *world) keys(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := w.meta.View(t.Context(), func(tx registry.Tx) error {
		for k, v := range tx.Scan("") {
			out[k] = string(v)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// onEachEngine runs f over both engines of metadata: the optimistic one in
// memory and bbolt.
func onEachEngine(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	t.Run("memory", func(t *testing.T) { f(t, newWorld()) })
	t.Run("bbolt", func(t *testing.T) {
		w := newWorld()
		db, err := boltmeta.Open(filepath.Join(t.TempDir(), "state.db"), boltmeta.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		w.meta = db
		f(t, w)
	})
}

func audit(t *testing.T, r *registry.Registry, f registry.AuditFilter) []registry.Entry {
	t.Helper()
	var out []registry.Entry
	for e, err := range r.Audit(t.Context(), f) {
		if err != nil {
			t.Fatalf("Audit = %v", err)
		}
		out = append(out, e)
	}
	return out
}

func verify(t *testing.T, r *registry.Registry) registry.AuditState {
	t.Helper()
	s, err := r.VerifyAudit(t.Context())
	if err != nil {
		t.Fatalf("VerifyAudit = %v", err)
	}
	return s
}

// acts are all that a registry can be asked to change, in an order in which
// each of them works on a stocked one.
var acts = []struct {
	name, about, result string
	do                  func(ctx context.Context, r *registry.Registry, a registry.Act) error
}{
	{"add a version", "code", "added version v4, 04efaf", func(ctx context.Context, r *registry.Registry, a registry.Act) error {
		_, err := r.AddVersion(ctx, a, registry.NewVersion{Component: "code", Version: "v4", Digest: digest.Of([]byte("four"))}, nil)
		return err
	}},
	{"add it again", "code", "version v4 exists already, with the same content", func(ctx context.Context, r *registry.Registry, a registry.Act) error {
		_, err := r.AddVersion(ctx, a, registry.NewVersion{Component: "code", Version: "v4", Digest: digest.Of([]byte("four"))}, nil)
		return err
	}},
	{"add a configuration", "web", "revision 1: created", func(ctx context.Context, r *registry.Registry, a registry.Act) error {
		_, err := r.AddConfiguration(ctx, a, "web", []registry.LayerRef{{Component: "code", Version: "v1"}}, registry.Checks{}, false)
		return err
	}},
	{"change it", "web", "revision 2: code v1 -> v2", func(ctx context.Context, r *registry.Registry, a registry.Act) error {
		_, err := r.ChangeConfiguration(ctx, a, "web", []registry.LayerRef{{Component: "code", Version: "v2"}}, registry.Checks{})
		return err
	}},
	{"change nothing", "web", "revision 2 has these layers already", func(ctx context.Context, r *registry.Registry, a registry.Act) error {
		_, err := r.ChangeConfiguration(ctx, a, "web", []registry.LayerRef{{Component: "code", Version: "v2"}}, registry.Checks{})
		return err
	}},
	{"bump it", "web", "revision 3: code v2 -> v4", func(ctx context.Context, r *registry.Registry, a registry.Act) error {
		_, err := r.BumpConfiguration(ctx, a, "web", []string{"code"})
		return err
	}},
	{"roll it back", "web", "revision 4: rolled back to revision 2", func(ctx context.Context, r *registry.Registry, a registry.Act) error {
		_, err := r.Rollback(ctx, a, "web", 2)
		return err
	}},
	{"hold it", "web", "held: Black Friday", func(ctx context.Context, r *registry.Registry, a registry.Act) error {
		_, err := r.Hold(ctx, a, "web", "Black Friday", time.Time{})
		return err
	}},
	{"let it go on", "web", "resumed, was held: Black Friday", func(ctx context.Context, r *registry.Registry, a registry.Act) error {
		_, err := r.EndHold(ctx, a, "web")
		return err
	}},
	{"delete a version", "base", "deleted version v1, ", func(ctx context.Context, r *registry.Registry, a registry.Act) error {
		_, err := r.DeleteVersion(ctx, a, "base", "v1", false)
		return err
	}},
	{"delete one that is needed", "code", "deleted version v4, 04efaf", func(ctx context.Context, r *registry.Registry, a registry.Act) error {
		_, err := r.DeleteVersion(ctx, a, "code", "v4", true)
		return err
	}},
	{"delete a component", "data", "deleted 3 of 3 versions", func(ctx context.Context, r *registry.Registry, a registry.Act) error {
		_, err := r.DeleteComponent(ctx, a, "data")
		return err
	}},
	{"delete the configuration", "web", "revision 5: deleted", func(ctx context.Context, r *registry.Registry, a registry.Act) error {
		_, err := r.DeleteConfiguration(ctx, a, "web")
		return err
	}},
}

func TestEveryActIsOnRecordOnce(t *testing.T) { onEachEngine(t, everyActIsOnRecordOnce) }

func everyActIsOnRecordOnce(t *testing.T, w *world) {
	r := w.stock(t)
	receive(t, r, "four", "four").Finish(t.Context())
	for _, test := range acts {
		before := audit(t, r, registry.AuditFilter{})
		a := registry.Act{
			Caller:  registry.Caller{User: "bob", Role: registry.Operator, Fingerprint: "SHA256:bob", Comment: "bob@desk", Label: "robert", Authority: "SHA256:ca", Serial: 7, Remote: "192.0.2.7"},
			Command: []string{"do", test.name}, Note: "because",
		}
		if err := test.do(t.Context(), r, a); err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		after := audit(t, r, registry.AuditFilter{})
		if len(after) != len(before)+1 {
			t.Errorf("%s: made %d entries, want 1", test.name, len(after)-len(before))
			continue
		}
		e := after[len(after)-1]
		if e.Name != test.about || !strings.HasPrefix(e.Result, test.result) || e.Status != wire.OK {
			t.Errorf("%s: is on record as %q about %q with status %s, want %q about %q", test.name, e.Result, e.Name, e.Status, test.result, test.about)
		}
		e.Result, e.Prev, e.Name = "", digest.Digest{}, ""
		want := registry.Entry{
			Seq: uint64(len(after)), Time: w.clock.now(), User: "bob", Key: "SHA256:bob", Comment: "bob@desk", Label: "robert", Authority: "SHA256:ca", Serial: 7,
			Remote: "192.0.2.7", Role: "operator",
			Command: a.Command, Note: "because", Nothing: test.name == "add it again" || test.name == "change nothing",
		}
		if fmt.Sprint(e) != fmt.Sprint(want) {
			t.Errorf("%s: is on record as %+v, want %+v", test.name, e, want)
		}
	}
	w.fsck(t)
}

// A dry run is the Update of the act, taken back: it fails where the act would,
// and leaves nothing.
func TestDryRunChangesNothing(t *testing.T) { onEachEngine(t, dryRunChangesNothing) }

func dryRunChangesNothing(t *testing.T, w *world) {
	r := w.stock(t)
	u, err := receive(t, r, "four", "four").Finish(t.Context())
	if err == nil {
		_, err = r.Verdict(t.Context(), u.ID, nil) // a dry run waits for it, too
	}
	if err != nil {
		t.Fatal(err)
	}
	dry := act
	dry.DryRun = true
	for _, test := range acts {
		before := w.keys(t)
		if err := test.do(t.Context(), r, dry); err != nil {
			t.Errorf("%s, dry: %v", test.name, err)
		}
		if after := w.keys(t); !maps.Equal(before, after) {
			t.Errorf("%s, dry: left\n%v\nwant\n%v", test.name, after, before)
		}
		w.wantSpooled(t, strings.Count(fmt.Sprint(before), "upload/"))
		if err := test.do(t.Context(), r, act); err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
	}
	if _, err := r.DeleteVersion(t.Context(), dry, "code", "zz", false); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("DeleteVersion, dry = %v, want ErrNotFound", err)
	}
}

// An act that fails leaves no entry by itself: who asked says what became of it.
func TestAFailedActIsNotOnRecordAsDone(t *testing.T) {
	_, r := stocked(t)
	before := len(audit(t, r, registry.AuditFilter{}))
	if _, err := r.ChangeConfiguration(t.Context(), act, "nope", refs(t, "code:v1"), registry.Checks{}); err == nil {
		t.Fatal("ChangeConfiguration of nothing succeeds")
	}
	if after := audit(t, r, registry.AuditFilter{}); len(after) != before {
		t.Errorf("it is on record: %+v", after[before:])
	}
	if err := r.Refused(t.Context(), act, "nope", wire.NotFound, "no such thing"); err != nil {
		t.Fatal(err)
	}
	after := audit(t, r, registry.AuditFilter{Name: "nope"})
	if len(after) != 1 || after[0].Status != wire.NotFound || after[0].Result != "no such thing" {
		t.Errorf("Refused is on record as %+v", after)
	}
}

// Whatever is done to the log, verifying it names the first entry that is not
// as it was.
func TestVerifyNamesTheFirstBrokenEntry(t *testing.T) {
	const n = 18 // as stocked: uploads and versions
	key := func(i int) string { return fmt.Sprintf("audit/%016x", i) }
	edit := func(i int) func(registry.Tx) error {
		return func(tx registry.Tx) error {
			b, err := tx.Get(key(i))
			if err == nil {
				err = tx.Put(key(i), []byte(strings.Replace(string(b), "ann", "eve", 1)))
			}
			return err
		}
	}
	for name, test := range map[string]struct {
		do   func(registry.Tx) error
		want uint64
	}{
		"untouched":          {func(registry.Tx) error { return nil }, 0},
		"first changed":      {edit(1), 1},
		"one changed":        {edit(4), 4},
		"last changed":       {edit(n), n},
		"two changed":        {func(tx registry.Tx) error { return errors.Join(edit(7)(tx), edit(3)(tx)) }, 3},
		"one missing":        {func(tx registry.Tx) error { return tx.Delete(key(5)) }, 5},
		"first missing":      {func(tx registry.Tx) error { return tx.Delete(key(1)) }, 1},
		"last missing":       {func(tx registry.Tx) error { return tx.Delete(key(n)) }, n},
		"no entry any more":  {func(tx registry.Tx) error { return tx.Put(key(2), []byte("{")) }, 2},
		"another's place":    {func(tx registry.Tx) error { b, _ := tx.Get(key(3)); return tx.Put(key(6), b) }, 6},
		"the end cut off":    {func(tx registry.Tx) error { return errors.Join(tx.Delete(key(n-1)), tx.Delete(key(n))) }, n - 1},
		"its end is unknown": {func(tx registry.Tx) error { return tx.Put("chain", []byte(`{"Head":18}`)) }, n},
	} {
		w, r := stocked(t)
		if err := w.meta.Update(t.Context(), test.do); err != nil {
			t.Fatal(err)
		}
		if s := verify(t, r); s.Broken != test.want || s.First != 1 || s.Last != n {
			t.Errorf("%s: VerifyAudit = %+v, want entry %d", name, s, test.want)
		}
	}
}

func TestConcurrentActsMakeOneChain(t *testing.T) {
	onEachEngine(t, func(t *testing.T, w *world) {
		r := w.stock(t)
		configure(t, r, "web", "base:v1", "code:v1", "data:v1")
		before := len(audit(t, r, registry.AuditFilter{}))
		var wg sync.WaitGroup
		for _, c := range []string{"base", "code", "data"} {
			wg.Go(func() {
				for _, v := range []string{"v2", "v3"} {
					change(t, r, "web", c+":"+v)
					if err := r.Refused(t.Context(), act, c, wire.Denied, "no"); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if n := len(audit(t, r, registry.AuditFilter{})) - before; n != 12 {
			t.Errorf("12 acts made %d entries", n)
		}
		w.fsck(t)
	})
}

func TestAuditFilters(t *testing.T) {
	w := newWorld()
	r := w.open(t)
	began := w.clock.now()
	const n = 350 // several pages
	for i := range n {
		a := registry.Act{Caller: registry.Caller{User: "bob", Fingerprint: "SHA256:bob", Comment: "bob@desk", Label: "robert"}, Command: []string{"addconf", "x"}}
		if i%7 == 0 {
			a = registry.Act{Caller: caller, Command: []string{"delconf"}}
		}
		w.clock.advance(2 * time.Second) // so that no refusal is left out
		if err := r.Refused(t.Context(), a, []string{"web", "db"}[i%2], wire.Denied, "no"); err != nil {
			t.Fatal(err)
		}
	}
	at := func(i int) time.Time { return began.Add(time.Duration(i) * 2 * time.Second) }
	for name, test := range map[string]struct {
		f           registry.AuditFilter
		n           int
		first, last uint64
	}{
		"all":            {registry.AuditFilter{}, n, 1, n},
		"user":           {registry.AuditFilter{User: "ann"}, 50, 1, 344},
		"fingerprint":    {registry.AuditFilter{User: "SHA256:ann"}, 50, 1, 344},
		"comment":        {registry.AuditFilter{User: "ann@desk"}, 50, 1, 344},
		"label":          {registry.AuditFilter{User: "robert"}, 300, 2, n},
		"part of a user": {registry.AuditFilter{User: "an"}, 0, 0, 0},
		"command":        {registry.AuditFilter{Command: "delconf"}, 50, 1, 344},
		"not a word":     {registry.AuditFilter{Command: "x"}, 0, 0, 0},
		"name":           {registry.AuditFilter{Name: "db"}, 175, 2, n},
		"since":          {registry.AuditFilter{Since: at(300)}, 51, 300, n},
		"until":          {registry.AuditFilter{Until: at(300)}, 299, 1, 299},
		"newest":         {registry.AuditFilter{Newest: 3}, 3, 348, n},
		"newest of some": {registry.AuditFilter{Newest: 40, User: "ann"}, 40, 71, 344},
		"newest of few":  {registry.AuditFilter{Newest: 200, User: "ann"}, 50, 1, 344},
		"a page's edge":  {registry.AuditFilter{Newest: 101}, 101, 250, n},
		"all together":   {registry.AuditFilter{Newest: 2, User: "ann", Name: "db", Since: at(2), Until: at(250), Command: "delconf"}, 2, 232, 246},
	} {
		got := audit(t, r, test.f)
		var first, last registry.Entry
		if len(got) > 0 {
			first, last = got[0], got[len(got)-1]
		}
		if len(got) != test.n || first.Seq != test.first || last.Seq != test.last {
			t.Errorf("%s: %d entries from %d to %d, want %d from %d to %d", name, len(got), first.Seq, last.Seq, test.n, test.first, test.last)
		}
		if !slices.IsSortedFunc(got, func(a, b registry.Entry) int { return cmp.Compare(a.Seq, b.Seq) }) {
			t.Errorf("%s: not the oldest first", name)
		}
	}
}

// A loop that ends early, and one over a log that is damaged, end.
func TestAuditEndsEarly(t *testing.T) {
	w, r := stocked(t)
	for e := range r.Audit(t.Context(), registry.AuditFilter{}) {
		if e.Seq > 1 {
			t.Fatal("the loop went on")
		}
		break
	}
	if err := w.meta.Update(t.Context(), func(tx registry.Tx) error { return tx.Delete("audit/0000000000000003") }); err != nil {
		t.Fatal(err)
	}
	for _, f := range []registry.AuditFilter{{}, {Newest: 100}} {
		var failed error
		for _, err := range r.Audit(t.Context(), f) {
			failed = err
		}
		if failed == nil || failed.Error() != "entry 3 is missing" {
			t.Errorf("Audit over a missing entry = %v", failed)
		}
	}
}

func TestDroppedEntriesLeaveAWholeChain(t *testing.T) {
	w, r := stocked(t)
	configure(t, r, "web", "code:v1")
	for i := range 200 {
		change(t, r, "web", []string{"code:v2", "code:v1"}[i%2])
	}
	all := audit(t, r, registry.AuditFilter{})
	o := w.options()
	o.AuditKeep = 20
	r = start(t, o)
	if s, err := r.Sweep(t.Context()); err != nil || s.Entries != len(all)-20 {
		t.Fatalf("Sweep = %+v, %v, want %d entries dropped", s, err, len(all)-20)
	}
	if got := audit(t, r, registry.AuditFilter{}); fmt.Sprint(got) != fmt.Sprint(all[len(all)-20:]) {
		t.Errorf("%d entries are left, from %d on", len(got), got[0].Seq)
	}
	if n := len(audit(t, r, registry.AuditFilter{Newest: 30})); n != 20 {
		t.Errorf("Audit of the newest 30 yields %d, want the 20 that are left", n)
	}
	if s := verify(t, r); s.Broken != 0 || s.First != all[len(all)-20].Seq {
		t.Errorf("VerifyAudit = %+v", s)
	}
	if s, err := r.Sweep(t.Context()); err != nil || s.Entries != 0 {
		t.Errorf("Sweep again = %+v, %v", s, err)
	}
	// What follows the entries that were dropped is known, too.
	err := w.meta.Update(t.Context(), func(tx registry.Tx) error {
		key := fmt.Sprintf("audit/%016x", all[len(all)-20].Seq)
		b, _ := tx.Get(key)
		return tx.Put(key, []byte(strings.Replace(string(b), `"Prev":"`, `"Prev":"00`, 1)))
	})
	if err != nil {
		t.Fatal(err)
	}
	if s := verify(t, r); s.Broken != s.First {
		t.Errorf("VerifyAudit of a changed first entry = %+v", s)
	}
}

// meanwhile is a Meta beside which something happens before its nth View.
type meanwhile struct {
	registry.Meta
	n  int
	do func()
}

func (m *meanwhile) View(ctx context.Context, fn func(registry.Tx) error) error {
	if m.n--; m.n == 0 {
		m.do()
	}
	return m.Meta.View(ctx, fn)
}

// Entries that are dropped while somebody reads are not missed by him.
func TestAuditBesideDropping(t *testing.T) {
	for n := 1; n <= 4; n++ { // the chain, and pages of which the last is not full
		for _, keep := range []int{1, 50} {
			w, r := stocked(t)
			configure(t, r, "web", "code:v1")
			for i := range 190 {
				change(t, r, "web", []string{"code:v2", "code:v1"}[i%2])
			}
			o := w.options()
			o.AuditKeep = keep
			sweeper := start(t, o)
			for _, newest := range []int{0, 180} {
				o = w.options()
				o.Meta = &meanwhile{w.meta, n, func() {
					if _, err := sweeper.Sweep(t.Context()); err != nil {
						t.Fatal(err)
					}
				}}
				reader := start(t, o)
				if newest > 0 {
					audit(t, reader, registry.AuditFilter{Newest: newest})
				} else if s := verify(t, reader); s.Broken != 0 {
					t.Errorf("dropped to %d before View %d: VerifyAudit = %+v", keep, n, s)
				}
			}
		}
	}
}

func TestHashOfAnEntry(t *testing.T) {
	_, r := stocked(t)
	all := audit(t, r, registry.AuditFilter{})
	for i, e := range all[1:] {
		if d, err := r.AuditHash(t.Context(), uint64(i+1)); err != nil || d != e.Prev {
			t.Errorf("AuditHash(%d) = %s, %v, want %s", i+1, d, err, e.Prev)
		}
	}
	for _, seq := range []uint64{0, uint64(len(all) + 1), 1<<64 - 1} {
		_, err := r.AuditHash(t.Context(), seq)
		wantKind(t, fmt.Sprintf("AuditHash(%d)", seq), err, registry.ErrNotFound)
	}
}

// An agent that asks with each poll for what its key may not see does not push
// everybody else off the pages of the audit log.
func TestWhatAnAgentIsRefusedAgainAndAgainIsOnRecordOnceAnHour(t *testing.T) {
	w := newWorld()
	r := w.open(t)
	poll := registry.Act{Caller: registry.Caller{User: "deploy-agent", Fingerprint: "SHA256:web1", Role: registry.Agent}, Command: []string{"poll"}}
	refuse := func(a registry.Act, name string) {
		t.Helper()
		if err := r.Refused(t.Context(), a, name, wire.Denied, "no"); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 * 119 {
		refuse(poll, "web")
		w.clock.advance(15 * time.Second)
	}
	if n := len(audit(t, r, registry.AuditFilter{})); n != 1 {
		t.Errorf("%d entries of the same refusal in an hour, want 1", n)
	}
	refuse(poll, "db")
	other := poll
	other.Caller.Fingerprint = "SHA256:web2"
	refuse(other, "web")
	get := poll
	get.Command = []string{"sftp", "get"}
	refuse(get, "web")
	refuse(act, "web")
	refuse(act, "web")
	if n := len(audit(t, r, registry.AuditFilter{})); n != 6 {
		t.Errorf("%d entries after five other refusals, want 6", n)
	}
	w.clock.advance(30 * time.Second)
	refuse(poll, "web")
	if n := len(audit(t, r, registry.AuditFilter{Name: "web"})); n != 6 {
		t.Errorf("%d entries about web after an hour, want 6", n)
	}
}

// Whoever is refused in a loop does not fill the disk, and does not keep others
// off the record.
func TestRefusalsOfOneKeyAreBounded(t *testing.T) {
	w := newWorld()
	r := w.open(t)
	eve := registry.Act{Caller: registry.Caller{User: "eve", Fingerprint: "SHA256:eve"}}
	refuse := func(a registry.Act, n int) {
		for range n {
			if err := r.Refused(t.Context(), a, "", wire.Denied, "no"); err != nil {
				t.Fatal(err)
			}
		}
	}
	count := func(user string) int { return len(audit(t, r, registry.AuditFilter{User: user})) }
	refuse(eve, 100)
	refuse(act, 2)
	refuse(eve, 10)
	all := audit(t, r, registry.AuditFilter{User: "eve"})
	if last := all[len(all)-1]; !strings.Contains(last.Result, "in the log only") {
		t.Errorf("the last entry of eve does not say that there were more: %q", last.Result)
	}
	if count("eve") != 60 || count("ann") != 2 {
		t.Errorf("%d refusals of eve and %d of ann are on record, want 60 and 2", count("eve"), count("ann"))
	}
	w.clock.advance(time.Minute)
	refuse(eve, 1)
	if count("eve") != 61 {
		t.Errorf("a minute later %d refusals of eve are on record, want 61", count("eve"))
	}
	if s := verify(t, r); s.Broken != 0 {
		t.Errorf("VerifyAudit = %+v", s)
	}
}

// Acts that change nothing are as cheap as refusals, and are bounded as these are.
func TestActsThatChangeNothingAreBounded(t *testing.T) {
	_, r := stocked(t)
	before := len(audit(t, r, registry.AuditFilter{}))
	again := registry.NewVersion{Component: "code", Version: "v1", Digest: digest.Of([]byte("codev1"))}
	for range 100 {
		if got, err := r.AddVersion(t.Context(), act, again, nil); err != nil || !got.Existed {
			t.Fatalf("AddVersion = %+v, %v", got, err)
		}
	}
	if n := len(audit(t, r, registry.AuditFilter{})) - before; n != 60 {
		t.Errorf("%d of 100 are on record, want 60", n)
	}
	configure(t, r, "web", "code:v1")
	if n := len(audit(t, r, registry.AuditFilter{})) - before; n != 61 {
		t.Errorf("%d entries, want one more for what did change something", n)
	}
}

func TestRefusedWordsAreCut(t *testing.T) {
	w := newWorld()
	r := w.open(t)
	a := act
	a.Command = []string{"showconf", strings.Repeat("\x01", 100_000), "more"}
	if err := r.Refused(t.Context(), a, strings.Repeat("n", 5000), wire.Denied, strings.Repeat("é", 5000)); err != nil {
		t.Fatal(err)
	}
	e := audit(t, r, registry.AuditFilter{})[0]
	if b, err := json.Marshal(e); err != nil || len(b) > 12<<10 || e.Command[0] != "showconf" || e.Command[len(e.Command)-1] != "..." {
		t.Errorf("the entry has %d bytes, %v: %.100q", len(b), err, e.Command)
	}
}

func TestWhatANoteMayBe(t *testing.T) {
	_, r := stocked(t)
	for name, note := range map[string]string{
		"two lines": "a\nb", "an escape": "a\x1b[31m", "not UTF-8": "\xff", "long": strings.Repeat("x", 1001), "bidi": "a\u202eb",
	} {
		a := act
		a.Note = note
		_, err := r.DeleteVersion(t.Context(), a, "code", "v1", false)
		wantKind(t, "DeleteVersion with a note of "+name, err, registry.ErrUsage)
		n := registry.NewVersion{Component: "code", Version: "v9", Digest: digest.Of([]byte("codev1")), Meta: map[string]string{"commit": note}}
		_, err = r.AddVersion(t.Context(), act, n, nil)
		wantKind(t, "AddVersion with a meta of "+name, err, registry.ErrUsage)
	}
	wantVersions(t, r, "code", "v1", "v2", "v3")
}

func TestExpectedRevision(t *testing.T) {
	w, r := stocked(t)
	configure(t, r, "web", "code:v1")
	change(t, r, "web", "code:v2")
	for _, test := range acts {
		if test.about != "web" || test.name == "add a configuration" {
			continue
		}
		before := w.keys(t)
		a := act
		a.Expect = 1
		wantKind(t, test.name+" at revision 1", test.do(t.Context(), r, a), registry.ErrConflict)
		if after := w.keys(t); !maps.Equal(before, after) {
			t.Errorf("%s at another revision than expected changed something", test.name)
		}
	}
	a := act
	a.Expect = 2
	if c, err := r.ChangeConfiguration(t.Context(), a, "web", refs(t, "code:v3"), registry.Checks{}); err != nil || c.New.Revision != 3 {
		t.Errorf("ChangeConfiguration at the expected revision = %+v, %v", c, err)
	}
	_, err := r.AddConfiguration(t.Context(), a, "new", refs(t, "code:v3"), registry.Checks{}, false)
	wantKind(t, "AddConfiguration of what should have a revision", err, registry.ErrConflict)
}

// The largest Update there is: to add a version of an upload, dry, and to remove
// as many old ones as fit.
func TestDryRunOfManyRemovals(t *testing.T) {
	w := newWorld()
	r := w.open(t)
	for i := range 40 {
		add(t, r, "code", fmt.Sprint("v", i), fmt.Sprint("content ", i))
	}
	receive(t, r, "new", "new").Finish(t.Context())
	o := w.options()
	o.MaxVersions = 1
	r = start(t, o)
	dry := act
	dry.DryRun = true
	n := registry.NewVersion{Component: "code", Version: "new", Digest: digest.Of([]byte("new"))}
	planned, err := r.AddVersion(t.Context(), dry, n, nil)
	if err != nil || len(planned.Trimmed) != 14 {
		t.Fatalf("AddVersion, dry = %+v, %v, want 14 versions removed", planned, err)
	}
	got, err := r.AddVersion(t.Context(), act, n, nil)
	if err != nil || got.What != planned.What {
		t.Errorf("AddVersion = %+v, %v; what was planned: %s", got, err, planned.What)
	}
	w.fsck(t)
}
