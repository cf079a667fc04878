package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"deploytools/registry/wire"
)

// A Reporter is an optional ability of a Source: to tell the registry what the
// agent is about.
type Reporter interface {
	// Report hands a report over where a connection stands, and else fails at
	// once: it makes none, and waits for no answer. That is in the next poll.
	Report(wire.Report) error
}

// reports tells the registry what changes here. It has a goroutine of its own:
// the machine tells it in passing that something has changed, and never waits for
// it, nor for the registry. Only what is so now is told, and nothing is kept on
// disk for it: a report follows from the record, so that what the registry missed
// while it, or the agent, was away is told when both are back. Nil tells nobody.
type reports struct {
	to    Reporter
	build func(heard) wire.Report
	log   *slog.Logger
	wake  chan struct{} // has room for one

	mu     sync.Mutex // guards what follows
	heard  heard
	news   bool   // heard has some that nobody was woken for
	lacked string // by the last step: see lacks
	takes  bool   // the registry takes reports
	has    string // tag of the one that it has
	now    string // tag of the one that was built last
	open   bool   // one was sent, and no poll was answered since

	// Of the goroutine: what was sent last, how often, and when it may be again.
	sent  string
	times int
	again time.Time
}

const (
	// settleTime is how old a deployment is when it is first told as one that is
	// under way. Most are over by then, and one report tells all.
	settleTime = 5 * time.Second
	// The same report is sent twice as soon as a poll says that the registry has
	// another: that may have crossed it. Then with these waits: two hosts that
	// pretend to be one would each see the other's for ever.
	freely     = 2
	firstAgain = 30 * time.Second
	mostAgain  = time.Hour
	// lastPatience is how long the end of a Run in Mode.Once waits for the
	// registry.
	lastPatience = 10 * time.Second
)

func newReports(a *Agent) *reports {
	to, ok := a.o.Source.(Reporter)
	if !ok {
		return nil
	}
	return &reports{to: to, build: a.report, log: a.o.Observe.Log, wake: make(chan struct{}, 1)}
}

// changed says that there may be something new. It never waits.
func (r *reports) changed() {
	if r == nil {
		return
	}
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// answered takes what a poll brought. A poll of which all is known wakes nobody;
// what is new to the machine is told when the machine has made something of it.
func (r *reports) answered(st wire.PollState) {
	if r == nil {
		return
	}
	var wanted *wire.ReportedRevision
	if !absent(st) {
		wanted = &wire.ReportedRevision{Revision: st.Revision, Digest: st.Digest}
	}
	r.mu.Lock()
	same := r.heard.wanted == wanted || r.heard.wanted != nil && wanted != nil && *r.heard.wanted == *wanted
	r.heard.wanted = wanted
	r.takes, r.open = st.Reported != nil, false
	if r.takes {
		r.has = *st.Reported
	}
	r.news = r.news || !same
	idle := r.news || !r.takes || r.now != "" && r.has == r.now
	r.mu.Unlock()
	if !idle {
		r.changed()
	}
}

// met takes what came of a step: an error is what the machine waits for. That
// the registry is away is not told: who could hear it knows better.
func (r *reports) met(err error) {
	if r == nil {
		return
	}
	trouble := ""
	if err != nil && !errors.Is(err, errStay) && !errors.Is(err, wire.ErrUnreachable) && !errors.Is(err, wire.ErrUntrusted) {
		trouble = line(err)
	}
	r.mu.Lock()
	lacked := lacks(err)
	if lacked != "" && lacked == r.lacked { // another file of the same is no news
		trouble = r.heard.trouble
	}
	r.lacked = lacked
	news := r.news || r.heard.trouble != trouble
	r.heard.trouble, r.news = trouble, false
	r.mu.Unlock()
	if news {
		r.changed()
	}
}

// start starts the goroutine. It ends soon after stop or the end of ctx.
func (r *reports) start(ctx context.Context) (stop func()) {
	if r == nil {
		return func() {}
	}
	ctx, stop = context.WithCancel(ctx)
	go r.run(ctx)
	return stop
}

// run is the goroutine. It ends soon after ctx, or with the connection where that
// has no room to write; nobody waits for it.
func (r *reports) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		case <-timer.C:
		}
		if wait := r.tell(false); wait > 0 {
			timer.Reset(wait)
		}
	}
}

// tell sends what is so now, unless the registry has it. It returns how long to
// wait until a deployment that is under way is worth a report. The end is always
// worth one. A fault of ours in it is logged, and does not end the agent.
func (r *reports) tell(end bool) (wait time.Duration) {
	defer func() {
		if p := recover(); p != nil {
			r.log.Error("internal error", "error", fmt.Sprint(p), "stack", string(debug.Stack()))
		}
	}()
	r.mu.Lock()
	h, takes := r.heard, r.takes
	r.mu.Unlock()
	if !takes {
		return 0
	}
	report := r.build(h)
	if d := report.Deployment; d != nil && d.Ended.IsZero() && report.State != string(Broken) && !end {
		if left := settleTime - time.Since(d.Started); left > 0 && left <= settleTime {
			return left
		}
	}
	r.mu.Lock()
	r.now = report.Tag
	known := r.has == r.now || r.now == r.sent && (r.open || time.Now().Before(r.again))
	r.open = r.open || !known
	r.mu.Unlock()
	if known {
		return 0 // the next poll comes here again where it is not
	}
	report.Sent = now()
	if r.to.Report(report) != nil {
		return 0 // there is no connection; a poll makes one
	}
	if report.Tag != r.sent {
		r.sent, r.times = report.Tag, 0
	}
	r.times++
	if r.again = time.Now(); r.times > freely {
		r.again = r.again.Add(min(firstAgain<<min(r.times-freely-1, 10), mostAgain))
	}
	return 0
}

// tellLast tells how a Run in Mode.Once ended, which tells nothing before, and
// polls once more, so that the registry has it before the connection ends. Where
// the registry is away, the next Run tells it.
func (a *Agent) tellLast(ctx context.Context) {
	if a.reports == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lastPatience)
	defer cancel()
	told := make(chan struct{})
	go func() { // ends with the connection, where that has no room to write
		defer close(told)
		a.reports.tell(true)
	}()
	select {
	case <-told:
	case <-ctx.Done():
		return
	}
	if _, err := a.ask(ctx); err != nil {
		a.log().Debug("report not confirmed", "error", err)
	}
}
