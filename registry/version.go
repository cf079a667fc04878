package registry

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"deploytools/layers/digest"
	"deploytools/registry/wire"
)

// Version is the record of a component's version. It never changes.
type Version struct {
	Component string
	Version   string
	Digest    digest.Digest
	Size      int64 // bytes of the archive
	Unpacked  int64 // bytes of its files
	Entries   int64
	Manifest  digest.Digest // of the manifest, itself a blob
	Seq       uint64        // orders all versions: a greater one was added later
	Added     time.Time
	By        string
	Note      string            `json:",omitempty"`
	Meta      map[string]string `json:",omitempty"` // where it comes from, such as commit or ci
}

func (v Version) layer() wire.Layer {
	return wire.Layer{
		Name: v.Component, Version: v.Version, File: wire.FileName(v.Digest), Hash: v.Digest, Ctime: v.Added,
		Size: v.Size, Unpacked: v.Unpacked, Entries: v.Entries,
	}
}

// NewVersion is a version to add.
type NewVersion struct {
	Component, Version string
	Digest             digest.Digest     // of the content
	Meta               map[string]string // kept with it
	MustBeNew          bool              // the same content under the same name is an error, too
}

// Added says what AddVersion did.
type Added struct {
	Version  Version
	Existed  bool     // with the same content: nothing was changed
	Warnings []string // about the archive
	Trimmed  []string // older versions that Options.MaxVersions removed
	What     string   // all of it in words
}

// AddVersion makes a version of content that was uploaded, or that some version
// has already. It waits for the verdict on an upload; progress is as for Verdict.
// Adding the same content under the same name again changes nothing and is no
// error; other content is ErrConflict, because versions never change.
//
// The order on disk: the blob is doomed, then stored durably, then referenced.
// A crash on the way leaves either the upload or a blob that is collected. A dry
// run leaves the upload as it is.
func (r *Registry) AddVersion(ctx context.Context, a Act, n NewVersion, progress func(CheckProgress)) (Added, error) {
	if err := n.check(); err != nil {
		return Added{}, err
	}
	old, exists, err := r.lookUp(ctx, n.Component, n.Version)
	if err == nil && exists {
		err = n.mayBe(old)
	}
	if err != nil {
		return Added{}, err
	}
	damaged := false
	if exists {
		damaged, err = r.isAnyDamaged(ctx, old)
		if err != nil {
			return Added{}, err
		}
	}
	var got stocked
	if !exists || damaged {
		if got, err = r.store(ctx, a, n, progress); err != nil {
			return Added{}, err
		}
	}
	out, err := r.recordVersion(ctx, a, n, got.planned)
	if err != nil {
		return Added{}, err
	}
	out.Warnings = append(got.warnings, out.Warnings...)
	if !a.DryRun {
		r.dropUploads(ctx, n.Digest)
	}
	return out, nil
}

// mayBe fails unless the version old, which exists, is n.
func (n NewVersion) mayBe(old Version) error {
	if old.Digest == n.Digest && !n.MustBeNew {
		return nil
	}
	return fail(ErrConflict, "version %q already exists", n.Version).hint("versions never change: choose another name")
}

// dropUploads removes the uploads of content that is stored: they are of no
// more use. What cannot be removed now, Sweep removes.
func (r *Registry) dropUploads(ctx context.Context, d digest.Digest) {
	uploads, err := r.uploadsOf(ctx, d)
	if err != nil {
		return
	}
	for _, u := range uploads {
		r.RemoveUpload(ctx, u.ID)
	}
}

// maxMeta is how many things may be kept with a version.
const maxMeta = 32

func (n NewVersion) check() error {
	switch {
	case n.Component == "" || n.Version == "":
		return fail(ErrUsage, "name, version and hash should all be set")
	case strings.Contains(n.Component, ":"):
		return fail(ErrUsage, "name cannot contain : symbol")
	case len(n.Meta) > maxMeta:
		return fail(ErrUsage, "more than %d keys of meta", maxMeta)
	}
	if err := wire.CheckName(n.Component); err != nil {
		return fail(ErrUsage, "component %v", err)
	}
	if err := wire.CheckVersion(n.Version); err != nil {
		return fail(ErrUsage, "version %v", err)
	}
	for key, value := range n.Meta {
		if err := wire.CheckName(key); err != nil {
			return fail(ErrUsage, "meta %v", err)
		}
		if err := checkText("meta "+key, value); err != nil {
			return err
		}
	}
	return nil
}

func (r *Registry) lookUp(ctx context.Context, component, version string) (v Version, ok bool, err error) {
	err = r.o.Meta.View(ctx, func(tx Tx) (err error) {
		v, ok, err = get[Version](tx, keyVersion(component, version))
		return err
	})
	return v, ok, err
}

// stocked says how the content of a new version came to be stored.
type stocked struct {
	warnings []string    // about the archive
	planned  *storedBlob // in a dry run: what would be stored
}

// store makes sure that the content of n is a checked blob.
func (r *Registry) store(ctx context.Context, a Act, n NewVersion, progress func(CheckProgress)) (stocked, error) {
	d := n.Digest
	if stored, err := r.HasLayer(ctx, d); err != nil || stored {
		return stocked{}, err
	}
	uploads, err := r.uploadsOf(ctx, d)
	if err != nil {
		return stocked{}, err
	}
	err = fail(ErrNoContent, "no uploaded file with given hash found").hint("upload it first: sftp put FILE, or deployctl addver -file FILE")
	for _, u := range uploads {
		var verdict UploadState
		if verdict, err = r.Verdict(ctx, u.ID, progress); err != nil {
			continue
		}
		if verdict.Verdict == Refused {
			return stocked{}, fail(ErrRefused, "layer %s:%s: %s", n.Component, n.Version, verdict.Reason).hint("make one with deployctl pack or tar czf; deployctl lint shows the same before an upload")
		}
		if a.DryRun {
			b := verdict.blob()
			return stocked{verdict.Warnings, &b}, nil
		}
		if err = r.adopt(ctx, verdict); err == nil {
			return stocked{warnings: verdict.Warnings}, nil
		}
	}
	// Somebody else may have stored it meanwhile, and with that used the
	// upload up.
	if stored, failed := r.HasLayer(ctx, d); failed != nil || stored {
		return stocked{}, failed
	}
	return stocked{}, err
}

// blob is the record of the upload's content once that is a blob.
func (u UploadState) blob() storedBlob {
	return storedBlob{Size: u.Size, Unpacked: u.Unpacked, Entries: u.Entries, Manifest: u.Manifest}
}

// adopt turns an accepted upload into a blob that is doomed until a version
// references it. It can be done again after a crash anywhere in it.
func (r *Registry) adopt(ctx context.Context, u UploadState) error {
	err := r.o.Meta.Update(ctx, func(tx Tx) error {
		if err := held(tx, u.Manifest); err != nil {
			return err
		}
		if isDamaged(tx, u.Manifest) { // the check of another upload stores it again
			return damagedContent(u.Manifest)
		}
		if err := notDeleting(tx, u.Digest); err != nil {
			return err
		}
		return errors.Join(r.condemn(tx, u.Digest), r.condemn(tx, u.Manifest))
	})
	if err != nil {
		return err
	}
	if err := r.storeUpload(ctx, u); err != nil {
		return err
	}
	return r.o.Meta.Update(ctx, func(tx Tx) error {
		if err := held(tx, u.Digest); err != nil {
			return err
		}
		if err := errors.Join(forgetUpload(tx, u), tx.Delete(keyDamaged(u.Digest))); err != nil {
			return err
		}
		return put(tx, keyBlob(u.Digest), u.blob())
	})
}

// storeUpload moves the content, or copies it where the engine cannot move.
func (r *Registry) storeUpload(ctx context.Context, u UploadState) error {
	if a, ok := r.o.Blobs.(Adopter); ok {
		return a.Adopt(ctx, u.ID, u.Digest)
	}
	f, err := r.o.Spool.Resume(ctx, u.ID)
	if errors.Is(err, ErrNoUpload) {
		// Copied before a crash, if it is a blob now.
		b, err := r.o.Blobs.Open(ctx, u.Digest)
		if err != nil {
			return err
		}
		return b.Close()
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := r.o.Blobs.Put(ctx, u.Digest, arrived(f, u.Size).reader()); err != nil {
		return err
	}
	return r.o.Spool.Remove(ctx, u.ID)
}

// recordVersion writes the version, now that its blob is stored, or planned to
// be, and removes those that Options.MaxVersions has no room for any more.
func (r *Registry) recordVersion(ctx context.Context, a Act, n NewVersion, planned *storedBlob) (Added, error) {
	var out Added
	what, err := r.act(ctx, a, func(tx Tx) (done, error) {
		out = Added{}
		old, exists, err := get[Version](tx, keyVersion(n.Component, n.Version))
		if err == nil && exists {
			err = n.mayBe(old)
		}
		if err != nil {
			return done{}, err
		}
		same := !old.Manifest.IsZero()
		if exists && !same {
			if old, err = completed(tx, old); err != nil {
				return done{}, err
			}
		}
		if exists {
			out = Added{Version: old, Existed: true}
			if len(n.Meta) > 0 && !maps.Equal(n.Meta, old.Meta) {
				out.Warnings = []string{"its meta stays as it was"}
			}
			return done{name: n.Component, what: fmt.Sprintf("version %s exists already, with the same content", n.Version), nothing: same}, nil
		}
		if planned != nil {
			if err := r.plan(tx, n.Digest, *planned); err != nil {
				return done{}, err
			}
		}
		if out.Version, err = r.newVersion(tx, a, n); err != nil {
			return done{}, err
		}
		did := done{name: n.Component, what: fmt.Sprintf("added version %s, %s", n.Version, n.Digest)}
		gone, err := r.trim(tx, n.Component, trimPerUpdate)
		for _, v := range gone {
			out.Trimmed = append(out.Trimmed, v.Version)
		}
		if len(gone) > 0 {
			did.what += ", removed " + strings.Join(out.Trimmed, " ")
		}
		return did, err
	})
	out.What = what
	return out, err
}

// completed gives a version that was imported without its content what is known
// of it, where it is stored now.
func completed(tx Tx, v Version) (Version, error) {
	b, ok, err := get[storedBlob](tx, keyBlob(v.Digest))
	if err != nil || !ok {
		return v, err
	}
	v.Size, v.Unpacked, v.Entries, v.Manifest = b.Size, b.Unpacked, b.Entries, b.Manifest
	return v, errors.Join(put(tx, keyVersion(v.Component, v.Version), v), reference(tx, v))
}

// plan puts the content d in place for a dry run.
func (r *Registry) plan(tx Tx, d digest.Digest, b storedBlob) error {
	if _, stored, err := get[storedBlob](tx, keyBlob(d)); err != nil || stored {
		return err
	}
	return errors.Join(notDeleting(tx, d), r.condemn(tx, d), put(tx, keyBlob(d), b))
}

func (r *Registry) newVersion(tx Tx, a Act, n NewVersion) (Version, error) {
	b, ok, err := get[storedBlob](tx, keyBlob(n.Digest))
	if err == nil && !ok {
		err = collected(n.Digest)
	}
	if err != nil {
		return Version{}, err
	}
	seq, err := nextSeq(tx)
	if err != nil {
		return Version{}, err
	}
	v := Version{
		Component: n.Component, Version: n.Version, Digest: n.Digest, Size: b.Size, Unpacked: b.Unpacked, Entries: b.Entries,
		Manifest: b.Manifest, Seq: seq, Added: r.now(), By: a.Caller.String(), Note: a.Note, Meta: n.Meta,
	}
	return v, errors.Join(
		put(tx, keyVersion(n.Component, n.Version), v),
		put(tx, keyOrder(n.Component, seq), n.Version),
		reference(tx, v),
	)
}

// eraseVersion removes every trace of v but its blobs, which are doomed if
// nothing else references them.
func (r *Registry) eraseVersion(tx Tx, v Version) error {
	return errors.Join(
		tx.Delete(keyVersion(v.Component, v.Version)),
		tx.Delete(keyOrder(v.Component, v.Seq)),
		r.release(tx, v),
	)
}

// versionsIn returns the versions of component in the order in which they were
// added.
func versionsIn(tx Tx, component string) ([]Version, error) {
	var out []Version
	for key, b := range tx.Scan(prefixVersion + component + "/") {
		v, err := decode[Version](key, b)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	slices.SortFunc(out, func(a, b Version) int { return int(int64(a.Seq) - int64(b.Seq)) })
	return out, nil
}

// Versions returns the versions of component, the oldest first.
func (r *Registry) Versions(ctx context.Context, component string) ([]Version, error) {
	var out []Version
	err := r.o.Meta.View(ctx, func(tx Tx) (err error) {
		out, err = versionsIn(tx, component)
		return err
	})
	if err == nil && len(out) == 0 {
		err = fail(ErrNotFound, "%q component not found", component).hint(seeComponents)
	}
	return out, err
}

// Components returns the names of the components, sorted.
func (r *Registry) Components(ctx context.Context) ([]string, error) {
	var out []string
	err := r.o.Meta.View(ctx, func(tx Tx) error {
		out = nil
		for key := range tx.Scan(prefixVersion) {
			component, _, _ := strings.Cut(strings.TrimPrefix(key, prefixVersion), "/")
			if len(out) == 0 || out[len(out)-1] != component {
				out = append(out, component)
			}
		}
		return nil
	})
	return out, err
}

// Writes that one Update takes: to erase a version, and to add one, planned as
// for a dry run.
const (
	writesToErase = 6
	writesToAdd   = 10
)

// Versions that one Update erases, alone and beside the one that it adds.
const (
	erasePerUpdate = (MaxWrites - actWrites) / writesToErase
	trimPerUpdate  = (MaxWrites - actWrites - writesToAdd) / writesToErase
)
