package registry

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"strings"
	"time"
)

// DropBox is what one operator has uploaded, as a tree. Paths are absolute and
// clean; a file implies the directories above it.
type DropBox struct {
	// Files holds the newest upload of each path. One that is being received
	// shows only where there is no other.
	Files map[string]UploadState
	// Dirs holds the directories that were made, and when.
	Dirs map[string]time.Time
}

// dropDir is the record of a directory that an operator has made.
type dropDir struct {
	Path        string
	Fingerprint string
	Made        time.Time
}

// DropBox returns the tree of the key of c.
func (r *Registry) DropBox(ctx context.Context, c Caller) (DropBox, error) {
	all, err := r.Uploads(ctx)
	if err != nil {
		return DropBox{}, err
	}
	b := DropBox{Files: map[string]UploadState{}}
	for _, u := range all { // in the order in which they were begun
		if u.Fingerprint != c.Fingerprint || u.Replaced {
			continue
		}
		if old, ok := b.Files[u.Path]; ok && u.Receiving && !old.Receiving {
			continue
		}
		b.Files[u.Path] = u
	}
	b.Dirs, err = r.dropDirs(ctx, c)
	return b, err
}

// IsDir reports whether p is a directory: it was made, or something lies in it.
func (b DropBox) IsDir(p string) bool {
	if _, ok := b.Dirs[p]; ok || p == "/" {
		return true
	}
	return b.holds(p)
}

func (b DropBox) holds(dir string) bool {
	for at := range b.Files {
		if isBelow(at, dir) {
			return true
		}
	}
	for at := range b.Dirs {
		if isBelow(at, dir) {
			return true
		}
	}
	return false
}

// Fits says why nothing can be made at p: something above it is a file.
func (b DropBox) Fits(p string) error {
	for dir := path.Dir(p); len(dir) > 1; dir = path.Dir(dir) {
		if _, ok := b.Files[dir]; ok {
			return fail(ErrConflict, "%s is not a directory", dir)
		}
	}
	return nil
}

func isBelow(p, dir string) bool { return strings.HasPrefix(p, strings.TrimSuffix(dir, "/")+"/") }

// boxOf reads the tree in a transaction. Sizes of what is not complete are not
// in it.
func (r *Registry) boxOf(tx Tx, c Caller) (b DropBox, all []UploadState, err error) {
	b = DropBox{Files: map[string]UploadState{}}
	for key, text := range tx.Scan(prefixUpload) {
		u, err := decode[UploadState](key, text)
		if err != nil {
			return b, nil, err
		}
		if u.Fingerprint != c.Fingerprint {
			continue
		}
		_, u.Receiving = r.inbox.received(u.ID)
		all = append(all, u)
		if !u.Replaced {
			b.Files[u.Path] = u
		}
	}
	b.Dirs, err = dropDirsIn(tx, c)
	return b, all, err
}

func (r *Registry) dropDirs(ctx context.Context, c Caller) (dirs map[string]time.Time, err error) {
	err = r.o.Meta.View(ctx, func(tx Tx) (err error) {
		dirs, err = dropDirsIn(tx, c)
		return err
	})
	return dirs, err
}

func dropDirsIn(tx Tx, c Caller) (map[string]time.Time, error) {
	dirs := map[string]time.Time{}
	for key, text := range tx.Scan(prefixDropDir) {
		d, err := decode[dropDir](key, text)
		if err != nil {
			return nil, err
		}
		if d.Fingerprint == c.Fingerprint {
			dirs[d.Path] = d.Made
		}
	}
	return dirs, nil
}

// keyDropDir is short however long the path is.
func keyDropDir(fingerprint, p string) string {
	sum := sha256.Sum256([]byte(fingerprint + "\x00" + p))
	return prefixDropDir + hex.EncodeToString(sum[:])
}

func (r *Registry) putDir(tx Tx, c Caller, p string) error {
	if p == "/" {
		return nil
	}
	return put(tx, keyDropDir(c.Fingerprint, p), dropDir{Path: p, Fingerprint: c.Fingerprint, Made: r.now()})
}

// MakeDir makes a directory, which is remembered as long as an upload.
func (r *Registry) MakeDir(ctx context.Context, c Caller, p string) error {
	return r.o.Meta.Update(ctx, func(tx Tx) error {
		b, all, err := r.boxOf(tx, c)
		if err != nil {
			return err
		}
		if _, ok := b.Files[p]; ok || b.IsDir(p) {
			return fail(ErrConflict, "%s exists already", p)
		}
		if err := b.Fits(p); err != nil {
			return err
		}
		if err := r.o.Quota.roomForEntry(len(all) + len(b.Dirs)); err != nil {
			return err
		}
		return r.putDir(tx, c, p)
	})
}

// RemoveDir removes a directory in which nothing lies.
func (r *Registry) RemoveDir(ctx context.Context, c Caller, p string) error {
	return r.o.Meta.Update(ctx, func(tx Tx) error {
		b, _, err := r.boxOf(tx, c)
		if err != nil {
			return err
		}
		_, isFile := b.Files[p]
		switch {
		case isFile:
			return fail(ErrConflict, "%s is not a directory", p)
		case b.holds(p):
			return fail(ErrConflict, "directory %s is not empty", p)
		case !b.IsDir(p):
			return fail(ErrNotFound, "directory %s not found", p)
		}
		return tx.Delete(keyDropDir(c.Fingerprint, p))
	})
}

// RemoveFile removes every upload at p that is not being received. The
// directory that it was in stays.
func (r *Registry) RemoveFile(ctx context.Context, c Caller, p string) error {
	var ids []string
	_, err := r.act(ctx, fileAct(c, "remove", p), func(tx Tx) (done, error) {
		b, all, err := r.boxOf(tx, c)
		ids = nil
		if err != nil {
			return done{}, err
		}
		for _, u := range all {
			if u.Path == p && !u.Receiving {
				ids = append(ids, u.ID)
			}
		}
		if _, ok := b.Files[p]; ids == nil && ok {
			return done{}, errBeingWritten
		}
		if ids == nil {
			return done{}, fail(ErrNotFound, "upload %s not found", p)
		}
		return done{what: fmt.Sprintf("removed %d uploads", len(ids))}, r.putDir(tx, c, path.Dir(p))
	})
	if err != nil {
		return err
	}
	return r.removeAll(ctx, ids)
}

// maxMoved bounds the writes of one Update.
const maxMoved = (MaxWrites - actWrites) / 3

// Move gives what is at from the path to. replace says whether it may take the
// place of an upload; the content of that can still become a version.
func (r *Registry) Move(ctx context.Context, c Caller, from, to string, replace bool) error {
	var partials []string
	_, err := r.act(ctx, fileAct(c, "rename", from, to), func(tx Tx) (done, error) {
		partials = nil
		b, all, err := r.boxOf(tx, c)
		if err != nil {
			return done{}, err
		}
		if _, ok := b.Files[from]; !ok && !b.IsDir(from) {
			return done{}, fail(ErrNotFound, "upload %s not found", from)
		}
		if from == to {
			return done{what: "nothing to rename", nothing: true}, nil
		}
		if err := b.mayMove(from, to, replace); err != nil {
			return done{}, err
		}
		if partials, err = displace(tx, all, to, ""); err != nil {
			return done{}, err
		}
		return done{what: "renamed"}, r.move(tx, c, b, all, from, to)
	})
	if err != nil {
		return err
	}
	return r.removeAll(ctx, partials)
}

func (b DropBox) mayMove(from, to string, replace bool) error {
	_, isFile := b.Files[from]
	_, there := b.Files[to]
	switch {
	case isBelow(to, from):
		return fail(ErrConflict, "%s cannot go into itself", from)
	case b.IsDir(to), there && !(replace && isFile):
		return fail(ErrConflict, "%s exists already", to)
	}
	return b.Fits(to)
}

func (r *Registry) move(tx Tx, c Caller, b DropBox, all []UploadState, from, to string) error {
	moved := 0
	there := func(p string) (string, error) {
		moved++
		if moved > maxMoved {
			return "", fail(ErrConflict, "directory %s holds more than %d entries", from, maxMoved).hint("rename what is in it")
		}
		return to + strings.TrimPrefix(p, from), nil
	}
	for _, u := range all {
		if u.Replaced || u.Path != from && !isBelow(u.Path, from) {
			continue
		}
		if u.Receiving {
			return fail(ErrConflict, "%s is being written", u.Path)
		}
		var err error
		if u.Path, err = there(u.Path); err == nil {
			err = put(tx, keyUpload(u.ID), u)
		}
		if err != nil {
			return err
		}
	}
	for p := range b.Dirs {
		if p != from && !isBelow(p, from) {
			continue
		}
		at, err := there(p)
		if err == nil {
			err = tx.Delete(keyDropDir(c.Fingerprint, p))
		}
		if err == nil {
			err = r.putDir(tx, c, at)
		}
		if err != nil {
			return err
		}
	}
	return r.putDir(tx, c, path.Dir(from))
}

// displace makes the complete uploads at p replaced ones, but for the one of
// the name keep, and returns those that were cut off: they are of no more use.
func displace(tx Tx, own []UploadState, p, keep string) (partials []string, err error) {
	displaced := 0
	for _, u := range own {
		switch {
		case u.Path != p || u.ID == keep || u.Receiving || u.Replaced:
		case !u.Complete:
			partials = append(partials, u.ID)
		case displaced < maxMoved/2: // more than one come only from before this rule
			displaced++
			u.Replaced = true
			if err := put(tx, keyUpload(u.ID), u); err != nil {
				return nil, err
			}
		}
	}
	return partials, nil
}

// sweepDirs removes directories that were made before old, some at a time.
func (r *Registry) sweepDirs(ctx context.Context, old time.Time) error {
	for {
		expired, err := r.expiredDirs(ctx, old)
		if err != nil || len(expired) == 0 {
			return err
		}
		err = r.o.Meta.Update(ctx, func(tx Tx) error {
			for _, key := range expired {
				if err := tx.Delete(key); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
}

// expiredDirs returns as many keys as one Update can delete.
func (r *Registry) expiredDirs(ctx context.Context, old time.Time) (keys []string, err error) {
	err = r.o.Meta.View(ctx, func(tx Tx) error {
		keys = nil
		for key, text := range tx.Scan(prefixDropDir) {
			d, err := decode[dropDir](key, text)
			if err != nil {
				return err
			}
			if !d.Made.After(old) && len(keys) < MaxWrites {
				keys = append(keys, key)
			}
		}
		return nil
	})
	return keys, err
}

// OpenFile opens what the caller has uploaded at p, to its end; the caller
// closes it.
func (r *Registry) OpenFile(ctx context.Context, c Caller, p string) (Upload, error) {
	b, err := r.DropBox(ctx, c)
	if err != nil {
		return nil, err
	}
	u, ok := b.Files[p]
	switch {
	case !ok && b.IsDir(p):
		return nil, fail(ErrConflict, "%s is a directory", p)
	case !ok:
		return nil, fail(ErrNotFound, "upload %s not found", p)
	case !u.Complete:
		return nil, fail(ErrConflict, "upload %s is not complete", p)
	}
	return r.OpenUpload(ctx, u.ID)
}
