package registry

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"deploytools/layers/digest"
)

// CollectOptions say how Collect goes about it.
type CollectOptions struct {
	DryRun  bool // say what would go, and change nothing
	Explain bool // say of what stays why
}

// Collection is what Collect removed, or would, and what it kept.
type Collection struct {
	Gone []Item
	Kept []Item // with CollectOptions.Explain
	// Waits says why blobs were not looked at; empty: they were.
	Waits string
	What  string // all of it in words
}

// Item is one thing that a collection looked at.
type Item struct {
	Kind ItemKind
	Name string // of the upload, COMPONENT:VERSION, or a digest
	Size int64  // bytes; 0 where nobody has told
	Why  string // it goes or stays
}

// ItemKind says what an Item is.
type ItemKind string

// The kinds of items.
const (
	UploadItem  ItemKind = "upload"
	VersionItem ItemKind = "version"
	BlobItem    ItemKind = "blob"
)

// Count returns how many items of this kind are gone.
func (c Collection) Count(kind ItemKind) (n int) {
	for _, i := range c.Gone {
		if i.Kind == kind {
			n++
		}
	}
	return n
}

// Swept is what one Sweep removed.
type Swept struct {
	Uploads  int
	Versions int
	Blobs    int
	Entries  int // of the audit log
}

// Sweep is Collect as it is called now and then. It also drops entries of the
// audit log beyond Options.AuditKeep.
func (r *Registry) Sweep(ctx context.Context) (Swept, error) {
	c, err := r.Collect(ctx, CollectOptions{})
	s := Swept{Uploads: c.Count(UploadItem), Versions: c.Count(VersionItem), Blobs: c.Count(BlobItem)}
	if err == nil {
		s.Entries, err = r.dropEntries(ctx)
	}
	return s, err
}

// CollectFor is Collect as somebody asks for it, on record.
func (r *Registry) CollectFor(ctx context.Context, a Act, explain bool) (Collection, error) {
	if err := a.check(); err != nil {
		return Collection{}, err
	}
	c, err := r.Collect(ctx, CollectOptions{DryRun: a.DryRun, Explain: explain})
	if err != nil {
		return c, err
	}
	c.What, err = r.act(ctx, a, func(Tx) (done, error) {
		return done{name: "gc", what: fmt.Sprintf("collected %d uploads, %d versions, %d blobs", c.Count(UploadItem), c.Count(VersionItem), c.Count(BlobItem))}, nil
	})
	return c, err
}

// Collect removes uploads that nobody has written to for Options.UploadExpiry,
// versions beyond Options.MaxVersions that no configuration can need, and blobs
// that nothing has referenced for Options.Grace. It may run beside anything
// else, and again after a crash.
func (r *Registry) Collect(ctx context.Context, o CollectOptions) (Collection, error) {
	r.sweeping.Lock()
	defer r.sweeping.Unlock()
	var c Collection
	for _, step := range []struct {
		what string
		run  func(context.Context, CollectOptions, *Collection) error
	}{
		{"remove old uploads", r.collectUploads}, {"remove old versions", r.collectVersions}, {"collect", r.collectBlobs},
	} {
		if err := step.run(ctx, o, &c); err != nil {
			return c, fmt.Errorf("cannot %s: %w", step.what, err)
		}
	}
	return c, nil
}

func (r *Registry) collectUploads(ctx context.Context, o CollectOptions, c *Collection) error {
	expired, err := r.expiredUploads(ctx)
	if err != nil {
		return err
	}
	sizes := map[string]int64{}
	for u, err := range r.o.Spool.List(ctx) {
		if err != nil {
			return err
		}
		sizes[u.Name] = u.Size
	}
	slices.Sort(expired)
	for _, id := range expired {
		if r.inbox.busy(id) {
			continue // resumed meanwhile
		}
		if !o.DryRun {
			if err := r.expire(ctx, id); err != nil {
				return err
			}
		}
		c.Gone = append(c.Gone, Item{UploadItem, id, sizes[id], "nobody has written to it for " + hours(r.o.UploadExpiry)})
		delete(sizes, id)
	}
	if o.Explain {
		for _, id := range slices.Sorted(maps.Keys(sizes)) {
			c.Kept = append(c.Kept, Item{UploadItem, id, sizes[id], "it stays for " + hours(r.o.UploadExpiry) + " after the last write"})
		}
	}
	if o.DryRun {
		return nil
	}
	return r.sweepDirs(ctx, r.now().Add(-r.o.UploadExpiry))
}

func (r *Registry) collectVersions(ctx context.Context, o CollectOptions, c *Collection) error {
	components, err := r.Components(ctx)
	for _, component := range components {
		if err != nil {
			return err
		}
		var gone []Version
		if o.DryRun {
			gone, err = r.wouldTrim(ctx, component)
		} else {
			gone, err = r.trimAll(ctx, component)
		}
		for _, v := range gone {
			c.Gone = append(c.Gone, Item{VersionItem, v.ref().String(), v.Size,
				fmt.Sprintf("it is not among the newest %d and no configuration can need it", r.o.MaxVersions)})
		}
	}
	if err != nil || !o.Explain {
		return err
	}
	return r.o.Meta.View(ctx, func(tx Tx) error { return r.explainVersions(tx, components, c) })
}

func (r *Registry) wouldTrim(ctx context.Context, component string) (gone []Version, err error) {
	err = r.o.Meta.View(ctx, func(tx Tx) (err error) {
		gone, err = r.surplus(tx, component)
		return err
	})
	return gone, err
}

func (r *Registry) trimAll(ctx context.Context, component string) (all []Version, err error) {
	for {
		var gone []Version
		err := r.o.Meta.Update(ctx, func(tx Tx) (err error) {
			gone, err = r.trim(tx, component, erasePerUpdate)
			return err
		})
		if err != nil {
			return all, err
		}
		if all = append(all, gone...); len(gone) < erasePerUpdate {
			return all, nil
		}
	}
}

// explainVersions says of the versions that stay why.
func (r *Registry) explainVersions(tx Tx, components []string, c *Collection) error {
	gone := map[string]bool{}
	for _, i := range c.Gone {
		gone[i.Name] = i.Kind == VersionItem
	}
	for _, component := range components {
		versions, err := versionsIn(tx, component)
		if err != nil {
			return err
		}
		needed, err := r.neededOf(tx, component)
		if err != nil {
			return err
		}
		for _, v := range versions {
			why := fmt.Sprintf("it is among the newest %d of its component", r.o.MaxVersions)
			if n, ok := needed[v.Version]; ok {
				why = fmt.Sprintf("revision %d of %s needs it", n.revision, n.configuration)
			} else if r.o.MaxVersions <= 0 {
				why = "all versions are kept"
			}
			if !gone[v.ref().String()] {
				c.Kept = append(c.Kept, Item{VersionItem, v.ref().String(), v.Size, why})
			}
		}
	}
	return nil
}

func (v Version) ref() LayerRef { return LayerRef{v.Component, v.Version} }

const backupRuns = "a backup is being written, which may need them"

// collectBlobs dooms what nothing knows, so that it goes after its grace, and
// removes what has had its grace.
func (r *Registry) collectBlobs(ctx context.Context, o CollectOptions, c *Collection) error {
	if r.backups.Load() > 0 {
		c.Waits = backupRuns
		return nil
	}
	sizes, err := r.sizes(ctx)
	if err != nil {
		return err
	}
	due, err := r.dueBlobs(ctx)
	if err != nil {
		return err
	}
	var known map[digest.Digest]string
	err = r.o.Meta.View(ctx, func(tx Tx) (err error) {
		known, err = r.whyKept(tx)
		return err
	})
	if err != nil {
		return err
	}
	for _, d := range due {
		gone := known[d] == ""
		if !o.DryRun {
			if r.backups.Load() > 0 { // it has just begun
				c.Waits = backupRuns
				return nil
			}
			if gone, err = r.collectOne(ctx, d); err != nil {
				return err
			}
		}
		if gone {
			c.Gone = append(c.Gone, Item{BlobItem, d.String(), sizes[d], "nothing has referenced it for " + hours(r.o.Grace)})
			delete(sizes, d)
		}
	}
	return r.collectUnknown(ctx, o, c, sizes, known)
}

// collectUnknown dooms the blobs that no record knows, and explains the others.
// sizes has the blobs that were there before known was read: what is stored is
// doomed or referenced first.
func (r *Registry) collectUnknown(ctx context.Context, o CollectOptions, c *Collection, sizes map[digest.Digest]int64, known map[digest.Digest]string) error {
	for _, d := range slices.SortedFunc(maps.Keys(sizes), byDigest) {
		why := known[d]
		if why == "" {
			why = "no record knows it: it is doomed now and goes after " + hours(r.o.Grace)
			if !o.DryRun {
				if err := r.o.Meta.Update(ctx, func(tx Tx) error { return r.condemnUnknown(tx, d) }); err != nil {
					return err
				}
			}
		}
		if o.Explain {
			c.Kept = append(c.Kept, Item{BlobItem, d.String(), sizes[d], why})
		}
	}
	return nil
}

// condemnUnknown is condemn for a blob that may have got its mark meanwhile,
// which is not to begin anew.
func (r *Registry) condemnUnknown(tx Tx, d digest.Digest) error {
	if anyWith(tx, keyDoomed(d)) {
		return nil
	}
	return r.condemn(tx, d)
}

// sizes lists the blobs.
func (r *Registry) sizes(ctx context.Context) (map[digest.Digest]int64, error) {
	out := map[digest.Digest]int64{}
	for b, err := range r.o.Blobs.List(ctx) {
		if err != nil {
			return nil, err
		}
		out[b.Digest] = b.Size
	}
	return out, nil
}

// whyKept says of each blob that records know why it stays.
func (r *Registry) whyKept(tx Tx) (map[digest.Digest]string, error) {
	out := map[digest.Digest]string{}
	for key, b := range tx.Scan(prefixDoomed) {
		m, err := decode[doom](key, b)
		if err != nil {
			return nil, err
		}
		d, err := digest.Parse(nameOf(key))
		if err != nil {
			return nil, err
		}
		if !r.due(m) {
			out[d] = fmt.Sprintf("nothing references it since %s, it goes after %s", m.Since.Format(time.RFC3339), hours(r.o.Grace))
		}
	}
	for key, b := range tx.Scan(prefixVersion) {
		v, err := decode[Version](key, b)
		if err != nil {
			return nil, err
		}
		for i, d := range v.keeps() {
			if out[d] == "" || i == 0 {
				out[d] = [...]string{"it is the layer of ", "it is the manifest of "}[i] + v.ref().String()
			}
		}
	}
	return out, nil
}

func byDigest(a, b digest.Digest) int { return bytes.Compare(a[:], b[:]) }

// backingUp keeps blobs from collection until its result is called.
func (r *Registry) backingUp() (done func()) {
	r.backups.Add(1)
	return func() { r.backups.Add(-1) }
}

// hours shows a duration without the parts that are zero.
func hours(d time.Duration) string {
	switch {
	case d >= time.Hour && d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d >= time.Minute && d%time.Minute == 0:
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return d.String()
}
