package registrycmd

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"

	"deploytools/cmd/internal/cli"
	"deploytools/registry"
	"deploytools/registry/keys"
	"deploytools/registry/sshd"
)

// logins is one keys file and the keys that it last gave. Lookup is safe for
// concurrent use, also beside load.
type logins struct {
	path string
	role registry.Role
	flag string // that names the file
	keys atomic.Pointer[keys.Set]
}

// Lookup is that of the keys that were read last.
func (l *logins) Lookup(blob []byte) (registry.Caller, bool) { return l.keys.Load().Lookup(blob) }

// load reads the file. Lines that are refused are logged, each with its number,
// and give nobody access. After an error the keys are those from before.
func (l *logins) load(log *slog.Logger) error {
	hint := "it needs a public key on a line, as ssh-keygen writes them; " + l.flag + " names the file"
	text, err := os.ReadFile(l.path)
	if err != nil {
		return cli.WithHint(err, hint)
	}
	set, refused, err := keys.Parse(l.path, text, l.role, sshd.CheckKey)
	if err != nil {
		return cli.WithHint(err, hint)
	}
	for _, line := range refused {
		log.Warn("key refused", "error", fmt.Errorf("%s: %w", l.path, line))
	}
	l.keys.Store(set)
	return nil
}

// onHangup is what `systemctl reload` does: it reads the keys again. A file that
// nobody could log in with is more likely a slip than a wish, so that its old
// keys stay. It returns when ctx ends.
func onHangup(ctx context.Context, hangups <-chan os.Signal, operators, agents *logins, log *slog.Logger) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangups:
		}
		loaded := 0
		for _, l := range []*logins{operators, agents} {
			if err := l.load(log); err != nil {
				log.Error("keys not reloaded, those from before stay", "error", err)
				continue
			}
			loaded++
		}
		if loaded > 0 {
			log.Info("keys reloaded", "operators", operators.keys.Load().Len(), "agents", agents.keys.Load().Len())
		}
	}
}
