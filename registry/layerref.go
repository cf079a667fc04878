package registry

import (
	"cmp"
	"slices"
	"strings"

	"deploytools/layers/digest"
)

// LayerRef names a layer that a change asks for.
type LayerRef struct{ Component, Version string }

// atDigest begins the Version of a LayerRef that names content. No version's name
// begins so.
const atDigest = "@sha256:"

// ParseLayerRef reads COMPONENT:VERSION, of which the version may hold further
// colons, or COMPONENT@sha256:DIGEST, which is the newest version of this content.
func ParseLayerRef(s string) (LayerRef, error) {
	if i := strings.LastIndex(s, atDigest); i > 0 {
		if _, err := digest.Parse(s[i+len(atDigest):]); err == nil {
			return LayerRef{s[:i], s[i:]}, nil
		}
	}
	component, version, ok := strings.Cut(s, ":")
	if !ok || component == "" || version == "" {
		return LayerRef{}, fail(ErrUsage, "layer %q should be COMPONENT:VERSION or COMPONENT@sha256:DIGEST", s)
	}
	return LayerRef{component, version}, nil
}

func (l LayerRef) String() string {
	if strings.HasPrefix(l.Version, atDigest) {
		return l.Component + l.Version
	}
	return l.Component + ":" + l.Version
}

// noVersion is ErrNotFound for a version of a component, which may be missing, too.
func noVersion(tx Tx, component, version string) error {
	all, err := versionsIn(tx, component)
	if err != nil {
		return err
	}
	none := fail(ErrNotFound, "no version %q for component %q found", version, component)
	if len(all) == 0 {
		return none.hint(seeComponents)
	}
	return none.hint("see 'showcomp -name %s'", component)
}

// find returns the version that l names. There being none is ErrNotFound.
func (l LayerRef) find(tx Tx) (Version, error) {
	hex, content := strings.CutPrefix(l.Version, atDigest)
	if !content {
		v, ok, err := get[Version](tx, keyVersion(l.Component, l.Version))
		if err == nil && !ok {
			err = noVersion(tx, l.Component, l.Version)
		}
		return v, err
	}
	all, err := versionsIn(tx, l.Component)
	if err != nil {
		return Version{}, err
	}
	all = slices.DeleteFunc(all, func(v Version) bool { return v.Digest.String() != hex })
	if len(all) == 0 {
		return Version{}, fail(ErrNotFound, "no version of component %q has the content %s", l.Component, hex)
	}
	return slices.MaxFunc(all, func(a, b Version) int { return cmp.Compare(a.Seq, b.Seq) }), nil
}
