package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"deploytools/layers/digest"
	"deploytools/registry/wire"
	"deploytools/verify"
	"deploytools/verify/spec"
)

// Record is the machine's memory, as journal.json holds it. What it points to
// is never changed, only replaced.
type Record struct {
	Name    string // of the configuration
	State   State
	Entered time.Time
	Boot    string // boot id of the kernel when the record was written
	Tries   int    // begun in this state and not known to have returned
	Seq     uint64 // the last number given to a deployment or root

	Live *Root `json:",omitempty"` // the committed root that serves
	Back *Root `json:",omitempty"` // has other layers than Live, and was live before it: where a person's rollback leads

	Deployment *Deployment   `json:",omitempty"` // under way; none in Idle
	Last       *Deployment   `json:",omitempty"` // closed last
	Unproven   []*Deployment `json:",omitempty"` // closed before Last, perhaps without their evidence
	Marks      []Mark        `json:",omitempty"` // newest last
	Refused    *Mark         `json:",omitempty"` // what no deployment was begun for, since its checks cannot be: see refuseRevision
	Hold       *Hold         `json:",omitempty"`
	Watch      Watch         `json:",omitzero"`  // of Live; see Record.Seen
	Wanted     string        `json:",omitzero"`  // root that a person wants live: Root.Dir
	Removing   *Removing     `json:",omitempty"` // it is being taken off the host
	Published  []Published   `json:",omitempty"` // what lies at fixed paths, as of the last commit
}

// Root is an unpacked configuration. A file of it lies beside each root, from
// which a lost record is made anew.
type Root struct {
	Dir           string // relative to the agent's directory
	Configuration *wire.Configuration
	Spec          spec.Spec     // what it is checked with
	From          []spec.Source `json:",omitempty"` // where each of these checks comes from; nil: all from the host
	Verification  Verification  `json:",omitzero"`  // once committed
	Committed     time.Time     `json:",omitzero"`  // zero: not committed
	By            string        `json:",omitzero"`  // the deployment that committed it last
	Seq           uint64        `json:",omitzero"`  // Record.Seq at the commit: orders roots, which clocks cannot

	Published []Published `json:",omitempty"` // what lies at fixed paths while it is live, as of the last time that it was to be
	Set       string      `json:",omitzero"`  // by which that was put there

	Manifest digest.Digest `json:",omitzero"` // of the manifest's text; zero: there may be none
	Filled   time.Time     `json:",omitzero"` // when the tree was, by the file system's time: see How
}

// Verification says how sure it is that a committed root serves.
type Verification string

// The verifications. Only Verified is a success.
const (
	Verified    Verification = "verified"
	Unverified  Verification = "unverified"  // there are no checks, or a person moved `current` to it
	Environment Verification = "environment" // fails as its predecessor did: unverified
)

// Verdict says why a deployment was not committed.
type Verdict string

// The verdicts. Only Bad is marked.
const (
	Bad        Verdict = "bad"
	Superseded Verdict = "superseded" // another configuration came before the switch
	Withdrawn  Verdict = "withdrawn"  // another configuration came after it
	DryRun     Verdict = "dry run"
)

// Deployment is one attempt to make a configuration live.
type Deployment struct {
	ID      string
	Started time.Time
	Ended   time.Time `json:",omitzero"`
	New     Root      // Dir is set once it is unpacked
	From    *Root     `json:",omitempty"` // served before; nil on a first deployment
	Back    *Root     `json:",omitempty"` // to return to: From, or the last verified root, or the last that nobody has modified
	Doubt   string    `json:",omitzero"`  // how Back differs from what was unpacked
	Link    string    // what `current` said at the start; empty: it was not there
	ByHand  bool      `json:",omitzero"` // a person's rollback: New is a root that was committed before
	Spoilt  string    `json:",omitzero"` // and how that differs from what was unpacked
	Dry     bool      `json:",omitzero"` // ends before the switch
	Repair  bool      `json:",omitzero"` // what was live, once more: see Agent.Repair

	Anytime bool `json:",omitzero"` // a person asked for it, or it leads back: no window holds it up

	Switched     bool          `json:",omitzero"` // `current` may have been moved
	SwitchBoot   string        `json:",omitzero"` // and in which boot
	SwitchUptime time.Duration `json:",omitzero"` // and when in it: the wall clock may be set
	Hooked       bool          `json:",omitzero"` // the hook may have been run

	Baseline    *verify.Report `json:",omitempty"` // New's checks on From
	OldBaseline *verify.Report `json:",omitempty"` // From's own checks on From, where they differ
	Checks      *verify.Report `json:",omitempty"`
	Soak        *verify.Report `json:",omitempty"`
	Restored    *verify.Report `json:",omitempty"` // Back's checks on Back, after the rollback

	Publishing *Publishing     `json:",omitempty"` // what it does at fixed paths; nil: nothing
	SetJournal json.RawMessage `json:",omitempty"` // of the set New.Set, until it is closed: the store may be lost

	Verdict Verdict `json:",omitzero"` // empty: committed, or not decided
	Reason  string  `json:",omitzero"` // of the verdict
	Broken  string  `json:",omitzero"` // why the rollback failed as well
	Events  []Event // states entered, oldest first
}

// Event is a state that a deployment entered.
type Event struct {
	State State
	At    time.Time
}

// Mark keeps what definitely failed from being tried again by itself.
type Mark struct {
	Digest   digest.Digest
	Revision uint64 // and those before it
	At       time.Time
	Reason   string
}

// Hold keeps new deployments from starting.
type Hold struct {
	Reason   string
	Since    time.Time
	Link     string        `json:",omitzero"` // what `current` was moved to by hand, or noCurrent
	Standing bool          `json:",omitzero"` // until a person resumes, or Until
	Revision uint64        `json:",omitzero"` // else until the registry has a later one
	Digest   digest.Digest `json:",omitzero"` // or, if it counts none, another configuration

	Until  time.Time     `json:",omitzero"` // of one that stands: it ends by itself
	Uptime time.Duration `json:",omitzero"` // of the host, at which it ends; counts instead of Until as long as Boot runs
	Boot   string        `json:",omitzero"`
	Rolled bool          `json:",omitzero"` // set by a rollback by hand, which goes on holding when Until has come
}

// clone returns a copy whose own fields, and those of its deployment, can be
// set without changing r.
func (r *Record) clone() *Record {
	c := *r
	c.Marks = slices.Clone(r.Marks)
	if r.Deployment != nil {
		d := *r.Deployment
		d.Events = slices.Clone(d.Events)
		c.Deployment = &d
	}
	return &c
}

// maxMarks bounds the record. The oldest go first.
const maxMarks = 100

// mark notes that the configuration failed definitely. A mark never goes down in
// revision: what a person rolls back to may have the content of a later one that
// failed, and that it fails as well is no word for the later one.
func (r *Record) mark(c *wire.Configuration, reason string) {
	revision := c.Revision
	for _, m := range r.Marks {
		if m.Digest == c.Digest {
			revision = max(revision, m.Revision)
		}
	}
	r.unmark(c.Digest)
	r.Marks = append(r.Marks, Mark{c.Digest, revision, now(), reason})
	r.Marks = r.Marks[max(0, len(r.Marks)-maxMarks):]
}

// remark gives the mark of the configuration, if it has one, another reason.
func (r *Record) remark(d digest.Digest, reason string) {
	for i := range r.Marks {
		if r.Marks[i].Digest == d {
			r.Marks[i].Reason = reason
		}
	}
}

func (r *Record) unmark(d digest.Digest) {
	r.Marks = slices.DeleteFunc(r.Marks, func(m Mark) bool { return m.Digest == d })
}

// failedHere reports whether any revision of it is marked.
func (r *Record) failedHere(d digest.Digest) bool {
	return slices.ContainsFunc(r.Marks, func(m Mark) bool { return m.Digest == d })
}

// marked returns the mark of what the registry has, if that failed here. A later
// revision of the same configuration is a person asking for one more try.
func (r *Record) marked(st wire.PollState) *Mark {
	i := slices.IndexFunc(r.Marks, func(m Mark) bool { return m.Digest == st.Digest && st.Revision <= m.Revision })
	if i < 0 {
		return nil
	}
	return &r.Marks[i]
}

// format is the number of both documents below. Those with a smaller one are
// read, and have this one when they are next written; one with a greater number is
// neither read nor replaced. It grows when an older agent would do harm by passing
// over what it does not know.
//
//	1   the first
//	2   a hold that ends, or that a rollback has set; Removing, Wanted, Repair, Doubt
const format = 2

var (
	errNewer   = errors.New("written by a newer version")
	errDamaged = errors.New("damaged")
)

// Damaged reports whether err is about a record or document that does not have the bytes
// that an agent wrote. One that starts makes a record anew.
func Damaged(err error) bool { return errors.Is(err, errDamaged) }

// document is how a Record or a Root is stored: with a digest over the bytes
// between the braces, so that a flipped bit is seen.
type document struct {
	Format int
	Digest digest.Digest
	Body   json.RawMessage
}

func encode(v any) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(document{format, digest.Of(body), body})
	return append(b, '\n'), err
}

// decode reads what encode wrote. The error wraps errNewer or errDamaged.
func decode(b []byte, v any) error { return decodeUpTo(format, b, v) }

func decodeUpTo(known int, b []byte, v any) error {
	var number struct{ Format int }
	if err := json.Unmarshal(b, &number); err == nil && number.Format > known {
		return fmt.Errorf("format %d, known is %d: %w", number.Format, known, errNewer)
	}
	var d document
	if err := json.Unmarshal(b, &d); err != nil {
		return fmt.Errorf("%w: %w", errDamaged, err)
	}
	if d.Format < 1 || digest.Of(d.Body) != d.Digest {
		return fmt.Errorf("%w: its digest does not match", errDamaged)
	}
	if err := json.Unmarshal(d.Body, v); err != nil {
		return fmt.Errorf("%w: %w", errDamaged, err)
	}
	return nil
}

// now is the wall clock: a monotonic reading means nothing in a document.
func now() time.Time { return time.Now().Round(0).UTC() }
