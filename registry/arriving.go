package registry

import (
	"errors"
	"io"
	"slices"
	"sync"
)

// arriving is an upload's content while it comes in, in pieces and in any
// order. Its readers follow it: they get each byte once everything before it is
// there, and wait at the gap. They read from the file, that is from the page
// cache, so however far they are behind, the writers never wait for them.
type arriving struct {
	file     Upload
	failed   chan struct{} // closed by fail
	recorded chan struct{} // closed by the owner when the upload is recorded as complete

	mu     sync.Mutex
	more   *sync.Cond // whole grew, or ended was set
	whole  int64      // every byte before it is there
	pieces []span     // what lies beyond, sorted, disjoint
	length int64
	read   int64 // how far a reader has come
	looked int64 // see look
	ended  bool
	again  bool // something was written that had been read
	err    error
}

type span struct{ from, to int64 }

// maxPieces bounds the memory that a client's order of writing can take. The
// most scattered client known has 64 writes in flight.
const maxPieces = 4096

func newArriving(f Upload) *arriving {
	a := &arriving{file: f, failed: make(chan struct{}), recorded: make(chan struct{})}
	a.more = sync.NewCond(&a.mu)
	return a
}

// wrote says that the bytes from from to to are in the file.
func (a *arriving) wrote(from, to int64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.length = max(a.length, to)
	if from < a.read {
		a.again = true
	}
	i, _ := slices.BinarySearchFunc(a.pieces, from, func(s span, from int64) int {
		if s.to < from {
			return -1
		}
		return 1
	})
	j := i
	for ; j < len(a.pieces) && a.pieces[j].from <= to; j++ {
		from, to = min(from, a.pieces[j].from), max(to, a.pieces[j].to)
	}
	if from <= a.whole {
		a.pieces = slices.Delete(a.pieces, i, j)
		a.whole = max(a.whole, to)
		a.more.Broadcast()
		return nil
	}
	if j == i && len(a.pieces) >= maxPieces {
		return errors.New("upload is written in too many pieces; write it in order")
	}
	a.pieces = slices.Replace(a.pieces, i, j, span{from, to})
	return nil
}

// truncated says that the file was given the length size.
func (a *arriving) truncated(size int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.length = size
	if size < a.read {
		a.again = true
	}
	a.whole = min(a.whole, size)
	a.pieces = slices.DeleteFunc(a.pieces, func(s span) bool { return s.from >= size })
	if n := len(a.pieces); n > 0 {
		a.pieces[n-1].to = min(a.pieces[n-1].to, size)
	}
}

// finish says that nothing more comes: gaps are holes, and read as zeros. It
// reports whether the readers have read something that was changed later.
func (a *arriving) finish() (again bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.whole, a.pieces, a.ended = a.length, nil, true
	a.more.Broadcast()
	return a.again
}

// fail ends the readers with err.
func (a *arriving) fail(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err == nil {
		a.err = err
		close(a.failed)
	}
	a.more.Broadcast()
}

func (a *arriving) reason() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.err
}

func (a *arriving) size() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.length
}

// position returns how far the fastest reader has come.
func (a *arriving) position() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.read
}

// look reports whether it is time to look at the free space before the upload
// grows to end.
func (a *arriving) look(end int64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if end < a.looked {
		return false
	}
	a.looked = end + freeEvery
	return true
}

// reader returns a new reader from the start.
func (a *arriving) reader() io.Reader { return &follower{a: a} }

type follower struct {
	a   *arriving
	off int64
}

// Read waits until there is something to read or nothing more will come.
func (f *follower) Read(p []byte) (int, error) {
	a := f.a
	a.mu.Lock()
	for a.whole == f.off && !a.ended && a.err == nil {
		a.more.Wait()
	}
	err, n := a.err, min(int64(len(p)), a.whole-f.off)
	a.read = max(a.read, f.off+n)
	a.mu.Unlock()
	switch {
	case err != nil:
		return 0, err
	case n < 0:
		return 0, errRewritten // cut behind us
	case n == 0 && len(p) > 0:
		return 0, io.EOF
	}
	k, err := a.file.ReadAt(p[:n], f.off)
	f.off += int64(k)
	if err == io.EOF && int64(k) == n {
		err = nil
	}
	return k, err
}
