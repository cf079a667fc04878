package registry

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"deploytools/registry/wire"
)

// DeleteVersion removes a version that no configuration uses. One that a
// configuration may need to be rolled back is only removed if force says so. It
// returns the change in words.
func (r *Registry) DeleteVersion(ctx context.Context, a Act, component, version string, force bool) (string, error) {
	return r.act(ctx, a, func(tx Tx) (done, error) {
		v, ok, err := get[Version](tx, keyVersion(component, version))
		if err == nil && !ok {
			err = noVersion(tx, component, version)
		}
		if err != nil {
			return done{}, err
		}
		name, err := userOf(tx, func(l wire.Layer) bool { return l.Name == component && l.Version == version })
		if err == nil && name != "" {
			err = fail(ErrConflict, "version is used by configuration %q", name).
				hint("see 'changeconf %s %s:VERSION', which gives it another one", name, component)
		}
		if err != nil {
			return done{}, err
		}
		needed, err := r.neededOf(tx, component)
		if err != nil {
			return done{}, err
		}
		did := done{name: component, what: fmt.Sprintf("deleted version %s, %s", version, v.Digest)}
		if n, ok := needed[version]; ok {
			if !force {
				return done{}, r.isNeeded(version, n).hint("delver -name %s -version %s -force -note WHY deletes it all the same", component, version)
			}
			did.what += fmt.Sprintf(", which revision %d of %s needs", n.revision, n.configuration)
		}
		return did, r.eraseVersion(tx, v)
	})
}

func (r *Registry) isNeeded(version string, n need) *Error {
	return fail(ErrConflict, "version %q is needed to roll configuration %q back to revision %d, one of its newest %d",
		version, n.configuration, n.revision, r.o.RollbackWindow)
}

// need is a revision that has a version among its layers.
type need struct {
	configuration string
	revision      uint64
}

// neededOf returns the versions of component that some configuration
// references in one of its newest Options.RollbackWindow revisions, the current
// one included, and for each the newest revision that does. A configuration that
// was deleted keeps nothing.
func (r *Registry) neededOf(tx Tx, component string) (map[string]need, error) {
	needed := map[string]need{}
	err := eachConfig(tx, func(current Revision) error {
		for n := current.Revision; n > 0 && n+uint64(r.o.RollbackWindow) > current.Revision; n-- {
			rev, ok, err := get[Revision](tx, keyRevision(current.Name, n))
			if err != nil {
				return err
			}
			if !ok || rev.Deleted {
				continue
			}
			for _, l := range rev.Layers {
				if _, known := needed[l.Version]; l.Name == component && !known {
					needed[l.Version] = need{current.Name, n}
				}
			}
		}
		return nil
	})
	return needed, err
}

// DeleteComponent removes all versions of a component that no configuration
// uses, now or to be rolled back. A component with many goes in several steps,
// the oldest first, each of them on record. It returns the change in words.
func (r *Registry) DeleteComponent(ctx context.Context, a Act, component string) (string, error) {
	for gone := 0; ; {
		left := 0
		what, err := r.act(ctx, a, func(tx Tx) (done, error) {
			versions, err := versionsIn(tx, component)
			if err == nil && len(versions) == 0 && gone == 0 {
				err = fail(ErrNotFound, "no component %q found", component)
			}
			if err == nil {
				err = r.unused(tx, component)
			}
			if err != nil {
				return done{}, err
			}
			n := min(len(versions), erasePerUpdate)
			left = len(versions) - n
			did := done{name: component, what: fmt.Sprintf("deleted %d of %d versions", n, len(versions))}
			if a.DryRun { // later steps would be like this one
				did.what = fmt.Sprintf("deleted all of %d versions", len(versions))
			}
			for _, v := range versions[:n] {
				if err := r.eraseVersion(tx, v); err != nil {
					return done{}, err
				}
			}
			return did, nil
		})
		if err != nil || left == 0 || a.DryRun {
			return what, err
		}
		gone++
	}
}

// unused fails if a configuration needs some version of component.
func (r *Registry) unused(tx Tx, component string) error {
	name, err := userOf(tx, func(l wire.Layer) bool { return l.Name == component })
	if err == nil && name != "" {
		err = fail(ErrConflict, "component is used by configuration %q", name)
	}
	if err != nil {
		return err
	}
	needed, err := r.neededOf(tx, component)
	if err != nil {
		return err
	}
	for _, version := range slices.Sorted(maps.Keys(needed)) {
		return r.isNeeded(version, needed[version]).hint("delver with -force deletes a single version all the same")
	}
	return nil
}
