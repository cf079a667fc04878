package atomic

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Phase tells a hook why it runs.
type Phase string

const (
	Deploying   Phase = "deploy"   // the new contents are live
	RollingBack Phase = "rollback" // the old ones are live again
	Recovering  Phase = "recover"  // the same, after a crash
)

// Hooks are what Apply does between the steps of a set; each may be nil. Each
// gets a context that ends after Timeout, and those of the way back one that
// does not end with the caller's. A panic in a hook is its failure.
type Hooks struct {
	Validate func(context.Context, Preview) error // looks at the new contents before they are live
	Reload   func(context.Context, Phase) error   // makes who reads the files read them again
	Verify   func(context.Context, Phase) error   // looks whether it serves what is live

	Timeout         time.Duration // of each hook; 0 is one minute
	RollbackTimeout time.Duration // of all of the way back; 0 is three minutes
}

// Result says what Apply or Recover did; it is never nil.
type Result struct {
	ID         string
	Skipped    bool // everything was there already
	Validated  bool
	Reloaded   bool // with the new contents
	Verified   bool // the new contents; never true without a Verify
	RolledBack bool // all is as before
	Recovered  bool // a set that a crash had left was ended first
	Changed    []string
	Warnings   []string
}

// Apply carries out a plan: it prepares the set, validates it, commits, reloads,
// verifies and finishes it; or it goes back, reloads and verifies the old
// contents. It holds the locks all the while. First it ends what a crash left
// of an earlier Apply, with these hooks. Where everything is as planned and as
// published, only Verify runs. Errors wrap one of the sentinels of this package,
// and their causes; each sentinel says how the world is then.
func (s *Store) Apply(ctx context.Context, p Plan, h Hooks) (*Result, error) {
	if p.ID == "" {
		p.ID = strings.ToLower(rand.Text())
	}
	r := &Result{ID: p.ID}
	if err := p.check(); err != nil {
		return r, fmt.Errorf("set %s: %w: %w", p.ID, ErrPlanInvalid, err)
	}
	recovered, err := s.Recover(ctx, func(string) Hooks { return h })
	r.Recovered, r.Warnings = recovered.Recovered, recovered.Warnings
	if err != nil {
		return r, err
	}
	set, err := s.Prepare(ctx, p)
	if err != nil {
		return r, err
	}
	defer set.Close()
	err = set.apply(ctx, p, h, r)
	r.Warnings = append(r.Warnings, set.Warnings()...)
	if err != nil {
		err = fmt.Errorf("set %s: %w", p.ID, err)
	}
	return r, err
}

func (set *Set) apply(ctx context.Context, p Plan, h Hooks, r *Result) error {
	r.Changed = set.Changed()
	if len(r.Changed) == 0 && set.recorded() && !p.Force {
		r.Skipped = true
		set.drop()
		if err := h.verify(ctx, Deploying); err != nil {
			return fmt.Errorf("%w: %w", ErrVerifyFailed, err)
		}
		r.Verified = h.Verify != nil
		return nil
	}
	if err := set.validate(ctx, h); err != nil {
		set.drop()
		return fmt.Errorf("%w: %w", ErrValidateFailed, err)
	}
	r.Validated = h.Validate != nil
	if ctx.Err() != nil {
		set.drop()
		return fmt.Errorf("%w: %w", ErrPrepareFailed, context.Cause(ctx))
	}
	if err := set.commit(ctx); err != nil {
		return set.back(ctx, h, RollingBack, r, fmt.Errorf("%w: %w", ErrCommitFailed, err))
	}
	if err := h.reload(ctx, Deploying); err != nil {
		return set.back(ctx, h, RollingBack, r, fmt.Errorf("%w: %w", ErrReloadFailed, err))
	}
	r.Reloaded = h.Reload != nil
	if err := h.verify(ctx, Deploying); err != nil {
		return set.back(ctx, h, RollingBack, r, fmt.Errorf("%w: %w", ErrVerifyFailed, err))
	}
	r.Verified = h.Verify != nil
	if err := set.finish(); err != nil && set.State() != Finished {
		return set.back(ctx, h, RollingBack, r, fmt.Errorf("%w: %w", ErrCommitFailed, err))
	} else if err != nil {
		set.warnings = append(set.warnings, fmt.Sprintf("published, but not tidied up: %v", err))
	}
	return nil
}

// recorded reports whether the record says of every file what the plan says.
func (set *Set) recorded() bool {
	for _, it := range set.journal.Items {
		e := set.record.entry(it.Path)
		switch {
		case it.New == nil && e != nil && e.Content != nil:
			return false
		case it.New != nil && (e == nil || e.Content == nil || *e.Content != *it.New):
			return false
		}
	}
	return true
}

// drop gives up a set of which nothing is live yet.
func (set *Set) drop() {
	if err := set.discard(); err != nil {
		set.warnings = append(set.warnings, fmt.Sprintf("not tidied up: %v", err))
	}
}

// back undoes the set, tells who reads the files and looks at what they serve.
// It returns the cause, or ErrRollbackFailed with the cause and its own.
func (set *Set) back(ctx context.Context, h Hooks, phase Phase, r *Result, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), orElse(h.RollbackTimeout, 3*time.Minute))
	defer cancel()
	seen := set.State() != Prepared
	err := set.undo()
	if err == nil && seen {
		if err = h.reload(ctx, phase); err != nil {
			err = fmt.Errorf("reload of the old contents: %w", err)
		} else if err = h.verify(ctx, phase); err != nil {
			err = fmt.Errorf("verification of the old contents: %w", err)
		}
	}
	if err != nil {
		return rollbackFailed(cause, err)
	}
	r.RolledBack = true
	if err := set.finish(); err != nil {
		set.warnings = append(set.warnings, fmt.Sprintf("not tidied up: %v", err))
	}
	return cause
}

// rollbackFailed names both causes under one sentinel.
func rollbackFailed(cause, err error) error {
	if cause == nil {
		return fmt.Errorf("%w: %w", ErrRollbackFailed, err)
	}
	return fmt.Errorf("%w: %w (the way back was taken because: %w)", ErrRollbackFailed, err, hidden{cause})
}

// hidden is an error whose sentinel does not count, but whose causes do.
type hidden struct{ error }

func (h hidden) Unwrap() error {
	if both, ok := h.error.(interface{ Unwrap() []error }); ok {
		return errors.Join(both.Unwrap()[1:]...)
	}
	return nil
}

// Recover ends the set that a crash has left, if there is one: what was not
// committed is removed, what was finished is tidied up, and everything between
// goes back to the old contents, which are reloaded and verified, with the hooks
// of the set's ID. It can be called again. An error wraps [ErrBusy], or
// [ErrPrepareFailed] where it could not look or not tidy up, or
// [ErrRollbackFailed].
func (s *Store) Recover(ctx context.Context, hooks func(id string) Hooks) (*Result, error) {
	r := &Result{}
	set, err := s.Unfinished(ctx)
	if err != nil {
		return r, sentinel(err)
	}
	if set == nil {
		return r, nil
	}
	defer set.Close()
	r.ID, r.Recovered = set.ID(), true
	switch set.State() {
	case Preparing, Prepared:
		err = set.undo()
	case Finished:
		err = set.finish()
	default:
		h := Hooks{}
		if hooks != nil {
			h = hooks(set.ID())
		}
		err = set.back(ctx, h, Recovering, r, nil)
	}
	r.Warnings = set.Warnings()
	if err != nil {
		err = fmt.Errorf("set %s: %w", set.ID(), sentinel(err))
	}
	return r, err
}

func (set *Set) validate(ctx context.Context, h Hooks) error {
	if h.Validate == nil {
		return nil
	}
	p, err := set.Staged(nil)
	if err != nil {
		return err
	}
	return h.run(ctx, func(ctx context.Context) error { return h.Validate(ctx, p) })
}

func (h Hooks) reload(ctx context.Context, phase Phase) error {
	if h.Reload == nil {
		return nil
	}
	return h.run(ctx, func(ctx context.Context) error { return h.Reload(ctx, phase) })
}

func (h Hooks) verify(ctx context.Context, phase Phase) error {
	if h.Verify == nil {
		return nil
	}
	return h.run(ctx, func(ctx context.Context) error { return h.Verify(ctx, phase) })
}

// run calls a hook with its deadline. A panic must not leave half of a set.
func (h Hooks) run(ctx context.Context, hook func(context.Context) error) (err error) {
	ctx, cancel := context.WithTimeout(ctx, orElse(h.Timeout, time.Minute))
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("hook panicked: %v", p)
		}
	}()
	return hook(ctx)
}

func orElse(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}
