package agentcmd

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"strings"
	"time"

	"deploytools/agent"
	"deploytools/cmd/internal/cli"
	"deploytools/cmd/internal/control"
	"deploytools/registry/wire"
)

// request is what the verbs say of what they want; each uses its part.
type request struct {
	Reason string        `json:"reason,omitempty"`
	At     time.Time     `json:"at,omitzero"`
	After  time.Duration `json:"after_ns,omitempty"`
	To     string        `json:"to,omitempty"`
	Count  int           `json:"count,omitempty"`
}

// answers has what each verb does with an agent: one that runs, from its socket,
// or one that was made for the verb. It is the only way that a verb has.
var answers = map[string]func(context.Context, *agent.Agent, request, func(string)) (any, error){
	"status": func(_ context.Context, a *agent.Agent, _ request, _ func(string)) (any, error) {
		return statusOf(a), nil
	},
	"given": func(context.Context, *agent.Agent, request, func(string)) (any, error) {
		return givenHere()
	},
	"poll": func(ctx context.Context, a *agent.Agent, _ request, _ func(string)) (any, error) {
		return nil, a.Wake(ctx)
	},
	"history": func(_ context.Context, a *agent.Agent, r request, _ func(string)) (any, error) {
		rows, err := a.History(r.Count)
		return historyResult{Name: a.Record().Name, Deployments: rows}, err
	},
	"gc": func(ctx context.Context, a *agent.Agent, _ request, _ func(string)) (any, error) {
		kept, err := a.Explain(ctx)
		return gcResult{Name: a.Record().Name, Retention: kept}, err
	},
	"hold": func(ctx context.Context, a *agent.Agent, r request, _ func(string)) (any, error) {
		return acted(ctx, a, func() error { return a.Hold(ctx, r.Reason, agent.Until{At: r.At, After: r.After}) })
	},
	"resume": func(ctx context.Context, a *agent.Agent, _ request, note func(string)) (any, error) {
		s := a.Status()
		return acted(ctx, a, func() error {
			err := a.Resume(ctx)
			switch holds := s.Holds(); {
			case err != nil:
			case len(holds) > 1:
				note("ended: " + strings.Join(holds, "; and: "))
			case s.Free():
				note("this host was not held")
			}
			if s.Live != nil && s.Live.Gone && err == nil {
				note("the live root " + s.Live.Root + " is gone: " + call("repair", s.Dir) + " makes it anew")
			}
			return err
		})
	},
	"retry": func(ctx context.Context, a *agent.Agent, _ request, note func(string)) (any, error) {
		return acted(ctx, a, func() error {
			s := a.Status()
			err := a.Retry(ctx)
			switch {
			case err != nil:
			case len(s.Failed) == 0 && s.State != agent.Broken:
				note("nothing has failed here")
			case len(s.Holds()) > 0:
				note("what has failed here is tried when the hold has ended: " + call("resume", s.Dir) + " ends it")
			}
			return err
		})
	},
	"rollback": func(ctx context.Context, a *agent.Agent, r request, note func(string)) (any, error) {
		root, outcome, err := a.Rollback(ctx, r.To)
		if err == nil {
			note("the rollback to " + root + " is on record; it goes on if you leave")
		}
		result, err := awaited(ctx, a, outcome, note, err)
		if s := a.Status(); errors.Is(err, agent.ErrBroken) && s.State != agent.Broken && s.Live != nil {
			err = cli.WithHint(err, "mend the host, then "+call("repair", s.Dir)+" makes "+s.Live.Root+" live again")
		}
		return result, err
	},
	"repair": func(ctx context.Context, a *agent.Agent, _ request, note func(string)) (any, error) {
		outcome, err := a.RepairAwaited(ctx)
		if err == nil {
			note("the repair is on record; it goes on if you leave")
		}
		return awaited(ctx, a, outcome, note, err)
	},
	"run-once": func(ctx context.Context, a *agent.Agent, _ request, note func(string)) (any, error) {
		outcome, err := a.RunOnce(ctx)
		return awaited(ctx, a, outcome, note, err)
	},
	"dry-run": func(ctx context.Context, a *agent.Agent, _ request, note func(string)) (any, error) {
		outcome, err := a.DryRun(ctx)
		return awaited(ctx, a, outcome, note, err)
	},
}

// reply does what a verb asks of the agent.
func reply(ctx context.Context, a *agent.Agent, verb string, r request, note func(string)) (any, error) {
	do := answers[verb]
	if do == nil {
		return nil, cli.Usage("this agent knows no verb %q: it may be older than the deploy-agent that asks", verb)
	}
	result, err := do(ctx, a, r, note)
	return result, explainTo(err, callIn(a.Status().Dir))
}

// attend opens the directory's socket for an agent that has its lock. Where that
// is not possible the agent works all the same.
func attend(dir string, log *slog.Logger) func(*agent.Agent) (unlock func()) {
	return func(a *agent.Agent) func() {
		log := log.With("configuration", a.Record().Name)
		s, err := control.Listen(dir, func(ctx context.Context, verb string, args json.RawMessage, note func(string)) (any, error) {
			var r request
			if len(args) > 0 {
				if err := json.Unmarshal(args, &r); err != nil {
					return nil, cli.Usage("not a request: %w", err)
				}
			}
			log.Debug("asked by a person", "command", verb)
			return reply(ctx, a, verb, r, note)
		})
		if err != nil {
			log.Warn("control socket not opened", "error", err)
			return func() {}
		}
		return s.Close
	}
}

// statusOf is the status with what is known of this process.
func statusOf(a *agent.Agent) statusResult {
	s := statusResult{Status: a.Status()}
	if s.Running {
		s.Agent = &process{PID: os.Getpid(), Version: cli.ReadBuild().Version}
	}
	return s
}

// ledTo is how long the status of an act waits for what that has led to: a registry that is
// away may take longer to be so.
const ledTo = 3 * time.Second

// acted is what an act on the record has led to.
func acted(ctx context.Context, a *agent.Agent, act func() error) (any, error) {
	caughtUp := a.CatchUp()
	if err := act(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, ledTo)
	defer cancel()
	caughtUp(ctx)
	return statusOf(a), nil
}

// awaited waits for what comes of an act.
func awaited(ctx context.Context, a *agent.Agent, outcome <-chan agent.Result, note func(string), err error) (any, error) {
	if err != nil {
		return nil, err
	}
	select {
	case out := <-outcome:
		if d := out.Deployment; out.Err != nil && d != nil && d.Ended.IsZero() && a.Status().State != agent.Broken {
			note("it is not done, and stays on record: as long as an agent runs there it is tried again; " + call("why", a.Status().Dir) + " says what it waits for, and what gives it up")
		}
		return actResult{Name: a.Record().Name, Deployment: out.Deployment.Shown(), Live: a.Status().Live}, out.Err
	case <-ctx.Done():
		return nil, cli.WithHint(cli.WithStatus(context.Cause(ctx), wire.NotNow), "what is on record goes on when it starts again: see 'deploy-agent status'")
	}
}
