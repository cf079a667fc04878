package atomic

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"
	"unicode/utf8"
)

// A Plan says what shall lie at some paths, all of it or nothing of it.
type Plan struct {
	// ID names the set in the journal: up to 128 letters, digits and "._-", the
	// first of them no dot. Apply makes one up if it is empty.
	ID    string
	Files []Target

	// Defaults is for files that do not exist yet, where their Target is silent.
	Defaults Metadata
	Symlinks SymlinkPolicy
	Owners   OwnerPolicy

	// Keep is how many former contents of each file are kept after success:
	// 0 is 3, a negative number is none. The way back of this set does not
	// depend on it, and what somebody else wrote over a published file is
	// always kept.
	Keep int

	// Force has Apply run the hooks although nothing differs.
	Force bool
}

// A Target is a path and what shall lie there: the content from Bytes or from
// Open, or nothing. Of the three at most one is set; none is an empty file.
type Target struct {
	Path  string // absolute; its directory exists
	Bytes []byte
	// Open returns the content as a stream. It may be called not at all, where
	// Digest says that the content is there already, and is called at most once.
	Open func() (io.ReadCloser, error)
	// Digest is the SHA-256 that the content must have, in 64 lower-case
	// hexadecimal digits, or "".
	Digest string
	Remove bool
	Metadata
}

// Metadata is who may do what with a file. Each field for itself: what is set
// counts, else what the file has that is replaced, else the Plan's Defaults,
// else 0644, the process's user and its group.
type Metadata struct {
	// Mode has permission bits and fs.ModeSetuid, ModeSetgid and ModeSticky.
	// 0 is not set.
	Mode fs.FileMode
	// Owner and Group are names or numbers; the first that exists is taken.
	Owner, Group []string
}

// SymlinkPolicy says what to do where the last element of a path is a symbolic
// link. Links before it are always followed.
type SymlinkPolicy int

const (
	RefuseSymlinks SymlinkPolicy = iota // the plan is invalid
	FollowSymlinks                      // what the link leads to is the destination; it must exist
)

// OwnerPolicy says what to do when a file cannot get its owner or group.
type OwnerPolicy int

const (
	StrictIfRoot  OwnerPolicy = iota // root fails, others warn
	StrictOwners                     // fail, before anything is touched
	LenientOwners                    // warn
)

var validID = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$`)

var validDigest = regexp.MustCompile(`^[0-9a-f]{64}$`)

const settable = fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky

// check finds what is wrong with the plan by itself, without a look at the disk.
func (p Plan) check() error {
	if !validID.MatchString(p.ID) {
		return fmt.Errorf("id %q: want letters, digits and ._- and no dot at its start", p.ID)
	}
	if len(p.Files) == 0 {
		return errors.New("no files")
	}
	if p.Defaults.Mode&^settable != 0 {
		return fmt.Errorf("default mode %v has bits that no file can have", p.Defaults.Mode)
	}
	seen := map[string]bool{}
	for _, t := range p.Files {
		if err := t.check(); err != nil {
			return fmt.Errorf("%q: %w", t.Path, err)
		}
		if seen[filepath.Clean(t.Path)] {
			return fmt.Errorf("%q: named twice", t.Path)
		}
		seen[filepath.Clean(t.Path)] = true
	}
	for path := range seen {
		for dir := filepath.Dir(path); dir != "/"; dir = filepath.Dir(dir) {
			if seen[dir] {
				return fmt.Errorf("%q: lies below %q, which is to be a file", path, dir)
			}
		}
	}
	return nil
}

func (t Target) check() error {
	sources := 0
	for _, given := range []bool{t.Bytes != nil, t.Open != nil, t.Remove} {
		if given {
			sources++
		}
	}
	switch {
	case !filepath.IsAbs(t.Path):
		return errors.New("not an absolute path")
	case !utf8.ValidString(t.Path) || strings.ContainsRune(t.Path, 0):
		return errors.New("not a path in UTF-8")
	case filepath.Clean(t.Path) == "/" || strings.HasSuffix(t.Path, "/"):
		return errors.New("names a directory")
	case sources > 1:
		return errors.New("has more than one of bytes, stream and removal")
	case t.Digest != "" && !validDigest.MatchString(t.Digest):
		return fmt.Errorf("digest %q: want 64 lower-case hexadecimal digits", t.Digest)
	case t.Mode&^settable != 0:
		return fmt.Errorf("mode %v has bits that no file can have (0o4000 is fs.ModeSetuid)", t.Mode)
	}
	return nil
}
