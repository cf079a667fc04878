package agentcmd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"deploytools/cmd/internal/cli"
	"deploytools/cmd/internal/control"
	"deploytools/registry/wire"
)

// statusOp is the verb status, which can wait.
type statusOp struct {
	showOp
	wait    bool
	timeout time.Duration
}

func (v *statusOp) Flags(fs *pflag.FlagSet) {
	v.showOp.Flags(fs)
	fs.BoolVar(&v.wait, "wait", false, "wait until the newest revision is live here, or has failed to be")
	fs.DurationVar(&v.timeout, "timeout", 5*time.Minute, "`time` that -wait has; then the exit status is 75")
}

func (v *statusOp) Run(ctx context.Context, o *cli.IO, args []string) error {
	if !v.wait {
		return v.showOp.Run(ctx, o, args)
	}
	s, err := v.await(ctx, o)
	if s != nil {
		err = errors.Join(err, v.show(o, s))
	}
	return err
}

const (
	waitTick = 250 * time.Millisecond // between two looks
	waitTold = time.Second            // before whoever waits is told of what
)

// await asks again and again: an agent may be started again meanwhile, as when it
// deploys itself. The status is as it is in the end.
func (v *statusOp) await(ctx context.Context, o *cli.IO) (s *statusResult, err error) {
	if s, err = v.status(ctx, o); err != nil {
		return nil, err
	}
	var seen time.Time
	if s.Newest != nil && s.Running {
		seen = s.Newest.Polled
	}
	if s.Running { // else it polls when it starts
		v.ask(ctx, o, "poll", request{}, new(struct{})) // an older agent polls in its own time
	}
	tick := time.NewTicker(waitTick)
	defer tick.Stop()
	for began, told := time.Now(), ""; ; {
		decided, waits, ended := s.Decided(seen)
		if decided {
			return s, explainTo(ended, v.call)
		}
		if !s.Running {
			waits = "no agent runs here"
		}
		if time.Since(began) >= v.timeout {
			return s, cli.WithHint(cli.WithStatus(fmt.Errorf("not decided after %v: %s", v.timeout, waits), wire.NotNow), v.call("why")+" says what is in the way")
		}
		if waits != told && time.Since(began) >= waitTold {
			told = waits
			fmt.Fprintf(o.Stderr, "note: waiting (-timeout %v): %s\n", v.timeout, cli.Clean(waits))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		next, err := v.status(ctx, o)
		if err != nil {
			return nil, err
		}
		s = next
	}
}

// status is what the agent says, or else the record.
func (v *statusOp) status(ctx context.Context, o *cli.IO) (*statusResult, error) {
	s := new(statusResult)
	err := v.ask(ctx, o, "status", request{}, s)
	if errors.Is(err, control.ErrNobody) {
		err = v.look(ctx, "status", request{}, s)
	}
	return s, err
}
