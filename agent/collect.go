package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"deploytools/atomic"
	"deploytools/layers/digest"
)

const (
	collectEvery  = time.Hour // where nothing was deployed
	batch         = 100       // names removed between two pauses
	batchPause    = 50 * time.Millisecond
	doomedPattern = `^[0-9]{6,}-[0-9a-f]{12}$`
)

var rootName = regexp.MustCompile(doomedPattern)

// collector removes what nothing needs, in the background and slowly: ext4
// makes files many times slower for minutes after a big removal, so never before
// or during an unpack. Run's goroutine starts and stops it.
type collector struct {
	cancel context.CancelFunc // of the one that runs; nil: none does
	done   chan struct{}
	seq    uint64 // Record.Seq at the last start
	at     time.Time
}

// start begins a collection after delay, if there may be something to collect.
// With a delay of 0 the disk is full: then there always may.
func (c *collector) start(a *Agent, delay time.Duration) {
	if c.cancel != nil {
		select {
		case <-c.done:
			c.cancel = nil
		default:
			return
		}
	}
	if delay > 0 && c.seq == a.rec.Seq && time.Since(c.at) < collectEvery {
		return
	}
	c.seq, c.at = a.rec.Seq, time.Now()
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel, c.done = cancel, make(chan struct{})
	go func() { // ends with stop
		defer close(c.done)
		defer cancel()
		if sleep(ctx, delay) != nil {
			return
		}
		if err := a.collectAll(ctx, a.Record()); err != nil && ctx.Err() == nil {
			a.log().Warn("collection not finished", "configuration", a.o.Name, "error", err)
		}
	}()
}

// stop ends the collection and returns when it has ended. The next one goes on.
func (c *collector) stop() {
	if c.cancel == nil {
		return
	}
	c.cancel()
	<-c.done
	c.cancel, c.seq = nil, 0
}

// now collects in the caller's time, as a run without a background has to.
func (c *collector) now(a *Agent) error {
	c.stop()
	return a.collectAll(context.Background(), a.Record())
}

// needed is what a collection must not touch, by names in roots/ and cache/.
type needed struct {
	roots  map[string]bool
	layers map[digest.Digest]bool
}

func (n *needed) keep(r *Root) {
	if r == nil || r.Configuration == nil {
		return
	}
	if r.Dir != "" {
		n.roots[filepath.Base(r.Dir)] = true
	}
	for _, l := range r.Configuration.Layers {
		n.layers[l.Hash] = true
	}
}

// needed keeps what is live, the rollback target, what is in flight, what
// `current` names whoever moved it there, and as many committed roots as the
// options say, the target among them.
func (a *Agent) needed(r *Record, roots []*Root) needed {
	n := needed{map[string]bool{}, map[digest.Digest]bool{}}
	n.keep(r.Live)
	if link, err := a.link(); err == nil && link != "" {
		n.roots[filepath.Base(filepath.Clean(link))] = true
	}
	left := a.o.Keep.Roots
	if r.Back != nil {
		n.keep(r.Back)
		left--
	}
	if d := r.Deployment; d != nil {
		n.keep(&d.New)
		n.keep(d.From)
		n.keep(d.Back)
	}
	for _, root := range slices.Backward(roots) {
		if left > 0 && !root.Committed.IsZero() && !n.roots[filepath.Base(root.Dir)] {
			n.keep(root)
			left--
		}
	}
	return n
}

// collectAll removes all that r does not need. It can be called again.
func (a *Agent) collectAll(ctx context.Context, r *Record) error {
	roots, err := a.roots()
	if err != nil {
		return err
	}
	n := a.needed(r, roots)
	p := &pace{ctx: ctx}
	return errors.Join(a.collectRoots(p, n), a.collectCache(p, n), a.collectEvidence(p, r))
}

// collectRoots hides a root durably before the first file of it goes: a name
// without a dot is a complete root.
func (a *Agent) collectRoots(p *pace, n needed) error {
	entries, err := os.ReadDir(a.path("roots"))
	if err != nil {
		return err
	}
	var all []error
	for _, e := range entries {
		if p.ctx.Err() != nil {
			break
		}
		name := e.Name()
		id := strings.TrimSuffix(strings.TrimSuffix(name, ".json"), ".manifest")
		hidden, staged := atomic.Staged(name)
		switch {
		case staged && rootName.MatchString(hidden) && e.IsDir():
			all = append(all, p.removeTree(a.path("roots"), name))
		case !rootName.MatchString(id) || n.roots[id]:
		case id != name: // a document; its root goes first
			if _, err := os.Lstat(a.path("roots", id)); os.IsNotExist(err) {
				all = append(all, atomic.Remove(a.path("roots", name)))
			}
		case e.IsDir():
			all = append(all, a.collectRoot(p, id))
		}
	}
	return errors.Join(all...)
}

func (a *Agent) collectRoot(p *pace, id string) error {
	hidden := "." + id + ".partial"
	if err := atomic.Rename(a.path("roots", id), a.path("roots", hidden)); err != nil {
		return err
	}
	a.log().Info("root collected", "root", id)
	return errors.Join(atomic.Remove(a.path("roots", id+".json")), atomic.Remove(a.path("roots", id+".manifest")),
		p.removeTree(a.path("roots"), hidden))
}

// collectCache removes layers, and parts of them, that no kept root has and
// that are old: a configuration that was just withdrawn often comes back.
func (a *Agent) collectCache(p *pace, n needed) error {
	entries, err := os.ReadDir(a.path("cache"))
	if err != nil {
		return err
	}
	var all []error
	for _, e := range entries {
		name := strings.TrimSuffix(strings.TrimPrefix(e.Name(), "."), ".partial")
		d, err := digest.Parse(name)
		temp := strings.HasPrefix(name, "temp-") // of the original tool set
		info, infoErr := e.Info()
		if err != nil && !temp || n.layers[d] || infoErr != nil || !info.Mode().IsRegular() || time.Since(info.ModTime()) < a.o.Keep.CacheAge {
			continue
		}
		if p.step() != nil {
			break
		}
		all = append(all, os.Remove(a.path("cache", e.Name())))
	}
	return errors.Join(all...)
}
