package agent

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Why says why the host is, or is not, on the newest revision, and what to do.
type Why struct {
	Name   string    `json:"name"`
	Cause  Cause     `json:"cause"`
	Newest bool      `json:"newest"` // the host is on the newest revision that is known
	Says   []string  `json:"says"`
	Do     []string  `json:"do"` // the best first; empty: nothing has to be done
	Until  time.Time `json:"until,omitzero"`
}

// Cause is the reason in a word or two, for programs.
type Cause string

// UnitDir is where the units put the directories of agents, by configuration.
const UnitDir = "/var/lib/deploy-agent"

// The causes that are no BlockKind.
const (
	CauseNotRunning Cause = "no agent"
	CauseNotPolled  Cause = "not polled yet"
	CauseUnderWay   Cause = "under way"
	CauseLooking    Cause = "looking"
	CauseNothing    Cause = "no configuration"
	CauseNewest     Cause = "newest"
	CauseNext       Cause = "next poll"
)

// Why explains s. verb is how an operator calls a verb for this directory, such
// as "deploy-agent resume -dir DIR".
func (s *Status) Why(verb func(string) string) Why {
	w := Why{Name: s.Name, Do: []string{}, Newest: s.Newest != nil && s.Newest.Here}
	w.Says = append(w.Says, s.runs())
	cause, says, do := s.cause(verb)
	w.Cause = cause
	if says != "" {
		w.Says = append(w.Says, says)
	}
	w.Do = append(w.Do, do...)
	if len(s.Blocks) > 0 && Cause(s.Blocks[0].Kind) == cause {
		w.Until = s.Blocks[0].Until
	} else if cause == CauseLooking {
		w.Until = s.Looking.Until
	}
	told := slices.IndexFunc(s.Blocks, func(b Block) bool { return Cause(b.Kind) == cause })
	for i, b := range s.Blocks {
		if i != told {
			w.Says = append(w.Says, fmt.Sprintf("Besides, %s: %s.", b.Kind, b.Text))
			switch b.Kind {
			case BlockRegistryHold:
				w.Do = append(w.Do, s.letGo())
			case BlockFailed:
				w.Do = append(w.Do, verb("retry")+" tries again what has failed")
			}
		}
	}
	failed, again := s.unreturned(verb)
	w.Says, w.Do = append(w.Says, failed...), append(w.Do, again...)
	seen, help := s.Watched.says(verb)
	if s.Under != nil && s.State != Broken { // what it says to do is about the root after that
		help = nil
	}
	w.Says, w.Do = append(w.Says, seen...), append(w.Do, help...)
	seen, help = s.changedFiles(verb)
	w.Says, w.Do = append(w.Says, seen...), append(w.Do, help...)
	return w
}

// unreturned says that the way back of the last deployment failed as well, where no
// block does, and what to do: nobody knows whether the hook was done with it.
func (s *Status) unreturned(verb func(string) string) (says, do []string) {
	l := s.Last
	if l == nil || l.Outcome != NotServing || s.Under != nil || s.Live == nil || len(s.Blocks) > 0 && s.Blocks[0].Kind == BlockRemoving {
		return nil, nil
	}
	if !slices.ContainsFunc(s.Blocks, func(b Block) bool { return strings.HasSuffix(b.Text, l.Reason) }) {
		says = []string{fmt.Sprintf("The last deployment, of revision %d, failed: %s.", l.Revision, l.Reason)}
	}
	return says, []string{verb("repair") + " has the hook make live once more what was live before that"}
}

// runs says what is live.
func (s *Status) runs() string {
	switch {
	case s.Unable && s.Current != "":
		return "The host runs what `current` names, " + s.Current + "; the record cannot be read."
	case s.Live == nil:
		return "Nothing is deployed."
	}
	says := fmt.Sprintf("The host runs revision %d", s.Live.Revision)
	newer := s.Newest != nil && s.Newest.Revision > 0 && !s.Newest.Here
	switch {
	case s.Live.Gone:
		says = fmt.Sprintf("Revision %d is deployed, and its root %s is gone", s.Live.Revision, s.Live.Root)
	case s.Under != nil && s.Current != s.Live.Root && s.Current == s.Under.Root:
		says = fmt.Sprintf("Revision %d was deployed last, and `current` names %s, the root of revision %d", s.Live.Revision, s.Current, s.Under.Revision)
	case s.drifted():
		says = fmt.Sprintf("Revision %d is deployed, in %s, and `current` %s", s.Live.Revision, s.Live.Root, pointing(s.Current))
	case newer: // then it matters less how
	case s.Live.Verification == Environment:
		says += ", whose checks fail as they did before it"
	default:
		says += ", " + string(s.Live.Verification)
	}
	if newer {
		says += fmt.Sprintf("; the registry has revision %d", s.Newest.Revision)
	}
	return says + "."
}

// cause returns the first thing that explains it, in words, and what to do.
func (s *Status) cause(verb func(string) string) (cause Cause, says string, do []string) {
	if len(s.Blocks) > 0 && s.Blocks[0].Kind == BlockUnable {
		return Cause(BlockUnable), "The agent does nothing here: " + s.Blocks[0].Text + ".", []string{"run the newer deploy-agent again"}
	}
	if len(s.Blocks) > 0 && s.Blocks[0].Kind == BlockSettings {
		return Cause(BlockSettings), "The agent does nothing here: " + s.Blocks[0].Text + ".", []string{"mend that, then systemctl reload its unit"}
	}
	if len(s.Blocks) > 0 && s.Blocks[0].Kind == BlockRemoving {
		says, do = s.Blocks[0].explain(s, verb)
		return Cause(BlockRemoving), says, do
	}
	if !s.Running && s.State != Broken {
		says = "No agent runs here, so nobody asks the registry"
		if s.Under != nil {
			says += fmt.Sprintf("; the deployment of revision %d stopped in %s and goes on at the next start", s.Under.Revision, s.State)
		}
		start := "start the agent of this directory"
		if s.Dir == filepath.Join(UnitDir, s.Name) {
			start = "systemctl start deploy-agent@" + s.Name
		}
		do = []string{start}
		if len(s.Holds()) > 0 {
			do = append(do, verb("resume")+" ends the hold, which keeps new revisions away then")
		}
		return CauseNotRunning, says + ".", append(do, verb("run-once")+", with all of the agent's settings before run-once: -addr, -key, -script, -settings FILE and so on")
	}
	if s.Under != nil && s.State != Broken {
		if b := s.waiting(); b != nil {
			return Cause(b.Kind), fmt.Sprintf("The deployment of revision %d waits in %s and is tried again at %s: %s.", s.Under.Revision, s.State, stamp(b.Until), b.Text),
				[]string{"mend that; it goes on by itself", verb("run-once") + " tries at once", s.giveUp(verb) + " gives it up"}
		}
		says, do = s.underWay(verb)
		return CauseUnderWay, says, do
	}
	if s.Looking != nil && s.State != Broken {
		says, do = s.looks()
		return CauseLooking, says, do
	}
	if len(s.Blocks) > 0 {
		b := &s.Blocks[0]
		says, do = b.explain(s, verb)
		return Cause(b.Kind), says, do
	}
	switch {
	case s.Newest == nil:
		return CauseNotPolled, "The registry was not asked yet.", []string{verb("run-once")}
	case s.Newest.Here:
		return CauseNewest, "That is the newest revision.", nil
	case s.Newest.Revision == 0 && s.Newest.Digest == "":
		return CauseNothing, fmt.Sprintf("The registry has no configuration %q; the host stays as it is.", s.Name), []string{"deployctl addconf -name " + s.Name + " ..."}
	}
	return CauseNext, "The next poll takes it up.", []string{verb("run-once") + " does it now"}
}

// underWay says how far the deployment is, and how to take it back.
func (s *Status) underWay(verb func(string) string) (says string, do []string) {
	says = fmt.Sprintf("The deployment of revision %d is under way, in %s since %s", s.Under.Revision, s.State, stamp(s.Since))
	if m := s.Missing; m != nil {
		says += fmt.Sprintf("; until %s these checks are tried again: %s", stamp(m.Until), m.Checks)
	}
	if s.Live != nil && s.State.among(Fetching, Verifying) {
		do = []string{verb("rollback") + " gives it up"}
	}
	return says + ".", do
}

// looks says what the host looks for, and what it has not seen yet.
func (s *Status) looks() (says string, do []string) {
	l := s.Looking
	says = fmt.Sprintf("Revision %d has other checks and the same layers, so nothing is deployed: since %s what is live is looked at with these checks, until %s at most",
		l.Revision, stamp(l.Since), stamp(l.Until))
	if s.Missing == nil {
		return says + ".", nil
	}
	return says + ". These do not pass yet: " + s.Missing.Checks + ".", []string{"mend what they look at, or give other checks with deployctl changeconf; what fails then is told, and nothing goes back by itself"}
}

// waiting returns what a step waits for.
func (s *Status) waiting() *Block {
	for i, b := range s.Blocks {
		if b.Kind == BlockAway || b.Kind == BlockWaiting {
			return &s.Blocks[i]
		}
	}
	return nil
}

// Holds returns the reasons of the holds of this host, all of which Resume ends.
func (s *Status) Holds() (reasons []string) {
	for _, b := range s.Blocks {
		if b.Kind == BlockHold {
			reasons = append(reasons, b.Text)
		}
	}
	return reasons
}

// Free reports whether Resume would have nothing to do.
func (s *Status) Free() bool {
	return !slices.ContainsFunc(s.Blocks, func(b Block) bool { return b.Kind == BlockHold || b.Kind == BlockRemoving || b.Kind == BlockDrift })
}

// explain returns the block in words, and what to do about it.
func (b *Block) explain(s *Status, verb func(string) string) (string, []string) {
	switch b.Kind {
	case BlockRemoving:
		do := []string{verb("remove -remove-script PROGRAM") + " brings that to its end"}
		if s.Revocable {
			do = append(do, verb("resume")+" calls it off: nothing is removed yet")
		}
		return "No agent works here since " + stamp(b.Since) + ": " + b.Text + ".", do
	case BlockBroken:
		return "Neither the new nor the old root works: " + b.Text + ".", append(s.output(b, verb),
			"mend the host, or make a new revision at the registry", verb("retry")+" closes it", verb("rollback")+" -to ROOT makes another root live: "+verb("history")+" lists them")
	case BlockHold:
		until := "until somebody resumes"
		if !b.Until.IsZero() {
			until = "until " + stamp(b.Until)
		} else if b.Later {
			until = "until the registry has a later revision"
		}
		do := verb("resume") + " ends it"
		if len(s.Holds()) > 1 {
			do = verb("resume") + " ends both holds"
		}
		does := s.backInPlace(do, verb)
		if strings.HasSuffix(b.Text, unhooked) {
			does = append(does, verb("repair")+" deploys what is live once more, with the hook and the checks")
		}
		return fmt.Sprintf("This host is held since %s, %s: %s.", stamp(b.Since), until, b.Text), does
	case BlockRegistryHold:
		return "The registry holds the configuration: " + b.Text + ".", []string{s.letGo()}
	case BlockWindow:
		return "It waits for maintenance hours: " + b.Text + ".", []string{"wait until " + stamp(b.Until), verb("run-once") + " begins it now"}
	case BlockFailed:
		return "It failed here at " + stamp(b.Since) + " and is not tried again by itself: " + b.Text + ".", append(s.output(b, verb),
			"mend the cause and make a new revision", verb("retry")+" tries the same again", verb("history")+" lists what was tried")
	case BlockAway:
		return "The registry cannot be asked since " + stamp(b.Since) + ": " + b.Text + ". The host keeps what it runs.", []string{
			"mend that; it is tried again at " + stamp(b.Until), verb("run-once") + " asks now"}
	case BlockWaiting:
		return "It is tried again at " + stamp(b.Until) + ": " + b.Text + ".", []string{"mend that; it goes on by itself"}
	case BlockDrift:
		return "Somebody has moved the link: " + b.Text + ". The next poll sets a hold.", s.backInPlace(verb("resume")+" keeps it from that", verb)
	case BlockDisk:
		return "The disk is full: " + b.Text + ". Nothing new is deployed; a rollback by hand is still possible while the agent's reserve lasts.", []string{
			"make room there: " + verb("gc -explain") + " lists what the agent keeps", verb("rollback") + " where what is live fills it"}
	}
	return b.Text, nil
}

// backInPlace returns how a hold ends, and `current` names a root that is there.
func (s *Status) backInPlace(resume string, verb func(string) string) (do []string) {
	switch {
	case s.Live == nil && s.Current != "":
		return []string{"move `current` away, which is not the agent's: it goes on by itself then"}
	case s.Live != nil && s.Live.Gone: // the next poll would set the hold again
		do = []string{verb("repair") + " makes the live root anew"}
		if s.Back != nil && !s.Back.Gone {
			do = append(do, verb("rollback")+" makes that of the version before live")
		}
		return do
	case s.drifted() && s.Current == noLink:
		return []string{"move `current` away, which is no link", resume + ", and has `current` name " + s.Live.Root + " again"}
	case s.drifted():
		return []string{resume + ", and has `current` name " + s.Live.Root + " again", verb("repair") + " deploys that once more, with the hook and the checks"}
	}
	return []string{resume}
}

// pointing is what `current` does, for what link returns.
func pointing(link string) string {
	if link == noLink {
		return "is no link, but a directory or a file"
	}
	return "names " + cmp.Or(link, "nothing")
}

// drifted reports whether `current` does not name the live root.
func (s *Status) drifted() bool { return s.State == Idle && s.Live != nil && s.Current != s.Live.Root }

// letGo is how the registry's hold ends.
func (s *Status) letGo() string {
	return "deployctl resume -name " + s.Name + " ends the hold of the registry"
}

// output says where the program has said more that b is about, where that is one
// of the deployment under way or the last one.
func (s *Status) output(b *Block, verb func(string) string) []string {
	if !strings.Contains(b.Text, callFailure) || s.Under == nil && (s.Last == nil || s.Last.Reason == "" || !strings.HasSuffix(b.Text, s.Last.Reason)) {
		return nil
	}
	return []string{verb("log") + " shows what it has printed"}
}

// stamp is a time in words; a wait without an end is over.
func stamp(t time.Time) string {
	if t.IsZero() {
		return "once"
	}
	return t.UTC().Format(time.RFC3339)
}
