package sshd

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"deploytools/registry"
	"deploytools/registry/console"
	"deploytools/registry/wire"
)

// reasons are why a connection ended before anybody authenticated, as counters
// name them; the first row that fits counts.
var reasons = []struct {
	name string
	fits func(error) bool
}{
	{"crowded", is(errCrowded)},
	{"source_crowded", is(errSource)},
	{"full", is(errFull)},
	{"penalised", is(errPenalised)},
	{"stopping", is(errStopping)},
	{"timeout", is(errTimeout)},
	{"authentication", triedKeys},
	{"handshake", func(error) bool { return true }},
}

func is(target error) func(error) bool {
	return func(err error) bool { return errors.Is(err, target) }
}

// counters is what a Server counts from its start on.
type counters struct {
	accepted, polls, reports, errors atomic.Int64
	received, sent                   atomic.Int64 // bytes, of all connections
	refused                          []atomic.Int64

	mu       sync.Mutex
	commands map[commandKey]*console.CommandStats
}

type commandKey struct {
	name   string
	status wire.Status
}

func newCounters() *counters {
	return &counters{refused: make([]atomic.Int64, len(reasons)), commands: map[commandKey]*console.CommandStats{}}
}

func (c *counters) refuse(err error) {
	for i, r := range reasons {
		if r.fits(err) {
			c.refused[i].Add(1)
			return
		}
	}
}

// ran counts a command by its name. What is none has one name for all, so that
// clients cannot make up counters.
func (c *counters) ran(line string, took time.Duration, status wire.Status) {
	name, _, _ := strings.Cut(strings.TrimSpace(line), " ")
	if _, ok := console.Lookup(name); !ok && name != "sftp" && name != "fetch" {
		name = "unknown"
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	key := commandKey{name, status}
	s := c.commands[key]
	if s == nil {
		s = &console.CommandStats{Name: name, Status: status}
		c.commands[key] = s
	}
	s.Calls++
	s.Took += took
}

func (c *counters) ranAll() []console.CommandStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]console.CommandStats, 0, len(c.commands))
	for _, s := range c.commands {
		out = append(out, *s)
	}
	slices.SortFunc(out, func(a, b console.CommandStats) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Status, b.Status))
	})
	return out
}

// Stats returns what the server has counted.
func (s *Server) Stats() console.Stats {
	c := s.count
	out := console.Stats{
		Started: s.started, Files: int(s.files.n.Load()), Accepted: c.accepted.Load(), Refused: map[string]int64{},
		Commands: c.ranAll(), Polls: c.polls.Load(), Reports: c.reports.Load(), Received: c.received.Load(), Sent: c.sent.Load(), Errors: c.errors.Load(),
	}
	out.Waiting, out.Penalised = s.door.state()
	for i, r := range reasons {
		out.Refused[r.name] = c.refused[i].Load()
	}
	for _, c := range s.connections() {
		if c.id.caller.Role == registry.Agent {
			out.Agents++
		} else {
			out.Operators++
		}
		out.Sessions += len(c.work.list())
	}
	return out
}

// Connections returns the connections that have authenticated, the oldest first.
func (s *Server) Connections() []console.Connection {
	all := s.connections()
	slices.SortFunc(all, func(a, b *conn) int { return cmp.Compare(a.number, b.number) })
	out := make([]console.Connection, len(all))
	for i, c := range all {
		out[i] = console.Connection{
			ID: c.number, Caller: c.id.caller, Remote: c.net.RemoteAddr().String(), Since: c.since, Idle: c.active.ago(),
			Received: c.net.received.Load(), Sent: c.net.sent.Load(), Doing: c.work.list(),
		}
		if instance := c.instance.Load(); instance != nil {
			out[i].Instance = *instance
		}
	}
	return out
}

// Disconnect cuts the connection of this number.
func (s *Server) Disconnect(id uint64, by registry.Caller) bool {
	for _, c := range s.connections() {
		if c.number == id {
			c.cut(fmt.Errorf("disconnected by %s", clean(by.String(), maxUser)))
			return true
		}
	}
	return false
}

// work is what the sessions of a connection run, each under a number.
type work struct {
	mu    sync.Mutex
	last  int
	items map[int]string
}

// begin notes that something runs, until the function that it returns is called.
func (w *work) begin(what string) (end func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.items == nil { // most connections are agents', and idle
		w.items = map[int]string{}
	}
	w.last++
	n := w.last
	w.items[n] = what
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.items, n)
	}
}

// list returns what runs, in the order in which it began.
func (w *work) list() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	keys := make([]int, 0, len(w.items))
	for n := range w.items {
		keys = append(keys, n)
	}
	slices.Sort(keys)
	out := make([]string, len(keys))
	for i, n := range keys {
		out[i] = w.items[n]
	}
	return out
}
