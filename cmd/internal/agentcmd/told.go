package agentcmd

import (
	"context"
	"strings"
	"sync"
	"time"

	"deploytools/cmd/internal/ops"
)

// told is what the service manager knows: ready as soon as every configuration
// knows its own state, or why it cannot know it, and one line about all.
type told struct {
	names []string

	mu    sync.Mutex // guards what follows
	lines map[string]string
	known map[string]bool
	ready bool
}

func newTold(names []string) *told {
	return &told{names: names, lines: map[string]string{}, known: map[string]bool{}}
}

// know notes that a configuration has its state.
func (t *told) know(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.knowLocked(name)
}

func (t *told) knowLocked(name string) {
	t.known[name] = true
	if !t.ready && len(t.known) == len(t.names) {
		t.ready = true
		ops.Ready()
	}
}

// maxStatus is how much of the line is told: it has to fit in a datagram, and
// nobody reads more.
const maxStatus = 4096

// say tells the status of one configuration, along with those of the others.
func (t *told) say(name, status string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.knowLocked(name)
	t.lines[name] = status
	var all []string
	for _, n := range t.names {
		if line := t.lines[n]; line != "" {
			all = append(all, line)
		}
	}
	text := strings.ReplaceAll(strings.Join(all, "; "), "\n", " ")
	if len(text) > maxStatus {
		text = strings.ToValidUTF8(text[:maxStatus], "") + "..."
	}
	ops.Status(text)
}

func (t *told) isReady() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ready
}

// The service manager's patience with a start ends after extension, unless it is
// asked for more; extendEvery is how often that is done.
const (
	extension   = time.Minute
	extendEvery = 20 * time.Second
)

// starting asks for more time while configurations find out what their state is,
// for as long as they get on.
func (t *told) starting(ctx context.Context, alive func() bool) {
	tick := time.NewTicker(extendEvery)
	defer tick.Stop()
	for !t.isReady() && alive() {
		ops.Extend(extension)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
