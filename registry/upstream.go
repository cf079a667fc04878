package registry

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"time"

	"deploytools/layers/digest"
	"deploytools/layers/manifest"
	"deploytools/registry/wire"
)

// Upstream is what a database of the archived tool set holds.
type Upstream struct {
	Versions       []UpstreamVersion
	Configurations []UpstreamConfiguration
	Unreadable     []string // what could not be read of it
}

// UpstreamVersion is one version of a component.
type UpstreamVersion struct {
	Component, Version string
	Hash               digest.Digest
	Ctime              time.Time
}

// UpstreamState is a configuration at one time.
type UpstreamState = wire.Configuration

// UpstreamConfiguration is a configuration and what it was.
type UpstreamConfiguration struct {
	Name    string
	States  []UpstreamState // the oldest first
	Deleted bool            // the last state is not current
}

// ImportOptions say what an import works with.
type ImportOptions struct {
	Blobs  Blobs
	Check  CheckFunc
	Now    func() time.Time // nil: time.Now
	DryRun bool             // store nothing
	// Progress, if not nil, is called for each layer with the number of those
	// that were looked at and their total.
	Progress func(done, total int)
}

// Imported is what an import came to.
type Imported struct {
	Records        map[string][]byte // of the new database
	Versions       int
	Configurations int
	Revisions      int
	Layers         int     // whole ones
	Faults         []Fault // what of it is missing, damaged or not acceptable
}

// Import turns an upstream database into records of ours, and stores the
// manifests of the layers. It changes nothing that upstream reads. What cannot
// be told in our records is an error: nobody is to lose it without knowing.
//
// A layer that is missing, damaged or not acceptable stays the content of its
// version: it is named, and it can be uploaded again.
func Import(ctx context.Context, up Upstream, o ImportOptions) (Imported, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if err := importable(up); err != nil {
		return Imported{}, err
	}
	i := &importing{o: o, out: Imported{Records: map[string][]byte{}}, found: map[digest.Digest]storedBlob{}}
	if err := i.layers(ctx, up); err != nil {
		return i.out, err
	}
	if err := i.versions(up); err != nil {
		return i.out, err
	}
	for _, c := range up.Configurations {
		if err := i.configuration(c); err != nil {
			return i.out, err
		}
	}
	i.contradictions()
	return i.out, nil
}

// contradictions finds what the old database got wrong: configurations of
// versions that are not there, for instance.
func (i *importing) contradictions() {
	sizes := map[digest.Digest]int64{}
	for d, b := range i.found {
		sizes[d], sizes[b.Manifest] = b.Size, 0
	}
	delete(sizes, digest.Digest{})
	_, faults := newInspection(newRecordsTx(i.out.Records), sizes).run()
	for _, f := range faults {
		if f.Digest.IsZero() { // the others are named already
			i.out.Faults = append(i.out.Faults, f)
		}
	}
}

// importable says what could not be told in our records.
func importable(up Upstream) error {
	var errs []error
	for _, text := range up.Unreadable {
		errs = append(errs, errors.New(text))
	}
	for _, v := range up.Versions {
		if err := errors.Join(wire.CheckName(v.Component), wire.CheckVersion(v.Version)); err != nil {
			errs = append(errs, fmt.Errorf("version %q of component %q: %w", v.Version, v.Component, err))
		}
	}
	for _, c := range up.Configurations {
		for _, state := range c.States {
			state.Seal()
			if err := state.Check(); err != nil {
				errs = append(errs, fmt.Errorf("configuration %q, changed %s: %w", c.Name, state.Mtime.Format(time.RFC3339), err))
			}
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return &Error{Kind: ErrConflict, Text: "cannot import: " + errors.Join(errs...).Error(),
		Hint: "delete what is named with the old program (delver, delconf), or pass over it with migrate -skip"}
}

// Importable returns up without what cannot be imported, and what that is.
func Importable(up Upstream) (Upstream, []string) {
	left := up.Unreadable
	up.Unreadable = nil
	up.Versions = slices.DeleteFunc(slices.Clone(up.Versions), func(v UpstreamVersion) bool {
		err := importable(Upstream{Versions: []UpstreamVersion{v}})
		if err != nil {
			left = append(left, fmt.Sprintf("version %q of component %q", v.Version, v.Component))
		}
		return err != nil
	})
	var configurations []UpstreamConfiguration
	for _, c := range up.Configurations {
		states := slices.DeleteFunc(slices.Clone(c.States), func(s wire.Configuration) bool {
			err := importable(Upstream{Configurations: []UpstreamConfiguration{{Name: c.Name, States: []wire.Configuration{s}}}})
			if err != nil {
				left = append(left, fmt.Sprintf("configuration %q as it was at %s", c.Name, s.Mtime.Format(time.RFC3339)))
			}
			return err != nil
		})
		if c.States = states; len(states) > 0 {
			configurations = append(configurations, c)
		}
	}
	up.Configurations = configurations
	return up, left
}

// importing is one import on its way.
type importing struct {
	o     ImportOptions
	out   Imported
	found map[digest.Digest]storedBlob // layers that are whole; without a manifest where they are not acceptable
}

// layers looks at the content of each version once.
func (i *importing) layers(ctx context.Context, up Upstream) error {
	for n, v := range up.Versions {
		if i.o.Progress != nil {
			i.o.Progress(n, len(up.Versions))
		}
		if _, seen := i.found[v.Hash]; seen || i.out.Records[keyDamaged(v.Hash)] != nil {
			continue
		}
		b, whole, reason, err := i.layer(ctx, v.Hash)
		if err != nil {
			return fmt.Errorf("cannot import layer %s:%s: %w", v.Component, v.Version, err)
		}
		what := fmt.Sprintf("version %s:%s: its content %s", v.Component, v.Version, v.Hash)
		if whole {
			i.found[v.Hash] = b
		}
		switch {
		case reason == "":
			i.out.Layers++
		case whole:
			i.fault(DamagedFault, v.Hash, "make a new version of it before something deploys it", "%s is whole, and not acceptable as a layer: %s", what, reason)
		default:
			kind := DamagedFault
			if reason == notThere {
				kind = MissingFault
			}
			i.fault(kind, v.Hash, doUpload, "%s is damaged and not served: %s", what, reason)
			if err := i.put(keyDamaged(v.Hash), Damage{Digest: v.Hash, Found: i.now(), Reason: reason}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (i *importing) fault(kind FaultKind, d digest.Digest, do, format string, args ...any) {
	i.out.Faults = append(i.out.Faults, Fault{Kind: kind, Digest: d, Text: fmt.Sprintf(format, args...), Do: do})
}

func (i *importing) now() time.Time { return i.o.Now().UTC().Round(0) }

// layer hashes and checks the blob d, and stores its manifest. The reason says
// what is wrong with it: with its content, or else only with it as a layer.
func (i *importing) layer(ctx context.Context, d digest.Digest) (b storedBlob, whole bool, reason string, err error) {
	reader := Registry{o: Options{Blobs: i.o.Blobs}}
	if reason, err = reader.wrong(ctx, d, nil); err != nil || reason != "" {
		return b, false, reason, err
	}
	blob, err := i.o.Blobs.Open(ctx, d)
	if err != nil {
		return b, false, "", err
	}
	defer blob.Close()
	found, err := i.o.Check(ctx, io.NewSectionReader(blob, 0, blob.Size()), nil)
	b.Size = blob.Size()
	if errors.Is(err, ErrRefused) {
		return b, true, err.Error(), nil
	}
	if err != nil {
		return b, false, "", err
	}
	b.Unpacked, b.Entries = found.Unpacked, found.Entries
	b.Manifest, err = i.manifest(ctx, found.Manifest)
	return b, true, "", err
}

func (i *importing) versions(up Upstream) error {
	ordered := slices.Clone(up.Versions)
	slices.SortStableFunc(ordered, func(a, b UpstreamVersion) int { return a.Ctime.Compare(b.Ctime) })
	for n, old := range ordered {
		b := i.found[old.Hash]
		v := Version{
			Component: old.Component, Version: old.Version, Digest: old.Hash, Size: b.Size, Unpacked: b.Unpacked, Entries: b.Entries,
			Manifest: b.Manifest, Seq: uint64(n + 1), Added: old.Ctime.UTC(), By: importer,
		}
		err := errors.Join(i.put(keyVersion(v.Component, v.Version), v), i.put(keyOrder(v.Component, v.Seq), v.Version))
		for _, d := range v.keeps() {
			i.out.Records[keyRef(d, v.Component, v.Version)] = []byte{}
		}
		if !b.Manifest.IsZero() {
			err = errors.Join(err, i.put(keyBlob(v.Digest), b))
		}
		if err != nil {
			return err
		}
		i.out.Versions++
	}
	return i.put(keySeq, uint64(len(ordered)))
}

// importer is who made what was imported.
const importer = "imported"

func (i *importing) configuration(c UpstreamConfiguration) error {
	for n, state := range c.States {
		rev := Revision{Configuration: state, By: importer, What: cmp.Or(whatChanged(c.States, n), "created")}
		rev.Name, rev.Revision, rev.Mtime = c.Name, uint64(n+1), state.Mtime.UTC()
		rev.Seal()
		for k, l := range rev.Layers {
			if b := i.found[l.Hash]; b.Entries > 0 {
				rev.Layers[k].Size, rev.Layers[k].Unpacked, rev.Layers[k].Entries = b.Size, b.Unpacked, b.Entries
			}
		}
		if err := i.revision(rev, n == len(c.States)-1 && !c.Deleted); err != nil {
			return err
		}
	}
	if c.Deleted {
		rev := Revision{Configuration: c.States[len(c.States)-1], Deleted: true, By: importer, What: "deleted"}
		rev.Name, rev.Revision, rev.Mtime = c.Name, uint64(len(c.States)+1), i.now()
		rev.Seal()
		if err := i.revision(rev, true); err != nil {
			return err
		}
	} else {
		i.out.Configurations++
	}
	return nil
}

func (i *importing) revision(rev Revision, newest bool) error {
	i.out.Revisions++
	err := i.put(keyRevision(rev.Name, rev.Revision), rev)
	if newest {
		err = errors.Join(err, i.put(keyConfig(rev.Name), rev))
	}
	return err
}

// whatChanged puts the change to states[n] in words, where it has the layers of
// the state before in other versions.
func whatChanged(states []wire.Configuration, n int) string {
	if n == 0 {
		return ""
	}
	_, what, err := withLayers(states[n-1].Layers, states[n].Layers)
	if err != nil || what == "" {
		return "replaced"
	}
	return what
}

func (i *importing) put(key string, v any) error {
	b, err := json.Marshal(v)
	i.out.Records[key] = b
	return err
}

// manifest stores the text of m, unless this is a dry run.
func (i *importing) manifest(ctx context.Context, m iter.Seq2[manifest.Entry, error]) (digest.Digest, error) {
	text := digest.NewWriter()
	if err := manifest.Encode(text, m); err != nil {
		return digest.Digest{}, err
	}
	d := text.Digest()
	if i.o.DryRun {
		return d, nil
	}
	return d, putManifest(ctx, i.o.Blobs, d, m)
}
