package atomic

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// Prepare makes the new contents ready, durably, under hidden names beside
// their destinations, with their owners and modes. Nothing live is touched. A
// set of the same ID that came no further is removed and made anew, so that
// Prepare can be called again after a crash; any other that is under way is an
// error that wraps [ErrUnfinished]. The caller closes the set.
//
// Errors wrap [ErrPlanInvalid], [ErrBusy], [ErrUnfinished] or
// [ErrPrepareFailed].
func (s *Store) Prepare(ctx context.Context, p Plan) (*Set, error) {
	set, err := s.prepare(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("set %s: %w", p.ID, err)
	}
	return set, nil
}

func (s *Store) prepare(ctx context.Context, p Plan) (*Set, error) {
	if err := p.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPlanInvalid, err)
	}
	lock, err := s.hold(ctx)
	if err != nil {
		return nil, sentinel(err)
	}
	set := &Set{store: s, lock: lock}
	ready := false
	defer func() { // also if a stream of the plan panics
		if !ready {
			set.discard()
			set.Close()
		}
	}()
	if err := set.clear(ctx, p.ID); err != nil {
		return nil, err
	}
	if err := set.plan(ctx, p); err != nil {
		return nil, sentinel(err)
	}
	if err := set.stage(ctx, p); err != nil {
		return nil, sentinel(err)
	}
	ready = true
	return set, nil
}

// sentinel says of an error that says nothing else that preparing failed.
func sentinel(err error) error {
	for _, says := range []error{ErrPlanInvalid, ErrBusy, ErrRollbackFailed} {
		if errors.Is(err, says) {
			return err
		}
	}
	return fmt.Errorf("%w: %w", ErrPrepareFailed, err)
}

// clear removes what an earlier try of this set has prepared.
func (set *Set) clear(ctx context.Context, id string) error {
	j, p, err := set.store.read()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrPrepareFailed, err)
	}
	set.record = p
	switch {
	case j == nil:
		return nil
	case j.State == Finished: // only to be tidied
	case j.ID != id:
		return fmt.Errorf("%w: %s is %s", ErrUnfinished, j.ID, j.State)
	case j.State != Preparing && j.State != Prepared:
		return fmt.Errorf("%w: it is %s", ErrUnfinished, j.State)
	}
	old := &Set{store: set.store, journal: j, record: p}
	if old.folders, err = set.store.disk.folders(ctx, j.directories(), true); err != nil {
		return sentinel(err)
	}
	defer closeFolders(old.folders)
	if j.State == Finished {
		err = old.finish()
	} else {
		err = old.discard()
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrPrepareFailed, err)
	}
	set.record = old.record
	return nil
}

// plan finds out what is to be done at each destination.
func (set *Set) plan(ctx context.Context, p Plan) error {
	j := &journal{Format: formatVersion, ID: p.ID, Try: strings.ToLower(rand.Text()), State: Preparing, Keep: p.Keep}
	for _, t := range p.Files {
		path, err := canonical(t.Path, p.Symlinks)
		if err != nil {
			return fmt.Errorf("%s: %w", t.Path, err)
		}
		if dir := filepath.Dir(path); dir == set.store.dir || strings.HasPrefix(dir, set.store.dir+"/") {
			return fmt.Errorf("%w: %s lies in the store", ErrPlanInvalid, t.Path)
		}
		j.Items = append(j.Items, item{Given: t.Path, Path: path})
	}
	var err error
	if set.folders, err = set.store.disk.folders(ctx, j.directories(), false); err != nil {
		return err
	}
	if err := set.aliases(j.Items); err != nil {
		return err
	}
	for i := range j.Items {
		if err := set.decide(ctx, &j.Items[i], p.Files[i], p); err != nil {
			return fmt.Errorf("%s: %w", p.Files[i].Path, err)
		}
		j.Items[i].Aside = filepath.Join(filepath.Dir(j.Items[i].Path), fmt.Sprintf("%s%s-%d%s", tempPrefix, j.Try, i, asideSuffix))
	}
	set.journal = j
	return nil
}

// aliases finds two paths that are one file: by links, or because their directories
// are one that is mounted at two places.
func (set *Set) aliases(items []item) error {
	type file struct {
		dir  [2]uint64
		name string
	}
	seen := map[file]string{}
	for _, it := range items {
		i := slices.IndexFunc(set.folders, func(f folder) bool { return f.path == filepath.Dir(it.Path) })
		f := file{set.folders[i].id, filepath.Base(it.Path)}
		if other, taken := seen[f]; taken {
			return fmt.Errorf("%w: %s and %s are one file", ErrPlanInvalid, other, it.Given)
		}
		seen[f] = it.Given
	}
	return nil
}

// asideSuffix is not that of temps: nobody sweeps what the journal names.
const asideSuffix = ".aside"

// canonical returns the path without symbolic links. That a directory of it is
// missing is the plan's fault; not being able to tell is not.
func canonical(path string, policy SymlinkPolicy) (string, error) {
	path = filepath.Clean(path)
	follow, rest := filepath.Dir(path), filepath.Base(path)
	if policy == FollowSymlinks {
		if info, err := os.Lstat(path); err == nil && info.Mode().Type() == fs.ModeSymlink {
			follow, rest = path, ""
		}
	}
	dir, err := filepath.EvalSymlinks(follow)
	if errno, ok := errors.AsType[unix.Errno](err); err != nil && (!ok || errno == unix.ENOENT || errno == unix.ENOTDIR) {
		return "", fmt.Errorf("%w: %w", ErrPlanInvalid, err)
	}
	if err == nil && !utf8.ValidString(dir) {
		return "", fmt.Errorf("%w: leads to %q, which is not a path in UTF-8", ErrPlanInvalid, dir)
	}
	return filepath.Join(dir, rest), err
}

// decide compares what lies at a destination with what shall lie there.
func (set *Set) decide(ctx context.Context, it *item, t Target, p Plan) error {
	d := set.store.disk
	old, err := d.node(it.Path)
	if err != nil {
		return err
	}
	if err := old.replaceable(); err != nil {
		return fmt.Errorf("%w: %w", ErrPlanInvalid, err)
	}
	parent, err := d.node(filepath.Dir(it.Path))
	if err != nil {
		return err
	}
	if parent.flags&(unix.STATX_ATTR_IMMUTABLE|unix.STATX_ATTR_APPEND) != 0 {
		return fmt.Errorf("%w: the directory is immutable or append-only (see chattr(1))", ErrPlanInvalid)
	}
	if me := os.Geteuid(); old.exists && me != 0 && parent.mode&unix.S_ISVTX != 0 && old.uid != me && parent.uid != me {
		return fmt.Errorf("%w: the directory is sticky, and the file is user %d's: only that user can replace it", ErrPlanInvalid, old.uid)
	}
	if old.exists {
		digest, err := d.digest(ctx, it.Path)
		if err != nil {
			return err
		}
		it.Old = &content{Digest: digest, Size: old.size, Mode: old.mode, UID: old.uid, GID: old.gid}
		it.OldNode, it.OldWritten, it.OldTouched = old.inode, old.written, old.touched
	}
	if err := set.choose(it, t, p, old); err != nil || it.Action == actSame {
		return err
	}
	set.notice(it, old)
	return nil
}

// choose says what is to be done, as far as that can be told without a look at
// a stream.
func (set *Set) choose(it *item, t Target, p Plan, old node) error {
	if t.Remove {
		it.Action = actRemove
		if !old.exists {
			it.Action = actSame
		}
		return nil
	}
	c, warnings, err := t.resolve(old, p.Defaults, p.Owners)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrPlanInvalid, err)
	}
	set.warn(it, warnings)
	if c.Digest, err = t.known(); err != nil {
		return fmt.Errorf("%w: %w", ErrPlanInvalid, err)
	}
	it.New = &c
	it.Action = actCreate
	if old.exists {
		it.Action = actReplace
		it.settleSame()
	}
	return nil
}

// settleSame takes the item as done if what shall be there is there.
func (it *item) settleSame() {
	if it.New.Digest != it.Old.Digest {
		return
	}
	it.New.Size = it.Old.Size
	if *it.New == *it.Old {
		it.Action = actSame
	}
}

// notice compares what is there with the record, and warns of what will be lost.
func (set *Set) notice(it *item, old node) {
	if !old.exists {
		return
	}
	if old.links > 1 {
		set.warn(it, []string{fmt.Sprintf("has %d names; the others keep the old content", old.links)})
	}
	e := set.record.entry(it.Path)
	if e != nil && e.Content != nil && e.Content.Digest != it.Old.Digest {
		it.Drifted = true
		set.warn(it, []string{"was changed by somebody else since it was published"})
	}
}

// known returns the digest that the content has, as far as that is known
// before it is read.
func (t Target) known() (string, error) {
	if t.Open != nil {
		return t.Digest, nil
	}
	sum := sha256.Sum256(t.Bytes)
	digest := hex.EncodeToString(sum[:])
	if t.Digest != "" && t.Digest != digest {
		return "", fmt.Errorf("content has the digest %s, not %s", digest, t.Digest)
	}
	return digest, nil
}

// stage makes every new content durable under its hidden name. The journal has
// the names before the first of them exists.
func (set *Set) stage(ctx context.Context, p Plan) error {
	d := set.store.disk
	if err := set.write(Preparing); err != nil {
		return err
	}
	for i := range set.journal.Items {
		it := &set.journal.Items[i]
		if it.Action != actCreate && it.Action != actReplace {
			continue
		}
		if err := set.stageOne(ctx, it, p.Files[i], p.Owners.strict()); err != nil {
			return fmt.Errorf("%s: %w", it.Given, err)
		}
		if it.Action == actReplace {
			it.settleSame() // a stream shows it only at its end
		}
		if it.Action == actSame {
			if err := d.remove(it.Aside); err != nil {
				return err
			}
		}
	}
	if err := set.sync(); err != nil {
		return err
	}
	return set.write(Prepared)
}

func (set *Set) stageOne(ctx context.Context, it *item, t Target, strict bool) (err error) {
	d := set.store.disk
	from := io.ReadCloser(io.NopCloser(bytes.NewReader(t.Bytes)))
	if t.Open != nil {
		if from, err = t.Open(); err != nil {
			return err
		}
	}
	defer from.Close()
	f, err := d.create(it.Aside)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	it.New.Size, err = stream(ctx, io.MultiWriter(writer{d, f}, h), from)
	if err != nil {
		return err
	}
	digest := hex.EncodeToString(h.Sum(nil))
	if it.New.Digest != "" && it.New.Digest != digest {
		return fmt.Errorf("%w: content has the digest %s, not %s", ErrPlanInvalid, digest, it.New.Digest)
	}
	it.New.Digest = digest
	old := ""
	if it.Old != nil {
		old = it.Path
	}
	warnings, err := d.equip(f, it.New, old, strict)
	if err != nil {
		return err
	}
	set.warn(it, warnings)
	if err := d.fsync(f); err != nil {
		return err
	}
	n, err := d.node(it.Aside)
	it.Inode, it.Written = n.inode, n.written
	return err
}

// writer writes to a file by way of the disk.
type writer struct {
	disk disk
	file *os.File
}

func (w writer) Write(p []byte) (int, error) { return w.disk.write(w.file, p) }
