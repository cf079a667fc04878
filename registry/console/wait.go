package console

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"deploytools/registry"
)

// Waiting until it is decided everywhere: what status -wait does.

const (
	waitTick = 500 * time.Millisecond // between two looks
	waitTold = time.Second            // before whoever waits is told of what
)

// waiting are the flags of a command that can wait.
type waiting struct {
	wait    bool
	timeout time.Duration
}

func (w *waiting) Flags(fs *pflag.FlagSet) {
	fs.BoolVar(&w.wait, "wait", false, "wait until every host runs what is wanted, or has failed to")
	fs.DurationVar(&w.timeout, "timeout", 5*time.Minute, "`time` that -wait has; then it stands as it is")
}

// until calls look until that has nothing to wait for, the time is over, or ctx is
// done. What it waits for is told on the way.
func (w *waiting) until(ctx context.Context, s *Session, look func() (pending string, err error)) error {
	began, told := time.Now(), ""
	tick := time.NewTicker(waitTick)
	defer tick.Stop()
	for {
		pending, err := look()
		if err != nil || pending == "" || !w.wait || time.Since(began) >= w.timeout {
			return err
		}
		if pending != told && time.Since(began) >= waitTold && !s.json {
			told = pending
			fmt.Fprintf(s.Stderr, "note: waiting: %s\n", pending)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// pending counts the hosts by where they stand; "": all is decided.
func (f *fleetStatus) pending() string {
	counts, open := map[registry.Standing]int{}, len(f.Hosts) == 0
	for _, row := range f.Hosts {
		counts[row.Standing]++
		open = open || !decided(row.Standing)
	}
	if !open {
		return ""
	}
	if len(f.Hosts) == 0 {
		return "no agent has polled for it yet"
	}
	var all []string
	for _, standing := range registry.Standings {
		if n := counts[standing]; n > 0 {
			all = append(all, fmt.Sprintf("%d %s", n, standing))
		}
	}
	return strings.Join(all, ", ")
}

// decided reports whether nothing more comes of it by itself.
func decided(s registry.Standing) bool {
	return slices.Contains([]registry.Standing{registry.Same, registry.RolledBack, registry.Broken, registry.Unwanted}, s)
}
