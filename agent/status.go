package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"deploytools/verify/spec"
)

// Status is what an agent does, and what its host runs.
type Status struct {
	Name    string          `json:"name"`
	Dir     string          `json:"dir"`
	Running bool            `json:"running"`               // an agent does
	Started time.Time       `json:"started,omitzero"`      // it
	State   State           `json:"state"`                 // of the machine
	Since   time.Time       `json:"since"`                 // in it
	Current string          `json:"current"`               // what the link `current` says
	Live    *Shown          `json:"live,omitempty"`        // root that serves
	Back    *Shown          `json:"back,omitempty"`        // root that a rollback leads to
	Under   *Deployed       `json:"deployment,omitempty"`  // under way
	Coming  *Progress       `json:"fetching,omitempty"`    // layers that are on their way
	Missing *Lacking        `json:"missing,omitempty"`     // checks that do not pass yet
	Looking *Looking        `json:"looking,omitempty"`     // under way: a look for a revision with other checks
	Last    *Deployed       `json:"last,omitempty"`        // ended last
	Newest  *Newest         `json:"newest,omitempty"`      // at the registry, as of the last poll
	Next    time.Time       `json:"next_poll,omitzero"`    // or try
	Wanted  string          `json:"wanted,omitempty"`      // root that a person wants live
	Files   []PublishedFile `json:"published,omitempty"`   // at fixed paths
	Blocks  []Block         `json:"blocks"`                // what keeps the registry's newest revision from this host
	Failed  []Failed        `json:"failed_here,omitempty"` // what is not tried again
	Watched *Watched        `json:"watched,omitempty"`     // what was seen of the live root since
	Broken  string          `json:"broken,omitempty"`      // why neither root serves
	Unable  bool            `json:"unable,omitempty"`      // its record is of a newer version, so nothing of it is known but Current

	Revocable bool `json:"removal_revocable,omitempty"` // a removal has begun, and nothing is removed yet
}

// Shown is a root.
type Shown struct {
	Root         string       `json:"root"`
	Revision     uint64       `json:"revision"`
	Layers       []string     `json:"layers"` // component:version, the lowest first
	Committed    time.Time    `json:"committed"`
	Verification Verification `json:"verification"`
	Checks       []string     `json:"checks"`         // with which it was looked at
	Gone         bool         `json:"gone,omitempty"` // somebody has deleted it
}

// Looking is the look at what is live with the checks of a revision that has the
// same layers: nothing is deployed for it.
type Looking struct {
	Revision uint64    `json:"revision"`
	Since    time.Time `json:"since"`
	Until    time.Time `json:"until"` // when it ends at the latest
}

// Lacking is what the deployment or the look under way lacks to be verified.
type Lacking struct {
	Checks string    `json:"checks"` // that fail, and how
	Until  time.Time `json:"until"`  // when it is given up for that
}

// Newest is what the registry has.
type Newest struct {
	Revision uint64    `json:"revision"` // 0: there is none, or the registry counts none
	Digest   string    `json:"digest,omitempty"`
	Polled   time.Time `json:"polled"`
	Here     bool      `json:"here"` // it is live
}

// Failed is a mark.
type Failed struct {
	Revision uint64    `json:"revision"`
	Digest   string    `json:"digest"`
	At       time.Time `json:"at"`
	Reason   string    `json:"reason"`
}

// Block is something that is in the way.
type Block struct {
	Kind  BlockKind `json:"kind"`
	Text  string    `json:"text"`
	Since time.Time `json:"since,omitzero"`
	Until time.Time `json:"until,omitzero"`
	Later bool      `json:"until_later_revision,omitempty"` // a later revision at the registry ends it
}

// BlockKind says what is in the way.
type BlockKind string

// The kinds, in the order in which they matter.
const (
	BlockUnable       BlockKind = "unable"        // this agent does nothing here
	BlockSettings     BlockKind = "settings"      // they cannot be used
	BlockRemoving     BlockKind = "removing"      // it is being taken off the host
	BlockBroken       BlockKind = "broken"        // neither root serves
	BlockHold         BlockKind = "hold"          // of this host
	BlockRegistryHold BlockKind = "registry hold" // of the registry
	BlockWindow       BlockKind = "window"        // the newest revision waits for it
	BlockFailed       BlockKind = "failed here"   // the newest revision did
	BlockAway         BlockKind = "registry away" // it cannot be asked
	BlockWaiting      BlockKind = "waiting"       // a step is tried again
	BlockDrift        BlockKind = "drift"         // `current` is not what the record says
	BlockDisk         BlockKind = "disk full"     // there is hardly room for a record
)

// Status returns what the machine does now. It waits for nothing.
func (a *Agent) Status() Status {
	a.mu.Lock()
	r, p := a.saved, a.present
	a.mu.Unlock()
	if r == nil {
		r = &Record{Name: a.o.Name, State: Idle}
	}
	link, _ := a.link()
	s := Status{
		Name: r.Name, Dir: a.o.Dir, Running: !p.started.IsZero(), Started: p.started, State: r.State, Since: r.Entered, Current: link,
		Live: shown(r.Live), Back: shown(r.Back), Under: r.Deployment.Shown(), Coming: a.Progress(), Last: r.Last.Shown(), Next: p.next, Wanted: r.Wanted, Looking: p.looking,
	}
	s.Files, _ = publishedIn(context.Background(), a.o.Dir, r) // what cannot be compared shows no difference
	s.Revocable = r.Removing != nil && !r.Removing.Left
	for _, r := range []*Shown{s.Live, s.Back} {
		if r != nil {
			r.Gone = !a.there(r.Root)
		}
	}
	if p.missing != "" {
		s.Missing = &Lacking{p.missing, p.patience.UTC()}
	}
	if r.State == Broken {
		s.Broken = r.Deployment.Broken
	}
	if !p.polled.IsZero() {
		s.Newest = &Newest{Revision: p.newest.Revision, Polled: p.polled, Here: r.Live != nil && r.Live.Configuration.Digest == p.newest.Digest}
		if !p.newest.Digest.IsZero() {
			s.Newest.Digest = p.newest.Digest.String()
		}
	}
	for _, m := range r.Marks {
		s.Failed = append(s.Failed, Failed{m.Revision, m.Digest.String(), m.At, m.Reason})
	}
	if s.Unable = errors.Is(p.err, errNewer); s.Unable {
		s.State = ""
	}
	s.Watched = a.watched(r.Seen())
	s.Blocks = append(blocks(r, &p, link), a.fullDisk()...)
	return s
}

// blocks returns all that is in the way.
func blocks(r *Record, p *present, link string) []Block {
	all := []Block{}
	add := func(kind BlockKind, text string, since, until time.Time) {
		all = append(all, Block{Kind: kind, Text: text, Since: since, Until: until})
	}
	var never time.Time
	if p.err != nil {
		kind := BlockUnable
		if !errors.Is(p.err, errNewer) {
			kind = BlockSettings
		}
		add(kind, line(p.err), never, never)
	}
	if r.Removing != nil {
		add(BlockRemoving, r.Removing.String(), r.Removing.Since, never)
	}
	if r.State == Broken {
		add(BlockBroken, r.Deployment.Broken, r.Entered, never)
	}
	if h := r.Hold; h != nil {
		add(BlockHold, h.Reason, h.Since, h.Until)
		if h.behind() {
			add(BlockHold, rolledBackReason, h.Since, never)
		}
		all[len(all)-1].Later = !h.Standing || h.Rolled
	}
	if p.held != "" {
		add(BlockRegistryHold, p.held, never, never)
	}
	if p.shut != "" && r.Deployment == nil {
		add(BlockWindow, p.shut, never, p.opens)
	}
	if m := r.marked(p.newest); m != nil && r.Deployment == nil {
		add(BlockFailed, fmt.Sprintf("revision %d: %s", p.newest.Revision, m.Reason), m.At, never)
	}
	switch {
	case !p.away.IsZero():
		add(BlockAway, cmp.Or(p.waiting, "the registry cannot be asked"), p.away.UTC(), p.next)
	case p.waiting != "":
		add(BlockWaiting, p.waiting, never, p.next)
	}
	if r.State == Idle && r.Hold == nil && r.Live != nil && link != r.Live.Dir {
		add(BlockDrift, fmt.Sprintf("`current` %s, and the record %s", pointing(link), r.Live.Dir), never, never)
	}
	return all
}

// fullDisk is the block of a file system that is full; empty: there is room.
func (a *Agent) fullDisk() []Block {
	on, err := diskOf(a.o.Dir)
	if err != nil || !on.cramped() {
		return nil
	}
	text := Size(on.free)
	if on.inodes >= 0 {
		text += fmt.Sprintf(" and %d inodes", on.inodes)
	}
	return []Block{{Kind: BlockDisk, Text: text + " are free in " + a.o.Dir}}
}

// giveUp is the verb that gives up what is under way. Without a name a rollback
// joins one that waits.
func (s *Status) giveUp(verb func(string) string) string {
	if s.Under.ByHand && s.Live != nil && s.State.preparing() {
		return verb("rollback") + " -to " + filepath.Base(s.Live.Root)
	}
	return verb("rollback")
}

func shown(r *Root) *Shown {
	if r == nil || r.Configuration == nil {
		return nil
	}
	s := &Shown{Root: r.Dir, Revision: r.Configuration.Revision, Layers: []string{}, Committed: r.Committed,
		Verification: cmp.Or(r.Verification, Unverified), Checks: []string{}}
	for _, l := range r.Configuration.Layers {
		s.Layers = append(s.Layers, l.Name+":"+l.Version)
	}
	for i, c := range r.Spec.WithDefaults().Checks {
		s.Checks = append(s.Checks, describe(c)+" ("+string(r.sourceOf(i))+")")
	}
	return s
}

func describe(c spec.Check) string { return string(c.Type) + " " + c.Target() }

// Deployed is one deployment, as history shows it.
type Deployed struct {
	ID           string       `json:"id"`
	Revision     uint64       `json:"revision"`
	Root         string       `json:"root,omitempty"`
	Layers       []string     `json:"layers"`
	Outcome      Outcome      `json:"outcome"`
	Verification Verification `json:"verification,omitempty"`
	Reason       string       `json:"reason,omitempty"`
	ByHand       bool         `json:"by_hand,omitempty"`   // a person's rollback
	Changes      []Change     `json:"published,omitempty"` // what it does at fixed paths
	Warnings     []string     `json:"warnings,omitempty"`
	Started      time.Time    `json:"started"`
	Ended        time.Time    `json:"ended,omitzero"`
	Took         float64      `json:"seconds"` // until now, of one under way
	States       []Spent      `json:"states"`
	Error        string       `json:"error,omitempty"` // of its record, which cannot be read
}

// Spent is how long a deployment was in a state.
type Spent struct {
	State State   `json:"state"`
	Took  float64 `json:"seconds"`
}

// Shown returns the deployment as it is shown; nil of nil.
func (d *Deployment) Shown() *Deployed {
	if d == nil || d.New.Configuration == nil {
		return nil
	}
	root := shown(&d.New)
	out := &Deployed{ID: d.ID, Revision: root.Revision, Root: d.New.Dir, Layers: root.Layers, Outcome: d.Outcome(),
		Verification: d.New.Verification, Reason: d.whyBad(), ByHand: d.ByHand, Started: d.Started, Ended: d.Ended, States: []Spent{}}
	if p := d.Publishing; p != nil {
		out.Changes, out.Warnings = p.Changes, slices.Clip(p.Warnings)
	}
	if d.Spoilt != "" {
		out.Warnings = append(out.Warnings, "the root is not what was unpacked: "+d.Spoilt)
	}
	end := d.Ended
	if end.IsZero() {
		end = now()
	}
	out.Took = seconds(end.Sub(d.Started))
	for _, stay := range d.stays() {
		if stay.Took == 0 && d.Ended.IsZero() {
			stay.Took = end.Sub(stay.At)
		}
		if stay.State != Idle {
			out.States = append(out.States, Spent{stay.State, seconds(stay.Took)})
		}
	}
	return out
}

// seconds is d to the millisecond.
func seconds(d time.Duration) float64 { return float64(d.Milliseconds()) / 1000 }
