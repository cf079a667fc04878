package agent

import (
	"context"
	"time"
)

// patrol compares the live root with its manifest now and then, in the background
// and giving way to everything else. Run's goroutine starts it, takes what it
// found, and stops it before anything is deployed.
type patrol struct {
	cancel context.CancelFunc // of the one that runs; nil: none does
	found  chan *Condition    // has room for one; nil is none: it was stopped, or could not look
	tried  time.Time          // when the last one began
	this   proven             // what the one that runs may prove
	proven proven             // what the last one did
}

// onPatrol takes what was found, and begins another comparison when it is time.
func (a *Agent) onPatrol() {
	if c, ended := a.patrol.take(); ended && c != nil {
		a.inspected(c)
		a.patrol.proven = a.patrol.this
		a.patrol.proven.proof = c.proof
	}
	a.patrol.proven.proof.watch()
	live := a.rec.Live
	if live == nil || live.Manifest.IsZero() || a.o.Checks.Inspect == 0 || a.patrol.cancel != nil || a.rec.Removing != nil {
		return
	}
	chosen := a.chosen(live)
	if !chosen && time.Since(a.patrol.tried) < min(patrolAgain, a.o.Checks.Inspect) {
		return // it could not look, or was stopped, or has only just looked
	}
	last := live.Committed
	if at := a.rec.Seen().Inspected; at.After(last) {
		last = at
	}
	if age := now().Sub(last); age < a.o.Checks.Inspect && age >= 0 && !a.unproven(live) && !chosen { // else the clock was set
		return
	}
	a.patrol.this = proven{root: live.Dir, began: time.Now(), collected: a.collect.removed.Load()}
	a.patrol.start(a.o.Dir, live)
}

// unproven reports whether files of the live root are linked, and have to be read
// again before the next root can take them unread: since it was deployed, or since
// another root came or went that had them too.
func (a *Agent) unproven(live *Root) bool {
	p := a.patrol.proven
	return len(a.o.Link) > 0 && a.collect.rests(a.rec.Seq) && (p.root != live.Dir || p.linked || p.collected != a.collect.removed.Load())
}

// chosen reports whether a person has made the live root live, and nobody has begun to
// look at it since: somebody may have modified it after it was unpacked.
func (a *Agent) chosen(live *Root) bool {
	last := a.rec.Last
	byHand := last != nil && last.ByHand && last.New.Dir == live.Dir || a.movedTo(live)
	return byHand && a.patrol.this.root != live.Dir && a.rec.Seen().Inspected.IsZero()
}

// patrolAgain is the least time between two beginnings.
const patrolAgain = time.Hour

func (p *patrol) start(dir string, live *Root) {
	p.tried = time.Now()
	ctx, cancel := context.WithCancel(context.Background())
	found := make(chan *Condition, 1)
	p.cancel, p.found = cancel, found
	go func() { // ends with stop
		defer cancel()
		i, err := Inspect(ctx, dir, Inspection{Idle: true, Gentle: true, prove: true})
		if err != nil || len(i.Roots) != 1 || i.Roots[0].Root != live.Dir {
			found <- nil
			return
		}
		found <- &i.Roots[0]
	}()
}

// take returns what the one that has ended found.
func (p *patrol) take() (c *Condition, ended bool) {
	if p.cancel == nil {
		return nil, false
	}
	select {
	case c := <-p.found:
		p.cancel = nil
		return c, true
	default:
		return nil, false
	}
}

// stop ends the comparison and returns when it has ended. The next one begins
// from the start.
func (p *patrol) stop() {
	if p.cancel == nil {
		return
	}
	p.cancel()
	<-p.found
	p.cancel = nil
}

// inspected notes what a comparison of the live root found, and says what is new.
// What was added to the root is let be: services leave things in it, and none of
// what was unpacked is another for it.
func (a *Agent) inspected(c *Condition) {
	w := a.rec.Seen()
	if w.Root != c.Root {
		return
	}
	before := w
	w.Inspected = now()
	switch {
	case c.rank() < 2:
		w.Altered, w.Difference = time.Time{}, ""
	default:
		if w.Altered.IsZero() {
			w.Altered = w.Inspected
		}
		w.Difference = oneLine(c.String())
	}
	a.rec.Watch = w
	switch {
	case w.Difference != before.Difference && w.Difference != "":
		a.log().Error("live root modified", "root", c.Root, "error", w.Difference)
	case w.Difference == "" && before.Difference != "":
		a.log().Info("live root whole again", "root", c.Root)
	}
	if err := a.save(); err != nil {
		a.sayError("watch", "record not written", err)
	}
}
