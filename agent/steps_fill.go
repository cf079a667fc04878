package agent

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"deploytools/atomic"
	"deploytools/layers"
	"deploytools/layers/digest"
	"deploytools/layers/manifest"
	"deploytools/registry/wire"
)

// superseded polls before one more try of a state that prepares a deployment.
// That the registry cannot be asked does not stop the try.
func (a *Agent) superseded(ctx context.Context) error {
	if a.rec.Deployment.ByHand {
		return nil
	}
	c := a.rec.Deployment.New.Configuration
	st, err := a.askBeside(ctx, Superseded)
	switch {
	case isDefinite(err):
		return err
	case err != nil || st.Digest == c.Digest || a.rec.Deployment.Repair && !a.overtaken(st):
		return nil
	case absent(st):
		return &definite{verdict: Superseded, err: errors.New("the registry no longer has the configuration")}
	}
	return &definite{verdict: Superseded, err: another(st)}
}

func another(st wire.PollState) error {
	return fmt.Errorf("the registry has another configuration, revision %d", st.Revision)
}

// fetch is the step of Fetching. What is fetched is unpacked meanwhile.
func (a *Agent) fetch(ctx context.Context) error {
	if a.rec.Deployment.ByHand {
		return nil
	}
	c := a.rec.Deployment.New.Configuration
	err := a.fits(c)
	if full(err) && a.ahead != nil {
		a.dropAhead() // what it has taken is counted twice
		err = a.fits(c)
	}
	if err != nil {
		return err
	}
	if missing := a.uncached(c); len(missing) > 0 && !a.retrying {
		if err := a.unpackAhead(ctx, c, missing); err != nil {
			return err
		}
	}
	a.arrival.status = a.status()
	return a.during(ctx, Superseded, func(ctx context.Context) error {
		err := a.fill(ctx, c)
		if full(err) {
			a.dropAhead()
		}
		if err != nil {
			return err
		}
		return a.ahead.wait(ctx)
	})
}

// unpack is the step of Unpacking. Each try fills a new root, under a number
// that is durable before the first byte: what an earlier try left is never used.
// The first finds it filled, if its layers were fetched without a fault.
func (a *Agent) unpack(ctx context.Context) error {
	if a.rec.Deployment.ByHand {
		return nil // it was unpacked for an earlier deployment
	}
	staged, info := a.takeAhead()
	var err error
	if staged == nil {
		staged, info, err = a.unpackNow(ctx)
	}
	if staged == nil {
		return err
	}
	if info != nil {
		defer info.Close()
	}
	a.crash("filled")
	if err == nil {
		err = a.finish(ctx, staged, info)
	}
	if err == nil {
		return nil
	}
	err = errors.Join(err, staged.Abort())
	switch {
	case errors.Is(err, digest.ErrMismatch):
		c := a.rec.Deployment.New.Configuration
		return &spoiltLayer{errors.Join(err, a.during(ctx, Superseded, func(context.Context) error { return a.purge(c) }))}
	case errors.Is(err, layers.ErrRefused):
		return bad(err)
	}
	return err
}

// spoiltLayer says that a layer had lost its bits, and is deleted: it is fetched
// again.
type spoiltLayer struct{ error }

func (e *spoiltLayer) Unwrap() error { return e.error }

// refetches reports whether the step begins again at once since err is no more
// than that; once in a deployment.
func (a *Agent) refetches(err error) bool {
	d := a.rec.Deployment
	if _, spoilt := errors.AsType[*spoiltLayer](err); !spoilt || d == nil || a.refetched == d.ID {
		return false
	}
	a.refetched = d.ID
	a.log().Warn("damaged layer is fetched again", "error", err)
	return true
}

// unpackNow fills a new root from the cache. It may return a root with an error.
func (a *Agent) unpackNow(ctx context.Context) (*atomic.Dir, *layers.Info, error) {
	if err := a.fits(a.rec.Deployment.New.Configuration); err != nil {
		return nil, nil, err
	}
	from := a.takeOver()
	if err := a.numberRoot(); err != nil {
		return nil, nil, err
	}
	d := a.rec.Deployment
	c := d.New.Configuration
	err := a.during(ctx, Superseded, func(ctx context.Context) error { return a.fill(ctx, c) }) // again, if purge found one damaged
	if err != nil {
		return nil, nil, err
	}
	staged, err := atomic.Stage(a.path(d.New.Dir))
	if err != nil {
		return nil, nil, err
	}
	stack := a.stack(c)
	var info *layers.Info
	err = a.during(ctx, Superseded, func(ctx context.Context) (err error) {
		info, err = a.unpackInto(ctx, staged, stack, from)
		return err
	})
	return staged, info, err
}

// unpackInto fills a root. It may run beside the machine.
func (a *Agent) unpackInto(ctx context.Context, staged *atomic.Dir, stack []layers.Layer, from *layers.Reuse) (*layers.Info, error) {
	o := a.o.Layers
	o.Reuse = from
	info, err := layers.Unpack(ctx, staged.Path(), stack, o)
	return info, a.filledBy(err)
}

// numberRoot gives the deployment a root's name that was never used.
func (a *Agent) numberRoot() error {
	d := a.rec.Deployment
	name := d.ID
	if d.New.Dir != "" {
		a.rec.Seq++
		name = id(a.rec.Seq, d.New.Configuration)
	}
	d.New.Dir = "roots/" + name
	return a.save()
}

// paced is m with a sign of life for each entry, until ctx is done: where a million
// names lie on disk, it takes a minute.
func (a *Agent) paced(ctx context.Context, m iter.Seq2[manifest.Entry, error]) iter.Seq2[manifest.Entry, error] {
	return func(yield func(manifest.Entry, error) bool) {
		for e, err := range m {
			a.pulse.beat()
			if err == nil && ctx.Err() != nil {
				e, err = manifest.Entry{}, context.Cause(ctx)
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

// finish completes the root: the documents beside it first, so that a root
// that has its name has them too.
func (a *Agent) finish(ctx context.Context, staged *atomic.Dir, info *layers.Info) error {
	for _, w := range info.Warnings {
		a.log().Warn("layer not applied as it is", "error", w)
	}
	d := a.rec.Deployment
	err := a.sealRoot(&d.New, a.paced(ctx, info.Manifest))
	info.Close() // what it has on disk need not be synced with the root
	if err != nil {
		return err
	}
	if err := a.writeIndex(&d.New, info.Index); err != nil {
		return err
	}
	if err := a.writeRoot(&d.New); err != nil {
		return err
	}
	a.crash("documents")
	return staged.Commit()
}
