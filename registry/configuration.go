package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"deploytools/registry/wire"
	"deploytools/verify/spec"
)

// Revision is the record of one state of a configuration.
type Revision struct {
	wire.Configuration
	Deleted bool   `json:",omitempty"` // this revision took the configuration away
	By      string // who made it
	What    string // the change in words, such as "code v01 -> v02"
	Note    string `json:",omitempty"` // why
}

// Change says what a command did to a configuration.
type Change struct {
	Name     string
	Old, New *Revision  // Old is nil for a new configuration; New is Old where nothing changed
	What     string     // in words
	Hold     *wire.Hold // that keeps agents from it; nil: none
}

// Changed reports whether there is a new revision.
func (c Change) Changed() bool { return c.Old != c.New }

const (
	seeConfigurations = "see 'configurations'"
	seeComponents     = "see 'components'"
)

func noConfiguration(name string) *Error {
	return fail(ErrNotFound, "configuration %q not found", name).hint(seeConfigurations)
}

// configOf returns the newest revision of name that is not deleted.
func configOf(tx Tx, name string) (*Revision, error) {
	rev, ok, err := get[Revision](tx, keyConfig(name))
	if err != nil {
		return nil, err
	}
	if !ok || rev.Deleted {
		return nil, noConfiguration(name)
	}
	return &rev, nil
}

// Configuration returns the newest revision of name.
func (r *Registry) Configuration(ctx context.Context, name string) (*Revision, error) {
	var out *Revision
	err := r.o.Meta.View(ctx, func(tx Tx) (err error) {
		if out, err = configOf(tx, name); err != nil {
			return err
		}
		out.Hold, err = r.wireHold(tx, name)
		return err
	})
	return out, err
}

// Configurations returns the newest revision of every configuration, by name.
func (r *Registry) Configurations(ctx context.Context) ([]Revision, error) {
	var out []Revision
	err := r.o.Meta.View(ctx, func(tx Tx) error {
		out = nil
		return eachConfig(tx, func(rev Revision) (err error) {
			rev.Hold, err = r.wireHold(tx, rev.Name)
			out = append(out, rev)
			return err
		})
	})
	return out, err
}

func eachConfig(tx Tx, fn func(Revision) error) error {
	for key, b := range tx.Scan(prefixConfig) {
		rev, err := decode[Revision](key, b)
		if err != nil {
			return err
		}
		if rev.Deleted {
			continue
		}
		if err := fn(rev); err != nil {
			return err
		}
	}
	return nil
}

// userOf returns the name of a configuration that has a layer which match
// takes, or "".
func userOf(tx Tx, match func(wire.Layer) bool) (name string, err error) {
	err = eachConfig(tx, func(rev Revision) error {
		if name == "" && slices.ContainsFunc(rev.Layers, match) {
			name = rev.Name
		}
		return nil
	})
	return name, err
}

// content is what a revision is about.
type content struct {
	layers []wire.Layer
	verify *spec.Spec // never changed, only replaced; nil: no checks travel
}

// content returns that of the newest revision; of none it is empty.
func (r *Revision) content() content {
	if r == nil {
		return content{}
	}
	return content{r.Layers, r.Verify}
}

// change makes a new revision of name, which is one of the caller's. next is
// given the newest revision, nil when there is none, and returns what the next
// one is about and the change in words.
func (r *Registry) change(ctx context.Context, a Act, name string, next func(tx Tx, old *Revision) (content, string, error)) (Change, error) {
	if err := a.Caller.CheckScope(name); err != nil {
		return Change{}, err
	}
	var out Change
	what, err := r.act(ctx, a, func(tx Tx) (done, error) {
		out = Change{Name: name}
		last, ok, err := get[Revision](tx, keyConfig(name))
		if err == nil {
			err = a.expects(name, last.Revision)
		}
		if err == nil {
			out.Hold, err = r.wireHold(tx, name)
		}
		if err != nil {
			return done{}, err
		}
		if ok && !last.Deleted {
			out.Old = &last
		}
		is, what, err := next(tx, out.Old)
		if err != nil {
			return done{}, err
		}
		rev := Revision{Configuration: wire.Configuration{Name: name, Mtime: r.now(), Layers: is.layers, Verify: is.verify, Revision: last.Revision + 1},
			By: a.Caller.String(), What: what, Note: a.Note}
		rev.Seal()
		if out.Old != nil && out.Old.Digest == rev.Digest {
			out.New = out.Old
			had := "these layers"
			if rev.Verify != nil {
				had = "these layers and checks"
			}
			return done{name: name, what: fmt.Sprintf("revision %d has %s already", last.Revision, had), nothing: true}, nil
		}
		if err := rev.Check(); err != nil {
			return done{}, err
		}
		out.New = &rev
		return done{name: name, what: fmt.Sprintf("revision %d: %s", rev.Revision, what)}, putRevision(tx, rev)
	})
	out.What = what
	return out, err
}

// expects fails if the configuration is not at the revision that a wants.
func (a Act) expects(name string, revision uint64) error {
	if a.Expect == 0 || a.Expect == revision {
		return nil
	}
	return fail(ErrConflict, "configuration %q is at revision %d, not at %d", name, revision, a.Expect).hint("history -name %s shows what changed meanwhile", name)
}

func putRevision(tx Tx, rev Revision) error {
	return errors.Join(put(tx, keyConfig(rev.Name), rev), put(tx, keyRevision(rev.Name, rev.Revision), rev))
}

// AddConfiguration makes the configuration name of these layers, in this
// order. One of this name that exists is only replaced if replace says so; it
// keeps its checks where checks says nothing.
func (r *Registry) AddConfiguration(ctx context.Context, a Act, name string, refs []LayerRef, checks Checks, replace bool) (Change, error) {
	if err := checkConfigName(name); err != nil {
		return Change{}, err
	}
	if len(refs) == 0 {
		return Change{}, fail(ErrUsage, "configuration should have at least one layer")
	}
	for i, l := range refs {
		if slices.ContainsFunc(refs[:i], func(o LayerRef) bool { return o.Component == l.Component }) {
			return Change{}, fail(ErrUsage, "duplicate component %q", l.Component)
		}
	}
	return r.change(ctx, a, name, func(tx Tx, old *Revision) (content, string, error) {
		if old != nil && !replace {
			return content{}, "", fail(ErrConflict, "configuration %q already exists", name).
				hint("change a layer with changeconf, or give -replace to replace all of them")
		}
		layers, err := resolve(tx, refs)
		if err != nil {
			return content{}, "", err
		}
		verify, what, err := checks.change(old.content().verify)
		if old == nil {
			return content{layers, verify}, "created", err
		}
		return content{layers, verify}, words("replaced", what), err
	})
}

func checkConfigName(name string) error {
	if strings.Contains(name, "/") {
		return fail(ErrUsage, "name cannot contain / symbol")
	}
	if err := wire.CheckName(name); err != nil {
		return fail(ErrUsage, "configuration %v", err)
	}
	return nil
}

// resolve looks the versions up.
func resolve(tx Tx, refs []LayerRef) ([]wire.Layer, error) {
	layers := make([]wire.Layer, 0, len(refs))
	for _, l := range refs {
		v, err := l.find(tx)
		if err != nil {
			return nil, err
		}
		layers = append(layers, v.layer())
	}
	return layers, nil
}

// ChangeConfiguration gives layers that the configuration has other versions,
// and the configuration other checks, all in one revision.
func (r *Registry) ChangeConfiguration(ctx context.Context, a Act, name string, refs []LayerRef, checks Checks) (Change, error) {
	if len(refs) == 0 && checks == (Checks{}) {
		return Change{}, fail(ErrUsage, "nothing to do").hint("give -component and -version, -layer COMPONENT:VERSION, or -verify CHECK")
	}
	return r.change(ctx, a, name, func(tx Tx, old *Revision) (content, string, error) {
		if old == nil {
			return content{}, "", noConfiguration(name)
		}
		news, err := resolve(tx, refs)
		if err != nil {
			return content{}, "", err
		}
		layers, what, err := withLayers(old.Layers, news)
		if err != nil {
			return content{}, "", err
		}
		verify, also, err := checks.change(old.Verify)
		return content{layers, verify}, words(what, also), err
	})
}

// withLayers returns old with the versions of news, and the change in words.
func withLayers(old, news []wire.Layer) ([]wire.Layer, string, error) {
	layers := slices.Clone(old)
	var what []string
	for i, l := range news {
		if slices.ContainsFunc(news[:i], func(o wire.Layer) bool { return o.Name == l.Name }) {
			return nil, "", fail(ErrUsage, "duplicate component %q", l.Name)
		}
		at := slices.IndexFunc(layers, func(o wire.Layer) bool { return o.Name == l.Name })
		if at < 0 {
			return nil, "", fail(ErrNotFound, "configuration has no layer for component %q", l.Name)
		}
		if layers[at].Version != l.Version {
			what = append(what, fmt.Sprintf("%s %s -> %s", l.Name, layers[at].Version, l.Version))
		}
		layers[at] = l
	}
	return layers, strings.Join(what, ", "), nil
}

// BumpConfiguration gives the layers of these components the versions that
// were added last, all in one revision.
func (r *Registry) BumpConfiguration(ctx context.Context, a Act, name string, components []string) (Change, error) {
	if len(components) == 0 {
		return Change{}, fail(ErrUsage, "nothing to do").hint("give -component NAME")
	}
	return r.change(ctx, a, name, func(tx Tx, old *Revision) (content, string, error) {
		if old == nil {
			return content{}, "", noConfiguration(name)
		}
		var news []wire.Layer
		for _, component := range components {
			versions, err := versionsIn(tx, component)
			if err != nil {
				return content{}, "", err
			}
			if len(versions) == 0 {
				return content{}, "", fail(ErrNotFound, "no versions for component %q found", component).hint(seeComponents)
			}
			news = append(news, versions[len(versions)-1].layer())
		}
		layers, what, err := withLayers(old.Layers, news)
		return content{layers, old.Verify}, what, err
	})
}

// Rollback makes a new revision with the layers and the checks of revision to; 0
// means the one before the newest. The versions it needs must still be there.
func (r *Registry) Rollback(ctx context.Context, a Act, name string, to uint64) (Change, error) {
	return r.change(ctx, a, name, func(tx Tx, old *Revision) (content, string, error) {
		last, _, err := get[Revision](tx, keyConfig(name))
		if err != nil {
			return content{}, "", err
		}
		target := to
		if target == 0 && last.Revision > 0 {
			target = last.Revision - 1
		}
		rev, ok, err := get[Revision](tx, keyRevision(name, target))
		switch {
		case err != nil:
			return content{}, "", err
		case last.Revision == 0:
			return content{}, "", noConfiguration(name)
		case target == 0:
			return content{}, "", fail(ErrNotFound, "configuration %q has no earlier revision to go back to", name)
		case !ok || rev.Deleted:
			return content{}, "", fail(ErrNotFound, "configuration %q has no revision %d to go back to", name, target).hint("history -name %s lists them", name)
		}
		refs := make([]LayerRef, len(rev.Layers))
		for i, l := range rev.Layers {
			refs[i] = LayerRef{l.Name, l.Version}
		}
		layers, err := resolve(tx, refs)
		if err != nil {
			return content{}, "", err
		}
		// A version that was deleted and added again with other content is not
		// what the revision had.
		for i, l := range layers {
			if l.Hash != rev.Layers[i].Hash {
				return content{}, "", fail(ErrConflict, "version %q of component %q has other content than in revision %d", l.Version, l.Name, target)
			}
		}
		return content{layers, rev.Verify}, fmt.Sprintf("rolled back to revision %d", target), nil
	})
}

// DeleteConfiguration takes the configuration away. Hosts keep what they run;
// its history stays, and Rollback brings it back. It returns the change in
// words.
func (r *Registry) DeleteConfiguration(ctx context.Context, a Act, name string) (string, error) {
	if err := a.Caller.CheckScope(name); err != nil {
		return "", err
	}
	return r.act(ctx, a, func(tx Tx) (done, error) {
		last, ok, err := get[Revision](tx, keyConfig(name))
		if err == nil && (!ok || last.Deleted) {
			err = fail(ErrNotFound, "%q configuration not found", name).hint(seeConfigurations)
		}
		if err == nil {
			err = a.expects(name, last.Revision)
		}
		if err != nil {
			return done{}, err
		}
		last.Revision, last.Mtime, last.Deleted, last.By, last.What, last.Note = last.Revision+1, r.now(), true, a.Caller.String(), "deleted", a.Note
		return done{name: name, what: fmt.Sprintf("revision %d: deleted", last.Revision)}, putRevision(tx, last)
	})
}

// History returns the revisions of name, the newest first, deleted ones too.
func (r *Registry) History(ctx context.Context, name string) ([]Revision, error) {
	var out []Revision
	err := r.o.Meta.View(ctx, func(tx Tx) error {
		out = nil
		for key, b := range tx.Scan(prefixRevision + name + "/") {
			rev, err := decode[Revision](key, b)
			if err != nil {
				return err
			}
			out = append(out, rev)
		}
		return nil
	})
	if err == nil && len(out) == 0 {
		err = noConfiguration(name)
	}
	slices.Reverse(out)
	return out, err
}
