package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	syncatomic "sync/atomic"
	"time"

	"deploytools/atomic"
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
	ended  time.Time // the last one; set before done is closed

	removed syncatomic.Int64 // roots, since the process began
}

// rests reports whether a collection has ended since the deployment seq, so long ago
// that a proof that begins now is of what it has changed, too.
func (c *collector) rests(seq uint64) bool {
	return !c.runs() && c.seq == seq && time.Since(c.ended) > proofMargin
}

func (c *collector) runs() bool {
	if c.cancel == nil {
		return false
	}
	select {
	case <-c.done:
		c.cancel = nil
		return false
	default:
		return true
	}
}

// start begins a collection after delay, if there may be something to collect.
// With a delay of 0 the disk is full: then there always may.
func (c *collector) start(a *Agent, delay time.Duration) {
	if c.runs() {
		return
	}
	if delay > 0 && c.seq == a.rec.Seq && time.Since(c.at) < collectEvery {
		return
	}
	c.seq, c.at = a.rec.Seq, time.Now()
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel, c.done = cancel, make(chan struct{})
	go func() { // ends with stop
		defer close(c.done)
		defer func() { c.ended = time.Now() }()
		defer cancel()
		if sleep(ctx, delay) != nil {
			return
		}
		if err := a.collectAll(ctx, a.Record(), func(string) {}); err != nil && ctx.Err() == nil {
			a.log().Warn("collection not finished", "error", err)
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
	return a.collectAll(context.Background(), a.Record(), a.crash)
}

// collectAll removes all that r does not need. It can be called again. point is
// told where tests end the process.
func (a *Agent) collectAll(ctx context.Context, r *Record, point func(string)) error {
	t, err := a.retention(ctx, r)
	if err != nil {
		return err
	}
	if t.Short > 0 {
		a.log().Warn("limit of disk space not kept", "bytes", t.Short, "error", "nothing more may go by "+t.Limit)
	}
	p := &pace{ctx: ctx, point: point}
	return errors.Join(a.collectThings(p, t), a.collectDocuments(p), a.collectEvidence(p, r))
}

// collectThings removes what the retention lets go.
func (a *Agent) collectThings(p *pace, t *Retention) error {
	var all []error
	for _, d := range t.Things {
		if p.ctx.Err() != nil {
			break
		}
		dir, name := filepath.Split(d.Name)
		switch {
		case d.Kept:
		case dir == "cache/":
			if p.step() == nil {
				all = append(all, os.Remove(a.path(d.Name)))
			}
		case strings.HasPrefix(name, "."):
			all = append(all, a.removeHidden(p, name))
		default:
			all = append(all, a.collectRoot(p, name, d.Rule))
		}
	}
	return errors.Join(all...)
}

// collectRoot hides a root before the first file of it goes.
func (a *Agent) collectRoot(p *pace, id, rule string) error {
	if a.pinned(id) != "" { // since it was decided
		return nil
	}
	hidden, err := hide(a.path("roots"), id)
	if err != nil {
		return err
	}
	p.point("root hidden")
	a.log().Info("root collected", "root", id, "reason", rule)
	err = errors.Join(atomic.Remove(a.path("roots", id+".json")), atomic.Remove(a.path("roots", id+".manifest")))
	p.point("documents removed")
	return errors.Join(err, a.removeHidden(p, hidden))
}

// removeHidden removes a root that is hidden. What cannot be removed is tried again
// each time, and changes nothing any more.
func (a *Agent) removeHidden(p *pace, name string) error {
	err := p.removeTree(a.path("roots"), name)
	if err == nil {
		a.collect.removed.Add(1)
	}
	return err
}

// collectDocuments removes the documents of roots that are no more.
func (a *Agent) collectDocuments(p *pace) error {
	entries, err := os.ReadDir(a.path("roots"))
	if err != nil {
		return err
	}
	n := a.needed(a.Record(), nil)
	var all []error
	for _, e := range entries {
		name := e.Name()
		id, found := strings.CutSuffix(name, ".json")
		if !found {
			id, found = strings.CutSuffix(name, ".manifest")
		}
		if !found {
			id, found = strings.CutSuffix(name, indexSuffix)
		}
		if !found || !rootName.MatchString(id) || n.roots[id] != "" || p.ctx.Err() != nil || a.there("roots/"+id) {
			continue
		}
		all = append(all, atomic.Remove(a.path("roots", name)))
	}
	return errors.Join(all...)
}
