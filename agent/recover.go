package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"deploytools/atomic"
	"deploytools/registry/wire"
)

// recover makes a record where there is none: from the files beside the roots,
// from the original tool set's state file, or an empty one. The error wraps
// errNewer if a newer version was at work here.
func (a *Agent) recover(ctx context.Context) (*Record, error) {
	r := &Record{Name: a.o.Name, State: Idle, Entered: now()}
	roots, err := a.roots()
	if err != nil {
		return nil, err
	}
	if r.Seq, err = a.lastSeq(); err != nil {
		return nil, err
	}
	for _, root := range roots {
		r.Seq = max(r.Seq, root.Seq)
	}
	link, err := a.link()
	if err != nil {
		return nil, err
	}
	if len(roots) == 0 {
		if link == "" || strings.HasPrefix(link, upstreamRoots+"/") {
			return r, a.adopt(r, link)
		}
		r.Hold = &Hold{Reason: fmt.Sprintf("`current` names %q, which is no root of ours", link), Since: now(), Link: link}
		return r, nil
	}
	r.rebuild(roots, link)
	if r.Live != nil {
		r.Published = r.Live.Published
	}
	if d := r.Deployment; d != nil && d.Back != nil {
		back, _, err := a.best(ctx, d.Back, d.New.is, a.examine)
		if err != nil {
			return nil, err
		}
		r.Live, d.From, d.Back = back, back, back
	}
	a.log().Warn("record made anew", "state", r.State)
	return r, nil
}

// rebuild decides by `current` what was going on. The roots are sorted: the one
// committed last comes last, and those not committed come first.
func (r *Record) rebuild(roots []*Root, link string) {
	var named *Root
	var committed []*Root
	for _, root := range roots {
		if root.Dir == link {
			named = root
		}
		if !root.Committed.IsZero() && root.Dir != link {
			committed = append(committed, root)
		}
	}
	slices.Reverse(committed)
	var newest *Root
	if len(committed) > 0 {
		newest = committed[0]
	}
	switch {
	case named != nil && !named.Committed.IsZero():
		r.Live = named
		if i := slices.IndexFunc(committed, func(other *Root) bool { return !other.sameLayers(named) }); i >= 0 {
			r.Back = committed[i]
		}
	case named != nil:
		r.Seq++
		r.State, r.Live = Restoring, newest
		r.Deployment = &Deployment{
			ID: id(r.Seq, named.Configuration), Started: now(), New: *named, From: newest, Back: newest,
			Switched: true, Hooked: true, Verdict: Withdrawn, Reason: "the record was lost",
		}
	case link != "":
		r.Live = newest
		r.Hold = &Hold{Reason: fmt.Sprintf("`current` names %q, which is no root of ours", link), Since: now(), Link: link}
	}
}

// lastSeq returns the greatest number that a name in roots or deployments has.
func (a *Agent) lastSeq() (uint64, error) {
	var last uint64
	for _, dir := range []string{"roots", "deployments"} {
		entries, err := os.ReadDir(a.path(dir))
		if err != nil {
			return 0, err
		}
		for _, e := range entries {
			number, _, _ := strings.Cut(strings.TrimPrefix(e.Name(), "."), "-")
			if n, err := strconv.ParseUint(number, 10, 64); err == nil && len(number) < 20 {
				last = max(last, n)
			}
		}
	}
	return last, nil
}

// upstreamRoots is where the original tool set unpacks to.
const upstreamRoots = "unpacked"

// adopt takes over what the original tool set deployed, if that is complete:
// committed, but never verified. It runs no hook, since that tree serves. A
// crash before the record is written comes here again.
func (a *Agent) adopt(r *Record, link string) error {
	if a.o.StateFile == "" {
		return nil
	}
	b, err := os.ReadFile(a.o.StateFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	c, err := wire.DecodeConfiguration(b)
	if err == nil {
		err = a.ours(c)
	}
	if err != nil {
		a.log().Warn("state file not used", "error", err)
		return nil
	}
	root := &Root{Dir: filepath.Join(upstreamRoots, c.Hash.String()), Configuration: c, Spec: a.o.Verify,
		Verification: Unverified, Committed: now()}
	info, err := os.Lstat(a.path(root.Dir))
	if err != nil || !info.IsDir() {
		return nil
	}
	if _, err := os.Lstat(a.path(root.Dir + ".ok")); err != nil || link != "" && link != root.Dir {
		return nil
	}
	if err := a.writeRoot(root); err != nil {
		return err
	}
	if err := atomic.Symlink(root.Dir, a.path("current")); err != nil {
		return err
	}
	a.log().Info("root adopted", "root", root.Dir)
	r.Live = root
	return nil
}
