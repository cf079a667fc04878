package registry

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
)

// scratch is an Upload in memory.
type scratch struct {
	mu sync.Mutex // guards the following
	b  []byte
}

func (s *scratch) ReadAt(p []byte, off int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if off >= int64(len(s.b)) {
		return 0, io.EOF
	}
	n := copy(p, s.b[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (s *scratch) WriteAt(p []byte, off int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if end := off + int64(len(p)); len(p) > 0 && end > int64(len(s.b)) {
		s.b = append(s.b, make([]byte, end-int64(len(s.b)))...)
	}
	return copy(s.b[min(off, int64(len(s.b))):], p), nil
}

func (s *scratch) Truncate(size int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.b = append(slices.Clone(s.b[:min(size, int64(len(s.b)))]), make([]byte, max(0, size-int64(len(s.b))))...)
	return nil
}

func (s *scratch) Size() (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return int64(len(s.b)), nil
}

func (s *scratch) Sync() error  { return nil }
func (s *scratch) Close() error { return nil }

// arrives writes p at off as an Incoming does.
func arrives(t *testing.T, a *arriving, p string, off int64) {
	t.Helper()
	if _, err := a.file.WriteAt([]byte(p), off); err != nil {
		t.Fatal(err)
	}
	if err := a.wrote(off, off+int64(len(p))); err != nil {
		t.Fatalf("wrote(%d, +%d) = %v", off, len(p), err)
	}
}

// follows reads to the end, so many bytes at a time, and sends what came.
func follows(a *arriving, atATime int) <-chan []byte {
	out := make(chan []byte, 1)
	r := a.reader()
	go func() {
		var got []byte
		for p := make([]byte, atATime); ; {
			n, err := r.Read(p)
			got = append(got, p[:n]...)
			if err == io.EOF {
				break
			}
			if err != nil {
				got = []byte("error: " + err.Error())
				break
			}
		}
		out <- got
	}()
	return out
}

// A reader is left alone until there is what it asks for, or enough, or the end.
func TestReadersAreNotWokenForEveryWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, test := range []struct {
			atATime int
			writes  []int   // lengths
			want    []int64 // position after each
		}{
			{8, []int{7, 3, 4, 2}, []int64{0, 8, 8, 16}},
			{2 * enough, []int{enough - 1, 9, enough - 1, 1}, []int64{0, enough + 8, enough + 8, 2*enough + 8}},
		} {
			a := newArriving(&scratch{})
			got := follows(a, test.atATime)
			for i, n := range test.writes {
				arrives(t, a, strings.Repeat("x", n), a.size())
				synctest.Wait()
				if n := a.read; n != test.want[i] {
					t.Errorf("%d at a time: read = %d of %d, want %d", test.atATime, n, a.size(), test.want[i])
				}
			}
			arrives(t, a, "y", a.size())
			a.finish()
			if b := <-got; int64(len(b)) != a.size() {
				t.Errorf("%d at a time: read %d bytes of %d", test.atATime, len(b), a.size())
			}
		}
	})
}

func TestReadersWaitAtTheGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newArriving(&scratch{})
		slow, fast := follows(a, 1), follows(a, 3)
		arrives(t, a, "world", 6)
		synctest.Wait()
		if n := a.read; n != 0 {
			t.Errorf("read = %d before the first byte is there", n)
		}
		arrives(t, a, "hello ", 0)
		synctest.Wait()
		if n := a.read; n != 11 {
			t.Errorf("read = %d with the gap closed, want 11", n)
		}
		if again, err := a.finish(); again || err != nil {
			t.Errorf("finish() = %t, %v", again, err)
		}
		for _, c := range []<-chan []byte{slow, fast} {
			if got := <-c; string(got) != "hello world" {
				t.Errorf("a reader got %q", got)
			}
		}
	})
}

// TestReadersReadWhatIsThereAtTheEnd holds the one promise against any order of
// writes and cuts: readers that were not told to begin again have read what the
// file holds.
func TestReadersReadWhatIsThereAtTheEnd(t *testing.T) {
	for seed := range uint64(300) {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 1))
			f := &scratch{}
			a := newArriving(f)
			got := follows(a, 1+rnd.IntN(20))
			for range rnd.IntN(30) {
				if rnd.IntN(8) == 0 {
					size := rnd.Int64N(60)
					f.Truncate(size)
					a.truncated(size)
				} else {
					p := make([]byte, rnd.IntN(20))
					for i := range p {
						p[i] = byte(rnd.Uint32())
					}
					arrives(t, a, string(p), rnd.Int64N(50))
				}
				if rnd.IntN(2) == 0 {
					synctest.Wait() // the reader comes as far as it can
				}
				if n, _ := f.Size(); n != a.size() {
					t.Fatalf("seed %d: size() = %d, the file has %d bytes", seed, a.size(), n)
				}
			}
			again, err := a.finish()
			if err != nil {
				t.Fatal(err)
			}
			if read := <-got; !again && !bytes.Equal(read, f.b) {
				t.Errorf("seed %d: read %x, the file holds %x", seed, read, f.b)
			}
		})
	}
}

func TestWritingAgainWhatWasReadIsSeen(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, a *arriving){
		"overwritten":              func(t *testing.T, a *arriving) { arrives(t, a, "X", 2) },
		"cut and written":          func(t *testing.T, a *arriving) { a.file.Truncate(2); a.truncated(2); arrives(t, a, "XY", 2) },
		"cut":                      func(t *testing.T, a *arriving) { a.file.Truncate(2); a.truncated(2) },
		"only what is yet to come": nil,
	} {
		synctest.Test(t, func(t *testing.T) {
			a := newArriving(&scratch{})
			got := follows(a, 1)
			arrives(t, a, "abcd", 0)
			arrives(t, a, "g", 6)
			synctest.Wait()
			want := change != nil
			if want {
				change(t, a)
			} else {
				arrives(t, a, "G", 6) // the reader waits at 4
			}
			if again, _ := a.finish(); again != want {
				t.Errorf("%s: finish() = %t, want %t", name, again, want)
			}
			a.fail(errRewritten)
			<-got
		})
	}
}

func TestACutUnderAReaderIsNoEnd(t *testing.T) {
	f := &scratch{b: []byte("abcd")}
	a := newArriving(f)
	a.wrote(0, 4)
	f.Truncate(2) // and truncated comes later
	p := make([]byte, 4)
	if n, err := a.reader().Read(p); n != 2 || err != io.ErrUnexpectedEOF {
		t.Errorf("Read = %d, %v, want 2 bytes and an error that is no EOF", n, err)
	}
	a.truncated(2)
	if again, _ := a.finish(); !again {
		t.Error("finish() = false after a cut behind the reader")
	}
}

func TestACutShortensThePiecesBeyondTheGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newArriving(&scratch{})
		got := follows(a, 1)
		arrives(t, a, "fghij", 5)
		a.file.Truncate(7)
		a.truncated(7)
		arrives(t, a, "abcde", 0) // closes the gap
		synctest.Wait()
		if again, _ := a.finish(); again {
			t.Error("finish() = true, and nothing that was read has changed")
		}
		if b := <-got; string(b) != "abcdefg" {
			t.Errorf("the reader got %q, want abcdefg", b)
		}
	})
}

func TestNoBytesWrittenFarOutAddNothing(t *testing.T) {
	a := newArriving(&scratch{})
	arrives(t, a, "abc", 0)
	arrives(t, a, "", 1000)
	if n := a.size(); n != 3 {
		t.Errorf("size() = %d after an empty write at 1000, want 3", n)
	}
}

func TestPiecesAreBounded(t *testing.T) {
	a := newArriving(&scratch{})
	for i := range int64(maxPieces) {
		if err := a.wrote(2*i+1, 2*i+2); err != nil {
			t.Fatalf("piece %d: %v", i, err)
		}
	}
	if err := a.wrote(1<<40, 1<<40+1); !errors.Is(err, ErrRefused) {
		t.Errorf("wrote of one piece more = %v, want a refusal", err)
	}
	if err := a.wrote(2, 3); err != nil { // joins two
		t.Errorf("wrote that closes a gap = %v", err)
	}
	if err := a.wrote(1<<40, 1<<40+1); err != nil {
		t.Errorf("wrote with one piece less = %v", err)
	}
}

func TestItIsRecordedOrFailsNeverBoth(t *testing.T) {
	a := newArriving(&scratch{})
	if !a.record() {
		t.Fatal("record() = false")
	}
	a.fail(errAborted)
	if err := a.settled(); err != nil {
		t.Errorf("settled() = %v after record, then fail", err)
	}
	b := newArriving(&scratch{})
	b.fail(errAborted)
	b.fail(errRewritten)
	if b.record() {
		t.Error("record() = true after fail")
	}
	if err := b.settled(); err != errAborted {
		t.Errorf("settled() = %v, want the first reason", err)
	}
}
