package agent

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"sync"
)

// arriving is a layer that grows while it is fetched. Safe for concurrent use:
// one writes, others read behind it. A nil one has no readers.
type arriving struct {
	mu    sync.Mutex
	more  sync.Cond
	f     *os.File // nil: nothing has come
	have  int64    // bytes of it
	whole bool
	gone  error // why no more comes
}

func newArriving() *arriving {
	l := &arriving{}
	l.more.L = &l.mu
	return l
}

// begin says which file it is, of which have bytes are there. A layer begins
// again, with the same file, when its transfer was cut.
func (l *arriving) begin(path string, have int64) error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		l.f = f
	}
	l.have = have
	l.more.Broadcast()
	return nil
}

// Write says that p was written to the file.
func (l *arriving) Write(p []byte) (int, error) {
	if l != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.have += int64(len(p))
		l.more.Broadcast()
	}
	return len(p), nil
}

// end says that the layer is whole.
func (l *arriving) end() {
	if l != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.whole = true
		l.more.Broadcast()
	}
}

// stop ends all readers, with why.
func (l *arriving) stop(why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gone == nil {
		l.gone = why
		l.more.Broadcast()
	}
}

// close is called when there are no readers any more.
func (l *arriving) close() {
	if l.f != nil {
		l.f.Close()
	}
}

// follower reads a layer from its start while it arrives.
type follower struct {
	l      *arriving
	at     int64
	closed bool // guarded by l.mu
}

// Read waits for bytes. io.EOF says that the layer is whole.
func (r *follower) Read(p []byte) (int, error) {
	n, err := r.await(len(p))
	if err != nil {
		return 0, err
	}
	n, err = r.l.f.ReadAt(p[:n], r.at)
	r.at += int64(n)
	if errors.Is(err, io.EOF) && n == 0 {
		err = io.ErrUnexpectedEOF // somebody has cut the file
	} else if n > 0 {
		err = nil
	}
	return n, err
}

// await returns how many of n bytes can be read.
func (r *follower) await(n int) (int, error) {
	l := r.l
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		switch {
		case r.closed:
			return 0, fs.ErrClosed
		case l.gone != nil:
			return 0, l.gone
		case l.have > r.at:
			return int(min(int64(n), l.have-r.at)), nil
		case l.whole:
			return 0, io.EOF
		}
		l.more.Wait()
	}
}

// Close ends a Read that waits.
func (r *follower) Close() error {
	r.l.mu.Lock()
	defer r.l.mu.Unlock()
	r.closed = true
	r.l.more.Broadcast()
	return nil
}
