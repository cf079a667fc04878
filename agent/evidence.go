package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"deploytools/atomic"
)

// Outcome is how a deployment ended, in one word or two.
type Outcome string

// The outcomes. Besides there are the verdicts that are no failure.
const (
	UnderWay   Outcome = "under way"
	Committed  Outcome = "committed"
	RolledBack Outcome = "rolled back"
	NotServing Outcome = "broken" // the rollback failed as well, at least for a time
)

// Outcome returns how the deployment ended.
func (d *Deployment) Outcome() Outcome {
	switch {
	case d.Broken != "":
		return NotServing
	case d.Ended.IsZero():
		return UnderWay
	case d.Verdict == "":
		return Committed
	case d.Verdict == Bad:
		return RolledBack
	}
	return Outcome(d.Verdict)
}

// EndedIn returns the state in which it was decided that the deployment is not
// committed: the last one before the way back. "": it is not decided, or committed.
func (d *Deployment) EndedIn() State {
	var last State
	for _, e := range d.Events {
		if e.State.returning() || e.State == Discarding {
			return last
		}
		last = e.State
	}
	return ""
}

// Evidence is the recorded proof of one deployment, as evidence.json holds it.
// It is derived from the record and from the files of the host's programs.
type Evidence struct {
	Format     int
	Host       string `json:",omitzero"`
	Outcome    Outcome
	States     []Stay     // oldest first
	Programs   []Program  // oldest first
	Deployment Deployment // as the record has it: configuration, manifest, findings, baseline, verdict
}

// Stay is the time in one state.
type Stay struct {
	State State
	At    time.Time
	Took  time.Duration // 0 in the last state of a deployment that is under way
}

// Program is one run of one of the host's programs, with all its attempts.
type Program struct {
	Label   string        // names its files: check, deploy, rollback, rollback-2, remove
	Path    string        `json:",omitzero"`
	Attempt int           // the last one, from 1
	Exit    int           // exit status; -1: there is none
	Failure string        `json:",omitzero"` // in words; empty: it did what it should
	Running bool          `json:",omitzero"`
	Started time.Time     `json:",omitzero"` // of the last attempt
	Took    time.Duration `json:",omitzero"`
	Output  int64         // bytes of LABEL.output, which is all attempts' in a row
}

// Phase is check, deploy, rollback or remove.
func (p *Program) Phase() string {
	phase, _, _ := strings.Cut(p.Label, "-")
	return phase
}

// evidenceFormat is the format of evidence.json. A newer one is not read.
const evidenceFormat = 1

const evidenceName = "evidence.json"

// deriveEvidence makes what evidence is still to be made.
func (a *Agent) deriveEvidence() error {
	var all []error
	for _, d := range a.rec.unproven() {
		if err := a.prove(d); err != nil {
			all = append(all, fmt.Errorf("deployment %s: %w", d.ID, err))
		}
	}
	return errors.Join(all...)
}

// maxUnproven bounds the record.
const maxUnproven = 4

// unproven returns the closed deployments that may lack evidence, oldest first.
func (r *Record) unproven() []*Deployment {
	all := slices.Clone(r.Unproven)
	if r.Last != nil {
		all = append(all, r.Last)
	}
	return all
}

// passOn is called before another deployment becomes the last one: those whose
// evidence could not be made stay on the record.
func (a *Agent) passOn() {
	left := slices.DeleteFunc(a.rec.unproven(), a.proven)
	a.rec.Unproven = left[max(0, len(left)-maxUnproven):]
}

// proven reports whether the deployment has its evidence. That is whole as
// soon as it is there.
func (a *Agent) proven(d *Deployment) bool {
	_, err := os.Lstat(filepath.Join(a.evidence(d), evidenceName))
	return err == nil
}

// prove makes the evidence of d durable: evidence.json comes last.
func (a *Agent) prove(d *Deployment) error {
	if a.proven(d) {
		return nil
	}
	if err := atomic.MkdirAll(a.evidence(d), 0o711); err != nil {
		return err
	}
	if err := keepOutputs(a.evidence(d)); err != nil {
		return err
	}
	a.crash("outputs kept")
	b, err := makeEvidence(a.evidence(d), d).encode()
	if err != nil {
		return err
	}
	return atomic.WriteFile(filepath.Join(a.evidence(d), evidenceName), b, 0o600)
}

func (e *Evidence) encode() ([]byte, error) {
	b, err := json.MarshalIndent(e, "", "\t")
	return append(b, '\n'), err
}

// makeEvidence looks at dir, the deployment's directory. What it cannot read
// there is part of the evidence.
func makeEvidence(dir string, d *Deployment) *Evidence {
	host, _ := os.Hostname()
	e := &Evidence{Format: evidenceFormat, Host: host, Outcome: d.Outcome(), States: d.stays(), Programs: programsIn(dir), Deployment: *d}
	e.Deployment.SetJournal = nil // proves nothing
	return e
}

// stays are the times in the states.
func (d *Deployment) stays() []Stay {
	stays := make([]Stay, len(d.Events))
	for i, e := range d.Events {
		stays[i] = Stay{State: e.State, At: e.At}
		switch {
		case i+1 < len(d.Events):
			stays[i].Took = d.Events[i+1].At.Sub(e.At)
		case !d.Ended.IsZero():
			stays[i].Took = d.Ended.Sub(e.At)
		}
	}
	return stays
}

// programsIn returns the runs that left files in a deployment's directory, by
// the time of their last attempt.
func programsIn(dir string) []Program {
	entries, _ := os.ReadDir(dir)
	var all []Program
	for _, e := range entries {
		if label, ok := strings.CutSuffix(e.Name(), ".output"); ok && e.Type().IsRegular() && label != "" && label[0] != '.' {
			all = append(all, program(hookCall{Dir: dir, Label: label}))
		}
	}
	slices.SortStableFunc(all, func(x, y Program) int { return x.Started.Compare(y.Started) })
	return all
}

// program tells what the files say of the call c.
func program(c hookCall) Program {
	p := Program{Label: c.Label, Exit: -1}
	if info, err := os.Lstat(c.file("output")); err == nil {
		p.Output = info.Size()
	}
	begun, err := c.lastAttempt()
	if err != nil {
		p.Failure = line(err)
		return p
	}
	p.Attempt, p.Started = begun.Attempt, begun.Started
	var s hookStatus
	if err := readDocument(c.file("status.json"), &s, &s.Format); err != nil {
		p.Failure = line(err)
		return p
	}
	if s.Format == 0 || s.Attempt < begun.Attempt {
		if p.Running = begun.running(); !p.Running {
			p.Failure = "its end was not seen"
		}
		return p
	}
	p.Path, p.Attempt, p.Exit, p.Started, p.Took = s.Path, s.Attempt, s.Exit, s.Started, s.Ended.Sub(s.Started)
	if err := s.Err(); err != nil {
		p.Failure = line(err)
	}
	return p
}

// running reports whether the attempt's supervisor is at work. Its lock is not
// tried: that would turn another supervisor away.
func (h *hookAttempt) running() bool {
	boot, err := bootID()
	return err == nil && h.Boot == boot && h.Supervisor > 0 && !errors.Is(unix.Kill(h.Supervisor, 0), unix.ESRCH)
}

// keepOutputs bounds what the deployment's programs have printed, and makes it
// durable.
func keepOutputs(dir string) error {
	var all []error
	for _, p := range programsIn(dir) {
		all = append(all, keepOutput(filepath.Join(dir, p.Label+".output")))
	}
	return errors.Join(all...)
}

// keepOutput makes evidence of an output file: of more than 1 MiB the beginning
// and the end are kept, raw. A program that still has the file open goes on
// writing to one that nobody sees.
func keepOutput(path string) error {
	f, err := openOutput(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := outputEnds(f)
	if err != nil {
		return err
	}
	if b == nil {
		return f.Sync()
	}
	return atomic.WriteFile(path, b, 0o600)
}
