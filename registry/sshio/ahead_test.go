package sshio

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"testing"
)

// scripted is a connection whose reads return the given parts, one each, and
// then the error.
type scripted struct {
	net.Conn
	parts [][]byte
	err   error
	asked []int
}

func (s *scripted) Read(p []byte) (int, error) {
	s.asked = append(s.asked, len(p))
	if len(s.parts) == 0 {
		return 0, s.err
	}
	n := copy(p, s.parts[0])
	if s.parts[0] = s.parts[0][n:]; len(s.parts[0]) == 0 {
		s.parts = s.parts[1:]
	}
	return n, nil
}

// Whatever the sizes of what comes and of what is asked for, every byte arrives
// once, in order, and the error behind the last.
func TestAheadLosesNothing(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	lost := errors.New("lost")
	for range 200 {
		var want, got []byte
		s := &scripted{err: lost}
		for range 1 + random.IntN(20) {
			part := make([]byte, 1+random.IntN([]int{10, 5000, 70000, 200000}[random.IntN(4)]))
			rand.NewChaCha8([32]byte{byte(len(part))}).Read(part)
			want = append(want, part...)
			s.parts = append(s.parts, part)
		}
		a := &Ahead{R: s}
		for {
			p := make([]byte, 1+random.IntN([]int{5, 4096, 33000, 100000}[random.IntN(4)]))
			n, err := a.Read(p)
			got = append(got, p[:n]...)
			if len(a.rest) > 0 && a.buf == nil {
				t.Fatal("a buffer that is still read belongs to another connection")
			}
			if err != nil {
				if err != lost {
					t.Fatalf("Read = %v, want %v", err, lost)
				}
				break
			}
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("read %d bytes that are not the %d that came", len(got), len(want))
		}
	}
}

// While much comes it is read in large parts. Between two requests of an idle
// client there is no buffer, and nothing is read that nobody has asked for.
func TestAheadOnlyWhileMuchComes(t *testing.T) {
	s := &scripted{err: io.EOF, parts: [][]byte{
		make([]byte, 100), make([]byte, 200_000), make([]byte, 10),
	}}
	a := &Ahead{R: s}
	for {
		_, err := a.Read(make([]byte, 4096))
		if len(a.rest) == 0 && !a.busy && a.buf != nil {
			t.Fatal("a connection at rest has a buffer")
		}
		if err != nil {
			break
		}
	}
	want := []int{4096, 4096, aheadBytes, aheadBytes, aheadBytes, aheadBytes, 4096}
	if !slices.Equal(s.asked, want) {
		t.Errorf("asked for %v, want %v", s.asked, want)
	}
}
