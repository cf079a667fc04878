package registry

import (
	"io"
	"math"
	"slices"
	"sync"
)

// arriving is an upload's content while it comes in, in pieces and in any
// order. Its readers follow it: they get each byte once everything before it is
// there, and wait at the gap. They read from the file, that is from the page
// cache, so however far they are behind, the writers never wait for them.
//
// It ends in one of two ways: recorded as complete, or failed. Whoever waits
// with settled hears which; exactly one of them happens first.
type arriving struct {
	file Upload
	over chan struct{} // closed when it has ended in one of the two ways

	mu       sync.Mutex // guards the following
	more     *sync.Cond // whole came to awaited, or it ended
	whole    int64      // every byte before it is there
	awaited  int64      // the least that a reader waits for
	pieces   []span     // what lies beyond, sorted, disjoint
	length   int64
	read     int64 // how far a reader has come
	ended    bool  // nothing more comes
	again    bool  // something was written that had been read
	recorded bool
	err      error
}

type span struct{ from, to int64 }

// maxPieces bounds the memory that a client's order of writing can take. The
// most scattered client known has 64 writes in flight.
const maxPieces = 4096

var errEnded error = fail(ErrConflict, "upload has ended")

func newArriving(f Upload) *arriving {
	a := &arriving{file: f, over: make(chan struct{}), awaited: math.MaxInt64}
	a.more = sync.NewCond(&a.mu)
	return a
}

// arrived returns what is there already, size bytes of it, and will not change.
func arrived(f Upload, size int64) *arriving {
	a := newArriving(f)
	a.length, a.whole, a.ended = size, size, true
	return a
}

// resumed returns what goes on arriving after the first size bytes.
func resumed(f Upload, size int64) *arriving {
	a := newArriving(f)
	a.length, a.whole = size, size
	return a
}

// window is how far ahead of the first gap an upload may be written. Whoever
// sends many pieces at once is far below it. It bounds what is lost when the
// registry dies: the end of the file, as far back, may have gaps.
const window = 16 << 20

// surelyWhole returns how much is without a gap, of a file of this size that
// was being written when its writer died.
func surelyWhole(size int64) int64 { return max(0, size-window) }

// writable says why nothing more is taken, if so.
func (a *arriving) writable() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err == nil && a.ended {
		return errEnded
	}
	return a.err
}

// near refuses a write at from that is outside the window.
func (a *arriving) near(from int64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if from-a.whole <= window {
		return nil
	}
	return fail(ErrRefused, "upload is written at byte %d, but nothing has come after byte %d", from, a.whole).
		hint("write it in order, %d bytes ahead at most", window)
}

// prefix returns how much is there without a gap.
func (a *arriving) prefix() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.whole
}

// bounded returns the length. It is refused where more than a window of it, or its beginning, was never
// written. Smaller gaps are holes, and read as zeros.
func (a *arriving) bounded() (length int64, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err == nil && (a.whole == 0 && a.length > 0 || a.length-a.whole > window) {
		a.err = fail(ErrRefused, "upload has a gap: byte %d was never written", a.whole).
			hint("what is complete cannot be continued: upload all of it")
	}
	return a.length, a.err
}

// wrote says that the bytes from from to to are in the file.
func (a *arriving) wrote(from, to int64) error {
	if from == to {
		return nil // a file does not grow by no bytes, wherever they are written
	}
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
		if a.whole >= a.awaited {
			a.awaited = math.MaxInt64
			a.more.Broadcast()
		}
		return nil
	}
	if j == i && len(a.pieces) >= maxPieces {
		return fail(ErrRefused, "upload is written in too many pieces").hint("write it in order")
	}
	a.pieces = slices.Replace(a.pieces, i, j, span{from, to})
	return nil
}

// truncated says that the upload has the length size. The file itself may be
// shorter.
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
	a.more.Broadcast() // a reader may have been cut off
}

// finish says that nothing more comes: gaps are holes, and read as zeros. It
// reports whether the readers have read something that was changed later.
func (a *arriving) finish() (again bool, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.whole, a.pieces, a.ended = a.length, nil, true
	a.more.Broadcast()
	return a.again, a.err
}

// fail ends the readers with err, and refuses what would be written. The first
// reason stays.
func (a *arriving) fail(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err == nil {
		a.err = err
	}
	a.end()
}

// end is called with mu held.
func (a *arriving) end() {
	a.more.Broadcast()
	select {
	case <-a.over:
	default:
		close(a.over)
	}
}

// record says that the upload is recorded as complete; false when it failed
// before, and nobody waits for that any more.
func (a *arriving) record() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.recorded = a.err == nil
	a.end()
	return a.recorded
}

// settled waits until the upload is recorded as complete. If it failed before,
// settled returns why.
func (a *arriving) settled() error {
	<-a.over
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.recorded {
		return nil
	}
	return a.err
}

func (a *arriving) size() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.length
}

// reader returns a new reader from the start. It belongs to one goroutine.
func (a *arriving) reader() *follower { return &follower{a: a} }

type follower struct {
	a   *arriving
	off int64
}

// enough is how much readers wait for while more comes: to wake them for every
// write would cost more than what they do.
const enough = 128 << 10

// await waits until there are n bytes to read or nothing more will come.
func (f *follower) await(n int64) {
	f.a.mu.Lock()
	defer f.a.mu.Unlock()
	f.wait(n)
}

// wait is await with a.mu held.
func (f *follower) wait(n int64) {
	a, to := f.a, f.off+n
	for f.off <= a.whole && a.whole < to && !a.ended && a.err == nil {
		a.awaited = min(a.awaited, to)
		a.more.Wait()
	}
}

// Read waits until there is enough to read or nothing more will come.
func (f *follower) Read(p []byte) (int, error) {
	a := f.a
	a.mu.Lock()
	f.wait(min(int64(len(p)), enough))
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
	if err == io.EOF {
		err = nil
		if int64(k) < n {
			err = io.ErrUnexpectedEOF // cut under us: never the end of the content
		}
	}
	return k, err
}
