package agentcmd

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"deploytools/agent"
	"deploytools/cmd/internal/cli"
	"deploytools/registry/wire"
)

// misfit is a configuration whose settings cannot be used. The others of the
// process are not concerned: it waits until they have been mended.
type misfit struct {
	name string
	dir  string // as far as it is known without the settings; "": it is not
	err  error
	read func() (agent.Options, error) // reads them again; nil: nothing to read would help
}

// misfitHint says what to do.
const misfitHint = "mend them, then systemctl reload; the other configurations run"

func unusable(err error) error { return fmt.Errorf("settings cannot be used: %w", err) }

// misfitOf returns why the configuration of a value of -name cannot be used.
func (s *settings) misfitOf(text string, err error) *misfit {
	name, dir, _ := cutName(text) // checked before
	if dir == "" && s.given("dir") && strings.Contains(s.dir, nameHere) {
		dir = strings.ReplaceAll(s.dir, nameHere, name)
	}
	return &misfit{name: name, dir: dir, err: unusable(err), read: func() (agent.Options, error) { return s.optionsOf(text) }}
}

// awaitSettings returns nil when the settings can be used, and what they say. Until
// then it says why they cannot, and, where the directory is known and nobody else
// has it, answers there.
func (m *member) awaitSettings(ctx context.Context) error {
	for {
		hint := cli.HintOf(cli.WithHint(m.misfit.err, misfitHint))
		m.log.Error("settings cannot be used", "configuration", m.o.Name, "error", m.misfit.err, "hint", hint)
		if m.o.Mode.Once {
			return m.misfit.err
		}
		m.told.say(m.o.Name, m.o.Name+": "+m.misfit.err.Error())
		m.shown()
		refusing, stop := context.WithCancel(ctx)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			m.refuse(refusing)
		}()
		var err error
		select {
		case <-m.again:
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		stop()
		<-ended
		if err != nil {
			return err
		}
		o, err := m.misfit.read()
		if err == nil {
			o = m.equip(o)
			_, err = agent.New(o)
		}
		if err == nil {
			m.log.Info("settings can be used", "configuration", m.o.Name)
			m.mu.Lock()
			m.mended = &o
			m.mu.Unlock()
			return nil
		}
		m.mu.Lock()
		m.misfit.err = unusable(err)
		m.mu.Unlock()
	}
}

// refuse answers in the directory until ctx is done.
func (m *member) refuse(ctx context.Context) {
	if m.misfit.dir == "" {
		return
	}
	a, err := agent.Look(agent.Options{Name: m.o.Name, Dir: m.misfit.dir, Observe: agent.Observe{Log: m.log, Locked: attend(m.misfit.dir, m.log)}})
	if err == nil {
		err = a.Refuse(ctx, cli.WithHint(cli.WithStatus(errors.New(m.misfit.err.Error()), wire.NotNow), misfitHint))
	}
	if err != nil && ctx.Err() == nil {
		m.log.Debug("does not answer in its directory", "configuration", m.o.Name, "error", err)
	}
}

// unfit is why the settings cannot be used; nil: they can.
func (m *member) unfit() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.misfit == nil || m.mended != nil {
		return nil
	}
	return m.misfit.err
}
