package registry

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"deploytools/layers/digest"
)

// Fault is one thing that Fsck found wrong.
type Fault struct {
	Kind   FaultKind
	Digest digest.Digest // of the blob that it is about; zero: none
	Text   string        // what is wrong with what
	Do     string        // the way out
}

// FaultKind says what a Fault is.
type FaultKind string

// The kinds of faults.
const (
	RecordFault       FaultKind = "record"       // a record cannot be read, or contradicts another
	MissingFault      FaultKind = "missing"      // what a record refers to is not there
	DamagedFault      FaultKind = "damaged"      // content is not what its digest says
	UnreferencedFault FaultKind = "unreferenced" // content is there that nothing refers to
)

// The ways out.
const (
	doUpload  = "upload the same file again and add it under the same name: deployctl addver -file FILE"
	doGC      = "run gc: it goes after the grace period"
	doRestore = "restore a backup: deploy-registry restore -dir NEWDIR <BACKUP"
	doReport  = "keep a copy of the directory, and restore a backup if something does not work: deploy-registry restore -dir NEWDIR <BACKUP"
)

// FsckOptions say how closely Fsck looks.
type FsckOptions struct {
	ReadData bool // read every blob and compare it with its digest
	// Progress, if not nil, is called now and then with the bytes that were
	// read and their total.
	Progress func(done, total int64)
}

// Checked is what Fsck looked at and found.
type Checked struct {
	Records int
	Blobs   int
	Bytes   int64 // of the blobs that were read
	Faults  []Fault
	Scrub   Scrubbed // how far the scrub has come
}

// Fsck looks at every record and at what they refer to, beside anything else
// that runs. Blobs that are found damaged or missing are not served from then
// on, and those that are found whole again are. Nothing else is changed.
func (r *Registry) Fsck(ctx context.Context, o FsckOptions) (Checked, error) {
	var c Checked
	// What is stored is known first, and what is known is stored: so a blob that
	// the records do not know has to be looked at again, and so has one that is
	// missing. See confirm.
	sizes, err := r.sizes(ctx)
	if err != nil {
		return c, err
	}
	c.Blobs = len(sizes)
	err = r.o.Meta.View(ctx, func(tx Tx) (err error) {
		i := newInspection(tx, sizes)
		c.Records, c.Faults = i.run()
		c.Scrub, _, err = get[Scrubbed](tx, keyScrub)
		return err
	})
	if err != nil {
		return c, err
	}
	var confirmed []Fault
	for _, f := range c.Faults {
		if ok, err := r.confirm(ctx, f); err != nil {
			return c, err
		} else if ok {
			confirmed = append(confirmed, f)
		}
	}
	c.Faults = confirmed
	if o.ReadData {
		err = r.readAll(ctx, o, sizes, &c)
	}
	return c, err
}

// confirm looks again at a fault that may only have been a blob on its way,
// and keeps a blob that is missing from being offered.
func (r *Registry) confirm(ctx context.Context, f Fault) (bool, error) {
	if f.Digest.IsZero() || f.Kind != MissingFault && f.Kind != UnreferencedFault {
		return true, nil
	}
	var before, after []string
	var known bool
	look := func(refs *[]string) error {
		return r.o.Meta.View(ctx, func(tx Tx) error {
			*refs = nil
			for key := range tx.Scan(prefixRef + f.Digest.String() + "/") {
				*refs = append(*refs, key)
			}
			known = len(*refs) > 0 || anyWith(tx, keyDoomed(f.Digest))
			return nil
		})
	}
	if err := look(&before); err != nil {
		return false, err
	}
	b, err := r.o.Blobs.Open(ctx, f.Digest)
	there := err == nil
	if there {
		b.Close()
	} else if !errors.Is(err, ErrNoBlob) {
		return false, err
	}
	if err := look(&after); err != nil {
		return false, err
	}
	if f.Kind == UnreferencedFault {
		return there && !known, nil
	}
	// A version is referenced after its content is stored, and content goes
	// after its last reference: one reference all the time proves it lost.
	lost := !there && slices.ContainsFunc(before, func(key string) bool { return slices.Contains(after, key) })
	if !lost {
		return !there && len(after) > 0, nil
	}
	reason, err := r.quarantine(ctx, f.Digest, notThere)
	if errors.Is(err, ErrReadOnly) {
		return true, nil
	}
	return reason != "", err
}

// readAll reads every blob.
func (r *Registry) readAll(ctx context.Context, o FsckOptions, sizes map[digest.Digest]int64, c *Checked) error {
	var total int64
	for _, n := range sizes {
		total += n
	}
	named := map[digest.Digest]bool{}
	for _, f := range c.Faults {
		named[f.Digest] = f.Kind == MissingFault
	}
	last := time.Now()
	paced := func(n int) error {
		if o.Progress != nil && time.Since(last) > time.Second {
			last = time.Now()
			o.Progress(min(c.Bytes, total), total)
		}
		return nil
	}
	// What the records say about damage is found out anew.
	c.Faults = slices.DeleteFunc(c.Faults, func(f Fault) bool { _, there := sizes[f.Digest]; return f.Kind == DamagedFault && there })
	for _, d := range slices.SortedFunc(maps.Keys(sizes), byDigest) {
		reason, err := r.examine(ctx, d, paced)
		if err != nil {
			return fmt.Errorf("cannot check content %s: %w", d, err)
		}
		c.Bytes += sizes[d]
		if reason == "" || named[d] {
			continue
		}
		var f Fault
		err = r.o.Meta.View(ctx, func(tx Tx) error {
			f = faultOf(tx, d, reason)
			return nil
		})
		if err != nil {
			return err
		}
		c.Faults = append(c.Faults, f)
	}
	return nil
}
