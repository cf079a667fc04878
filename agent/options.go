package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"deploytools/layers"
	"deploytools/layers/digest"
	"deploytools/registry/wire"
	"deploytools/verify/spec"
)

// A Source is the registry as an agent sees it. Its errors wrap those of
// registry/wire where they fit, and none of them is definite: the agent backs
// off and asks again. It has no retry loop of its own. Every method returns soon
// after its context is done.
type Source interface {
	// Poll returns the newest revision of the configuration name. Revision 0
	// without a digest: there is none. With a digest, it is a registry of the
	// original kind, which does not count revisions.
	Poll(ctx context.Context, name string) (wire.PollState, error)
	// Configuration returns the newest revision.
	Configuration(ctx context.Context, name string) (*wire.Configuration, error)
	// Fetch writes the bytes of the blob d from offset to its end.
	Fetch(ctx context.Context, d digest.Digest, offset int64, w io.Writer) error
	// Close ends the connection, if there is one. The next call makes another.
	Close() error
}

// Poll says how often the registry is asked.
type Poll struct {
	Interval time.Duration // 0: 30 s; up to an eighth more is added at random
	MaxWait  time.Duration // longest wait after errors; 0: Interval, so that one poll after a fault is gone all is as it should be
	Seed     uint64        // of the random part; 0: from the host and the name
}

// Hook names the host's programs. They run without arguments, in the agent's
// working directory; docs/hooks.md has their environment.
type Hook struct {
	Script       string        // makes a root live; empty: switching the link is enough
	CheckScript  string        // looks at a root before the switch; exit status 75: not now
	RemoveScript string        // a first deployment is taken back
	NotifyScript string        // tells a person what is wrong; nothing waits for it
	Timeout      time.Duration // 0: 10 min
	Supervisor   []string      // argv; nil: our own program with SuperviseCommand
	User         *User         // whom they run as, which takes root; nil: ours
	Rescue       []string      // the words of our command line, if our own program is what is deployed; nil: it is not
}

// Keep says what stays on disk after a deployment.
type Keep struct {
	Roots    int           // committed roots besides the live one; 0: 3
	CacheAge time.Duration // of layers that no kept root uses; 0: 1 h
	Evidence int           // deployments whose evidence stays; 0: 20
	MaxBytes int64         // of roots and layers together; 0: no limit
	MinFree  Room          // on the file system; none: no limit
	Delay    time.Duration // between the end of a deployment and the first deletion; 0: 1 min
}

func (k Keep) withDefaults() Keep {
	k.Roots = cmp.Or(k.Roots, 3)
	k.Evidence = cmp.Or(k.Evidence, 20)
	k.CacheAge = cmp.Or(k.CacheAge, time.Hour)
	k.Delay = cmp.Or(k.Delay, time.Minute)
	return k
}

func (k Keep) limited() bool { return k.MaxBytes > 0 || k.MinFree != Room{} }

// Baseline says what a failure is worth that was there before the switch.
type Baseline int

const (
	// BaselineEnvironment commits, as unverified, what fails only as OLDROOT did.
	BaselineEnvironment Baseline = iota
	// BaselineStrict rolls back on every failure.
	BaselineStrict
)

// Options are what an Agent needs to know.
type Options struct {
	Name      string // of the configuration
	Version   string // of the program, for reports
	Dir       string
	StateFile string // the committed configuration in the original shape; empty: none
	Source    Source
	Poll      Poll
	Hook      Hook
	Verify    spec.Spec // the host's checks, with the soak time
	Checks    Checks
	Baseline  Baseline
	Keep      Keep
	Layers    layers.Options
	Link      []string // components whose files nobody writes to: roots share them by hard links
	Window    []Window // in which new deployments start; none: always
	Publish   Publish
	Mode      Mode
	Observe   Observe
}

// Mode bends the machine's way.
type Mode struct {
	Once   bool // Run returns when there is nothing left to do
	DryRun bool // deployments end before the switch
	Retry  bool // a person asks, with Once: at its start Run does what Resume and Retry do
	Repair bool // a person asks, with Once: at its start Run does what Repair does
}

// Observe is told what happens. The zero value is told nothing.
type Observe struct {
	Log   *slog.Logger
	Enter func(State) // after a state's record is durable; called by Run
	// Unchanged is called by Run for a revision of what is live already, which is
	// no deployment.
	Unchanged func()
	// Locked is called by Run when the directory is its own, and what it returns
	// before it no longer is.
	Locked func(*Agent) (unlock func())
	Notify func(status string) // one line for people, as for sd_notify(3); called by Run, while it fetches from another goroutine
}

// New checks the options. It touches nothing on disk: Run does.
func New(o Options) (*Agent, error) {
	if err := wire.CheckName(o.Name); err != nil {
		return nil, err
	}
	if o.Dir == "" || o.Source == nil {
		return nil, errors.New("agent needs a directory and a source")
	}
	if o.Poll.Interval < 0 || o.Poll.MaxWait < 0 || o.Hook.Timeout < 0 || o.Keep.Roots < 0 || o.Keep.Evidence < 0 || o.Keep.CacheAge < 0 || o.Keep.MaxBytes < 0 || o.Keep.Delay < 0 ||
		o.Checks.Every < 0 || o.Checks.WarnExpiry < 0 || o.Checks.Inspect < 0 {
		return nil, errors.New("agent's times and numbers cannot be negative")
	}
	if (o.Mode.Retry || o.Mode.Repair) && !o.Mode.Once {
		return nil, errors.New("agent that goes on cannot begin with a retry or repair: it would at each of its starts")
	}
	if err := o.Verify.Validate(spec.FromHost); err != nil {
		return nil, err
	}
	if err := o.Publish.Check(); err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, err
	}
	o.Dir = dir
	if o.StateFile != "" {
		if o.StateFile, err = filepath.Abs(o.StateFile); err != nil {
			return nil, err
		}
	}
	workDir, err := os.Getwd()
	if err != nil {
		return nil, fmt.Errorf("cannot tell the working directory: %w", err)
	}
	o.Poll.Interval = cmp.Or(o.Poll.Interval, 30*time.Second)
	o.Poll.MaxWait = cmp.Or(o.Poll.MaxWait, o.Poll.Interval)
	o.Hook.Timeout = cmp.Or(o.Hook.Timeout, 10*time.Minute)
	o.Keep = o.Keep.withDefaults()
	o.Observe.Log = cmp.Or(o.Observe.Log, slog.New(slog.DiscardHandler))
	return newAgent(o, workDir), nil
}
