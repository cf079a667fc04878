package atomic

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// State is how far a set has come. The journal has it, durable before what it
// announces.
type State string

const (
	Preparing  State = "preparing"  // new contents come to the disk; nothing live was touched
	Prepared   State = "prepared"   // they are durable; nothing live was touched
	Committing State = "committing" // destinations change, one after the other
	Committed  State = "committed"  // all destinations have what the plan says
	Undoing    State = "undoing"    // destinations change back
	Undone     State = "undone"     // all are as they were before; after a restart it is undoing again
	Finished   State = "finished"   // the set is published and has no way back any more
)

// What a set does to a path.
const (
	actSame    = "same" // nothing: it is there already
	actCreate  = "create"
	actReplace = "replace"
	actRemove  = "remove"
)

// formatVersion is that of the journal and of the record of what is published.
const formatVersion = 1

// journal is the set under way. A store has one at most.
type journal struct {
	Format int    `json:"format"`
	ID     string `json:"id"`
	Try    string `json:"try"` // random: tells sets of one ID apart, and is part of the hidden names
	State  State  `json:"state"`
	Keep   int    `json:"keep"`
	Items  []item `json:"files"`
}

// item is one destination. Aside is the hidden name beside it, at which first
// the new content lies and then, after the exchange, the old one.
type item struct {
	Given   string   `json:"given"` // as in the plan
	Path    string   `json:"path"`  // without symbolic links
	Action  string   `json:"action"`
	Aside   string   `json:"aside,omitempty"`
	Inode   uint64   `json:"inode,omitempty"` // of the new content
	New     *content `json:"new,omitempty"`   // nil: nothing shall be there
	Old     *content `json:"old,omitempty"`   // nil: nothing was there
	OldNode uint64   `json:"old_inode,omitempty"`
	Drifted bool     `json:"drifted,omitempty"` // Old is not what was published

	// When the two were last written, in nanoseconds. A file that is written in
	// place keeps its inode, and one that is removed leaves its to the next one.
	Written    int64 `json:"written,omitempty"`
	OldWritten int64 `json:"old_written,omitempty"`
	// When anything of Old was last changed, its access list for instance.
	OldTouched int64 `json:"old_touched,omitempty"`
}

// isNew reports whether n is the new content, as it was made ready.
func (it *item) isNew(n node) bool { return n.still(it.Inode, it.Written, it.New) }

// isOld reports whether n is what Prepare has found, with its owner and mode.
func (it *item) isOld(n node) bool {
	return n.still(it.OldNode, it.OldWritten, it.Old) && n.mode == it.Old.Mode && n.uid == it.Old.UID && n.gid == it.Old.GID
}

// untouched is isOld where this program has not renamed it yet, which changes
// that time too. A journal of an earlier version does not have it.
func (it *item) untouched(n node) bool {
	return it.isOld(n) && (it.OldTouched == 0 || n.touched == it.OldTouched)
}

// still reports whether n is this inode, and nobody has written to it since. A
// journal of an earlier version does not say when it was written.
func (n node) still(inode uint64, written int64, c *content) bool {
	return n.exists && inode != 0 && n.inode == inode && (written == 0 || c == nil || n.written == written && n.size == c.Size)
}

// content is a file's bytes, by their digest, and who may do what with it.
type content struct {
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
	Mode   octal  `json:"mode"` // 07777, as chmod(2) has it
	UID    int    `json:"uid"`
	GID    int    `json:"gid"`
}

// octal is a mode that people can read.
type octal uint32

func (o octal) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%04o", uint32(o)), nil }

func (o *octal) UnmarshalText(b []byte) error {
	_, err := fmt.Sscanf(string(b), "%o", (*uint32)(o))
	return err
}

// published is the record of what finished sets have left at their paths.
type published struct {
	Format int              `json:"format"`
	ID     string           `json:"id"`
	Try    string           `json:"try"` // of the set that finished last
	Files  []publishedEntry `json:"files"`
}

// publishedEntry is one path. Without a Content the path was removed, and the
// entry is there for what is kept of it.
type publishedEntry struct {
	Path    string   `json:"path"`
	ID      string   `json:"id"` // of the set that put it there
	Content *content `json:"content,omitempty"`
	Kept    []Kept   `json:"kept,omitempty"` // newest first
}

// Kept is a former content of a published file.
type Kept struct {
	File   string    `json:"file"` // where it lies
	Digest string    `json:"digest"`
	Time   time.Time `json:"time"`            // when it was replaced
	Drift  bool      `json:"drift,omitempty"` // somebody else had written it
}

func (p *published) entry(path string) *publishedEntry {
	for i := range p.Files {
		if p.Files[i].Path == path {
			return &p.Files[i]
		}
	}
	return nil
}

// readJSON reads what writeJSON wrote; false is that there is no such file.
func (d disk) readJSON(path string, to any) (bool, error) {
	var b []byte
	err := d.do("read", path, func() (err error) {
		b, err = os.ReadFile(path)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		err = json.Unmarshal(b, to)
	}
	if err != nil {
		return false, fmt.Errorf("cannot read %s: %w", path, err)
	}
	return true, nil
}

func (d disk) writeJSON(path string, from any) error {
	b, err := json.MarshalIndent(from, "", " ")
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	return d.writeFile(path, append(b, '\n'), 0o600)
}
