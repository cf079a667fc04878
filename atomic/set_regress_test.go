package atomic

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/sys/unix"
)

// regressions has each fault that other programs of this kind were seen to
// have, by its number. docs/decisions/0012-sets-of-files.md says them in words.
var regressions = map[string]func(*testing.T, site){
	"A-01": func(t *testing.T, s site) { s.goesBack(t, func(p *Plan) { p.Keep = -1 }) },
	"A-02": func(t *testing.T, s site) { s.goesBack(t, func(p *Plan) { p.Keep = -1; p.Force = true }) },
	"A-03": rollbackRestoresTheInode,
	"A-04": crashBeforeReloadIsNotSkipped,
	"A-05": mixtureIsNeverKept,
	"A-06": directoriesAreSyncedBeforeTheJournalSaysSo,
	"A-07": keptIsTheOldInodeItself,
	"A-08": failuresLeaveNothing,
	"A-09": panicsLeaveNothing,
	"A-10": cancelledContextStillGoesBack,
	"A-11": symlinksAreRefusedOrFollowed,
	"A-12": locksGoByDirectoryAndEndWithTheContext,
	"A-13": verifyIsInsideTheLock,
	"A-14": previewIsKeyedAsGiven,
	"A-15": validateSeesTheNewContent,
	"A-16": ownerAndGroupAreIndependent,
	"A-17": specialBitsSurviveTheOwner,
	"A-18": existingSpecialBitsAreKept,
	"A-19": notBeingAbleToTellIsAnError,
	"A-20": wrongModeIsMended,
	"A-21": errorsHaveOneSentinelAndTheirCause,
	"A-22": resultIsNeverNil,
	"A-23": keptIsPrunedByRecord,
	"A-24": hiddenNamesOnly,
	"A-25": nothingComesBetweenTheRenames,
	"A-26": attributesAreKeptAndObstaclesNamed,
	"A-27": streamsAreNotReadWhole,
	"A-28": secondFileFailingTouchesNoFirst,
	"A-29": func(t *testing.T, s site) { s.goesBack(t, func(*Plan) {}) },
	"A-30": reloadThatDidNothingIsFoundByVerify,
}

func TestRegression(t *testing.T) {
	for _, id := range slices.Sorted(mapKeys(regressions)) {
		t.Run(id, func(t *testing.T) { regressions[id](t, newSite(t)) })
	}
}

func mapKeys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

func TestDecisionNamesEveryRegression(t *testing.T) {
	text, err := os.ReadFile("../docs/decisions/0012-sets-of-files.md")
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= 30; n++ {
		id := fmt.Sprintf("A-%02d", n)
		if regressions[id] == nil || !bytes.Contains(text, []byte("| "+id+" |")) {
			t.Errorf("%s has no test, or the document does not name it", id)
		}
	}
}

var errHook = errors.New("exit status 1")

// failing returns hooks of which reload fails with the new contents.
func failingReload(times *int) Hooks {
	return Hooks{Reload: func(_ context.Context, phase Phase) error {
		*times++
		if phase == Deploying {
			return errHook
		}
		return nil
	}}
}

// goesBack applies the plan with a reload that fails.
func (s site) goesBack(t *testing.T, change func(*Plan)) {
	t.Helper()
	before, _ := s.furnish(t)
	p := s.plan("set")
	change(&p)
	times := 0
	r, err := s.Apply(t.Context(), p, failingReload(&times))
	if !errors.Is(err, ErrReloadFailed) || !r.RolledBack || r.Reloaded || times != 2 {
		t.Errorf("Apply = %+v, %v after %d reloads; want it rolled back after 2", r, err, times)
	}
	s.wants(t, before...)
	s.tidy(t)
}

func rollbackRestoresTheInode(t *testing.T, s site) {
	s.furnish(t)
	old := lying(s.etc + "/cert")
	p := s.plan("set")
	p.Files[0].Mode = 0o644
	times := 0
	s.Apply(t.Context(), p, failingReload(&times))
	if now := lying(s.etc + "/cert"); now != old {
		t.Errorf("after the rollback %+v; want %+v", now, old)
	}
}

// lying is what lies at a path, but for the time that a rename changes.
func lying(path string) node {
	n, err := disk{}.node(path)
	must(err)
	n.touched = 0
	return n
}

func crashBeforeReloadIsNotSkipped(t *testing.T, s site) {
	s.furnish(t)
	set, err := s.Prepare(t.Context(), s.plan("set"))
	must(err)
	must(set.Commit(t.Context()))
	must(set.Close()) // the crash
	v := &service{site: s}
	r, err := s.Apply(t.Context(), s.plan("set"), v.hooks())
	if err != nil || !r.Recovered || r.Skipped || v.told != 2 {
		t.Errorf("Apply = %+v, %v after %d reloads; want one for the recovery and one for the new", r, err, v.told)
	}
	r, err = s.Apply(t.Context(), s.plan("set"), v.hooks())
	if err != nil || !r.Skipped || v.told != 2 {
		t.Errorf("Apply again = %+v, %v after %d reloads; want it skipped", r, err, v.told)
	}
}

// stopping fails every call from the nth of op on.
type stopping struct {
	op string
	n  int
}

func (c *stopping) do(op, path string, call func() error) error {
	if op == c.op {
		c.n--
	}
	if c.n <= 0 && (op == c.op || c.n < 0) {
		return unix.EIO
	}
	if op == "fsync" {
		return nil
	}
	return call()
}

func mixtureIsNeverKept(t *testing.T, s site) {
	s.write(t, "a", "old", 0o644)
	s.write(t, "b", "old", 0o644)
	p := Plan{ID: "set", Files: []Target{{Path: s.etc + "/a", Bytes: []byte("new")}, {Path: s.etc + "/b", Bytes: []byte("new")}}}
	s.disk = disk{gate: &stopping{op: "exchange", n: 2}}
	if _, err := s.Apply(t.Context(), p, Hooks{}); !errors.Is(err, ErrRollbackFailed) {
		t.Fatalf("Apply = %v", err)
	}
	if seen := s.reader(); !slices.Equal(seen, []string{`a 0644 "new"`, `b 0644 "old"`}) {
		t.Fatalf("the crash leaves %q, so nothing is tested", seen)
	}
	s = s.restarted()
	if _, err := s.Apply(t.Context(), p, Hooks{}); err != nil {
		t.Fatal(err)
	}
	all, err := s.Published()
	must(err)
	for _, f := range all {
		if b, err := os.ReadFile(f.Kept[0].File); len(f.Kept) != 1 || string(b) != "old" {
			t.Errorf("of %s is kept %+v: %q, %v", f.Path, f.Kept, b, err)
		}
	}
}

// calls records what a plan calls, by names that do not change.
func (s site) calls(t *testing.T, p Plan) []string {
	t.Helper()
	r := &recording{dir: filepath.Dir(s.etc)}
	s.disk = disk{gate: r}
	if _, err := s.Apply(t.Context(), p, Hooks{}); err != nil {
		t.Fatal(err)
	}
	return r.calls
}

func directoriesAreSyncedBeforeTheJournalSaysSo(t *testing.T, s site) {
	s.furnish(t)
	calls := s.calls(t, s.plan("set"))
	last := len(calls) - 1 - slices.IndexFunc(reversed(calls), func(c string) bool { return strings.HasPrefix(c, "rename new etc/") })
	synced := last + slices.Index(calls[last:], "fsync etc")
	journal := last + slices.Index(calls[last:], "rename store/journal.json")
	if synced < last || journal < synced {
		t.Errorf("after the last rename, want the directory synced and then the journal: %q", calls[last:])
	}
}

func reversed(s []string) []string {
	s = slices.Clone(s)
	slices.Reverse(s)
	return s
}

func nothingComesBetweenTheRenames(t *testing.T, s site) {
	s.furnish(t)
	calls := s.calls(t, s.plan("set"))
	first := slices.Index(calls, "exchange etc/cert")
	for _, c := range calls[first:] {
		if c == "fsync etc" {
			return
		}
		if verb, _, _ := strings.Cut(c, " "); !slices.Contains([]string{"exchange", "rename", "statx"}, verb) {
			t.Errorf("between the first rename and the sync there is %q", c)
		}
	}
}

func keptIsTheOldInodeItself(t *testing.T, s site) {
	s.furnish(t)
	old := lying(s.etc + "/cert")
	must(s.applies(t, s.plan("set")))
	all, err := s.Published()
	must(err)
	i := slices.IndexFunc(all, func(f Published) bool { return f.Path == s.etc+"/cert" })
	if kept := lying(all[i].Kept[0].File); kept != old {
		t.Errorf("kept is %+v; want %+v", kept, old)
	}
	must(os.Symlink(s.etc+"/cert", s.etc+"/planted"))
	if _, err := (disk{}).create(s.etc + "/planted"); !errors.Is(err, os.ErrExist) {
		t.Errorf("a planted link is opened: %v", err)
	}
}

func (s site) applies(t *testing.T, p Plan) error {
	t.Helper()
	_, err := s.Apply(t.Context(), p, Hooks{})
	return err
}

func failuresLeaveNothing(t *testing.T, s site) {
	before, _ := s.furnish(t)
	for range 20 {
		_, err := s.Apply(t.Context(), s.plan("set"), Hooks{Validate: func(context.Context, Preview) error { return errHook }})
		if !errors.Is(err, ErrValidateFailed) {
			t.Fatal(err)
		}
		times := 0
		if _, err := s.Apply(t.Context(), s.plan("set"), failingReload(&times)); !errors.Is(err, ErrReloadFailed) {
			t.Fatal(err)
		}
	}
	s.wants(t, before...)
	s.tidy(t)
}

func panicsLeaveNothing(t *testing.T, s site) {
	before, _ := s.furnish(t)
	for _, h := range []Hooks{
		{Validate: func(context.Context, Preview) error { panic("validate") }},
		{Reload: func(_ context.Context, phase Phase) error {
			if phase == Deploying {
				panic("reload")
			}
			return nil
		}},
	} {
		if _, err := s.Apply(t.Context(), s.plan("set"), h); err == nil || !strings.Contains(err.Error(), "panicked") {
			t.Errorf("Apply = %v", err)
		}
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic of a stream is swallowed")
			}
		}()
		p := s.plan("set")
		p.Files[0].Bytes, p.Files[0].Open = nil, func() (io.ReadCloser, error) { panic("open") }
		s.Apply(t.Context(), p, Hooks{})
	}()
	s.wants(t, before...)
	s.tidy(t)
}

func cancelledContextStillGoesBack(t *testing.T, s site) {
	before, _ := s.furnish(t)
	ctx, cancel := context.WithCancel(t.Context())
	r, err := s.Apply(ctx, s.plan("set"), Hooks{Reload: func(ctx context.Context, _ Phase) error {
		cancel()
		return ctx.Err()
	}})
	if !errors.Is(err, ErrReloadFailed) || !errors.Is(err, context.Canceled) || !r.RolledBack {
		t.Errorf("Apply = %+v, %v; want it rolled back", r, err)
	}
	s.wants(t, before...)
	if _, err := s.Apply(ctx, s.plan("set"), Hooks{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Apply of a cancelled context = %v", err)
	}
	s.wants(t, before...)
}

func notBeingAbleToTellIsAnError(t *testing.T, s site) {
	before, _ := s.furnish(t)
	s.disk = disk{gate: &recording{dir: s.etc, fail: map[string]error{"statx cert": unix.EACCES}}}
	if err := s.applies(t, s.plan("set")); !errors.Is(err, ErrPrepareFailed) || !errors.Is(err, unix.EACCES) {
		t.Errorf("Apply = %v", err)
	}
	s.wants(t, before...)
}

func wrongModeIsMended(t *testing.T, s site) {
	p := Plan{ID: "set", Files: []Target{{Path: s.etc + "/f", Bytes: []byte("x"), Metadata: Metadata{Mode: 0o640}}}}
	must(s.applies(t, p))
	must(os.Chmod(s.etc+"/f", 0o666))
	v := &service{site: s}
	if r, err := s.Apply(t.Context(), p, v.hooks()); err != nil || r.Skipped || v.told != 1 {
		t.Errorf("Apply = %+v, %v", r, err)
	}
	s.wants(t, `f -rw-r----- "x"`)
}

func errorsHaveOneSentinelAndTheirCause(t *testing.T, s site) {
	s.furnish(t)
	hooks := map[error]Hooks{
		ErrValidateFailed: {Validate: func(context.Context, Preview) error { return errHook }},
		ErrReloadFailed:   failingReload(new(int)),
		ErrVerifyFailed: {Verify: func(_ context.Context, phase Phase) error {
			if phase == Deploying {
				return errHook
			}
			return nil
		}},
		ErrRollbackFailed: {Reload: func(context.Context, Phase) error { return errHook }},
	}
	for want, h := range hooks {
		_, err := s.Apply(t.Context(), s.plan("set"), h)
		if !errors.Is(err, want) || !errors.Is(err, errHook) || countSentinels(err) != 1 {
			t.Errorf("Apply = %v, want %q alone and the cause", err, want)
		}
		_, err = s.Recover(t.Context(), nil)
		must(err)
	}
}

func resultIsNeverNil(t *testing.T, s site) {
	s.furnish(t)
	done, cancel := context.WithCancel(t.Context())
	cancel()
	for _, p := range []Plan{{}, s.plan("set"), {ID: ".."}} {
		if r, err := s.Apply(done, p, Hooks{}); r == nil || err == nil {
			t.Errorf("Apply = %v, %v", r, err)
		}
	}
	if r, err := s.Recover(done, nil); r == nil || !errors.Is(err, ErrBusy) {
		t.Errorf("Recover = %v, %v", r, err)
	}
}

func keptIsPrunedByRecord(t *testing.T, s site) {
	s.write(t, "f", "0", 0o644)
	s.write(t, "f.bak.note", "a person's", 0o644)
	next := func(t *testing.T, n int) {
		must(s.applies(t, Plan{ID: "set", Keep: 2, Files: []Target{{Path: s.etc + "/f", Bytes: fmt.Append(nil, n)}}}))
	}
	for n := 1; n < 5; n++ {
		next(t, n)
	}
	synctest.Test(t, func(t *testing.T) { next(t, 5) }) // the clock is back in the year 2000
	all, err := s.Published()
	must(err)
	var kept []string
	for _, k := range all[0].Kept {
		b, err := os.ReadFile(k.File)
		must(err)
		kept = append(kept, string(b))
	}
	if !slices.Equal(kept, []string{"4", "3"}) || !all[0].Kept[0].Time.Before(all[0].Kept[1].Time) {
		t.Errorf("kept is %q: %+v", kept, all[0].Kept)
	}
	s.wants(t, `f -rw-r--r-- "5"`, `f.bak.note -rw-r--r-- "a person's"`)
	s.tidy(t)
}

func hiddenNamesOnly(t *testing.T, s site) {
	before, after := s.furnish(t)
	check := func(when string, want []string) {
		if seen, hidden := s.look(t); !slices.Equal(seen, want) || len(hidden) == 0 {
			t.Errorf("%s, who passes hidden files by sees %q, want %q; hidden are %q", when, seen, want, hidden)
		}
	}
	_, err := s.Apply(t.Context(), s.plan("set"), Hooks{
		Validate: func(context.Context, Preview) error { check("staged", before); return nil },
		Verify:   func(context.Context, Phase) error { check("committed", after); return nil },
	})
	must(err)
	s.wants(t, after...)
}
