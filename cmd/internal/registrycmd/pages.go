package registrycmd

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"deploytools/cmd/internal/cli"
	"deploytools/cmd/internal/ops"
	"deploytools/registry"
	"deploytools/registry/sshd"
)

// showPages serves what the registry shows about itself, if that is wanted,
// until close is called. From the end of ctx on it is not ready any more: what
// drains can still be watched.
func (s *settings) showPages(ctx context.Context, server *sshd.Server, reg *registry.Registry, log *slog.Logger) (close func(), err error) {
	storing := recent(reg.Storing, 2*time.Second)
	build := cli.ReadBuild()
	close, err = ops.Show(ctx, s.http, ops.Pages{
		Ready: func(asking context.Context) error {
			if ctx.Err() != nil {
				return errors.New("registry is stopping")
			}
			return storing(asking)
		},
		Version: ops.Version("deploy-registry", build),
		Metrics: metrics{daemon: server, reg: reg, dir: s.dir, build: build, storing: storing}.handler(),
	}, log)
	return close, cli.WithHint(err, "choose another -http")
}
