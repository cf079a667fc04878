package registry

import (
	"context"
	"errors"
	"fmt"
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
}

func (v Version) layer() wire.Layer {
	return wire.Layer{
		Name: v.Component, Version: v.Version, File: wire.FileName(v.Digest), Hash: v.Digest, Ctime: v.Added,
		Size: v.Size, Unpacked: v.Unpacked, Entries: v.Entries,
	}
}

// Added says what AddVersion did.
type Added struct {
	Version  Version
	Existed  bool     // with the same content: nothing was changed
	Warnings []string // about the archive
	Trimmed  []string // older versions that Options.MaxVersions removed
}

// AddVersion makes component:version of content that was uploaded, or that
// some version has already. It waits for the verdict on an upload; progress is
// as for Verdict. Adding the same content under the same name again changes
// nothing and is no error; other content is ErrConflict, because versions never
// change.
//
// The order on disk: the blob is doomed, then stored durably, then referenced.
// A crash on the way leaves either the upload or a blob that is collected.
func (r *Registry) AddVersion(ctx context.Context, c Caller, component, version string, d digest.Digest, progress func(done, total int64)) (Added, error) {
	if err := checkVersionName(component, version); err != nil {
		return Added{}, err
	}
	v, ok, err := r.lookUp(ctx, component, version)
	switch {
	case err != nil:
		return Added{}, err
	case ok && v.Digest == d:
		r.dropUploads(ctx, d)
		return Added{Version: v, Existed: true}, nil
	case ok:
		return Added{}, versionExists(version)
	}
	warnings, err := r.store(ctx, component+":"+version, d, progress)
	if err != nil {
		return Added{}, err
	}
	a, err := r.recordVersion(ctx, c, component, version, d)
	if err != nil {
		return Added{}, err
	}
	a.Warnings = warnings
	r.dropUploads(ctx, d)
	if a.Trimmed, err = r.trim(ctx, component); err != nil {
		a.Warnings = append(a.Warnings, fmt.Sprintf("older versions were not removed: %v", err))
	}
	return a, nil
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

func versionExists(version string) error {
	return fail(ErrConflict, "version %q already exists", version).hint("versions never change: choose another name")
}

func checkVersionName(component, version string) error {
	if component == "" || version == "" {
		return fail(ErrUsage, "name, version and hash should all be set")
	}
	if strings.Contains(component, ":") {
		return fail(ErrUsage, "name cannot contain : symbol")
	}
	if err := wire.CheckName(component); err != nil {
		return fail(ErrUsage, "component %v", err)
	}
	if err := wire.CheckVersion(version); err != nil {
		return fail(ErrUsage, "version %v", err)
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

// store makes sure that d is a checked blob; layer names it in errors.
func (r *Registry) store(ctx context.Context, layer string, d digest.Digest, progress func(done, total int64)) ([]string, error) {
	if stored, err := r.HasLayer(ctx, d); err != nil || stored {
		return nil, err
	}
	uploads, err := r.uploadsOf(ctx, d)
	if err != nil {
		return nil, err
	}
	err = fail(ErrNotFound, "no uploaded file with given hash found").hint("upload it first: sftp put FILE, or deployctl addver --file FILE")
	for _, u := range uploads {
		var verdict UploadState
		if verdict, err = r.Verdict(ctx, u.ID, progress); err != nil {
			continue
		}
		if verdict.Verdict == Refused {
			return nil, fail(ErrRefused, "layer %s: %s", layer, verdict.Reason).hint("deployctl lint shows the same before an upload")
		}
		if err = r.adopt(ctx, verdict); err == nil {
			return verdict.Warnings, nil
		}
	}
	// Somebody else may have stored it meanwhile, and with that used the
	// upload up.
	if stored, failed := r.HasLayer(ctx, d); failed != nil || stored {
		return nil, failed
	}
	return nil, err
}

// adopt turns an accepted upload into a blob that is doomed until a version
// references it. It can be done again after a crash anywhere in it.
func (r *Registry) adopt(ctx context.Context, u UploadState) error {
	err := r.o.Meta.Update(ctx, func(tx Tx) error {
		if err := held(tx, u.Manifest); err != nil {
			return err
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
		if err := forgetUpload(tx, u); err != nil {
			return err
		}
		return put(tx, keyBlob(u.Digest), storedBlob{Size: u.Size, Unpacked: u.Unpacked, Entries: u.Entries, Manifest: u.Manifest})
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

// recordVersion writes the version, now that its blob is stored.
func (r *Registry) recordVersion(ctx context.Context, c Caller, component, version string, d digest.Digest) (Added, error) {
	var a Added
	err := r.o.Meta.Update(ctx, func(tx Tx) error {
		a = Added{}
		old, ok, err := get[Version](tx, keyVersion(component, version))
		if err != nil {
			return err
		}
		if ok && old.Digest != d {
			return versionExists(version)
		}
		if ok {
			a = Added{Version: old, Existed: true}
			return nil
		}
		b, ok, err := get[storedBlob](tx, keyBlob(d))
		if err != nil {
			return err
		}
		if !ok {
			return collected(d)
		}
		seq, err := nextSeq(tx)
		if err != nil {
			return err
		}
		a.Version = Version{
			Component: component, Version: version, Digest: d, Size: b.Size, Unpacked: b.Unpacked, Entries: b.Entries,
			Manifest: b.Manifest, Seq: seq, Added: r.now(), By: c.String(),
		}
		return errors.Join(
			put(tx, keyVersion(component, version), a.Version),
			put(tx, keyOrder(component, seq), version),
			reference(tx, d, component, version),
			reference(tx, b.Manifest, component, version),
		)
	})
	return a, err
}

// eraseVersion removes every trace of v but its blobs, which are doomed if
// nothing else references them.
func (r *Registry) eraseVersion(tx Tx, v Version) error {
	return errors.Join(
		tx.Delete(keyVersion(v.Component, v.Version)),
		tx.Delete(keyOrder(v.Component, v.Seq)),
		r.release(tx, v.Digest, v.Component, v.Version),
		r.release(tx, v.Manifest, v.Component, v.Version),
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
		err = fail(ErrNotFound, "%q component not found", component)
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

// DeleteVersion removes a version that no configuration uses.
func (r *Registry) DeleteVersion(ctx context.Context, component, version string) error {
	return r.o.Meta.Update(ctx, func(tx Tx) error {
		v, ok, err := get[Version](tx, keyVersion(component, version))
		if err != nil {
			return err
		}
		if !ok {
			return fail(ErrNotFound, "no version %q for component %q found", version, component)
		}
		name, err := userOf(tx, func(l wire.Layer) bool { return l.Name == component && l.Version == version })
		if err != nil {
			return err
		}
		if name != "" {
			return fail(ErrConflict, "version is used by configuration %q", name)
		}
		return r.eraseVersion(tx, v)
	})
}

// erasePerUpdate bounds the writes of one Update: a version takes at most six.
const erasePerUpdate = MaxWrites / 6

// DeleteComponent removes all versions of a component that no configuration
// uses. A component with many goes in several steps, the oldest first.
func (r *Registry) DeleteComponent(ctx context.Context, component string) error {
	for found := false; ; found = true {
		left := 0
		err := r.o.Meta.Update(ctx, func(tx Tx) error {
			versions, err := versionsIn(tx, component)
			if err != nil {
				return err
			}
			if len(versions) == 0 && !found {
				return fail(ErrNotFound, "no component %q found", component)
			}
			name, err := userOf(tx, func(l wire.Layer) bool { return l.Name == component })
			if err != nil {
				return err
			}
			if name != "" {
				return fail(ErrConflict, "component is used by configuration %q", name)
			}
			n := min(len(versions), erasePerUpdate)
			left = len(versions) - n
			for _, v := range versions[:n] {
				if err := r.eraseVersion(tx, v); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil || left == 0 {
			return err
		}
	}
}

// trim removes versions of component beyond the newest Options.MaxVersions,
// but for those that a configuration references, now or within its rollback
// window. It returns their names.
func (r *Registry) trim(ctx context.Context, component string) ([]string, error) {
	if r.o.MaxVersions <= 0 {
		return nil, nil
	}
	var gone []string
	err := r.o.Meta.Update(ctx, func(tx Tx) error {
		gone = nil
		versions, err := versionsIn(tx, component)
		if err != nil || len(versions) <= r.o.MaxVersions {
			return err
		}
		used, err := r.versionsInWindow(tx, component)
		if err != nil {
			return err
		}
		for _, v := range versions[:len(versions)-r.o.MaxVersions] {
			if used[v.Version] || len(gone) == erasePerUpdate {
				continue
			}
			if err := r.eraseVersion(tx, v); err != nil {
				return err
			}
			gone = append(gone, v.Version)
		}
		return nil
	})
	return gone, err
}
