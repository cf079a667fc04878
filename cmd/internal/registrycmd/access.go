package registrycmd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"time"

	"deploytools/registry"
)

// access is who may come in: two sources of keys, and a list of what is revoked.
type access struct {
	operators, agents logins
	revoked           revocations
	log               *slog.Logger
}

func newAccess(s *settings, log *slog.Logger) *access {
	return &access{
		operators: logins{path: s.operators, role: registry.Admin, flag: "-opauth"},
		agents:    logins{path: s.agents, role: registry.Agent, flag: "-srvauth"},
		revoked:   revocations{path: s.revoked},
		log:       log,
	}
}

// load reads everything for the first time; whatever cannot be used is an error.
func (a *access) load() error {
	for _, l := range []*logins{&a.operators, &a.agents} {
		if _, err := l.load(a.log, false); err != nil {
			return err
		}
	}
	_, err := a.revoked.load(false)
	return err
}

// reload reads again what has changed, or everything if a person asks. What
// cannot be used is logged, and what it gave before stays.
func (a *access) reload(asked bool) {
	changed, failed := false, 0
	for _, load := range []func() (bool, error){
		func() (bool, error) { return a.operators.load(a.log, asked) },
		func() (bool, error) { return a.agents.load(a.log, asked) },
		func() (bool, error) { return a.revoked.load(asked) },
	} {
		c, err := load()
		if _, ok := errors.AsType[leftOut](err); ok {
			a.log.Error("line of the revoked list left out, the others count", "error", err)
		} else if err != nil {
			a.log.Error("keys not reloaded, those from before stay", "error", err)
			failed++
		}
		changed = changed || c
	}
	if changed || asked && failed < 2 {
		a.log.Info("keys reloaded", "operators", a.operators.Current().Len(), "agents", a.agents.Current().Len(), "revoked", a.revoked.Current().Len())
	}
}

// lookEvery is how often the files are looked at. With the time that they have
// to be at rest it is how long a key that was removed may still be in use.
const lookEvery = time.Second

// watch reads the keys again when a person asks for it, which is what `systemctl
// reload` does, and when the files change; then it calls recheck. It returns
// when ctx ends.
func (a *access) watch(ctx context.Context, hangups <-chan os.Signal, recheck func()) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var seen glimpse
	for {
		asked := false
		select {
		case <-ctx.Done():
			return
		case <-hangups:
			asked = true
		case <-tick.C:
			if !seen.settled(a.look()) {
				continue
			}
		}
		a.reload(asked)
		recheck()
	}
}

// look returns what tells one state of the files from the next. Names are
// followed to what they stand for now, so that files may be replaced by renaming,
// and links may be turned.
func (a *access) look() string {
	var b strings.Builder
	for _, l := range []*logins{&a.operators, &a.agents} {
		names, err := l.list()
		fmt.Fprintln(&b, err)
		for _, name := range names {
			b.WriteString(stateOf(name))
		}
	}
	if a.revoked.path != "" {
		b.WriteString(stateOf(a.revoked.path))
	}
	return b.String()
}

func stateOf(name string) string {
	info, err := os.Stat(name)
	if err != nil {
		return fmt.Sprintln(name, err)
	}
	var changed syscall.Timespec
	var inode uint64
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		changed, inode = st.Ctim, st.Ino
	}
	return fmt.Sprintln(name, inode, info.Size(), info.ModTime().UnixNano(), changed)
}

// glimpse is what was seen of files at two times.
type glimpse struct{ last, taken string }

// settled reports whether now is something new that was the same the time
// before: a file that is being written is not read in the middle.
func (g *glimpse) settled(now string) bool {
	is := now == g.last && now != g.taken
	g.last = now
	if is {
		g.taken = now
	}
	return is
}
