package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"deploytools/atomic"
	"deploytools/layers/digest"
	"deploytools/layers/manifest"
)

// Decision says whether a collection keeps a root or cached layer, and why.
type Decision struct {
	Name  string `json:"name"`       // relative to the agent's directory
	Bytes int64  `json:"size_bytes"` // on disk; what roots share counts for each
	Kept  bool   `json:"kept"`
	Rule  string `json:"rule"`

	layer digest.Digest
	spare spare // if kept
	order int64 // among those of its kind: the least goes first
}

// spare orders what goes where there is too little room, the first first.
type spare int

const (
	never     spare = iota
	refetched       // a layer that only roots beyond the rollback target have
	earlier         // a root beyond the rollback target
	cached          // a layer of the live root or of the rollback target
)

// Retention is what a collection would do now.
type Retention struct {
	Things []Decision `json:"things"`
	Bytes  int64      `json:"kept_bytes"`
	Short  int64      `json:"short_bytes,omitzero"` // by which that misses Keep.MaxBytes or Keep.MinFree: the rest may not go
	Limit  string     `json:"limit,omitzero"`       // the one that is missed
}

// Explain says what a collection would remove now, and by which rule each thing
// stays or goes. It needs no Run, changes nothing, and is safe for concurrent use.
func (a *Agent) Explain(ctx context.Context) (*Retention, error) {
	a.mu.Lock()
	r := a.saved
	a.mu.Unlock()
	if r == nil {
		var err error
		if r, err = a.load(); err != nil {
			return nil, err
		}
	}
	if r == nil {
		return nil, fmt.Errorf("%s: no agent has been at work here", a.o.Dir)
	}
	return a.retention(ctx, r)
}

// needed is what a collection must not touch, with the rule that keeps it.
type needed struct {
	roots  map[string]string // by name in roots/
	layers map[digest.Digest]string
	spares map[digest.Digest]spare
}

func (n *needed) keep(r *Root, rule string, layers spare) {
	if r == nil || r.Configuration == nil {
		return
	}
	name := filepath.Base(r.Dir)
	if r.Dir != "" && n.roots[name] == "" {
		n.roots[name] = rule
	}
	for _, l := range r.Configuration.Layers {
		if n.layers[l.Hash] == "" {
			n.layers[l.Hash], n.spares[l.Hash] = "layer of a root that stays: "+rule, layers
		}
	}
}

// needed keeps what is in flight, what is live, the rollback target, what
// `current` names whoever moved it there, what is pinned, and as many committed
// roots as the options say, the target among them.
func (a *Agent) needed(r *Record, roots []*Root) needed {
	n := needed{map[string]string{}, map[digest.Digest]string{}, map[digest.Digest]spare{}}
	if d := r.Deployment; d != nil {
		n.keep(&d.New, "in flight", never)
		n.keep(d.From, "in flight", never)
		n.keep(d.Back, "in flight", never)
	}
	n.keep(r.Live, "live", cached)
	if link, err := a.link(); err == nil && link != "" {
		if name := filepath.Base(filepath.Clean(link)); n.roots[name] == "" {
			n.roots[name] = "named by `current`"
		}
	}
	if name := filepath.Base(r.Wanted); r.Wanted != "" && n.roots[name] == "" {
		n.roots[name] = "wanted live by a person"
	}
	left := a.o.Keep.Roots
	if r.Back != nil {
		n.keep(r.Back, "rollback target", cached)
		left--
	}
	for _, root := range slices.Backward(roots) {
		name := filepath.Base(root.Dir)
		if rule := a.pinned(name); rule != "" {
			n.keep(root, rule, refetched)
		}
		if left > 0 && !root.Committed.IsZero() && n.roots[name] == "" {
			n.keep(root, keptRule(a.o.Keep.Roots), refetched)
			left--
		}
	}
	return n
}

func keptRule(roots int) string {
	return fmt.Sprintf("among the %d roots committed last before the live one", roots)
}

// retention decides about every root and cached layer.
func (a *Agent) retention(ctx context.Context, r *Record) (*Retention, error) {
	roots, err := a.roots()
	if err != nil {
		return nil, err
	}
	n := a.needed(r, roots)
	committed := map[string]int{} // in which order; 0: not
	for i, root := range roots {
		if !root.Committed.IsZero() {
			committed[filepath.Base(root.Dir)] = i + 1
		}
	}
	t := &Retention{}
	if err := errors.Join(a.decideRoots(t, n, committed), a.decideLayers(t, n)); err != nil {
		return nil, err
	}
	if err := a.spareUsed(ctx, t); err != nil {
		return nil, err
	}
	if err := a.makeRoom(t); err != nil {
		return nil, err
	}
	for _, d := range t.Things {
		if d.Kept {
			t.Bytes += d.Bytes
		}
	}
	return t, nil
}

// decideRoots lets go what is neither needed nor foreign: a root of ours has a
// document beside it before it has its name.
func (a *Agent) decideRoots(t *Retention, n needed, committed map[string]int) error {
	entries, err := os.ReadDir(a.path("roots"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		id := e.Name()
		hidden, staged := atomic.Staged(id)
		d := Decision{Name: "roots/" + id, order: int64(committed[id])}
		switch {
		case staged && rootName.MatchString(hidden) && e.IsDir():
			d.Rule = "half made or half deleted"
		case !rootName.MatchString(id) || !e.IsDir():
			continue
		case n.roots[id] != "":
			d.Kept, d.Rule = true, n.roots[id]
			if d.Rule == keptRule(a.o.Keep.Roots) {
				d.spare = earlier
			}
			if pin := a.pinned(id); pin != "" && pin != d.Rule {
				d.Rule += ", and " + pin
			}
		case a.pinned(id) != "":
			d.Kept, d.Rule = true, a.pinned(id)
		case !a.ownRoot(id):
			d.Kept, d.Rule = true, "foreign: no document of it lies beside it"
		case committed[id] > 0:
			d.Rule = "committed before " + strings.TrimPrefix(keptRule(a.o.Keep.Roots), "among ")
		default:
			d.Rule = "never committed"
		}
		d.Bytes = a.rootBytes(id)
		t.Things = append(t.Things, d)
	}
	return nil
}

// ownRoot reports whether an agent made the root.
func (a *Agent) ownRoot(id string) bool {
	for _, suffix := range []string{".json", ".manifest"} {
		if _, err := os.Lstat(a.path("roots", id+suffix)); err == nil {
			return true
		}
	}
	return false
}

// rootBytes is what the root's files take, by its manifest; 0: it has none.
func (a *Agent) rootBytes(id string) (bytes int64) {
	f, err := os.Open(a.path("roots", id+".manifest"))
	if err != nil {
		return 0
	}
	defer f.Close()
	const block = 4 << 10
	for e, err := range manifest.Read(f) {
		if err != nil {
			break
		}
		bytes += (e.Size + block - 1) / block * block
	}
	return bytes
}

// decideLayers lets go of layers, and parts of them, that no kept root has and
// that are old: a configuration that was just withdrawn often comes back.
func (a *Agent) decideLayers(t *Retention, n needed) error {
	entries, err := os.ReadDir(a.path("cache"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		layer, known := cachedLayer(e.Name())
		info, err := e.Info()
		if !known || err != nil || !info.Mode().IsRegular() {
			continue
		}
		d := Decision{Name: "cache/" + e.Name(), Bytes: info.Sys().(*syscall.Stat_t).Blocks * 512, layer: layer, order: info.ModTime().UnixNano()}
		switch rule := n.layers[layer]; {
		case rule != "" && !layer.IsZero():
			d.Kept, d.Rule, d.spare = true, rule, n.spares[layer]
		case time.Since(info.ModTime()) < a.o.Keep.CacheAge:
			d.Kept, d.Rule, d.spare = true, fmt.Sprintf("younger than %v", a.o.Keep.CacheAge), refetched
		default:
			d.Rule = "layer of no root that stays"
		}
		t.Things = append(t.Things, d)
	}
	return nil
}

// makeRoom lets more go where Keep.MaxBytes or Keep.MinFree ask for it.
func (a *Agent) makeRoom(t *Retention) error {
	if !a.o.Keep.limited() {
		return nil
	}
	on, err := diskOf(a.o.Dir)
	if err != nil {
		return err
	}
	var kept, going int64
	var spares []*Decision
	for i := range t.Things {
		d := &t.Things[i]
		if !d.Kept {
			going += d.Bytes
			continue
		}
		kept += d.Bytes
		if d.spare != never {
			spares = append(spares, d)
		}
	}
	slices.SortStableFunc(spares, func(x, y *Decision) int {
		return cmp.Or(cmp.Compare(x.spare, y.spare), cmp.Compare(x.order, y.order))
	})
	short := a.o.Keep.MinFree.of(on.total) - on.free - going
	t.Limit = "-min-free"
	if a.o.Keep.MaxBytes > 0 && kept-a.o.Keep.MaxBytes > short {
		short, t.Limit = kept-a.o.Keep.MaxBytes, "-max-bytes"
	}
	for _, d := range spares {
		if short <= 0 {
			break
		}
		short -= d.Bytes
		d.Kept, d.Rule = false, "given up for "+t.Limit+"; else: "+d.Rule
	}
	if t.Short = max(0, short); short <= 0 {
		t.Limit = ""
	}
	return nil
}

// mayGo: it does, or it could to make room.
func (d *Decision) mayGo(k Keep) bool { return !d.Kept || k.limited() && d.spare != never }

// spareUsed keeps the roots that processes use, of those that may go. Where that
// cannot be told, it keeps all.
func (a *Agent) spareUsed(ctx context.Context, t *Retention) error {
	var ids []string
	for _, d := range t.Things {
		if id := filepath.Base(d.Name); d.mayGo(a.o.Keep) && rootName.MatchString(id) {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	used, err := a.users(ctx, a.path("roots"), ids)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	for i := range t.Things {
		d := &t.Things[i]
		id := filepath.Base(d.Name)
		switch {
		case !slices.Contains(ids, id):
		case err != nil:
			d.Kept, d.spare, d.Rule = true, never, "cannot tell whether a process uses it: "+line(err)
		case used[id] != "":
			d.Kept, d.spare, d.Rule = true, never, "in use by "+used[id]
		}
	}
	return nil
}
