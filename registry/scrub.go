package registry

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"deploytools/layers/digest"
)

// Scrubbed says how far looking at the blobs has come: see Scrub.
type Scrubbed struct {
	Began time.Time     // of the round that runs
	Last  digest.Digest // that was looked at in it
	Blobs int           // that were looked at in it
	Bytes int64
	Bad   int       // of them
	Ended time.Time // of the round before; zero: there was none
}

// Scrubbed returns how far the scrub has come.
func (r *Registry) Scrubbed(ctx context.Context) (s Scrubbed, err error) {
	err = r.o.Meta.View(ctx, func(tx Tx) (err error) {
		s, _, err = get[Scrubbed](tx, keyScrub)
		return err
	})
	return s, err
}

// ScrubOptions say how fast and how loud Scrub is.
type ScrubOptions struct {
	Period time.Duration // of one round over all blobs
	Rate   int64         // bytes in a second at most; 0: 16 MiB
	// Damaged is told of each blob that is damaged.
	Damaged func(d digest.Digest, reason string)
}

// saveEvery is how much of a scrub is done again after a crash.
const saveEvery = time.Minute

// Scrub reads all blobs, one after the other and spread over the period, again
// and again, until ctx ends or an engine fails; blobs that are damaged are not
// served from then on. After a restart it goes on where it was.
func (r *Registry) Scrub(ctx context.Context, o ScrubOptions) error {
	o.Rate = cmp.Or(o.Rate, 16<<20)
	for {
		s, err := r.Scrubbed(ctx)
		if err != nil {
			return err
		}
		if s.Began.IsZero() {
			s.Began = r.now()
		}
		if err := r.round(ctx, o, &s); err != nil {
			return err
		}
		if err := r.pause(ctx, s.Began.Add(o.Period).Sub(r.now())); err != nil {
			return err
		}
		next := Scrubbed{Began: r.now(), Ended: r.now()}
		if err := r.saveScrub(ctx, next); err != nil {
			return err
		}
	}
}

// round goes on with a round to its end.
func (r *Registry) round(ctx context.Context, o ScrubOptions, s *Scrubbed) (err error) {
	sizes, err := r.sizes(ctx)
	if err != nil {
		return err
	}
	left := slices.SortedFunc(maps.Keys(sizes), byDigest)
	if s.Blobs > 0 {
		at, found := slices.BinarySearchFunc(left, s.Last, byDigest)
		if found {
			at++
		}
		left = left[at:]
	}
	saved := r.now()
	defer func() {
		// What was done is worth keeping when the registry stops.
		if failed := r.saveScrub(context.WithoutCancel(ctx), *s); err == nil {
			err = failed
		}
	}()
	for i, d := range left {
		rest := s.Began.Add(o.Period).Sub(r.now())
		if err := r.pause(ctx, rest/time.Duration(len(left)-i+1)); err != nil {
			return err
		}
		reason, err := r.examine(ctx, d, func(n int) error {
			return r.pause(ctx, time.Duration(float64(n)/float64(o.Rate)*float64(time.Second)))
		})
		if err != nil {
			return fmt.Errorf("cannot scrub content %s: %w", d, err)
		}
		s.Last, s.Blobs, s.Bytes = d, s.Blobs+1, s.Bytes+sizes[d]
		if reason != "" {
			s.Bad++
			o.Damaged(d, reason)
		}
		if r.now().Sub(saved) >= saveEvery {
			if err := r.saveScrub(ctx, *s); err != nil {
				return err
			}
			saved = r.now()
		}
	}
	return nil
}

func (r *Registry) saveScrub(ctx context.Context, s Scrubbed) error {
	return r.o.Meta.Update(ctx, func(tx Tx) error { return put(tx, keyScrub, s) })
}

// pause waits unless d is over, or until ctx ends.
func (r *Registry) pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return context.Cause(ctx)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
