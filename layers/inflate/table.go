package inflate

import (
	"math/bits"
	"sync"
)

// An entry of a decode table says all about what the next bits of the stream
// stand for, so that one lookup is enough.
//
//	bits 0-5    how many bits it takes: code and extra bits
//	bit 6       literal
//	bits 8-13   length of its code; of a link: bits that index the subtable
//	bit 14      link: the code is longer than the table's index
//	bit 15      special: link, end of block (value 0) or no symbol (value 1)
//	bits 16-31  the value: the literal; the length or distance, to which the extra
//	            bits are added; where the subtable starts
type entry = uint32

const (
	takenMask     = 1<<6 - 1
	literal       = 1 << 6
	lengthShift   = 8
	lengthMask    = 1<<6 - 1
	special       = 1 << 15
	link          = 1<<14 | special
	endOfBlock    = special
	invalid       = 1<<valueShift | special
	valueShift    = 16
	codeLength    = 1<<lengthShift + 1 // times n: a code of n bits, which it takes
	maxCodeLength = 15
)

// The tables are indexed by as many bits as make most symbols need one lookup.
// Longer codes go on in subtables behind. Their sizes are powers of two that
// hold the largest table that a complete code can need: 2340 and 592 entries
// (zlib, examples/enough.c), so that a mask bounds every index.
const (
	litBits  = 11
	distBits = 9
	preBits  = 7 // no code that describes codes is longer (RFC 1951 section 3.2.7)
	litSize  = 4096
	distSize = 1024

	maxDistBits = maxCodeLength + 13 // with extra bits
)

const (
	litSymbols  = 288
	distSymbols = 32
	preSymbols  = 19
)

type (
	litTable  [litSize]entry
	distTable [distSize]entry
)

// What each symbol stands for (RFC 1951 section 3.2.5), as an entry whose code
// has no bits yet.
var (
	litEntries  = makeLitEntries()
	distEntries = makeDistEntries()
	preEntries  = makePreEntries()
)

func makeLitEntries() (t [litSymbols]entry) {
	for i := range 256 {
		t[i] = entry(i)<<valueShift | literal
	}
	t[256] = endOfBlock
	base := 3
	for i := 257; i < 285; i++ {
		extra := max(0, (i-261)/4)
		t[i] = entry(base<<valueShift | extra)
		base += 1 << extra
	}
	t[285] = 258 << valueShift
	t[286], t[287] = invalid, invalid
	return t
}

func makeDistEntries() (t [distSymbols]entry) {
	base := 1
	for i := range 30 {
		extra := max(0, (i-2)/2)
		t[i] = entry(base<<valueShift | extra)
		base += 1 << extra
	}
	t[30], t[31] = invalid, invalid
	return t
}

func makePreEntries() (t [preSymbols]entry) {
	for i := range t {
		t[i] = entry(i) << valueShift
	}
	return t
}

// fixed returns the tables of blocks with fixed codes (RFC 1951 section 3.2.6).
var fixed = sync.OnceValues(func() (*litTable, *distTable) {
	var lengths [litSymbols + distSymbols]uint8
	for i := range lengths {
		switch {
		case i < 144:
			lengths[i] = 8
		case i < 256:
			lengths[i] = 9
		case i < 280:
			lengths[i] = 7
		case i < litSymbols:
			lengths[i] = 8
		default:
			lengths[i] = 5
		}
	}
	lit, dist := new(litTable), new(distTable)
	build(lit[:], litBits, lengths[:litSymbols], litEntries[:])
	build(dist[:], distBits, lengths[litSymbols:], distEntries[:])
	return lit, dist
})

// build fills table for the canonical code in which symbol i has a code of
// lengths[i] bits, 0 for none (RFC 1951 section 3.2.2), and stands for
// entries[i]. The table's index has size bits.
//
// Like compress/flate, and zlib, it takes a code only if it is complete; if it
// has one symbol, of one bit; or if it has none. Else it returns false.
func build(table []entry, size int, lengths []uint8, entries []entry) bool {
	var count, next [maxCodeLength + 2]int
	for _, n := range lengths {
		count[n]++
	}
	count[0] = 0
	longest, space := 0, 0 // space: codes of n bits that are taken
	for n := 1; n <= maxCodeLength; n++ {
		next[n+1] = next[n] + count[n]
		space = space<<1 + count[n]
		if count[n] > 0 {
			longest = n
		}
	}
	var sorted [litSymbols]uint16 // by code
	for i, n := range lengths {
		if n > 0 {
			sorted[next[n]] = uint16(i)
			next[n]++
		}
	}
	switch symbols := next[maxCodeLength]; {
	case symbols == 0:
		fill(table[:1<<size], invalid)
		return true
	case symbols == 1 && longest == 1:
		fill(table[:1<<size], invalid|codeLength)
		for i := 0; i < 1<<size; i += 2 {
			table[i] = entries[sorted[0]] + codeLength
		}
		return true
	case space != 1<<maxCodeLength:
		return false
	}
	place(table, size, longest, &count, &sorted, entries)
	return true
}

func fill(table []entry, e entry) {
	for i := range table {
		table[i] = e
	}
}

// place writes the entries of a complete code, in the order of its codes. Codes
// start at the lowest bit of the stream, so they are counted upwards with their
// bits reversed. What is in the table so far is doubled for each longer length.
func place(table []entry, size, longest int, count *[maxCodeLength + 2]int, sorted *[litSymbols]uint16, entries []entry) {
	code, i := 0, 0
	for n := 1; n <= size; n++ {
		if i > 0 {
			copy(table[1<<(n-1):1<<n], table[:1<<(n-1)])
		}
		for range count[n] {
			table[code] = entries[sorted[i]] + entry(n)*codeLength
			code = following(code, n)
			i++
		}
	}
	start, end, prefix := 0, 1<<size, -1 // of the subtable, and the index that leads to it
	for n := size + 1; n <= longest; n++ {
		for left := count[n]; left > 0; left-- {
			if code&(1<<size-1) != prefix {
				prefix = code & (1<<size - 1)
				// As long as the longest code with this prefix: the codes that
				// follow have it until its space is used up.
				index, space := n-size, left
				for space < 1<<index {
					index++
					space = space<<1 + count[size+index]
				}
				start, end = end, end+1<<index
				table[prefix] = entry(start)<<valueShift | link | entry(index)<<lengthShift
			}
			e := entries[sorted[i]] + entry(n)*codeLength
			for j := start + code>>size; j < end; j += 1 << (n - size) {
				table[j] = e
			}
			code = following(code, n)
			i++
		}
	}
}

// following returns the code of n bits after code, both reversed.
func following(code, n int) int {
	zeros := ^code & (1<<n - 1)
	if zeros == 0 {
		return code // the last one
	}
	top := 1 << (bits.Len(uint(zeros)) - 1)
	return code&(top-1) | top
}
