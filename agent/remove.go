package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"deploytools/atomic"
	"deploytools/registry/wire"
)

// ErrRemoving says that the configuration is being taken off the host: no agent
// runs there, and Remove has to be called again.
var ErrRemoving = errors.New("is being removed from this host")

// ErrGoing says that data which should stay has begun to go.
var ErrGoing = errors.New("removing it with its data has begun")

// ErrMounted says that something is mounted in what would be removed.
var ErrMounted = errors.New("something is mounted there")

// RemoveScriptError says that the remove script failed, or cannot be started.
// Nothing was removed.
type RemoveScriptError struct {
	Err error
	Ran bool // and the removal is on record: see [Agent.Resume]
}

func (e *RemoveScriptError) Error() string { return "remove script: " + e.Err.Error() }

func (e *RemoveScriptError) Unwrap() error { return e.Err }

// Removing is on record from before the first effect of Remove on.
type Removing struct {
	ID       string // of the remove script's evidence
	Since    time.Time
	Root     *Root  `json:",omitempty"` // that `current` named; nil: none
	KeepData bool   `json:",omitzero"`
	Failed   string `json:",omitzero"` // how the remove script did, the last time; its files stay until the next
	Left     bool   `json:",omitzero"` // the remove script has done its work; before that nothing is removed
}

// String returns in words that it has begun.
func (m *Removing) String() string {
	const begun = "the configuration is being taken off this host"
	if m.Failed != "" {
		return begun + "; remove script: " + m.Failed
	}
	return begun
}

// leaveLabel names the files of a removal's script.
const leaveLabel = "remove"

// removed lists what Remove takes away, but the record, in this order: files and links,
// and of directories what is ours in them. Whatever else is there is somebody else's,
// and stays.
var removed = []string{wayBack, "roots", "cache", "deployments", storeName, reserve, toldName, "journal.json.damaged", "control.sock"}

// dataOf lists what stays in a removal that keeps the data.
var dataOf = map[string]bool{"roots": true, "cache": true, "deployments": true, storeName: true}

// Remains is what a removal is about.
type Remains struct {
	Name, Dir string
	Root      string   // the root that `current` names; "": none
	Script    string   // that runs first; "": none
	Gone      []string // paths that are removed
	Stays     []string // published files that are not, and what others have put between what is
	Mounted   []string // in what is removed: Remove refuses
	StateFile string   // that is removed; "": none
	Again     bool     // it began before
	KeepData  bool     // roots, layers and evidence stay
}

// Remains tells what Remove would do, and changes nothing.
func (a *Agent) Remains(keepData bool) (Remains, error) {
	m := Remains{Name: a.o.Name, Dir: a.o.Dir}
	r, err := a.loadToRemove()
	if err != nil {
		return m, err
	}
	root, err := a.named(r)
	if err != nil {
		return m, err
	}
	if r.Removing != nil {
		m.Again, root = true, r.Removing.Root
		if keepData, err = r.Removing.keeps(keepData); err != nil {
			return m, fmt.Errorf("cannot keep the data of %s: %w", r.Name, err)
		}
	}
	m.KeepData = keepData
	if root != nil {
		m.Root = root.Dir
		if r.Removing == nil || !r.Removing.Left {
			m.Script = a.o.Hook.RemoveScript
		}
	}
	var foreign []string
	for _, name := range append([]string{"current"}, removed...) {
		if keepData && dataOf[name] {
			continue
		}
		gone, others, err := a.goes(name)
		if err != nil {
			return m, err
		}
		m.Gone, foreign = append(m.Gone, gone...), append(foreign, others...)
	}
	if m.Mounted, err = a.mounted(keepData); err != nil {
		return m, err
	}
	goes, stays := a.leavePublished(r)
	stays = append(foreign, stays...)
	if keepData {
		m.Stays = append(goes, stays...)
	} else {
		m.Gone, m.Stays = append(append(m.Gone, goes...), a.path("journal.json")), stays
	}
	if ours, err := a.stateIsOurs(); err != nil {
		return m, err
	} else if ours {
		m.StateFile = a.o.StateFile
	}
	return m, nil
}

// keeps reports whether the data stays, where keepData is asked for now. As long
// as nothing is removed that counts; then it is what the removal began with.
func (m *Removing) keeps(keepData bool) (bool, error) {
	if m.Left && keepData && !m.KeepData {
		return false, ErrGoing
	}
	return keepData || m.Left && m.KeepData, nil
}

// Remove takes the configuration off the host: the remove script runs on the root
// that `current` names, then `current` goes, and then all that the agent has
// made, with the files that it has published and nobody has changed; with keepData
// these, roots, layers and evidence stay, and an agent that starts
// again deploys anew. It needs the directory for itself, as Run does. After a
// crash, or when the script has failed, it can be called again, and goes on; until
// then Run refuses with ErrRemoving. As long as nothing is removed, keepData may
// change from call to call, and Resume calls it off; then the error wraps
// ErrGoing where what should stay may be gone. Where something is mounted in what would
// be removed nothing is done; the error wraps ErrMounted. An agent is used for one Run or one
// Remove.
func (a *Agent) Remove(ctx context.Context, keepData bool) error {
	if _, err := a.loadToRemove(); err != nil { // before a lock file is made anywhere
		return err
	}
	release, err := a.lock(ctx)
	if err != nil {
		return err
	}
	defer release()
	if a.rec, err = a.loadToRemove(); err != nil {
		return err
	}
	if err := a.unmounted(keepData); err != nil {
		return err
	}
	if err := a.announceRemoval(ctx, keepData); err != nil {
		return err
	}
	a.crash("removal announced")
	if err := a.leave(ctx); err != nil {
		return err
	}
	if err := atomic.Remove(a.path("current")); err != nil {
		return err
	}
	a.crash("removal unlinked")
	if err := a.withdraw(ctx, a.rec.Removing.KeepData); err != nil {
		return err
	}
	return a.clear()
}

// loadToRemove reads the record that a removal begins from.
func (a *Agent) loadToRemove() (*Record, error) {
	r, err := a.load()
	switch {
	case err != nil:
		return nil, err
	case r == nil:
		return nil, fmt.Errorf("%s: %w", a.o.Dir, ErrNothing)
	case r.Name != a.o.Name:
		return nil, fmt.Errorf("%s %w %q, not %q", a.o.Dir, ErrForeign, r.Name, a.o.Name)
	case r.State != Idle && r.State != Broken && !r.State.preparing():
		return nil, fmt.Errorf("cannot remove %s: %w, in %s", r.Name, ErrUnderWay, r.State)
	}
	return r, nil
}

// named returns the root that `current` names, or nil. What serves where a
// deployment broke is what the link says, whatever was meant to.
func (a *Agent) named(r *Record) (*Root, error) {
	link, err := a.link()
	if err != nil || link == "" {
		return nil, err
	}
	candidates := []*Root{r.Live, r.Back}
	if d := r.Deployment; d != nil {
		candidates = append(candidates, &d.New, d.From, d.Back)
	}
	for _, root := range candidates {
		if root != nil && root.Dir == link {
			return root, nil
		}
	}
	if root, err := a.committed(link); root != nil || err != nil {
		return root, err
	}
	return r.Live, nil // moved by hand to what is no root of ours
}

// announceRemoval puts on record what is going to happen.
func (a *Agent) announceRemoval(ctx context.Context, keepData bool) error {
	r := a.rec
	if d := r.Deployment; d != nil { // a program may run yet
		if err := a.endCheckScript(ctx, d); err != nil {
			return err
		}
		if err := a.hooks.quiet(ctx, a.evidence(d)); err != nil {
			return err
		}
	}
	m := Removing{Since: now()}
	if r.Removing != nil {
		m = *r.Removing
	} else if err := a.identify(&m); err != nil {
		return err
	}
	keep, err := m.keeps(keepData)
	if err != nil {
		return fmt.Errorf("cannot keep the data of %s: %w", r.Name, err)
	}
	m.KeepData = keep
	if script := a.o.Hook.RemoveScript; m.Root != nil && !m.Left && script != "" {
		if err := a.hooks.startable(script); err != nil {
			return &RemoveScriptError{Err: err, Ran: r.Removing != nil}
		}
	}
	r.Removing = &m
	return a.save()
}

// identify says what is removed, and where the evidence of its script goes.
func (a *Agent) identify(m *Removing) error {
	root, err := a.named(a.rec)
	if err != nil || root == nil {
		return err
	}
	a.rec.Seq++
	m.Root, m.ID = root, id(a.rec.Seq, root.Configuration)
	return nil
}

// leave runs the remove script, once it has succeeded never again.
func (a *Agent) leave(ctx context.Context) error {
	if a.rec.Removing.Left {
		return nil
	}
	if a.rec.Removing.Root != nil && a.o.Hook.RemoveScript != "" {
		if err := a.runRemoveScript(ctx); err != nil {
			return err
		}
	}
	a.crash("removal left")
	m := *a.rec.Removing
	m.Left = true
	r := a.rec // until here all of it can be called off
	r.Removing, r.State, r.Deployment, r.Entered, r.Tries = &m, Idle, nil, now(), 0
	return a.save()
}

// runRemoveScript takes over the run that is under way or was not seen to end;
// one that was seen to fail is followed by another, and its files stay till then.
func (a *Agent) runRemoveScript(ctx context.Context) error {
	d := a.rec.Removing.deployment()
	if a.rec.Removing.Failed != "" {
		if err := a.hooks.forget(a.evidence(d), leaveLabel); err != nil {
			return err
		}
		a.crash("removal forgot")
		if err := a.scriptFailed(""); err != nil {
			return err
		}
	}
	result, err := a.runHook(ctx, d, "leave", leaveLabel)
	if err != nil {
		return err
	}
	if err := result.Err(); err != nil {
		a.crash("removal failed")
		return &RemoveScriptError{Err: errors.Join(err, a.scriptFailed(line(err))), Ran: true}
	}
	return nil
}

// scriptFailed puts on record how the remove script did; "": it did not.
func (a *Agent) scriptFailed(how string) error {
	m := *a.rec.Removing
	m.Failed = how
	a.rec.Removing = &m
	return a.save()
}

// deployment is what the remove script is told of, and the evidence says.
func (m *Removing) deployment() *Deployment {
	return &Deployment{ID: m.ID, Started: m.Since, New: *m.Root, Reason: "the configuration leaves the host"}
}

// clear removes what is ours, the record last: as long as it is there, what is
// left is known.
func (a *Agent) clear() error {
	if err := atomic.Sweep(a.o.Dir); err != nil { // files of writes that were cut off
		return err
	}
	keep := a.rec.Removing.KeepData
	p := &pace{ctx: context.Background()}
	for _, name := range removed {
		if keep && dataOf[name] {
			continue
		}
		if err := a.clearOne(p, name); err != nil {
			return err
		}
		a.crash("removal of " + name)
	}
	if ours, err := a.stateIsOurs(); err != nil {
		return err
	} else if ours {
		if err := atomic.Remove(a.o.StateFile); err != nil {
			return err
		}
	}
	a.crash("removal of the state file")
	if !keep {
		return atomic.Remove(a.path("journal.json"))
	}
	a.rec.Live, a.rec.Back, a.rec.Hold, a.rec.Removing, a.rec.Wanted = nil, nil, nil, nil, ""
	return a.save()
}

// stateIsOurs reports whether the state file is there and shows our
// configuration.
func (a *Agent) stateIsOurs() (bool, error) {
	if a.o.StateFile == "" {
		return false, nil
	}
	b, err := os.ReadFile(a.o.StateFile)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	c, err := wire.DecodeConfiguration(b)
	return err == nil && c.Name == a.o.Name, nil
}
