package registrycmd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"deploytools/cmd/internal/cli"
	"deploytools/cmd/internal/ops"
	"deploytools/registry"
	"deploytools/registry/console"
	"deploytools/registry/sshd"
	"deploytools/registry/wire"
)

// showPages serves what the registry shows about itself, if that is wanted,
// until close is called. From the end of ctx on it is not ready any more: what
// drains can still be watched.
func (s *settings) showPages(ctx context.Context, server *sshd.Server, reg *registry.Registry, log *slog.Logger) (close func(), err error) {
	if s.http == "" {
		return func() {}, nil
	}
	l, err := ops.Listen(ctx, s.http)
	if err != nil {
		return nil, cli.WithHint(fmt.Errorf("cannot listen on %s: %w", s.http, err), "choose another -http")
	}
	log.Info("listening", "remote", "http://"+l.Addr().String())
	storing := recent(reg.Storing, 2*time.Second)
	build := cli.ReadBuild()
	pages := ops.Pages{
		Ready: func(asking context.Context) error {
			if ctx.Err() != nil {
				return errors.New("registry is stopping")
			}
			return storing(asking)
		},
		Version: struct {
			Schema  console.Schema `json:"schema"`
			Program string         `json:"program"`
			wire.Build
		}{Program: "deploy-registry", Build: build},
		Metrics: metrics{daemon: server, reg: reg, dir: s.dir, build: build, storing: storing}.handler(),
	}
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	var served sync.WaitGroup
	served.Go(func() {
		if err := ops.Serve(serving, l, pages); err != nil {
			log.Error("pages not shown any more", "error", err)
		}
	})
	return func() {
		stop()
		served.Wait()
	}, nil
}
