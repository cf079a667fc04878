package registry

import (
	"cmp"
	"context"
	"sync"
)

// Quota bounds what uploads may take that are no versions yet.
type Quota struct {
	Operator int64 // bytes of all uploads of one key; 0: 64 GiB
	Total    int64 // bytes of all uploads; 0: 256 GiB
	Entries  int   // uploads and directories of one key; 0: 1000
}

func (q Quota) orDefault() Quota {
	return Quota{cmp.Or(q.Operator, 64<<30), cmp.Or(q.Total, 256<<30), cmp.Or(q.Entries, 1000)}
}

// usage counts the bytes of all uploads, so that each write can be weighed
// before it happens. It is counted anew from the records whenever an upload
// begins: nothing depends on it but the next refusal.
type usage struct {
	mu       sync.Mutex // guards the following; held during a View
	owned    map[string]int64
	total    int64
	live     map[string]*account // by upload: what is received here
	unlooked int64               // bytes that may come before the next look at the free space
}

type account struct {
	owner  string // fingerprint
	bytes  int64
	looked bool // at the free space, once at least
}

// freeEvery is how many bytes come in, of all uploads together, between two
// looks at the free space.
const freeEvery = 16 << 20

// admit opens the account of an upload of c that is about to begin or to go on,
// which only one writer can have.
func (r *Registry) admit(ctx context.Context, c Caller, id string) error {
	if !r.inbox.claim(id) {
		return errBeingWritten
	}
	q := &r.inbox.usage
	q.mu.Lock()
	entries, err := r.recount(ctx, c, id)
	if err == nil {
		err = r.o.Quota.roomForEntry(entries)
	}
	if err == nil {
		q.live[id] = &account{owner: c.Fingerprint}
	}
	q.mu.Unlock()
	if err != nil {
		r.inbox.leave(id, 0)
	}
	return err
}

// recount returns how many uploads and directories c has, without the upload id,
// whose account is yet to be opened. It is called with the lock of usage held.
func (r *Registry) recount(ctx context.Context, c Caller, id string) (entries int, err error) {
	q := &r.inbox.usage
	all, err := r.Uploads(ctx)
	if err != nil {
		return 0, err
	}
	q.owned, q.total = map[string]int64{}, 0
	for _, u := range all {
		if u.ID == id {
			continue
		}
		if u.Fingerprint == c.Fingerprint {
			entries++
		}
		if q.live[u.ID] == nil {
			q.owned[u.Fingerprint] += u.Size
			q.total += u.Size
		}
	}
	for _, a := range q.live {
		q.owned[a.owner] += a.bytes
		q.total += a.bytes
	}
	dirs, err := r.dropDirs(ctx, c)
	return entries + len(dirs), err
}

func (q Quota) roomForEntry(have int) error {
	if have < q.Entries {
		return nil
	}
	return fail(ErrRefused, "your key has %d uploads and directories at the registry already", have).
		hint("remove some of them; each goes by itself a day after it was written")
}

// grow is called with q.mu held.
func (q *usage) grow(a *account, n int64, limits Quota) error {
	if q.owned[a.owner]+n > limits.Operator {
		return fail(ErrRefused, "your uploads would take more than %d bytes", limits.Operator).
			hint("remove some of them, or ask for a greater -operator-quota at the registry")
	}
	if q.total+n > limits.Total {
		return fail(ErrRefused, "the uploads of all operators would take more than %d bytes", limits.Total).
			hint("remove some of them, or ask for a greater -total-quota at the registry")
	}
	a.bytes += n
	q.owned[a.owner] += n
	q.total += n
	q.unlooked -= n
	return nil
}

// reach makes the upload end at to at least, and reports whether it is time to
// look at the free space.
func (q *usage) reach(id string, to int64, limits Quota) (look bool, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	a := q.live[id]
	if a == nil || to <= a.bytes {
		return false, nil
	}
	if err := q.grow(a, to-a.bytes, limits); err != nil {
		return false, err
	}
	look = q.unlooked < 0 || !a.looked
	if look {
		q.unlooked, a.looked = freeEvery, true
	}
	return look, nil
}

// cut makes the upload size bytes long.
func (q *usage) cut(id string, size int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if a := q.live[id]; a != nil {
		q.give(a, a.bytes-size)
	}
}

func (q *usage) give(a *account, n int64) {
	a.bytes -= n
	q.owned[a.owner] -= n
	q.total -= n
}

// leave closes the account. left is what stays of the upload.
func (q *usage) leave(id string, left int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if a := q.live[id]; a != nil {
		q.give(a, a.bytes-left)
		delete(q.live, id)
	}
}

// Room is what an operator's uploads take, and may take more.
type Room struct {
	Used int64 // bytes
	Free int64 // bytes, also by what the disk has
	// Entries are uploads and directories: those there are, and may be.
	Entries, MaxEntries int
}

// Room returns what the uploads of c take and may take.
func (r *Registry) Room(ctx context.Context, c Caller) (Room, error) {
	free, err := r.o.Spool.Free(ctx)
	if err != nil {
		return Room{}, err
	}
	q, limits := &r.inbox.usage, r.o.Quota
	q.mu.Lock()
	defer q.mu.Unlock()
	entries, err := r.recount(ctx, c, "")
	used := q.owned[c.Fingerprint]
	return Room{
		Used: used, Free: max(0, min(free-r.o.MinFree, limits.Operator-used, limits.Total-q.total)),
		Entries: entries, MaxEntries: limits.Entries,
	}, err
}
