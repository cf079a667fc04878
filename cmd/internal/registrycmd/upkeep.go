package registrycmd

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/spf13/pflag"

	"deploytools/cmd/internal/cli"
	"deploytools/layers/digest"
	"deploytools/registry"
)

// upkeep is what the registry does by itself, and how often.
type upkeep struct {
	expiry, grace, gcEvery, scrub time.Duration
}

func (u *upkeep) flags(fs *pflag.FlagSet) {
	fs.DurationVar(&u.expiry, "upload-expiry", 24*time.Hour, "`time` after its last write that an upload is kept")
	fs.DurationVar(&u.grace, "grace", 24*time.Hour, "`time` that content is kept which nothing references; at least -upload-expiry")
	fs.DurationVar(&u.gcEvery, "gc-every", 10*time.Minute, "`time` between two collections of what is not needed any more")
	fs.DurationVar(&u.scrub, "scrub", 30*24*time.Hour, "`time` in which all content is read once, slowly, and compared with its digest; 0 is never")
}

func (u *upkeep) check() error {
	switch {
	case u.expiry <= 0:
		return cli.Usage("-upload-expiry should be positive")
	case u.grace <= 0:
		return cli.Usage("-grace should be positive")
	case u.gcEvery <= 0:
		return cli.Usage("-gc-every should be positive")
	case u.scrub < 0:
		return cli.Usage("-scrub cannot be negative")
	}
	return nil
}

// run keeps the registry up until ctx ends.
func (u *upkeep) run(ctx context.Context, reg *registry.Registry, log *slog.Logger) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { u.sweep(ctx, reg, log) })
	if u.scrub > 0 {
		wg.Go(func() { u.read(ctx, reg, log) })
	}
}

func (u *upkeep) sweep(ctx context.Context, reg *registry.Registry, log *slog.Logger) {
	tick := time.NewTicker(u.gcEvery)
	defer tick.Stop()
	for {
		got, err := reg.Sweep(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			log.Warn("sweep failed", "error", err)
		case got != registry.Swept{}:
			log.Info("swept", "uploads", got.Uploads, "versions", got.Versions, "blobs", got.Blobs, "entries", got.Entries)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// scrubAgain is how long to wait after an engine has failed.
const scrubAgain = 10 * time.Minute

// read scrubs. What is damaged is said once, when it is found, and by fsck.
func (u *upkeep) read(ctx context.Context, reg *registry.Registry, log *slog.Logger) {
	for {
		err := reg.Scrub(ctx, registry.ScrubOptions{Period: u.scrub, Damaged: func(d digest.Digest, reason string) {
			log.Error("content is damaged and not served", "digest", d, "error", errors.New(reason))
		}})
		if ctx.Err() != nil {
			return
		}
		log.Warn("scrub failed", "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(scrubAgain):
		}
	}
}
