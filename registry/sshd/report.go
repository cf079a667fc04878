package sshd

import (
	"context"
	"errors"
	"io"
	"maps"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
	"golang.org/x/time/rate"

	"deploytools/registry"
	"deploytools/registry/wire"
)

// What one connection may report: an agent has little to say, and says it at
// most every few seconds for each configuration.
const (
	reportEvery = 2 * time.Second
	reportBurst = 100
)

var errReports = errors.New("too many reports")

// report takes what an agent tells. It wants no reply, and learns from the answer
// to its next poll what came of it.
func (c *conn) report(ctx context.Context, r *ssh.Request) {
	c.s.count.reports.Add(1)
	c.running.Add(1)
	defer c.running.Add(-1)
	ctx, cancel := context.WithTimeout(ctx, pollTimeout)
	defer cancel()
	err := c.takeReport(ctx, r.Payload)
	if err != nil {
		c.reportRefused(ctx, err)
	}
	r.Reply(err == nil, nil)
}

func (c *conn) takeReport(ctx context.Context, payload []byte) error {
	if c.reports == nil {
		c.reports = rate.NewLimiter(rate.Every(reportEvery), reportBurst)
	}
	if !c.reports.Allow() {
		return errReports
	}
	told, err := wire.DecodeReport(payload)
	if err != nil {
		return err
	}
	return c.s.o.Registry.Report(ctx, c.id.caller, told)
}

// reportRefused is pollRefused for reports.
func (c *conn) reportRefused(ctx context.Context, err error) {
	c.reportsRefused++
	if n := c.reportsRefused; n&(n-1) == 0 {
		c.log.Warn("report refused", "error", clean(err.Error(), maxLogged), "times", n)
	}
	if c.reportsRefused == 1 && errors.Is(err, registry.ErrDenied) {
		c.denied(ctx, err.Error(), "report")
	}
}

// saw notes that the connection's agent polled. Which one it is of those with its
// key it says once.
func (c *conn) saw(q wire.PollRequest, reply wire.PollReply) {
	c.instance.CompareAndSwap(nil, &q.Instance)
	for _, state := range reply.Configurations {
		if state.Reported != nil {
			c.note(state.Name)
		}
	}
}

func (c *conn) note(configuration string) {
	s := registry.Sighting{Host: c.id.caller.HostName(), Configuration: configuration, At: c.s.o.Registry.Now()}
	if instance := c.instance.Load(); instance != nil {
		s.Instance = *instance
	}
	c.s.seen.note(s)
	if s.Host != c.id.caller.Fingerprint { // it has a name now
		s.Host = c.id.caller.Fingerprint
		c.s.seen.drop(s)
	}
}

// witness notes that an agent reads a configuration: those of the original tool
// set poll so.
type witness struct {
	sftp.FileReader
	c *conn
}

func (w witness) Fileread(r *sftp.Request) (io.ReaderAt, error) {
	f, err := w.FileReader.Fileread(r)
	if dir, file := path.Split(r.Filepath); err == nil && dir == "/configs/" {
		w.c.note(strings.TrimSuffix(file, ".json"))
	}
	return f, err
}

// seen are the agents that were heard of and are not stored yet. A crash loses
// at most what is in it: the sightings of a minute, most of which the next one
// repeats.
type seen struct {
	mu      sync.Mutex // guards pending
	pending map[registry.Sighting]time.Time
}

const (
	seenEvery  = time.Minute
	maxPending = 100_000 // while nothing can be stored
)

// note keeps the newest sighting of each agent.
func (s *seen) note(one registry.Sighting) {
	at := one.At
	one.At = time.Time{}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pending == nil {
		s.pending = map[registry.Sighting]time.Time{}
	}
	if _, known := s.pending[one]; known || len(s.pending) < maxPending {
		s.pending[one] = at
	}
}

// drop forgets what is pending of an agent.
func (s *seen) drop(one registry.Sighting) {
	one.At = time.Time{}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.pending, one)
}

// list returns what is pending.
func (s *seen) list() []registry.Sighting {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]registry.Sighting, 0, len(s.pending))
	for one, at := range s.pending {
		one.At = at
		out = append(out, one)
	}
	return out
}

// stored drops what is not newer than all.
func (s *seen) stored(all []registry.Sighting) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range all {
		at := one.At
		one.At = time.Time{}
		if s.pending[one].Equal(at) {
			delete(s.pending, one)
		}
	}
}

// Sightings returns the agents that were heard of and are not stored yet.
func (s *Server) Sightings() []registry.Sighting { return s.seen.list() }

// Unsee drops those of them that drop takes.
func (s *Server) Unsee(drop func(registry.Sighting) bool) {
	s.seen.mu.Lock()
	defer s.seen.mu.Unlock()
	maps.DeleteFunc(s.seen.pending, func(one registry.Sighting, _ time.Time) bool { return drop(one) })
}

// storeSeen stores sightings until ctx is done, all of them together once a
// minute.
func (s *Server) storeSeen(ctx context.Context) {
	tick := time.NewTicker(seenEvery)
	defer tick.Stop()
	failed := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := s.storeSeenNow(ctx)
		if err != nil && ctx.Err() == nil && !failed {
			s.o.Log.Warn("sightings of hosts not stored", "error", err)
		}
		failed = err != nil
	}
}

// lastSeen stores what is pending when the server ends.
func (s *Server) lastSeen() {
	ctx, cancel := context.WithTimeout(context.Background(), pollTimeout)
	defer cancel()
	if err := s.storeSeenNow(ctx); err != nil {
		s.o.Log.Warn("sightings of hosts not stored", "error", err)
	}
}

func (s *Server) storeSeenNow(ctx context.Context) error {
	all := s.seen.list()
	err := s.o.Registry.Seen(ctx, all)
	if err == nil {
		s.seen.stored(all)
	}
	return err
}
