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
// done. What it waits for is told on the way, and what it did not see come.
func (w *waiting) until(ctx context.Context, s *Session, look func() (pending string, err error)) error {
	began, told := time.Now(), ""
	tick := time.NewTicker(waitTick)
	defer tick.Stop()
	for {
		pending, err := look()
		if err != nil || pending == "" || !w.wait {
			return err
		}
		if time.Since(began) >= w.timeout {
			if !s.json {
				fmt.Fprintf(s.Stderr, "note: waited for %v, and still: %s\n", w.timeout, pending)
			}
			return nil
		}
		if pending != told && time.Since(began) >= waitTold && !s.json {
			told = pending
			fmt.Fprintf(s.Stderr, "note: waiting (-timeout %v): %s\n", w.timeout, pending)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// pending counts the lines of hosts by where they stand, and names those of which
// something is to come; "": all is decided.
func (f *fleetStatus) pending() string {
	if len(f.Hosts) == 0 {
		return "no agent has polled for it yet"
	}
	by, open := map[registry.Standing][]statusRow{}, false
	for _, row := range f.Hosts {
		by[row.Standing] = append(by[row.Standing], row)
		open = open || !decided(row.Standing)
	}
	if !open {
		return ""
	}
	var all []string
	for _, standing := range registry.Standings {
		rows := by[standing]
		if len(rows) == 0 {
			continue
		}
		text := fmt.Sprintf("%d %s", len(rows), standing)
		if !decided(standing) {
			text += " (" + f.named(rows) + ")"
		}
		all = append(all, text)
	}
	return strings.Join(all, ", ")
}

// maxNamed is how many hosts a line names that may become long.
const maxNamed = 5

// named names hosts, with the configuration where f has several.
func (f *fleetStatus) named(rows []statusRow) string {
	several := slices.ContainsFunc(f.Hosts, func(r statusRow) bool { return r.Configuration != f.Hosts[0].Configuration })
	var all []string
	for _, r := range rows {
		name := r.Host
		if several {
			name += " of " + r.Configuration
		}
		all = append(all, name)
	}
	return some(slices.Compact(all)) // hosts of one key
}

// some joins names, of many of them the first few.
func some(names []string) string {
	if more := len(names) - maxNamed; more > 1 {
		names = append(names[:maxNamed:maxNamed], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(names, ", ")
}

// decided reports whether nothing more comes of it by itself.
func decided(s registry.Standing) bool {
	return slices.Contains([]registry.Standing{registry.Same, registry.RolledBack, registry.Broken, registry.Unwanted}, s)
}
