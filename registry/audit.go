package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"deploytools/layers/digest"
	"deploytools/registry/wire"
)

// Entry is one line of the audit log: an act that was done, or one that was
// refused. Entries are numbered from 1 without a gap, in the order in which they
// were stored, and each one holds the digest of the one before.
type Entry struct {
	Seq  uint64
	Time time.Time

	User      string // as the client named itself
	Key       string // fingerprint
	Comment   string `json:",omitempty"` // of the key, or a certificate's ID
	Label     string `json:",omitempty"`
	Authority string `json:",omitempty"` // fingerprint of what signed the certificate
	Serial    uint64 `json:",omitzero"`  // of the certificate
	Remote    string
	Role      string

	Command []string
	Name    string      `json:",omitempty"` // of the configuration, component or host
	Status  wire.Status // 0: it was done
	Result  string      // what was done, or why not
	Note    string      `json:",omitempty"`
	Nothing bool        `json:",omitempty"` // was changed: all was so already

	Prev digest.Digest // of the bytes in which the entry before is stored
}

// chain is where the audit log ends, and how far its oldest entries were
// dropped.
type chain struct {
	Head    uint64 // number of the newest entry
	Hash    digest.Digest
	Cut     uint64 `json:",omitzero"` // number of the newest one that was dropped
	CutHash digest.Digest
}

// record writes the entry about an act that is done in tx.
func (r *Registry) record(tx Tx, a Act, did done) error {
	return r.append(tx, a, Entry{Name: did.name, Result: did.what, Nothing: did.nothing})
}

// append makes e, which says what became of a, the newest entry.
func (r *Registry) append(tx Tx, a Act, e Entry) error {
	c, _, err := get[chain](tx, keyChain)
	if err != nil {
		return err
	}
	e.Seq, e.Time, e.Prev = c.Head+1, r.now(), c.Hash
	by := a.Caller
	e.User, e.Key, e.Comment, e.Label, e.Authority, e.Serial = by.User, by.Fingerprint, by.Comment, by.Label, by.Authority, by.Serial
	e.Remote, e.Role = by.Remote, by.Role.String()
	e.Command, e.Note = a.Command, a.Note
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	c.Head, c.Hash = e.Seq, digest.Of(b)
	return errors.Join(tx.Put(keyEntry(e.Seq), b), put(tx, keyChain, c))
}

// What one key may put on record by changing nothing, being refused or not, so
// that it cannot fill the disk: about this many entries in idleTime. The daemon's
// log has them all.
const (
	maxIdle  = 60
	idleTime = time.Minute
	idleSeen = 4 * maxIdle // newest entries that are looked at
	// An agent asks again with each poll: what it is refused is on record once in
	// this time.
	sameTime = time.Hour
)

// Refused puts on record that the act a about name was refused, or failed, with
// this status for this reason. What one key does too often is left out, which is
// no error.
func (r *Registry) Refused(ctx context.Context, a Act, name string, status wire.Status, reason string) error {
	a.Command, name, reason = shorten(a.Command), cut(name, maxRefused), cut(reason, maxRefused)
	errEnough := errors.New("enough")
	last := false
	e := Entry{Key: a.Caller.Fingerprint, Command: a.Command, Name: name, Status: status, Result: reason}
	enough := func(tx Tx) error {
		n, same, err := r.idle(tx, e)
		if err == nil && (n >= maxIdle || same && a.Caller.Role == Agent) {
			err = errEnough
		}
		last = n == maxIdle-1
		return err
	}
	err := r.o.Meta.View(ctx, enough) // most of a flood ends here, without the turn to write
	if err == nil {
		err = r.o.Meta.Update(ctx, func(tx Tx) error {
			if err := enough(tx); err != nil {
				return err
			}
			if last {
				e.Result += "; what else is refused to this key within a minute may be in the log only"
			}
			return r.append(tx, a, e)
		})
	}
	if err == errEnough {
		return nil
	}
	return err
}

// maxRefused bounds what is recorded of the words of an act that was refused, and
// of each other text about it, in bytes.
const maxRefused = 1 << 10

// shorten returns as many of the words as are recorded.
func shorten(words []string) (out []string) {
	left := maxRefused
	for _, w := range words {
		if left <= 0 {
			return append(out, "...")
		}
		w = cut(w, left)
		out, left = append(out, w), left-len(w)
	}
	return out
}

// cut returns s, cut visibly to about limit bytes.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "..."
}

// idle counts the entries of the key of like lately that changed nothing. same
// reports whether one of them, in sameTime, says what like says.
func (r *Registry) idle(tx Tx, like Entry) (n int, same bool, err error) {
	c, _, err := get[chain](tx, keyChain)
	now := r.now()
	for i := uint64(0); i < idleSeen && err == nil && i < c.Head; i++ {
		var e Entry
		e, _, err = get[Entry](tx, keyEntry(c.Head-i))
		age := now.Sub(e.Time)
		if age >= sameTime {
			break
		}
		if e.Status == wire.OK && !e.Nothing || e.Key != like.Key {
			continue
		}
		if age < idleTime {
			n++
		}
		same = same || e.Status == like.Status && e.Name == like.Name && e.Result == like.Result && slices.Equal(e.Command, like.Command)
	}
	return n, same, err
}

// AuditFilter says which entries are wanted; what is zero wants all.
type AuditFilter struct {
	Since, Until time.Time // the first is included, the last is not
	User         string    // name, or the label, comment or fingerprint of the key
	Command      string    // its first word
	Name         string    // of the configuration or component
	Newest       int       // so many of them at most
}

func (f AuditFilter) match(e Entry) bool {
	switch {
	case !f.Since.IsZero() && e.Time.Before(f.Since), !f.Until.IsZero() && !e.Time.Before(f.Until):
		return false
	case f.User != "" && !slices.Contains([]string{e.User, e.Label, e.Comment, e.Key}, f.User):
		return false
	case f.Command != "" && (len(e.Command) == 0 || e.Command[0] != f.Command):
		return false
	}
	return f.Name == "" || f.Name == e.Name
}

// auditPage is how many entries are read in one View. Readers may be slow, and
// no View should wait for them.
const auditPage = 100

// Audit yields the entries that f wants as they are stored now, the oldest
// first. An error ends the loop.
func (r *Registry) Audit(ctx context.Context, f AuditFilter) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		c, err := r.chain(ctx)
		from := c.Cut + 1
		if err == nil && f.Newest > 0 {
			from, err = r.newest(ctx, f, c)
		}
		for from <= c.Head && err == nil {
			var page []stored
			page, _, err = r.entries(ctx, from, min(c.Head, from+auditPage-1))
			from += auditPage
			for _, s := range page {
				e, bad := s.entry()
				if bad != nil {
					err = bad
					break
				}
				if f.match(e) && !yield(e, nil) {
					return
				}
			}
		}
		if err != nil {
			yield(Entry{}, err)
		}
	}
}

// newest returns the number of the entry from which on f.Newest entries match.
func (r *Registry) newest(ctx context.Context, f AuditFilter, c chain) (uint64, error) {
	found := 0
	for to := c.Head; to > c.Cut; {
		from := max(c.Cut+1, to-min(to, auditPage)+1)
		page, _, err := r.entries(ctx, from, to)
		if err != nil {
			return 0, err
		}
		for _, s := range slices.Backward(page) {
			e, err := s.entry()
			if err != nil {
				return 0, err
			}
			if !f.match(e) {
				continue
			}
			if found++; found == f.Newest {
				return e.Seq, nil
			}
		}
		to = from - 1
	}
	return c.Cut + 1, nil
}

func (r *Registry) chain(ctx context.Context) (c chain, err error) {
	err = r.o.Meta.View(ctx, func(tx Tx) (err error) {
		c, _, err = get[chain](tx, keyChain)
		return err
	})
	return c, err
}

// stored is an entry as its bytes are, which is what the chain is made of.
type stored struct {
	seq   uint64
	bytes []byte // nil: it is missing
}

func (s stored) entry() (Entry, error) {
	if s.bytes == nil {
		return Entry{}, fmt.Errorf("entry %d is missing", s.seq)
	}
	return decode[Entry](keyEntry(s.seq), s.bytes)
}

// entries reads the entries from from to to, both included, but for those that
// were dropped meanwhile: c is the chain as it is with them.
func (r *Registry) entries(ctx context.Context, from, to uint64) (out []stored, c chain, err error) {
	err = r.o.Meta.View(ctx, func(tx Tx) (err error) {
		out = nil
		if c, _, err = get[chain](tx, keyChain); err != nil {
			return err
		}
		for seq := max(from, c.Cut+1); seq <= min(to, c.Head); seq++ {
			b, err := tx.Get(keyEntry(seq))
			if err != nil {
				return err
			}
			out = append(out, stored{seq, b})
		}
		return nil
	})
	return out, c, err
}

// AuditState is what VerifyAudit found.
type AuditState struct {
	First, Last uint64        // numbers of the entries that are kept; Last < First: none
	Hash        digest.Digest // of the last
	Broken      uint64        // the first entry that is not as it was stored; 0: all are
	Reason      string        // what is wrong with it
}

// VerifyAudit goes through the chain of the audit log as it is now. What it
// finds broken is told in the state and is no error. Whoever can write to the
// database could also write a new chain: only a hash that was kept elsewhere
// tells, see AuditHash.
func (r *Registry) VerifyAudit(ctx context.Context) (AuditState, error) {
	c, err := r.chain(ctx)
	s := AuditState{First: c.Cut + 1, Last: c.Head, Hash: c.Hash}
	prev := c.CutHash
	for from := s.First; from <= c.Head && err == nil && s.Broken == 0; from += auditPage {
		var page []stored
		var now chain
		page, now, err = r.entries(ctx, from, min(c.Head, from+auditPage-1))
		if now.Cut >= from { // dropped meanwhile
			prev, s.First = now.CutHash, now.Cut+1
		}
		for _, e := range page {
			if s.Broken, s.Reason = e.follows(prev, s.First); s.Broken != 0 {
				return s, nil
			}
			prev = digest.Of(e.bytes)
		}
	}
	if err == nil && c.Head >= s.First && prev != c.Hash {
		s.Broken, s.Reason = c.Head, "it was changed"
	}
	return s, err
}

// follows says which entry is broken if s does not follow one with the hash
// prev.
func (s stored) follows(prev digest.Digest, first uint64) (broken uint64, reason string) {
	e, err := s.entry()
	switch {
	case err != nil:
		return s.seq, strings.TrimPrefix(err.Error(), "internal error: ")
	case e.Seq != s.seq:
		return s.seq, fmt.Sprintf("it has the number %d", e.Seq)
	case e.Prev == prev:
		return 0, ""
	case s.seq == first:
		return s.seq, "it does not follow the entries that were dropped"
	}
	return s.seq - 1, fmt.Sprintf("it is not the one that entry %d was written after", s.seq)
}

// AuditHash returns the hash of the entry seq, which the next entry holds. It
// never changes: keep it elsewhere, and ask again later.
func (r *Registry) AuditHash(ctx context.Context, seq uint64) (digest.Digest, error) {
	page, _, err := r.entries(ctx, seq, seq)
	if err != nil {
		return digest.Digest{}, err
	}
	if len(page) == 0 || page[0].bytes == nil {
		return digest.Digest{}, fail(ErrNotFound, "the audit log has no entry %d", seq)
	}
	return digest.Of(page[0].bytes), nil
}

// dropPerUpdate is how many old entries go in one Update.
const dropPerUpdate = 50

// dropEntries drops the oldest entries beyond Options.AuditKeep.
func (r *Registry) dropEntries(ctx context.Context) (n int, err error) {
	for more := r.o.AuditKeep > 0; more && err == nil; {
		var dropped int
		err = r.o.Meta.Update(ctx, func(tx Tx) error {
			dropped, more = 0, false
			c, _, err := get[chain](tx, keyChain)
			if err != nil || c.Head-c.Cut <= uint64(r.o.AuditKeep) {
				return err
			}
			dropped = int(min(dropPerUpdate, c.Head-c.Cut-uint64(r.o.AuditKeep)))
			more = dropped == dropPerUpdate
			return drop(tx, c, dropped)
		})
		if err == nil {
			n += dropped
		}
	}
	return n, err
}

// drop drops the n oldest entries; the rest can still be verified.
func drop(tx Tx, c chain, n int) error {
	for range n {
		c.Cut++
		b, err := tx.Get(keyEntry(c.Cut))
		if err != nil {
			return err
		}
		c.CutHash = digest.Of(b)
		if err := tx.Delete(keyEntry(c.Cut)); err != nil {
			return err
		}
	}
	return put(tx, keyChain, c)
}
