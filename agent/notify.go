package agent

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"deploytools/atomic"
)

// What a person is notified of: DEPLOY_EVENT.
const (
	eventBroken     = "broken"              // neither root serves
	eventRolledBack = "rolled-back"         // a configuration failed here; what was there serves
	eventHeld       = "held"                // new deployments do not start
	eventAway       = "registry-away"       // it could not be asked for long
	eventFailing    = "checks-failing"      // of the live root, between deployments
	eventModified   = "root-modified"       // the live root is not what was unpacked
	eventExpiring   = "certificate-expires" // soon; once a day
	eventRecovered  = "recovered"           // nothing of that is the case any more
)

// events are in the order of their weight.
var events = []string{eventBroken, eventFailing, eventRolledBack, eventModified, eventHeld, eventAway, eventExpiring}

const (
	notifyTimeout = time.Minute
	notifyTries   = 5           // then it is given up
	notifyWait    = time.Minute // before the second try; each later wait is twice as long
	awayLong      = time.Hour
)

// trouble is a reason to notify.
type trouble struct {
	key      string // another key is another trouble; empty: as it was told, if it was
	id       string // of the deployment; empty: it is about none
	revision uint64
	reason   string
}

// notifier calls the host's notification script, one at a time. It is driven by
// what is the case, not by what has happened: what comes and goes while the
// script runs is not told, and what a death of the agent kept from being told is
// told by the next one. Nothing waits for it but the end of a Run in Mode.Once.
type notifier struct {
	a    *Agent
	run  func(ctx context.Context, env []string) error // the script
	wait time.Duration
	told map[string]string // event to key: what was told and still is the case, or begun and the key; the loop's

	poke chan struct{}
	last chan struct{} // closed: end when nothing is left to tell
	done chan struct{} // closed: it has ended

	mu      sync.Mutex // guards what follows
	settled map[string]trouble
	known   bool  // settled was set
	watch   Watch // of the live root
	reached bool  // the registry, in this process
	away    time.Time
}

// toldName is the file that keeps what was told. begun before a key says that
// the script was called and perhaps did not end: it is called again, and its end
// is something to tell too.
const (
	toldName = "notified.json"
	begun    = "?"
)

func newNotifier(a *Agent) *notifier {
	n := &notifier{a: a, wait: notifyWait, poke: make(chan struct{}, 1), last: make(chan struct{}), done: make(chan struct{})}
	n.run = n.script
	return n
}

// start runs the notifier until ctx is done; nil does nothing.
func (n *notifier) start(ctx context.Context) {
	if n == nil {
		return
	}
	go func() {
		defer close(n.done)
		n.serve(ctx)
	}()
}

// finish waits for the end of the notifier: after what there is to tell now, or
// as soon as its ctx is done.
func (n *notifier) finish() {
	if n == nil {
		return
	}
	close(n.last)
	<-n.done
}

// settle notes what the record r says. It waits for nothing.
func (n *notifier) settle(r *Record) {
	if n == nil || r.State != Idle && r.State != Broken {
		return // what comes of it is not decided
	}
	n.mu.Lock()
	n.settled, n.known, n.watch = r.troubles(), true, r.Seen()
	n.mu.Unlock()
	n.wake()
}

// refuse notes why the agent keeps away from its directory.
func (n *notifier) refuse(err error) {
	if n == nil {
		return
	}
	n.mu.Lock()
	n.settled, n.known = map[string]trouble{eventHeld: {key: line(err), reason: line(err)}}, true
	n.mu.Unlock()
	n.wake()
}

// ask notes since when the registry cannot be asked; zero: it can.
func (n *notifier) ask(away time.Time) {
	if n == nil {
		return
	}
	n.mu.Lock()
	n.away = away
	n.reached = n.reached || away.IsZero()
	n.mu.Unlock()
	n.wake()
}

func (n *notifier) wake() {
	select {
	case n.poke <- struct{}{}:
	default:
	}
}

// troubles are those that a record tells of.
func (r *Record) troubles() map[string]trouble {
	all := map[string]trouble{}
	if d := r.Deployment; r.State == Broken {
		all[eventBroken] = trouble{d.ID, d.ID, d.New.Configuration.Revision, d.Broken}
	}
	if d := r.Last; d != nil && d.Verdict != "" {
		revision := d.New.Configuration.Revision
		switch {
		case r.Live != nil && r.Live.Configuration.Revision > revision: // relabelled since: what is wanted serves
		case d.Broken != "" && !r.failedHere(d.New.Configuration.Digest): // a person has it tried again
		case d.Verdict == Bad:
			all[eventRolledBack] = trouble{d.ID, d.ID, revision, d.whyBad()}
		default:
			all[eventRolledBack] = trouble{}
		}
	}
	if m := r.Refused; m != nil {
		all[eventRolledBack] = trouble{key: m.At.Format(time.RFC3339Nano), revision: m.Revision, reason: m.Reason}
	}
	if w := r.Seen(); !w.Failing.IsZero() && r.State != Broken {
		all[eventFailing] = trouble{key: w.Failing.Format(time.RFC3339Nano), reason: "since " + stamp(w.Failing) + " the live root fails: " + w.Checks}
	}
	if w := r.Seen(); !w.Altered.IsZero() {
		all[eventModified] = trouble{key: w.Altered.Format(time.RFC3339Nano), reason: w.Difference}
	}
	if h := r.Hold; h != nil {
		all[eventHeld] = trouble{key: h.Since.Format(time.RFC3339Nano), reason: h.Reason}
	}
	return all
}

// now are the troubles at this moment; ok: they are known.
func (n *notifier) now() (all map[string]trouble, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	all = maps.Clone(n.settled)
	switch {
	case !n.known:
		return nil, false
	case !n.away.IsZero() && time.Since(n.away) >= awayLong:
		since := n.away.UTC().Format(time.RFC3339)
		all[eventAway] = trouble{key: "away", reason: "the registry cannot be asked since " + since}
	case !n.reached:
		all[eventAway] = trouble{}
	}
	if text := n.watch.expiring(n.a.o.Checks.WarnExpiry, now()); text != "" {
		all[eventExpiring] = trouble{key: now().Format(time.DateOnly), reason: text}
	}
	for event, t := range all {
		if t.key != "" {
			continue
		}
		if t.key = strings.TrimPrefix(n.told[event], begun); t.key == "" {
			delete(all, event)
			continue
		}
		all[event] = t
	}
	return all, true
}

// next decides what is to be told; "": nothing. What is over beside others that
// are not, is forgotten without a word.
func (n *notifier) next() (string, trouble) {
	all, ok := n.now()
	if !ok {
		return "", trouble{}
	}
	for _, event := range events {
		if t, is := all[event]; is && n.told[event] != t.key {
			return event, t
		}
	}
	if len(all) == 0 && len(n.told) > 0 {
		return eventRecovered, trouble{}
	}
	for event := range n.told {
		if _, is := all[event]; !is {
			delete(n.told, event) // on disk with the next that is told
		}
	}
	return "", trouble{}
}

// serve tells what there is to tell until ctx is done, or n.last and nothing is left.
func (n *notifier) serve(ctx context.Context) {
	n.endOrphan()
	n.load()
	var event string // under way, with its tries
	var t trouble
	for tries := 0; ctx.Err() == nil; {
		next, with := n.next()
		if next != event || with.key != t.key {
			event, t, tries = next, with, 0
		}
		if event == "" {
			if !n.idle(ctx) {
				return
			}
			continue
		}
		if tries == 0 && event != eventRecovered {
			n.note(event, begun+t.key)
		}
		err := n.run(ctx, n.environment(event, t))
		tries++
		switch {
		case ctx.Err() != nil: // it was cut short: the next agent tells it
			return
		case err == nil:
			n.a.log().Info("notified", "event", event)
		case tries < notifyTries:
			n.a.log().Warn("notification failed", "event", event, "attempt", tries, "error", err)
			if !n.patience(ctx, n.wait<<(tries-1)) {
				return
			}
			continue
		default:
			n.a.log().Error("notification given up", "event", event, "error", err)
		}
		n.note(event, t.key)
		n.a.crash("notified")
	}
}

// idle waits for something new; false: there will be nothing.
func (n *notifier) idle(ctx context.Context) bool {
	select {
	case <-n.poke:
		return true
	default:
	}
	select {
	case <-n.poke:
		return true
	case <-n.last:
		return false
	case <-ctx.Done():
		return false
	}
}

// patience waits before another try; false: there will be none.
func (n *notifier) patience(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-n.last:
		return false
	case <-ctx.Done():
		return false
	}
}

// load reads what was told. Without it all is told anew.
func (n *notifier) load() {
	n.told = map[string]string{}
	b, err := os.ReadFile(n.a.path(toldName))
	if err == nil {
		err = decode(b, &n.told)
	}
	if n.told == nil || errors.Is(err, errDamaged) {
		n.told = map[string]string{}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		n.a.log().Warn("what was notified is not known", "error", err)
	}
}

// note makes durable what is told, or begun. On a disk that refuses it, it is
// told once more by the next agent. A file of a newer version is left alone.
func (n *notifier) note(event, key string) {
	if event == eventRecovered {
		clear(n.told)
	} else {
		n.told[event] = key
	}
	b, err := os.ReadFile(n.a.path(toldName))
	if err == nil && errors.Is(decode(b, &map[string]string{}), errNewer) {
		return
	}
	if b, err = encode(n.told); err == nil {
		err = atomic.WriteFile(n.a.path(toldName), b, 0o600)
	}
	if err != nil {
		n.a.log().Warn("notification not noted", "event", event, "error", err)
	}
}

// environment is the script's, the whole of it.
func (n *notifier) environment(event string, t trouble) []string {
	evidence := ""
	if t.id != "" {
		evidence = n.a.path("deployments", t.id)
	}
	revision := ""
	if t.id != "" || t.revision > 0 {
		revision = strconv.FormatUint(t.revision, 10)
	}
	return append(passedOn(nil),
		notifyMark,
		"DEPLOY_EVENT="+event,
		"DEPLOY_NAME="+n.a.o.Name,
		"DEPLOY_CURRENT="+n.a.path("current"),
		"DEPLOY_ID="+t.id,
		"DEPLOY_REVISION="+revision,
		"DEPLOY_EVIDENCE="+evidence,
		"DEPLOY_REASON="+t.reason)
}
