package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"

	"deploytools/layers/digest"
	"deploytools/registry/wire"
)

// ErrNothing: the directory has no record of an agent.
var ErrNothing = errors.New("no agent has worked there")

// Look returns an Agent that does not run, for a directory in which perhaps
// another process works: what shows something works, from the record as it is
// now. Of the options only Name, Dir and those of what is to be shown matter;
// without a name it is that of the record. It changes nothing.
func Look(o Options) (*Agent, error) {
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, err
	}
	o.Dir, o.Source, o.Keep = dir, nobody{}, o.Keep.withDefaults()
	o.Observe = Observe{Log: cmp.Or(o.Observe.Log, slog.New(slog.DiscardHandler)), Locked: o.Observe.Locked}
	a := newAgent(o, dir)
	r, err := a.load()
	switch {
	case errors.Is(err, fs.ErrNotExist) || err == nil && r == nil:
		return nil, fmt.Errorf("%s: %w", dir, ErrNothing)
	case err != nil:
		return nil, err
	case o.Name != "" && o.Name != r.Name:
		return nil, fmt.Errorf("%s %w %q, not %q", dir, ErrForeign, r.Name, o.Name)
	}
	a.o.Name, a.rec, a.saved = r.Name, r, r.clone()
	return a, nil
}

// Alone is Look that takes the directory for this process, as Run does, until
// release: Hold, Resume and Retry act at once. Others have to run.
func Alone(ctx context.Context, o Options) (a *Agent, release func(), err error) {
	if a, err = Look(o); err != nil { // before a lock file is made anywhere
		return nil, nil, err
	}
	if release, err = a.lock(ctx); err != nil {
		return nil, nil, err
	}
	if a, err = Look(o); err != nil { // as it is now
		release()
		return nil, nil, err
	}
	a.alone = true
	return a, release, nil
}

// nobody is the Source of an agent that does not run.
type nobody struct{}

var errNobody = errors.New("no agent runs")

func (nobody) Poll(context.Context, string) (wire.PollState, error) {
	return wire.PollState{}, errNobody
}

func (nobody) Configuration(context.Context, string) (*wire.Configuration, error) {
	return nil, errNobody
}

func (nobody) Fetch(context.Context, digest.Digest, int64, io.Writer) error { return errNobody }

func (nobody) Close() error { return nil }
