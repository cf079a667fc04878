package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
)

// Which root serves in the end: what was unpacked, or else a root that is as it
// was committed.

// chooseBack has the deployment fall back on a root that nobody has modified, if
// one is kept: on Back, or else on the one committed last. It can be called again.
func (a *Agent) chooseBack(ctx context.Context, d *Deployment) error {
	if d.Back == nil {
		return nil
	}
	look := func(ctx context.Context, r *Root, how How) (*Condition, error) {
		if len(a.o.Link) > 0 {
			how.twin = newTwin(a.path(d.New.Dir), a.rootFile(&d.New, ".manifest"), d.New.Manifest, d.New.Filled)
			defer how.twin.close()
		}
		return a.examineBeside(ctx, r, how)
	}
	best, c, err := a.best(ctx, d.Back, d.New.is, look)
	if err != nil {
		return err
	}
	d.Back, d.Doubt = best, ""
	switch {
	case best == nil:
		a.warnRoot(slog.LevelError, "no root to fall back on", "", "none is left")
	case !c.Whole():
		d.Doubt = c.String()
		level := slog.LevelWarn
		if c.rank() > 2 {
			level = slog.LevelError
		}
		a.warnRoot(level, "no unmodified root to fall back on", best.Dir, d.Doubt)
	}
	return nil
}

// warnRoot says once what is wrong with a root.
func (a *Agent) warnRoot(level slog.Level, message, dir, detail string) {
	subject := message + " " + dir
	if a.said[subject] == detail {
		return
	}
	a.said[subject] = detail
	a.log().Log(context.Background(), level, message, "root", cmp.Or(dir, "none"), "error", detail)
}

// examiner compares a root with its manifest.
type examiner func(context.Context, *Root, How) (*Condition, error)

func (a *Agent) examine(ctx context.Context, r *Root, how How) (*Condition, error) {
	return examine(ctx, a.o.Dir, r, how)
}

// examineBeside is examine for a step: a big root takes minutes, and people are
// served meanwhile.
func (a *Agent) examineBeside(ctx context.Context, r *Root, how How) (c *Condition, err error) {
	err = a.during(ctx, Superseded, func(ctx context.Context) (err error) {
		c, err = a.examine(ctx, r, how)
		return err
	})
	return c, err
}

// best returns the first unmodified root of: first, and those that were committed,
// the latest before the others; without one the least modified, and nil if there
// is none at all. Those that except holds for do not count. See Condition.rank for what is how bad.
func (a *Agent) best(ctx context.Context, first *Root, except func(*Root) bool, look examiner) (best *Root, condition *Condition, err error) {
	candidates := []*Root{first}
	if roots, err := a.roots(); err == nil {
		others := slices.DeleteFunc(committedLast(roots), first.is)
		candidates = append(candidates, others...)
	} else if !errors.Is(err, errNewer) {
		return nil, nil, err
	}
	for _, r := range candidates {
		if except(r) || !a.there(r.Dir) {
			continue
		}
		c, err := look(ctx, r, How{Owner: a.o.Layers.Owner, Since: r.Filled})
		if err != nil {
			return nil, nil, err
		}
		if c.Whole() {
			return r, c, nil
		}
		a.warnRoot(slog.LevelWarn, "root modified", r.Dir, c.String())
		if best == nil || cmp.Or(cmp.Compare(c.rank(), condition.rank()), cmp.Compare(c.Modified+c.Missing, condition.Modified+condition.Missing)) < 0 {
			best, condition = r, c
		}
	}
	return best, condition, nil
}

// there reports whether the directory of a root is.
func (a *Agent) there(dir string) bool {
	info, err := os.Lstat(a.path(dir))
	return err == nil && info.IsDir()
}

// renew unpacks NEWROOT again, into another directory, if it is no longer what
// was unpacked, and notes it of one that a person rolls back to. What was added to it is let be: check scripts leave things.
func (a *Agent) renew(ctx context.Context, d *Deployment) error {
	wrong, err := a.spoilt(ctx, d)
	if wrong == "" || err != nil {
		return err
	}
	if d.ByHand { // chosen when the person asked: it is only told
		if !d.New.Manifest.IsZero() { // else nothing can be told of it
			d.Spoilt = wrong
			a.warnRoot(slog.LevelError, "rollback to a modified root", d.New.Dir, wrong)
		}
		return nil
	}
	a.log().Warn("root unpacked again", "root", d.New.Dir, "error", wrong)
	return a.unpack(ctx)
}

// unspoilt is an error if the check script has modified NEWROOT.
func (a *Agent) unspoilt(ctx context.Context, d *Deployment) error {
	if d.ByHand || a.o.Hook.CheckScript == "" {
		return nil
	}
	wrong, err := a.spoilt(ctx, d)
	if wrong != "" {
		err = bad(fmt.Errorf("%s has modified %s before the switch: %s", a.o.Hook.CheckScript, d.New.Dir, wrong))
	}
	return err
}

// spoilt says what NEWROOT lacks of what was unpacked; "": nothing.
func (a *Agent) spoilt(ctx context.Context, d *Deployment) (string, error) {
	c, err := a.examineBeside(ctx, &d.New, How{Since: d.New.Filled})
	if err != nil || c.rank() < 2 {
		return "", err
	}
	return c.String(), nil
}

// before returns where a rollback leads once root is live: to the first of the others, or
// else the last committed one, that is there and has other layers, not to the root that a
// repair replaced; nil: to none.
func (a *Agent) before(root *Root, others ...*Root) *Root {
	leads := func(r *Root) bool {
		return r != nil && (root == nil || !root.sameLayers(r)) && a.there(r.Dir)
	}
	if i := slices.IndexFunc(others, leads); i >= 0 {
		return others[i]
	}
	roots, _ := a.roots() // those that cannot be read are none
	if committed := committedLast(roots); slices.ContainsFunc(committed, leads) {
		return committed[slices.IndexFunc(committed, leads)]
	}
	return nil
}

// committedLast returns those of the roots that were committed, the last one first.
func committedLast(roots []*Root) (committed []*Root) {
	for _, r := range slices.Backward(roots) {
		if !r.Committed.IsZero() {
			committed = append(committed, r)
		}
	}
	return committed
}

// sameLayers reports whether both hold the same.
func (r *Root) sameLayers(other *Root) bool {
	return r.Configuration.Hash == other.Configuration.Hash
}

// is reports whether both are the same root.
func (r *Root) is(other *Root) bool { return r.Dir == other.Dir }

// sameRoot reports whether x and y are the same root, or both none.
func sameRoot(x, y *Root) bool {
	return x == y || x != nil && y != nil && x.Dir == y.Dir
}
