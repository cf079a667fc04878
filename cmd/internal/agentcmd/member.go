package agentcmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"deploytools/agent"
	"deploytools/cmd/internal/cli"
	"deploytools/registry/wire"
)

// member is one configuration of this process. What happens to one member
// happens to no other.
type member struct {
	o     agent.Options
	alone bool // there is no other
	told  *told
	tally *tally
	shown func() // is called when there is something else to show
	log   *slog.Logger

	equip func(agent.Options) agent.Options // gives what it needs of this process
	again chan struct{}                     // the settings are to be read again

	mu     sync.Mutex     // guards what follows
	a      *agent.Agent   // the machine at work; nil: none is
	was    *agent.Agent   // the last that was
	misfit *misfit        // nil: its settings could be used from the start
	mended *agent.Options // in place of o, once they can
}

// The waits before a machine that ended is made anew.
const (
	firstRestart = 5 * time.Second
	mostRestart  = time.Minute
)

// run works until ctx is done, or once. A machine that ends otherwise (its
// directory cannot be used, or a fault of ours) begins again after a while, where
// its record says; of one that is alone the service manager starts the process.
func (m *member) run(ctx context.Context) error {
	if m.misfit != nil {
		if err := m.awaitSettings(ctx); err != nil {
			return err
		}
	}
	for wait := firstRestart; ; wait = min(2*wait, mostRestart) {
		started := time.Now()
		err := m.once(ctx)
		if ctx.Err() != nil || m.o.Mode.Once || m.alone {
			return err
		}
		if time.Since(started) > mostRestart {
			wait = firstRestart
		}
		m.tally.restarted()
		m.log.Error("configuration stopped, it is started again", "configuration", m.o.Name, "wait", wait, "error", explain(err))
		m.told.say(m.o.Name, m.o.Name+": stopped: "+err.Error())
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// once is one machine's run. A panic of it is an error like others.
func (m *member) once(ctx context.Context) (err error) {
	defer func() {
		m.set(nil)
		if p := recover(); p != nil {
			m.log.Error("panic", "configuration", m.o.Name, "error", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = fmt.Errorf("internal error: %v", p)
		}
	}()
	o := m.o
	if m.mended != nil {
		o = *m.mended
	}
	a, err := agent.New(o)
	if err != nil {
		return err
	}
	m.set(a)
	switch err = a.Run(ctx); {
	case errors.Is(err, agent.ErrRemoving):
		err = cli.WithHint(err, removingHint(callIn(a.Status().Dir)))
	case o.Hook.Script != "" && agent.CheckProgram(o.Hook.Script, o.Hook.User) != nil && cli.HintOf(explain(err)) == "":
		err = cli.WithHint(err, "mend -script, whose path is as seen from where the agent was started; deploy-agent doctor looks at all settings")
	}
	return err
}

func (m *member) set(a *agent.Agent) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.a = a
	m.was = cmp.Or(a, m.was)
}

// record returns what the last machine had on record, or nil.
func (m *member) record() *agent.Record {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.was == nil {
		return nil
	}
	return m.was.Record()
}

// observe is told what the machine does.
func (m *member) observe(dir string) agent.Observe {
	return agent.Observe{
		Log: m.log,
		Enter: func(s agent.State) {
			m.told.know(m.o.Name)
			if a := m.machine(); s == agent.Idle && a != nil {
				if last := a.Record().Last; last != nil {
					m.tally.ended(last)
				}
				go debug.FreeOSMemory() // what unpacking took; the host has other uses for it
			}
			m.shown()
		},
		Notify: func(status string) {
			m.told.say(m.o.Name, status)
			m.shown()
		},
		Unchanged: func() {
			m.tally.unchanged()
			m.shown()
		},
		Locked: attend(dir, m.log),
	}
}

// heard is told what the registry answered.
func (m *member) heard(st wire.PollState, err error) {
	m.tally.poll(st, err)
	m.shown()
}

// machine returns the machine at work, or nil.
func (m *member) machine() *agent.Agent {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.a
}

// alive reports whether the member gets on. One that waits to be started again
// does.
func (m *member) alive() bool {
	a := m.machine()
	return a == nil || a.Alive()
}

// reload is what `systemctl reload` does: a person asks.
func (m *member) reload(ctx context.Context) {
	a := m.machine()
	if a == nil && m.unfit() != nil {
		select {
		case m.again <- struct{}{}:
		default: // it is about to read them
		}
		return
	}
	if a == nil {
		m.log.Error("reload failed", "configuration", m.o.Name, "error", "it does not run")
		return
	}
	err := errors.Join(a.Resume(ctx), a.Retry(ctx))
	if err != nil && ctx.Err() == nil {
		m.log.Error("reload failed", "configuration", m.o.Name, "error", err)
	} else if err == nil {
		m.log.Info("reloaded", "configuration", m.o.Name)
	}
}
