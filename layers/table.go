package layers

import (
	"encoding/binary"
	"errors"
	"math"
	"unsafe"
)

// A layer may have a million names. So what is known of them lies in tables, as
// records without pointers that name each other by number: they are half as large
// as they would be with pointers, there is no allocation for each of them, the
// collector has nothing to follow, and most of them can lie in a file: scratch.

// ref is the number of a record in its table, or the place of a text.
type ref uint32

// recordsAtOnce is how many records a table gets at a time.
const recordsAtOnce = 1024

// table is records that stay where they are: a pointer to one holds as long as
// the table. Nothing is ever taken out.
type table[T any] struct {
	scratch *scratch
	parts   []*[recordsAtOnce]T
	used    int
}

// add returns the number of a new record.
func (t *table[T]) add(v T) ref {
	if t.used == len(t.parts)*recordsAtOnce {
		t.parts = append(t.parts, part[[recordsAtOnce]T](t.scratch))
	}
	i := ref(t.used)
	t.used++
	*t.at(i) = v
	return i
}

func (t *table[T]) at(i ref) *T { return &t.parts[i/recordsAtOnce][i%recordsAtOnce] }

// part returns a new part of a table, which is all zeros.
func part[P any](s *scratch) *P {
	var p *P
	if b := s.get(int(unsafe.Sizeof(*p))); b != nil {
		return (*P)(unsafe.Pointer(&b[0]))
	}
	return new(P)
}

// textBytes is how much room for texts there is at a time: more than the longest
// needs.
const textBytes = 1 << 16

// texts keeps texts one behind the other, each after its length.
type texts struct {
	scratch *scratch
	parts   []*[textBytes]byte
	used    int // of the last part
}

var errTexts = errors.New("cannot keep names and targets of more than 4 GiB")

// add returns the place of a text of at most maxPath bytes.
func (t *texts) add(s string) (ref, error) {
	size := len(s) + binary.MaxVarintLen16
	if len(t.parts) == 0 || t.used+size > textBytes {
		if len(t.parts) > math.MaxUint32/textBytes {
			return 0, errTexts
		}
		t.parts, t.used = append(t.parts, part[[textBytes]byte](t.scratch)), 0
	}
	part, last := t.parts[len(t.parts)-1], len(t.parts)-1
	at := t.used
	t.used += binary.PutUvarint(part[at:], uint64(len(s)))
	t.used += copy(part[t.used:], s)
	return ref(last*textBytes + at), nil
}

// at returns a text, which must not be changed.
func (t *texts) at(i ref) []byte {
	b := t.parts[i/textBytes][i%textBytes:]
	n, k := binary.Uvarint(b)
	return b[k : k+int(n)]
}
