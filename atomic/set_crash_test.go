package atomic

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// unsynced leaves syncs out, which prove nothing while the kernel lives. With
// steps it is a file system that cannot exchange two names in one step.
type unsynced struct {
	*crashing
	steps bool
}

func (u unsynced) do(op, path string, call func() error) error {
	if op == "fsync" {
		call = func() error { return nil }
	}
	if op == "exchange" && u.steps {
		call = func() error { return unix.EINVAL }
	}
	if u.crashing == nil {
		return call()
	}
	return u.crashing.do(op, path, call)
}

// service reads the files when it is told to, as long as the process that is to
// tell it lives.
type service struct {
	site site
	c    *crashing
	read []string
	told int
	fail map[Phase]error
}

func (s *service) hooks() Hooks {
	dead := func() error {
		if s.c != nil && s.c.hit && !s.c.once {
			return errors.New("the process is dead")
		}
		return nil
	}
	return Hooks{
		Reload: func(_ context.Context, phase Phase) error {
			if err := dead(); err != nil {
				return err
			}
			s.told++
			s.read = s.site.reader()
			return s.fail[phase]
		},
	}
}

// reader lists what a program sees that reads the directory.
func (s site) reader() []string {
	var seen []string
	entries, err := os.ReadDir(s.etc)
	must(err)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		b, err := os.ReadFile(s.etc + "/" + e.Name())
		must(err)
		info, err := e.Info()
		must(err)
		seen = append(seen, fmt.Sprintf("%s %04o %q", e.Name(), info.Mode().Perm(), b))
	}
	return seen
}

// sizes are plans of so many files, and between them every action. Those of an
// even number lie where names are exchanged in steps.
var sizes = [][]string{{"replace"}, {"replace", "create"}, {"remove", "create", "same"}, {"replace", "remove", "create", "replace"}}

func (s site) sized(t *testing.T, actions []string) Plan {
	p := Plan{ID: "set", Keep: 1}
	for i, action := range actions {
		name := fmt.Sprintf("%d-%s", i, action)
		f := Target{Path: s.etc + "/" + name, Bytes: []byte("new " + name), Metadata: Metadata{Mode: 0o600}}
		switch action {
		case "replace":
			s.write(t, name, "old "+name, 0o640)
		case "same":
			s.write(t, name, "new "+name, 0o600)
		case "remove":
			s.write(t, name, "old "+name, 0o644)
			f.Bytes, f.Remove, f.Mode = nil, true, 0
		}
		p.Files = append(p.Files, f)
	}
	return p
}

// everyPoint names the variable that makes the tests try all points; without it
// each run has a sample of its own.
const everyPoint = "DEPLOY_TEST_EVERY_POINT"

// crashes runs the scenario with the first fault at each call in turn. Each
// run has a site of its own, furnished for the plan.
func crashes(t *testing.T, actions []string, once bool, run func(t *testing.T, s site, p Plan, c *crashing)) {
	step := 6
	if os.Getenv(everyPoint) != "" {
		step = 1
	}
	for n := rand.IntN(step); ; n += step {
		s := newSite(t)
		p := s.sized(t, actions)
		c := &crashing{n: n, once: once}
		s.disk = disk{gate: unsynced{c, len(actions)%2 == 0}}
		run(t, s, p, c)
		if t.Failed() {
			t.Fatalf("fault %d of %v, once %v, at %q", n, actions, once, c.at)
		}
		if !c.hit {
			t.Logf("%v, once %v: at most %d points, one of %d tried", actions, once, n, step)
			return
		}
	}
}

// A crash is what the set must survive anywhere: all old or all new, and whoever
// reads the files has been told of what they are.
func TestSetCrashAtEveryCallOfApply(t *testing.T) {
	t.Parallel()
	for _, actions := range sizes {
		crashes(t, actions, false, func(t *testing.T, s site, p Plan, c *crashing) {
			old := s.reader()
			v := &service{site: s, c: c, read: old}
			s.Apply(t.Context(), p, v.hooks())
			next := s.restarted()
			v = &service{site: next, read: v.read}
			r, err := next.Recover(t.Context(), func(string) Hooks { return v.hooks() })
			if err != nil {
				t.Errorf("Recover = %+v, %v", r, err)
			}
			seen := next.reader()
			if isNew := slices.Equal(seen, next.wanted(p)); !isNew && !slices.Equal(seen, old) {
				t.Errorf("a reader sees %q, want all old or all new", seen)
			}
			if !slices.Equal(v.read, seen) {
				t.Errorf("was told of %q, and there is %q", v.read, seen)
			}
			next.tidy(t)
			if _, err := next.Apply(t.Context(), p, v.hooks()); err != nil {
				t.Errorf("Apply again: %v", err)
			}
			if seen := next.reader(); !slices.Equal(seen, next.wanted(p)) || !slices.Equal(v.read, seen) {
				t.Errorf("after Apply again a reader sees %q, was told of %q", seen, v.read)
			}
			next.tidy(t)
		})
	}
}

// restarted is the site after a reboot.
func (s site) restarted() site {
	steps := false
	if before, ok := s.disk.gate.(unsynced); ok {
		steps = before.steps
	}
	return site{&Store{disk: disk{gate: unsynced{steps: steps}}, dir: s.dir}, s.etc}
}

// wanted lists what a reader sees when the plan is carried out.
func (s site) wanted(p Plan) []string {
	var want []string
	for _, f := range p.Files {
		if !f.Remove {
			want = append(want, fmt.Sprintf("%s %04o %q", strings.TrimPrefix(f.Path, s.etc+"/"), f.Mode, f.Bytes))
		}
	}
	return want
}

// tidy checks that nothing is left of a set but what the record names, and that
// the record is right.
func (s site) tidy(t *testing.T) {
	t.Helper()
	entries, err := os.ReadDir(s.etc)
	must(err)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			t.Errorf("%s is left", e.Name())
		}
	}
	if d, err := s.Drift(t.Context()); err != nil || len(d) > 0 {
		t.Errorf("the record says otherwise of %v, %v", d, err)
	}
	all, err := s.Published()
	must(err)
	kept := 0
	for _, f := range all {
		kept += len(f.Kept)
	}
	files, err := os.ReadDir(s.path(keptName))
	must(err)
	if len(files) != kept {
		t.Errorf("%d former contents are kept, and the record names %d that exist", len(files), kept)
	}
	entries, err = os.ReadDir(s.dir)
	must(err)
	for _, e := range entries {
		if !slices.Contains([]string{lockName, publishedName, keptName}, e.Name()) {
			t.Errorf("%s is left in the store", e.Name())
		}
	}
}

// A call that fails is told under one sentinel, which is true.
func TestSetErrorAtEveryCallOfApply(t *testing.T) {
	t.Parallel()
	for _, actions := range sizes {
		crashes(t, actions, true, func(t *testing.T, s site, p Plan, c *crashing) {
			old := s.reader()
			v := &service{site: s, c: c, read: old}
			r, err := s.Apply(t.Context(), p, v.hooks())
			seen, want := s.reader(), old
			if err == nil {
				want = s.wanted(p)
			} else if !errors.Is(err, unix.EIO) {
				t.Errorf("the cause is not told: %v", err)
			}
			if errors.Is(err, ErrRollbackFailed) {
				next := s.restarted()
				v := &service{site: next, read: v.read}
				if _, err := next.Recover(t.Context(), func(string) Hooks { return v.hooks() }); err != nil {
					t.Errorf("Recover: %v", err)
				}
				seen = next.reader()
			}
			if !slices.Equal(seen, want) {
				t.Errorf("Apply = %+v, %v; a reader sees %q, want %q", r, err, seen, want)
			}
			if n := countSentinels(err); err != nil && n != 1 {
				t.Errorf("%v wraps %d sentinels", err, n)
			}
			if !errors.Is(err, ErrRollbackFailed) && !slices.Equal(v.read, seen) {
				t.Errorf("was told of %q, and there is %q", v.read, seen)
			}
			next := s.restarted()
			if _, err := next.Recover(t.Context(), nil); err != nil {
				t.Errorf("Recover: %v", err)
			}
			next.tidy(t)
		})
	}
}

func countSentinels(err error) int {
	n := 0
	for _, s := range []error{ErrPlanInvalid, ErrBusy, ErrUnfinished, ErrPrepareFailed, ErrValidateFailed, ErrCommitFailed, ErrReloadFailed, ErrVerifyFailed, ErrRollbackFailed} {
		if errors.Is(err, s) {
			n++
		}
	}
	return n
}

// The steps of a set are one by one in the hands of a machine with a record of
// its own. Wherever it dies, it calls the same step again.
func TestSetStepsCanBeCalledAgain(t *testing.T) {
	t.Parallel()
	forward := []func(context.Context, *Set) error{
		func(ctx context.Context, set *Set) error { return set.Commit(ctx) },
		func(ctx context.Context, set *Set) error { return set.Finish(ctx) },
	}
	back := []func(context.Context, *Set) error{
		forward[0],
		func(ctx context.Context, set *Set) error { return set.Undo(ctx) },
		forward[1],
	}
	for _, steps := range [][]func(context.Context, *Set) error{forward, back} {
		for _, actions := range sizes {
			crashes(t, actions, false, func(t *testing.T, s site, p Plan, c *crashing) {
				want := s.reader()
				if len(steps) == len(forward) {
					want = s.wanted(p)
				}
				for step, tries := 0, 0; step <= len(steps); {
					err := s.step(t.Context(), p, steps, step)
					if err != nil && !c.hit {
						t.Fatal(err)
					}
					if tries++; tries > 5 {
						t.Fatalf("step %d of %d: %v", step, len(steps), err)
					}
					if err != nil {
						c.n, c.once = 1<<30, true // the restart
						continue
					}
					step++
				}
				if seen := s.reader(); !slices.Equal(seen, want) {
					t.Errorf("a reader sees %q, want %q", seen, want)
				}
				s.restarted().tidy(t)
			})
		}
	}
}

// step does one step of a set as a machine would: the first prepares it.
func (s site) step(ctx context.Context, p Plan, steps []func(context.Context, *Set) error, n int) error {
	if n == 0 {
		set, err := s.Prepare(ctx, p)
		if err != nil {
			return err
		}
		return set.Close()
	}
	set, err := s.Prepared(ctx, p.ID)
	if errors.Is(err, os.ErrNotExist) && n == len(steps) && n > 2 {
		return nil // undone and closed
	}
	if err != nil {
		return err
	}
	defer set.Close()
	return steps[n-1](ctx, set)
}
