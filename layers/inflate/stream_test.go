package inflate

import (
	"bytes"
	"cmp"
	"compress/flate"
	"math/rand/v2"
	"slices"
	"testing"
)

// bitWriter writes streams that no encoder would.
type bitWriter struct {
	b []byte
	n uint // bits of the last byte that are used; 0: all
}

// bits writes the low n bits of v, lowest first.
func (w *bitWriter) bits(v, n uint) {
	for i := range n {
		if w.n == 0 {
			w.b = append(w.b, 0)
		}
		w.b[len(w.b)-1] |= byte(v>>i&1) << w.n
		w.n = (w.n + 1) & 7
	}
}

// code is a Huffman code: bits, highest first, and how many.
type code struct{ bits, n uint }

func (w *bitWriter) code(c code) {
	for i := range c.n {
		w.bits(c.bits>>(c.n-1-i), 1)
	}
}

// codesOf returns the canonical code with these lengths.
func codesOf(lengths []uint8) []code {
	codes := make([]code, len(lengths))
	next := uint(0)
	for n := 1; n <= 15; n++ {
		next <<= 1
		for i, l := range lengths {
			if int(l) == n {
				codes[i] = code{next, uint(n)}
				next++
			}
		}
	}
	return codes
}

// lengths returns code lengths, where at says what is not 0.
func lengths(n int, at map[int]uint8) []uint8 {
	l := make([]uint8, n)
	for i, v := range at {
		l[i] = v
	}
	return l
}

// dynamic begins a last block with these codes. Each length takes 4 bits: the
// code of lengths has 16 codes of the same length.
func (w *bitWriter) dynamic(lit, dist []uint8) {
	w.bits(1|2<<1, 3)
	w.bits(uint(len(lit)-257), 5)
	w.bits(uint(len(dist)-1), 5)
	w.bits(19-4, 4)
	for _, symbol := range preOrder {
		w.bits(map[bool]uint{true: 4, false: 0}[symbol < 16], 3)
	}
	for _, l := range slices.Concat(lit, dist) {
		w.code(code{uint(l), 4})
	}
}

// block returns a dynamic block that holds symbols, each followed by extra bits.
func block(lit, dist []uint8, rest func(w *bitWriter, lit, dist []code)) []byte {
	w := &bitWriter{}
	w.dynamic(lit, dist)
	rest(w, codesOf(lit), codesOf(dist))
	return w.b
}

// fixedBlock returns a block with fixed codes that holds the symbols, which are
// written in turn as literal or length and as distance; those have no extra bits.
func fixedBlock(symbols ...uint) []byte {
	w := &bitWriter{}
	w.bits(1|1<<1, 3)
	dist := false
	for _, s := range symbols {
		switch {
		case dist:
			w.code(code{s, 5})
		case s < 144:
			w.code(code{0x30 + s, 8})
		case s < 256:
			w.code(code{0x190 + s - 144, 9})
		case s < 280:
			w.code(code{s - 256, 7})
		default:
			w.code(code{0xc0 + s - 280, 8})
		}
		dist = !dist && s > 256
	}
	return w.b
}

func pattern(n int, seed uint64, alphabet int) []byte {
	r := rand.New(rand.NewPCG(seed, 7))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.IntN(alphabet))
	}
	return b
}

// words is text with matches of many lengths and distances.
func words(n int) []byte {
	r := rand.New(rand.NewPCG(3, 9))
	b := []byte("In the beginning was the word. ")
	for len(b) < n {
		if r.IntN(3) > 0 {
			from, size := r.IntN(len(b)), 1+r.IntN(40)
			if r.IntN(10) == 0 {
				size = r.IntN(600)
			}
			b = append(b, b[from:min(len(b), from+size)]...)
		} else {
			b = append(b, pattern(1+r.IntN(9), r.Uint64(), 256)...)
		}
	}
	return b[:n]
}

func deflated(t testing.TB, b []byte, level int, flush bool) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := flate.NewWriter(&out, level)
	if err != nil {
		t.Fatal(err)
	}
	for half := range slices.Chunk(b, len(b)/2+1) {
		w.Write(half)
		if flush {
			w.Flush() // an empty stored block
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// sound returns streams in which nothing is wrong, by name.
func sound(t testing.TB) map[string][]byte {
	far := pattern(Window+300, 1, 256)
	far = append(far, far[300:800]...) // 32 KiB back
	far = append(far, far[301:400]...)
	contents := map[string][]byte{
		"nothing": nil, "a byte": {7}, "zeros": make([]byte, 100_000), "random": pattern(70_000, 2, 256), "bits": pattern(70_000, 2, 2),
		"pairs": bytes.Repeat([]byte("ab"), 40_000), "seven": bytes.Repeat([]byte("seven c"), 9_000), "far": far, "words": words(200_000), "a sentence": words(300),
	}
	streams := map[string][]byte{}
	for name, b := range contents {
		for level := flate.HuffmanOnly; level <= flate.BestCompression; level++ {
			if level != flate.DefaultCompression {
				streams[name+" "+string(rune('2'+level))] = deflated(t, b, level, level%3 == 0)
			}
		}
	}
	ladder := map[int]uint8{256: 15} // codes of 1 to 15 bits
	for i := range 15 {
		ladder[i] = uint8(i + 1)
	}
	streams["codes of 15 bits"] = block(lengths(257, ladder), []uint8{0}, func(w *bitWriter, lit, _ []code) {
		for i := range 400 {
			w.code(lit[i%15])
		}
		w.code(lit[256])
	})
	lits := lengths(286, map[int]uint8{'a': 2, 'b': 2, 256: 3, 257: 3, 284: 3, 285: 3})
	steps := map[int]uint8{29: 15} // distances, 15 bits for the longest
	for i := range 15 {
		steps[2*i] = uint8(i + 1)
	}
	streams["distances of 15 bits"] = block(lits, lengths(30, steps), func(w *bitWriter, lit, dist []code) {
		w.code(lit['a'])
		w.code(lit['b'])
		for i := range 200 {
			w.code(lit[284])
			w.bits(uint(i%32), 5) // 31: 258 in another way
			w.code(dist[0])
			w.code(lit['b'])
			w.code(lit[285])
			w.code(dist[2])
		}
		w.code(lit[257])
		w.code(dist[29])
		w.bits(32768-24577, 13)
		w.code(lit[256])
	})
	streams["one distance"] = block(lits, []uint8{0, 1}, func(w *bitWriter, lit, dist []code) {
		for _, c := range []code{lit['a'], lit['b'], lit[285], dist[1], lit[256]} {
			w.code(c)
		}
	})
	streams["no distance"] = block(lits, []uint8{0}, func(w *bitWriter, lit, dist []code) {
		for _, c := range []code{lit['a'], lit['b'], lit[256]} {
			w.code(c)
		}
	})
	streams["only an end"] = block(lengths(257, map[int]uint8{256: 1}), []uint8{0}, func(w *bitWriter, lit, _ []code) { w.code(lit[256]) })
	streams["fixed"] = fixedBlock('x', 200, 257, 0, 264, 1, 255, 285-1+1, 2, 0, 256)
	return streams
}

// unsound returns streams that are wrong, by what is wrong.
func unsound() map[string][]byte {
	end := func(w *bitWriter, lit, _ []code) { w.code(lit[256]) }
	ab := lengths(257, map[int]uint8{'a': 1, 256: 1})
	after := func(pre func(w *bitWriter)) []byte { // a dynamic block whose code of lengths is its own
		w := &bitWriter{}
		w.bits(1|2<<1, 3)
		pre(w)
		w.bits(0, 400)
		return w.b
	}
	return map[string][]byte{
		"empty":                    {},
		"reserved type":            {7},
		"stored, length differs":   {1, 1, 0, 0xff, 0xff, 'a'},
		"stored, cut":              {1, 2, 0, 0xfd, 0xff, 'a'},
		"fixed, symbol 286":        fixedBlock('a', 286, 0, 256),
		"fixed, symbol 287":        fixedBlock('a', 287, 0, 256),
		"fixed, distance 30":       fixedBlock('a', 257, 30, 256),
		"fixed, distance 31":       fixedBlock('a', 257, 31, 256),
		"fixed, too far":           fixedBlock('a', 257, 1, 256),
		"fixed, too far at once":   fixedBlock(257, 0, 256),
		"287 symbols":              block(lengths(287, map[int]uint8{'a': 1, 256: 1}), []uint8{0}, end),
		"31 distances":             block(ab, lengths(31, map[int]uint8{0: 1, 1: 1}), end),
		"too many codes":           block(lengths(257, map[int]uint8{0: 1, 'a': 1, 256: 1}), []uint8{0}, end),
		"too few codes":            block(lengths(257, map[int]uint8{0: 2, 'a': 2, 256: 2}), []uint8{0}, end),
		"one code of two bits":     block(lengths(257, map[int]uint8{256: 2}), []uint8{0}, end),
		"no codes":                 block(lengths(257, nil), []uint8{0}, end),
		"no end":                   block(lengths(257, map[int]uint8{0: 1, 1: 1}), []uint8{0}, func(w *bitWriter, _, _ []code) { w.bits(0, 800) }),
		"the other of one code":    block(lengths(257, map[int]uint8{256: 1}), []uint8{0}, func(w *bitWriter, _, _ []code) { w.bits(1, 1) }),
		"too many distances":       block(ab, []uint8{1, 1, 1}, end),
		"too few distances":        block(ab, []uint8{2, 2, 2}, end),
		"one distance of two bits": block(ab, []uint8{2}, end),
		"the other of one distance": block(lengths(258, map[int]uint8{'a': 1, 256: 2, 257: 2}), []uint8{1}, func(w *bitWriter, lit, _ []code) {
			w.code(lit['a'])
			w.code(lit[257])
			w.bits(1, 1)
			w.code(lit[256])
			w.bits(0, 400)
		}),
		"a match without distances": block(lengths(258, map[int]uint8{'a': 1, 256: 2, 257: 2}), []uint8{0}, func(w *bitWriter, lit, _ []code) {
			w.code(lit['a'])
			w.code(lit[257])
			w.code(lit[256])
			w.bits(0, 400)
		}),
		"too far behind many": block(lengths(258, map[int]uint8{'a': 1, 256: 2, 257: 2}), []uint8{0, 0, 0, 1}, func(w *bitWriter, lit, dist []code) {
			w.code(lit['a'])
			w.code(lit['a'])
			w.code(lit['a'])
			w.code(lit[257])
			w.code(dist[3])
			for range 500 {
				w.code(lit['a'])
			}
			w.code(lit[256])
		}),
		"no code of lengths": after(func(w *bitWriter) { w.bits(0, 14); w.bits(0, 12) }),
		"repeat at the start": after(func(w *bitWriter) {
			w.bits(0, 14)
			w.bits(1|1<<3, 12) // 16 and 17 have one bit
			w.bits(0, 1)
		}),
		"repeat over the end": after(func(w *bitWriter) {
			w.bits(0, 14)
			w.bits(1<<6|1<<9, 12) // 18 and 0 have one bit
			for range 4 {
				w.bits(1|127<<1, 8)
			}
		}),
		"unused code of lengths": after(func(w *bitWriter) {
			w.bits(0, 14)
			w.bits(1<<9, 12) // only 0, of one bit
			w.bits(1, 1)
		}),
	}
}

// shuffled returns the lengths of a random complete code for n symbols.
func shuffled(r *rand.Rand, n int) []uint8 {
	l := []uint8{1, 1}
	for len(l) < n {
		i := r.IntN(len(l))
		if r.IntN(2) == 0 {
			i = slices.Index(l, slices.MaxFunc(l, func(a, b uint8) int { return cmp.Compare(a%15, b%15) })) // longer ones
		}
		if l[i] < 15 {
			l[i]++
			l = append(l, l[i])
		}
	}
	return l
}
