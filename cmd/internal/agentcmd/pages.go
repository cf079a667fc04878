package agentcmd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"deploytools/cmd/internal/cli"
	"deploytools/cmd/internal/ops"
)

// show lets others look at the members, as far as that is wanted, until close.
func (s *settings) show(ctx context.Context, members []*member, log *slog.Logger) (close func(), err error) {
	if s.metricsFile != "" && !strings.HasSuffix(s.metricsFile, ".prom") {
		return nil, cli.Usage("-metrics-file %s: should end with .prom, or nobody reads it", s.metricsFile)
	}
	if s.http != "" {
		if err := ops.CheckLocal(s.http); err != nil {
			return nil, cli.Usage("-http %s: %w", s.http, err)
		}
	}
	build := cli.ReadBuild()
	m := metrics{members: members, build: build}
	closePages, err := ops.Show(ctx, s.http, ops.Pages{
		Ready:   func(context.Context) error { return ready(ctx, members) },
		Version: ops.Version("deploy-agent", build),
		Metrics: ops.Metrics(m),
	}, log)
	if err != nil {
		return nil, cli.WithHint(err, "choose another -http")
	}
	if s.metricsFile == "" {
		return closePages, nil
	}
	file := newTextfile(s.metricsFile, m, log)
	for _, one := range members {
		one.shown = file.want
	}
	stop := make(chan struct{})
	var writing sync.WaitGroup
	writing.Go(func() {
		for {
			select {
			case <-stop:
				file.write() // how it ended
				return
			case <-file.wanted:
				file.write()
			}
		}
	})
	return func() {
		closePages()
		stop <- struct{}{}
		writing.Wait()
	}, nil
}

// ready says which configuration cannot be worked on.
func ready(ctx context.Context, members []*member) error {
	if ctx.Err() != nil {
		return errors.New("agent is stopping")
	}
	if !members[0].told.isReady() {
		return errors.New("agent is starting")
	}
	for _, m := range members {
		err := m.unfit()
		switch {
		case err != nil:
			return fmt.Errorf("configuration %s: %w", m.o.Name, err)
		case m.machine() == nil:
			return fmt.Errorf("configuration %s waits to be started again", m.o.Name)
		case !m.alive():
			return fmt.Errorf("configuration %s hangs", m.o.Name)
		}
	}
	return nil
}
