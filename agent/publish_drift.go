package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"deploytools/atomic"
	"deploytools/layers/digest"
)

// PublishedFile is a file at a fixed path, and how it fares there.
type PublishedFile struct {
	Path    string   `json:"path"`
	From    string   `json:"from"`              // the file in the root
	Differs string   `json:"differs,omitempty"` // how it is not what was published
	Kept    []string `json:"kept,omitempty"`    // what somebody else had written there, and a deployment has replaced; newest first
}

// publishedIn returns the files that the agent of a directory has published, by
// path, as they are now. It changes nothing.
func publishedIn(ctx context.Context, dir string, r *Record) ([]PublishedFile, error) {
	if len(r.Published) == 0 {
		return nil, nil
	}
	var all []PublishedFile
	for _, p := range r.Published {
		all = append(all, PublishedFile{Path: p.To, From: p.From})
	}
	if r.State.among(Switching, Committing) || r.State.returning() {
		return all, nil // they are about to be others
	}
	if _, err := os.Lstat(filepath.Join(dir, storeName)); errors.Is(err, fs.ErrNotExist) {
		return all, fmt.Errorf("nothing is known of the files that were published: %w", err)
	}
	s, err := atomic.OpenStore(filepath.Join(dir, storeName))
	if err != nil {
		return all, err
	}
	drift, err := s.Drift(ctx)
	if err != nil {
		return all, err
	}
	there, err := s.Published()
	for i := range all {
		var what []string
		for _, d := range drift {
			if d.Path == all[i].Path {
				what = append(what, d.What)
			}
		}
		known := false
		for _, p := range there {
			if p.Path == all[i].Path {
				all[i].Kept, known = strange(p), p.Digest != ""
			}
		}
		if !known { // the store was removed, and is another one by now
			what = append(what, r.Published[i].changed()...)
		}
		all[i].Differs = strings.Join(what, ", ")
	}
	return all, err
}

// strange lists what somebody else had written to a published file.
func strange(p atomic.Published) []string {
	var all []string
	for _, k := range p.Kept {
		if k.Drift {
			all = append(all, k.File)
		}
	}
	return all
}

// watchPublished says which published files somebody has changed. It does not
// put them back: a person may have had to. Nothing is read as long as nothing
// was touched.
func (a *Agent) watchPublished(ctx context.Context) {
	stamp := ""
	for _, p := range a.rec.Published {
		var st unix.Stat_t
		err := unix.Lstat(p.To, &st)
		stamp += fmt.Sprintln(p.To, st.Ino, st.Size, st.Mode, st.Uid, st.Gid, st.Mtim, st.Ctim, err)
	}
	if stamp == a.said["published"] {
		return
	}
	a.said["published"] = stamp
	all, err := publishedIn(ctx, a.o.Dir, a.rec)
	if err != nil {
		a.log().Warn("published files not compared", "error", err)
	}
	for _, p := range all {
		if p.Differs != "" {
			a.log().Warn("published file changed by somebody else", "error", p.Path+": "+p.Differs)
		}
	}
}

// intact is an error if what lies at the path is not, byte for byte, what was
// published; it wraps fs.ErrNotExist if nothing does.
func (p *Published) intact() error {
	f, err := os.OpenFile(p.To, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ELOOP) {
		return fmt.Errorf("%s: is a symbolic link", p.To)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.Copy(io.Discard, digest.NewReader(f, p.Digest)); err != nil {
		return fmt.Errorf("%s: %w", p.To, err)
	}
	return nil
}

// changed says as Drift does how the bytes differ.
func (p *Published) changed() []string {
	switch err := p.intact(); {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return []string{"missing"}
	}
	return []string{"content"}
}

// stillPublished is an error if a file is no longer what the deployment has
// published: a hook, or a person, has changed it.
func stillPublished(files []Published) error {
	for _, p := range files {
		if err := p.intact(); err != nil {
			return bad(fmt.Errorf("a published file was changed after the switch: %w", err))
		}
	}
	return nil
}

// leavePublished sorts the published files by what a removal does to them: what
// is as it was published goes, and what somebody else has changed is theirs by now.
func (a *Agent) leavePublished(r *Record) (goes, stays []string) {
	for _, p := range r.Published {
		switch err := p.intact(); {
		case err == nil:
			goes = append(goes, p.To)
		case !errors.Is(err, fs.ErrNotExist):
			stays = append(stays, p.To)
		}
	}
	return goes, stays
}

// withdraw removes what is published, all of it or nothing, as a removal does.
// It can be called again.
func (a *Agent) withdraw(ctx context.Context, keepData bool) error {
	if err := a.settle(ctx); err != nil || keepData {
		return err
	}
	goes, _ := a.leavePublished(a.rec)
	var targets []atomic.Target
	for _, path := range goes {
		targets = append(targets, atomic.Target{Path: path, Remove: true})
	}
	if len(targets) == 0 {
		return nil
	}
	set, err := a.prepareSet(ctx, "remove", targets)
	if err != nil {
		return err
	}
	defer set.Close()
	a.crash("removal prepared")
	if err := set.Commit(ctx); err != nil {
		return err
	}
	a.crash("removal of published files")
	return set.Finish(ctx)
}

// keptAside notes where the versions are that somebody else had written to the
// paths of the deployment, once they are replaced.
func (a *Agent) keptAside(d *Deployment) {
	if d.Publishing == nil {
		return
	}
	s, err := a.store()
	if err != nil {
		return
	}
	all, _ := s.Published() // what cannot be read is kept all the same
	for _, f := range all {
		kept := strange(f)
		if len(kept) == 0 || f.ID != d.New.Set || !slices.ContainsFunc(d.Publishing.Changes, func(c Change) bool { return c.Path == f.Path }) {
			continue
		}
		a.warnPublishing(d, "published over a change by somebody else", fmt.Sprintf("%s: what somebody else had written there is kept in %s", f.Path, kept[0]))
	}
}

// warnPublishing says something of what a deployment publishes once, in the log and
// in its evidence.
func (a *Agent) warnPublishing(d *Deployment, message, text string) {
	if d.Publishing == nil || slices.Contains(d.Publishing.Warnings, text) {
		return
	}
	a.log().Warn(message, "error", text)
	p := *d.Publishing
	p.Warnings = append(slices.Clone(p.Warnings), text)
	d.Publishing = &p
}

// changedFiles says which published files somebody has changed, and what to do.
func (s *Status) changedFiles(verb func(string) string) (says, do []string) {
	for _, p := range s.Files {
		if p.Differs != "" {
			says = append(says, fmt.Sprintf("Besides, somebody else has changed %s, which is published here: %s.", p.Path, p.Differs))
		}
	}
	if len(says) > 0 {
		do = []string{"leave it, or " + verb("repair") + " puts back what was published, and keeps the other version"}
	}
	return says, do
}
