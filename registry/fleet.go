package registry

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"deploytools/layers/digest"
	"deploytools/registry/wire"
)

// Host is what is known of one agent, about one of its configurations.
type Host struct {
	Name          string // of the host
	Configuration string
	Instance      string    // which agent of those with the host's key; "" where it does not say
	Seen          time.Time // when it was last heard of

	Report      *wire.Report // its last one, without Output; nil: it never reported
	Received    time.Time    // when that came
	Fingerprint string       // of the key that it came with
	Comment     string       // of that key

	Wanted  *wire.ReportedRevision // the newest revision; nil: the configuration was deleted
	Changed time.Time              // when that was made
	Hold    *wire.Hold             // that keeps agents from it; nil: none
}

// Standing says in a word where a host stands with its configuration.
type Standing string

// The standings. Only Same is that the host runs what is wanted.
const (
	Same       Standing = "same"
	Deploying  Standing = "deploying"
	Behind     Standing = "behind"      // and has not begun, for all that is known
	RolledBack Standing = "rolled back" // what is wanted failed there
	Held       Standing = "held"
	Moved      Standing = "moved"    // `current` was moved by hand
	Broken     Standing = "broken"   // neither root serves
	Unknown    Standing = "unknown"  // it never reported
	Unwanted   Standing = "unwanted" // the configuration was deleted
)

// Standings are all of them.
var Standings = []Standing{Same, Deploying, Behind, RolledBack, Held, Moved, Broken, Unknown, Unwanted}

// Standing compares what the host told with what is wanted.
func (h Host) Standing() Standing {
	rep := h.Report
	switch {
	case rep != nil && rep.State == stateBroken:
		return Broken
	case h.Wanted == nil:
		return Unwanted
	case rep == nil:
		return Unknown
	case rep.Moved != "":
		return Moved
	case h.Runs(h.Wanted.Digest) && (rep.Deployment == nil || !rep.Deployment.Ended.IsZero()):
		return Same
	case rep.Deployment != nil && rep.Deployment.Ended.IsZero():
		return Deploying
	case rep.Deployment != nil && rep.Deployment.Verdict == verdictBad && rep.Deployment.Digest == h.Wanted.Digest:
		return RolledBack
	case rep.Hold != "" || h.Hold != nil:
		return Held
	}
	return Behind
}

// What agents say that matters here.
const (
	stateBroken = "Broken"
	verdictBad  = "bad"
)

// Runs reports whether the host says that it runs the configuration of this digest.
func (h Host) Runs(d digest.Digest) bool {
	return h.Report != nil && h.Report.Running != nil && h.Report.Running.Digest == d
}

// Failure returns how a configuration of this digest failed on the host, where it is not
// tried again by itself; nil: it did not, for all that the host has told. What runs
// there has not failed, whatever was before.
func (h Host) Failure(d digest.Digest) *wire.ReportedFailure {
	rep := h.Report
	if rep == nil || h.Runs(d) && rep.State != stateBroken {
		return nil
	}
	if last := rep.Deployment; last != nil && last.Digest == d && last.Verdict == verdictBad {
		return &wire.ReportedFailure{ReportedRevision: last.ReportedRevision, At: last.Ended, Reason: last.Reason}
	}
	i := slices.IndexFunc(rep.Failures, func(f wire.ReportedFailure) bool { return f.Digest == d })
	if i < 0 {
		return nil
	}
	return &rep.Failures[i]
}

// Differs reports whether the host is not known to run what is wanted. Where
// nothing is wanted, nothing differs.
func (h Host) Differs() bool { s := h.Standing(); return s != Same && s != Unwanted }

// silentAfter is how long nothing may be heard of a host of which nothing is
// known, and of one whose agent runs now and then.
const (
	silentAfter     = 15 * time.Minute
	silentAfterOnce = 25 * time.Hour
)

// Silent reports whether the host should have been heard of by now: three polls
// ago and some minutes.
func (h Host) Silent(now time.Time) bool {
	limit := silentAfter
	switch {
	case h.Report == nil:
	case h.Report.PollSeconds == 0 || h.Report.PollSeconds > int64(silentAfterOnce/time.Second/3):
		limit = silentAfterOnce
	default:
		limit = 5*time.Minute + 3*time.Duration(h.Report.PollSeconds)*time.Second
	}
	return now.Sub(h.Seen) > limit
}

// Told returns a time of the report by our clock: it was so long before the
// report came as the host says it was before it sent it, and no later than that.
func (h Host) Told(t time.Time) time.Time {
	if h.Report == nil || t.IsZero() {
		return time.Time{}
	}
	age := h.Report.Sent.Sub(t)
	return h.Received.Add(-max(age, 0)).Truncate(time.Second)
}

// Hosts returns what is known of the agents within the scope, by configuration and
// host; with a name, of this configuration only. recent are sightings that were
// not stored yet.
func (r *Registry) Hosts(ctx context.Context, scope Scope, name string, recent []Sighting) ([]Host, error) {
	var out []Host
	err := r.o.Meta.View(ctx, func(tx Tx) (err error) {
		f := fleet{scope: scope, name: name, hosts: map[reporter]*Host{}}
		if err := eachSeen(tx, f.see); err != nil {
			return err
		}
		for _, s := range recent {
			f.see(reporter{s.Host, s.Configuration, s.Instance}, s.At)
		}
		if err := f.read(tx); err != nil {
			return err
		}
		out, err = r.compared(tx, f.list())
		return err
	})
	return out, err
}

// fleet gathers what is known of agents.
type fleet struct {
	scope Scope
	name  string // of the configuration; "": any
	hosts map[reporter]*Host
}

func (f *fleet) wants(configuration string) bool {
	return f.scope.Holds(configuration) && (f.name == "" || f.name == configuration)
}

func (f *fleet) see(p reporter, at time.Time) {
	if !f.wants(p.configuration) {
		return
	}
	if f.hosts[p] == nil {
		f.hosts[p] = &Host{Name: p.host, Configuration: p.configuration, Instance: p.instance}
	}
	if h := f.hosts[p]; at.After(h.Seen) {
		h.Seen = at
	}
}

// read reads the reports.
func (f *fleet) read(tx Tx) error {
	for key, b := range tx.Scan(prefixReport) {
		p, err := parseReporter(strings.TrimPrefix(key, prefixReport))
		if err != nil {
			return fmt.Errorf("internal error: record %q: %w", key, err)
		}
		if !f.wants(p.configuration) {
			continue
		}
		rep, err := decode[reported](key, b)
		if err != nil {
			return err
		}
		f.see(p, rep.Received)
		h := f.hosts[p]
		h.Report, h.Received, h.Fingerprint, h.Comment = &rep.Report, rep.Received, rep.Fingerprint, rep.Comment
	}
	return nil
}

// list returns the hosts in order. One that polled without saying which it was,
// and later says so, is one host.
func (f *fleet) list() []Host {
	said := map[reporter]time.Time{} // last, by agents that say which one they are
	for p, h := range f.hosts {
		if anonymous := (reporter{p.host, p.configuration, ""}); p != anonymous && h.Seen.After(said[anonymous]) {
			said[anonymous] = h.Seen
		}
	}
	out := make([]Host, 0, len(f.hosts))
	for _, p := range slices.SortedFunc(maps.Keys(f.hosts), compareReporters) {
		if h := f.hosts[p]; h.Report != nil || said[p].Before(h.Seen) {
			out = append(out, *h)
		}
	}
	return out
}

// compared adds what each host should run.
func (r *Registry) compared(tx Tx, hosts []Host) ([]Host, error) {
	known := map[string]Host{}
	for i, h := range hosts {
		want, ok := known[h.Configuration]
		if !ok {
			rev, err := configOf(tx, h.Configuration)
			if err == nil {
				want.Wanted, want.Changed = &wire.ReportedRevision{Revision: rev.Revision, Digest: rev.Digest}, rev.Mtime
				want.Hold, err = r.wireHold(tx, h.Configuration)
			}
			if err != nil && !errors.Is(err, ErrNotFound) {
				return nil, err
			}
			known[h.Configuration] = want
		}
		hosts[i].Wanted, hosts[i].Changed, hosts[i].Hold = want.Wanted, want.Changed, want.Hold
	}
	return hosts, nil
}
